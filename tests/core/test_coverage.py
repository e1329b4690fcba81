from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patch_encoder import PatchEncoder

from muvera_core import MuveraIndex, TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.search.coverage import choose_covering, coverage_aspects
from muvera_core.search.diversity import best_matches
from muvera_core.stage_one import stage_one

TEXTS = {
    "owl": "Owls hunt mice at night.",
    "owl again": "Owls hunt mice at night.",
    "owl's food": "An owl that hunts at night eats mice and voles.",
    "owl's hearing": "The owl finds mice at night by its hearing.",
    "bat": "Bats find insects in the dark by echolocation.",
    "bread": "Rye bread is baked from a sourdough of rye flour.",
    "wheat": "Wheat bread is softer than other kinds.",
}
TWO_PARTS = "which bird hunts mice at night? And what is rye bread baked from?"
METHODS = ["mmr", "coverage"]


@pytest.fixture(params=["memory", "folder", "pooled"])
def index(request: pytest.FixtureRequest, tmp_path: Path, encoder: BundledEncoder) -> Iterator[MuveraIndex]:
    path = tmp_path / "index" if request.param == "folder" else None
    with MuveraIndex.create(path, encoder, pool_factor=2 if request.param == "pooled" else 1) as made:
        made.add(
            list(TEXTS.values()), ids=list(TEXTS), metadatas=[{"food": "bread" in text} for text in TEXTS.values()]
        )
        yield made


# The choice


def value(relevance: np.ndarray, aspects: np.ndarray, chosen: list[int]) -> float:
    """What ``choose_covering`` maximizes."""
    return float(relevance[chosen].sum() + aspects[:, chosen].max(axis=1, initial=0).sum()) if chosen else 0.0


