"""Carving a query's tokens into balls, and searches that choose a shortlist by them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from muvera_core import MuveraIndex, QueryReduction
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings
from muvera_core.errors import InvalidInputError
from muvera_core.search import reranking
from muvera_core.search.query_reduction import carve_balls
from muvera_core.token_embeddings import FloatArray, unit_length

D = 32
ENCODER = PrecomputedEmbeddings(D, "random")
HALF = QueryReduction(ball_threshold=0.7)


def unit_tokens(seed: int, n_tokens: int) -> FloatArray:
    return unit_length(np.random.default_rng(seed).standard_normal((n_tokens, D)).astype(np.float32))


def query_of_pairs(seed: int, n_pairs: int = 4) -> FloatArray:
    """Tokens of which each is followed by one that is much like it."""
    tokens = np.repeat(unit_tokens(seed, n_pairs), 2, axis=0)
    return unit_length(tokens + 0.05 * unit_tokens(seed + 1, len(tokens)))


@pytest.fixture(params=["int8", "8bit", "float16"])
def index(request: pytest.FixtureRequest) -> Any:
    """600 documents, so that a search has more candidates than a shortlist."""
    with MuveraIndex.create(None, ENCODER, token_precision=request.param) as made:
        made.add_embeddings([unit_tokens(seed, 12) for seed in range(600)], ids=[str(i) for i in range(600)])
        yield made


# Balls


def test_tokens_of_a_ball_become_their_sum_in_the_order_of_the_centres() -> None:
    a, b = np.eye(2, dtype=np.float32)
    near_a = unit_length(np.array([[0.9, 0.1]], dtype=np.float32))[0]
    balls = carve_balls(np.stack([a, b, near_a]), 0.8)
    np.testing.assert_allclose(balls, np.stack([a + near_a, b]), atol=1e-6)
    assert balls.dtype == np.float32


def test_a_token_joins_the_first_centre_that_is_near() -> None:
    angles = np.deg2rad([0, 40, 80])
    tokens = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    np.testing.assert_allclose(carve_balls(tokens, 0.7), np.stack([tokens[0] + tokens[1], tokens[2]]), atol=1e-6)


@pytest.mark.parametrize("threshold", [0, 0.5, 1])
def test_balls_hold_all_tokens(threshold: float) -> None:
    tokens = unit_tokens(0, 20)
    np.testing.assert_allclose(carve_balls(tokens, threshold).sum(axis=0), tokens.sum(axis=0), atol=1e-5)


def test_the_cosine_counts_and_not_the_length() -> None:
    tokens = np.array([[1, 0], [1e-3, 0], [0, 1e6], [0, 0]], dtype=np.float32)
    np.testing.assert_allclose(carve_balls(tokens, 0.9), np.array([[1.001, 0], [0, 1e6], [0, 0]]))


def test_copies_become_one_ball_and_score_alike() -> None:
    tokens = unit_tokens(0, 3)
    (document,) = [unit_tokens(1, 20)]
    balls = carve_balls(np.repeat(tokens, 5, axis=0), 0.99)
    assert len(balls) == 3
    assert (balls @ document.T).max(axis=1).sum() == pytest.approx(
        5 * (tokens @ document.T).max(axis=1).sum(), rel=1e-5
    )


# Searches


def test_hits_have_the_scores_of_all_tokens(index: MuveraIndex) -> None:
    query = query_of_pairs(1000)
    expected = index.search_embeddings(query, k=5)
    found = index.search_embeddings(query, k=5, query_reduction=HALF)
    assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in expected]


def test_the_shortlist_is_scored_by_the_balls_and_the_rest_by_all_tokens(
    index: MuveraIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[tuple[int, int]] = []
    score = type(index.engine.collection.store).score

    def noted(store: Any, snapshot: Any, keys: Any, queries: Any, **options: Any) -> Any:
        scored.extend((len(keys), len(query)) for query in queries)
        return score(store, snapshot, keys, queries, **options)

    monkeypatch.setattr(type(index.engine.collection.store), "score", noted)
    index.search_embeddings(query_of_pairs(1000), k=5, query_reduction=HALF)
    assert scored == [(400, 4), (50, 8)]
    plan = index.plan(5, query_reduction=HALF)
    assert (plan.n_candidates, plan.n_shortlisted) == (400, 50)


def test_a_query_without_balls_is_not_scored_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with MuveraIndex.create(None, ENCODER) as index:
        index.add_embeddings([unit_tokens(seed, 3) for seed in range(200)])
        query, pairs = unit_tokens(7, 5), query_of_pairs(3)
        expected = index.search_embeddings_batch([query, pairs], k=3)
        kept: list[int] = []
        rerank = reranking.rerank

        def noted(collection: Any, requests: Any, k: Any) -> Any:
            kept.extend(len(request.keys) for request in requests)
            return rerank(collection, requests, k)

        monkeypatch.setattr("muvera_core.search.modes.rerank", noted)
        assert index.search_embeddings_batch([query, pairs], k=3, query_reduction=HALF) == expected
        assert kept == [200, 50]


def test_a_reduction_that_carves_nothing_changes_nothing(index: MuveraIndex) -> None:
    query = query_of_pairs(5)
    assert index.search_embeddings(query, query_reduction=QueryReduction()) == index.search_embeddings(query)
    assert index.plan(query_reduction=QueryReduction()) == index.plan()


def test_few_candidates_need_no_shortlist() -> None:
    with MuveraIndex.create(None, ENCODER) as index:
        index.add_embeddings([unit_tokens(seed, 3) for seed in range(20)])
        assert index.plan(5, query_reduction=HALF).n_shortlisted is None
        query = query_of_pairs(2)
        assert index.search_embeddings(query, query_reduction=HALF) == index.search_embeddings(query)


def test_questions_and_batches_take_a_reduction(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        texts = [f"Bird number {i} sings at {i % 24} o'clock." for i in range(130)]
        index.add(texts, ids=[str(i) for i in range(130)])
        questions = ["which bird sings at 7 o'clock", "  ", "bird number 99"]
        expected = index.search_batch(questions, k=3)
        assert index.search_batch(questions, k=3, query_reduction=QueryReduction(ball_threshold=0.8)) == expected
        (first, *_) = index.search(questions[2], k=3, query_reduction=QueryReduction(ball_threshold=0.8))
        assert first.id == expected[2][0].id


# Bad input


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "much", True])
def test_a_threshold_outside_its_range_is_refused(threshold: Any) -> None:
    with pytest.raises(InvalidInputError, match="ball_threshold"):
        QueryReduction(ball_threshold=threshold)


@pytest.mark.parametrize("value", [0.7, "balls", {"ball_threshold": 0.7}])
def test_something_else_than_a_reduction_is_refused(index: MuveraIndex, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"QueryReduction\(ball_threshold=.7\)"):
        index.search_embeddings(query_of_pairs(0), query_reduction=value)


def test_a_reduction_is_refused_where_it_would_be_ignored(index: MuveraIndex) -> None:
    with pytest.raises(InvalidInputError, match="leave query_reduction out"):
        index.search_embeddings(query_of_pairs(0), exact=True, query_reduction=HALF)
    with pytest.raises(InvalidInputError, match="leave query_reduction out"):
        index.plan(exact=True, query_reduction=HALF)
    with pytest.raises(InvalidInputError, match="leave query_reduction out"):
        index.search("owls", mode="lexical", query_reduction=HALF)


def test_a_reduction_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        HALF.ball_threshold = 0.5  # type: ignore[misc]
