from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera_core.encoders.text.windows import Window, split_into_windows
from muvera_core.errors import InvalidInputError


def test_a_short_text_is_one_window() -> None:
    assert split_into_windows(5, size=5, overlap=2) == [Window(0, 5, 0, 5)]


def test_the_last_window_is_full() -> None:
    assert split_into_windows(11, size=8, overlap=2)[-1].start == 3


@given(n=st.integers(0, 2000), size=st.integers(1, 300), data=st.data())
def test_every_token_is_kept_once_and_seen_in_its_window(n: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    windows = split_into_windows(n, size, overlap)
    assert [t for w in windows for t in range(w.keep_start, w.keep_stop)] == list(range(n))
    assert all(w.start <= w.keep_start <= w.keep_stop <= w.stop <= w.start + size for w in windows)
    assert all(left.stop - right.start >= overlap for left, right in pairwise(windows))
    for left, right in pairwise(windows):
        assert left.stop - left.keep_stop >= overlap // 2
        assert right.keep_start - right.start >= overlap // 2


@pytest.mark.parametrize("overlap", [-1, 4, 5])
def test_impossible_overlap_is_refused(overlap: int) -> None:
    with pytest.raises(InvalidInputError, match="overlap"):
        split_into_windows(10, size=4, overlap=overlap)