def plain_greedy(relevance: np.ndarray, aspects: np.ndarray, k: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(min(k, len(relevance))):
        left = [i for i in range(len(relevance)) if i not in chosen]
        chosen.append(max(left, key=lambda i: value(relevance, aspects, [*chosen, i])))
    return chosen


seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, n=st.integers(1, 12), n_aspects=st.integers(1, 8), k=st.integers(1, 14))
def test_the_lazy_choice_is_the_greedy_choice(seed: int, n: int, n_aspects: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    relevance = generator.random(n).astype(np.float32)
    aspects = generator.random((n_aspects, n)).astype(np.float32)
    lazy = choose_covering(relevance, aspects, k).tolist()
    assert lazy == plain_greedy(relevance.astype(np.float64), aspects.astype(np.float64), k)


@given(seed=seeds, n=st.integers(1, 8), k=st.integers(1, 4), density=st.floats(0.1, 1))
def test_the_choice_has_at_least_63_percent_of_the_best_value(seed: int, n: int, k: int, density: float) -> None:
    generator = np.random.default_rng(seed)
    relevance = generator.random(n).astype(np.float32) * generator.integers(0, 2)
    aspects = (generator.random((6, n)) * (generator.random((6, n)) < density)).astype(np.float32)
    best = max(value(relevance, aspects, list(some)) for some in combinations(range(n), min(k, n)))
    chosen = choose_covering(relevance, aspects, k).tolist()
    assert value(relevance, aspects, chosen) >= (1 - 1 / np.e) * best - 1e-5


def test_ties_go_to_the_first_item() -> None:
    assert choose_covering(np.zeros(4, np.float32), np.ones((2, 4), np.float32), 3).tolist() == [0, 1, 2]


def test_relevance_alone_gives_the_order_of_relevance() -> None:
    relevance = np.array([0.1, 0.9, 0.5], np.float32)
    assert choose_covering(relevance, np.zeros((2, 3), np.float32), 3).tolist() == [1, 2, 0]


def test_a_query_token_that_all_candidates_match_alike_does_not_matter() -> None:
    matches = np.array([[0.9, 0.1, 0.2], [0.1, 0.9, 0.2]], np.float32)
    similarity = np.eye(3, dtype=np.float32)
    with_mask = np.concatenate([np.full((5, 3), 0.7, np.float32), matches])
    aspects = coverage_aspects(with_mask, similarity)
    assert not aspects[:5].any()
    np.testing.assert_array_equal(aspects[5:], coverage_aspects(matches, similarity))


def test_the_best_match_of_each_token_is_taken_from_each_document() -> None:
    documents = TokenEmbeddings.from_list([np.eye(2), -np.eye(2)[:1], [[0.5, 0.5]]])
    query = np.array([[1, 0], [0, 1]], np.float32)
    assert best_matches(query, documents).tolist() == [[1, -1, 0.5], [1, 0, 0.5]]


# Searches


def test_a_question_of_two_parts_gets_a_passage_for_each(index: MuveraIndex) -> None:
    assert len({hit.id[:3] for hit in index.search(TWO_PARTS, 2)}) == 1
    chosen = [hit.id for hit in index.search_diverse(TWO_PARTS, 2, method="coverage")]
    assert sorted(id[:3] for id in chosen) == ["bre", "owl"]


def test_a_copy_is_not_chosen_while_something_else_adds_more(index: MuveraIndex) -> None:
    chosen = [
        hit.id for hit in index.search_diverse("owls hunt mice at night", 5, method="coverage", relevance_weight=0)
    ]
    assert not {"owl", "owl again"} <= set(chosen)
    assert len(set(chosen)) == 5


def test_relevance_alone_gives_the_hits_of_a_search(index: MuveraIndex) -> None:
    for n_neighbors in (0, 2):
        alone = index.search_diverse(
            TWO_PARTS, 4, method="coverage", fetch_k=7, relevance_weight=1, n_neighbors=n_neighbors
        )
        assert [hit.id for hit in alone] == [hit.id for hit in index.search(TWO_PARTS, 4)]


@pytest.mark.parametrize("method", METHODS)
def test_k_beyond_the_index_returns_all(index: MuveraIndex, method: str) -> None:
    found = index.search_diverse(TWO_PARTS, 50, method=method, fetch_k=1, n_neighbors=50)  # type: ignore[arg-type]
    assert {hit.id for hit in found} == set(TEXTS)


def test_scores_are_those_of_a_search(index: MuveraIndex) -> None:
    expected = {hit.id: hit for hit in index.search(TWO_PARTS)}
    for hit in index.search_diverse(TWO_PARTS, 7, method="coverage", fetch_k=1, n_neighbors=3):
        assert hit.score == pytest.approx(expected[hit.id].score, abs=1e-5)
        assert hit.text == expected[hit.id].text


@pytest.mark.parametrize("method", METHODS)
def test_neighbors_of_the_best_hits_are_chosen_from(index: MuveraIndex, method: str) -> None:
    def chosen(n_neighbors: int) -> set[str]:
        found = index.search_diverse(
            "owls hunt mice at night",
            1,
            method=method,  # type: ignore[arg-type]
            fetch_k=1,
            relevance_weight=0,
            n_neighbors=n_neighbors,
        )
        return {hit.id for hit in found}

    assert chosen(0) <= {"owl", "owl again"}
    pool = index.search_diverse("owls hunt mice at night", 2, fetch_k=2, n_neighbors=3, relevance_weight=0)
    assert len(pool) == 2
    assert {hit.id for hit in pool} - {"owl", "owl again"}


@pytest.mark.parametrize("method", METHODS)
def test_neighbors_fulfil_the_filter_the_ids_and_the_least_score(index: MuveraIndex, method: str) -> None:
    options = {"method": method, "fetch_k": 1, "n_neighbors": 6}
    by_filter = index.search_diverse(TWO_PARTS, 7, filter={"food": True}, **options)  # type: ignore[arg-type]
    assert {hit.id for hit in by_filter} == {"bread", "wheat"}
    by_ids = index.search_diverse(TWO_PARTS, 7, ids=["bat", "owl", "gone"], **options)  # type: ignore[arg-type]
    assert {hit.id for hit in by_ids} == {"bat", "owl"}
    least = sorted(hit.normalized_score for hit in index.search(TWO_PARTS))[-3] - 1e-6
    by_score = index.search_diverse(TWO_PARTS, 7, min_score=least, **options)  # type: ignore[arg-type]
    assert len(by_score) == 3
    assert all(hit.normalized_score >= least for hit in by_score)


def test_neighbors_are_found_in_a_graph(encoder: BundledEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_one, "FLAT_LIMIT", 3)
    with MuveraIndex.create(None, encoder) as index:
        index.add(list(TEXTS.values()), ids=list(TEXTS))
        found = index.search_diverse("rye bread", 2, fetch_k=2, n_neighbors=2, method="coverage")
        assert "bread" in {hit.id for hit in found}


def test_a_query_without_words_gets_what_the_filter_admits(index: MuveraIndex) -> None:
    assert index.search_diverse(" ", method="coverage", n_neighbors=3) == []
    found = index.search_diverse(" ", 5, method="coverage", n_neighbors=3, filter={"food": True})
    assert {hit.id for hit in found} == {"bread", "wheat"}


def test_an_empty_index_has_no_hits(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        assert index.search_diverse(TWO_PARTS, method="coverage", n_neighbors=3) == []


def test_images_without_text_are_covered() -> None:
    image = pytest.importorskip("PIL.Image")
    colors = {"red": (255, 0, 0), "dark red": (250, 0, 0), "green": (0, 255, 0)}
    with MuveraIndex.create(None, PatchEncoder()) as index:
        index.add_images([image.new("RGB", (32, 32), color) for color in colors.values()], ids=list(colors))
        found = {hit.id for hit in index.search_diverse("red green", 2, method="coverage", n_neighbors=1)}
        assert "green" in found
        assert len(found) == 2


def test_what_cannot_be_used_is_refused(index: MuveraIndex) -> None:
    with pytest.raises(InvalidInputError, match="method must be one of 'mmr', 'coverage', got 'cover'"):
        index.search_diverse(TWO_PARTS, method="cover")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="n_neighbors must be at least 0"):
        index.search_diverse(TWO_PARTS, n_neighbors=-1)
    with pytest.raises(InvalidInputError, match="relevance_weight"):
        index.search_diverse(TWO_PARTS, method="coverage", relevance_weight=2)
