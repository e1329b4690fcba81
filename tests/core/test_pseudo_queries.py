"""Pseudo-queries are whole words of a document's text, or consecutive tokens of it."""

from __future__ import annotations

import numpy as np
import pytest

from muvera_core import TokenEmbeddings
from muvera_core.set_encoders.pseudo_queries import part_of_text, run_of_tokens, runs_of_tokens

TEXT = "Herons stand still in shallow water, and owls hunt at night."


@pytest.mark.parametrize("share", [0.25, 0.4, 0.6])
def test_a_part_is_whole_words_in_their_order_and_about_as_long_as_asked(share: float) -> None:
    parts = [part_of_text(TEXT, share, np.random.default_rng(seed)) for seed in range(200)]
    assert all(f" {part} " in f" {TEXT} " for part in parts)
    assert len(set(parts)) > 5
    assert abs(np.mean([len(part) for part in parts]) - share * len(TEXT)) < 8


@pytest.mark.parametrize("share", [1.0, 5.0])
def test_the_whole_text_is_the_largest_part(share: float) -> None:
    assert part_of_text(TEXT, share, np.random.default_rng(0)) == TEXT


def test_texts_without_spaces_are_cut_anywhere() -> None:
    text = "鹭站在浅水里一动不动而猫头鹰在夜里打猎"
    parts = {part_of_text(text, 0.3, np.random.default_rng(seed)) for seed in range(50)}
    assert len(parts) > 5
    assert all(part in text for part in parts)


@pytest.mark.parametrize("text", ["a", " ", "one", "   one   ", "a b", "\n\n\n"])
def test_no_part_is_empty(text: str) -> None:
    for seed in range(50):
        assert part_of_text(text, 0.2, np.random.default_rng(seed))


def test_runs_are_consecutive_tokens_of_one_document() -> None:
    rng = np.random.default_rng(0)
    documents = TokenEmbeddings.from_list([rng.standard_normal((length, 3)) for length in (1, 5, 40, 200)])
    runs = runs_of_tokens(documents, 300, rng)
    assert {len(run) for run in runs} >= {1, 5, 8, 24}
    assert max(len(run) for run in runs) == 24
    starts = {float(row[0]): i for i, row in enumerate(documents.vectors)}
    for run in runs:
        start = starts[float(run[0, 0])]
        np.testing.assert_array_equal(run, documents.vectors[start : start + len(run)])
        assert np.searchsorted(documents.offsets, start, "right") == np.searchsorted(
            documents.offsets, start + len(run) - 1, "right"
        )
    assert len({len(run_of_tokens(documents[3], rng)) for _ in range(300)}) == 17
