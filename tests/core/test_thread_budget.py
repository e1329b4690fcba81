from __future__ import annotations

import gc
from pathlib import Path

import pytest

from muvera_core import threads
from muvera_core.errors import InvalidInputError
from muvera_core.threads import ThreadBudget, available_cores, max_threads


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUVERA_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_a_call_alone_may_use_all_cores() -> None:
    assert ThreadBudget().share().n_threads == max_threads() == available_cores() >= 1


def test_a_bound_on_linear_algebra_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert max_threads() == 1
    monkeypatch.setenv("MUVERA_NUM_THREADS", "5")
    assert max_threads() == 5


def test_calls_at_the_same_time_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUVERA_NUM_THREADS", "8")
    budget = ThreadBudget()
    shares = [budget.share() for _ in range(10)]
    assert [share.n_threads for share in shares] == [8, 4, 2, 2, 1, 1, 1, 1, 1, 1]
    del shares
    gc.collect()
    assert budget.share().n_threads == 8


def test_a_call_that_was_interrupted_does_not_count_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUVERA_NUM_THREADS", "2")
    budget = ThreadBudget()

    def interrupted() -> None:
        _share = budget.share()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gc.collect()
    assert budget.share().n_threads == 2


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "¹"])
def test_an_invalid_variable_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MUVERA_NUM_THREADS", value)
    with pytest.raises(InvalidInputError, match="MUVERA_NUM_THREADS must be a whole number of at least 1"):
        max_threads()


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ("max 100000", None, None),
        ("50000 100000", None, 1),
        ("250000 100000", None, 3),
        (None, ("-1", "100000"), None),
        (None, ("200000", "100000"), 2),
        (None, None, None),
        ("nonsense", None, None),
    ],
)
def test_a_containers_quota_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    new: str | None,
    old: tuple[str, str] | None,
    expected: int | None,
) -> None:
    files = [tmp_path / name for name in ("max", "quota", "period")]
    for file, content in zip(files, [new, *(old or (None, None))], strict=True):
        if content is not None:
            file.write_text(content)
    monkeypatch.setattr(threads, "_QUOTA", files[0])
    monkeypatch.setattr(threads, "_OLD_QUOTA", (files[1], files[2]))
    assert threads._allowed_by_container() == expected
