"""The plan of a search says how its candidates are found, and the search does as its plan says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from muvera_core import FDEConfig, Hit, MuveraIndex, StageClock
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.filters import compile_filter
from muvera_core.search import Question, SearchOptions, SearchPlan, make_plan, search
from muvera_core.search.candidates import find_candidates
from muvera_core.stage_one import HnswCandidates, stage_one

D = 16
N = 300
FDE = FDEConfig(dimension=D, num_repetitions=4, num_simhash_projections=3, projection_dimension=8)


def tokens(seed: int, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [array / np.linalg.norm(array, axis=1, keepdims=True) for array in rng.standard_normal((n, 4, D))]


QUERIES = [query.astype(np.float32) for query in tokens(7, 5)]


@contextmanager
def filled(flat_limit: int = N) -> Iterator[MuveraIndex]:
    with pytest.MonkeyPatch.context() as patch, MuveraIndex.create(None, PrecomputedEmbeddings(D, "random"), FDE) as it:
        patch.setattr(stage_one, "FLAT_LIMIT", flat_limit)
        it.add_embeddings(tokens(0, N), ids=[f"d{i}" for i in range(N)], metadatas=[{"n": i} for i in range(N)])
        yield it


def options(n_admitted: int | None = None, **others: object) -> SearchOptions:
    condition = None if n_admitted is None else compile_filter({"n": {"$lt": n_admitted}})
    return SearchOptions(5, 20, condition, **others)  # type: ignore[arg-type]


def hits(index: MuveraIndex, options: SearchOptions) -> list[list[Hit]]:
    return search(index.engine.collection, list(map(Question, QUERIES)), options, StageClock())


def described(plan: SearchPlan) -> tuple[object, ...]:
    return plan.path, plan.n_documents, plan.n_admitted, plan.n_candidates, plan.ef


@pytest.mark.parametrize(
    ("flat_limit", "asked", "expected"),
    [
        (N, options(exact=True), ("every document", N, N, N, None)),
        (N, options(200, exact=True), ("admitted documents", N, 200, 200, None)),
        (N, SearchOptions(5), ("every document", N, N, N, None)),
        (N, options(15), ("admitted documents", N, 15, 15, None)),
        (N, options(0), ("admitted documents", N, 0, 0, None)),
        (N, options(), ("flat scan", N, N, 20, None)),
        (N, options(200), ("flat scan", N, 200, 20, None)),
        (50, options(), ("graph", N, N, 20, HnswCandidates.DEFAULT_EF)),
        (50, SearchOptions(5, N), ("every document", N, N, N, None)),
        (50, options(200), ("flat scan", N, 200, 20, None)),
        (50, options(30), ("flat scan", N, 30, 20, None)),
        (50, options(15), ("admitted documents", N, 15, 15, None)),
        (N, options(ids=("d1", "d2", "none")), ("admitted documents", N, 2, 2, None)),
    ],
)
def test_a_search_reranks_as_many_documents_as_its_plan_says(
    flat_limit: int, asked: SearchOptions, expected: tuple[object, ...]
) -> None:
    with filled(flat_limit) as index:
        plan = make_plan(index.engine.collection, asked)
        assert described(plan) == expected
        assert plan.reason.endswith(".")
        _, found = find_candidates(index.engine.collection, QUERIES, asked)
        assert [len(request.keys) for request in found] == [plan.n_candidates] * len(QUERIES)


@pytest.mark.parametrize("flat_limit", [N, 50])
@pytest.mark.parametrize("asked", [options(), options(200), options(exact=True), options(ids=("d3", "d200"))])
def test_candidates_of_a_batch_are_those_of_single_searches(flat_limit: int, asked: SearchOptions) -> None:
    with filled(flat_limit) as index:
        _, together = find_candidates(index.engine.collection, QUERIES, asked)
        for query, request in zip(QUERIES, together, strict=True):
            _, (alone,) = find_candidates(index.engine.collection, [query], asked)
            assert request.query is query
            assert request.snapshot is alone.snapshot
            assert request.keys.tolist() == alone.keys.tolist()


def test_queries_that_rerank_the_same_documents_share_them() -> None:
    with filled() as index:
        _, requests = find_candidates(index.engine.collection, QUERIES, options(100, exact=True))
        assert len({id(request.keys) for request in requests}) == 1


@pytest.mark.parametrize("exact", [True, False])
def test_ids_admit_only_the_documents_that_have_them(exact: bool) -> None:
    wanted = (*(f"d{i}" for i in range(100, 160)), "unknown")
    with filled() as index:
        for found in hits(index, options(ids=wanted, exact=exact)):
            assert len(found) == 5
            assert {hit.id for hit in found} <= set(wanted)
        for found in hits(index, options(103, ids=wanted, exact=exact)):
            assert {hit.id for hit in found} == {"d100", "d101", "d102"}
        assert hits(index, options(ids=())) == [[]] * len(QUERIES)
        assert hits(index, options(ids=("unknown",))) == [[]] * len(QUERIES)


def test_ids_of_deleted_and_replaced_documents_are_resolved_anew() -> None:
    with filled() as index:
        index.delete("d1")
        index.add_embeddings(tokens(1, 1), ids=["d2"])
        for found in hits(index, options(ids=("d1", "d2", "d2"))):
            assert [hit.id for hit in found] == ["d2"]


def test_min_score_drops_the_hits_below_it() -> None:
    with filled() as index:
        for every, query in zip(hits(index, options()), QUERIES, strict=True):
            least = every[2].normalized_score
            kept = search(index.engine.collection, [Question(query)], options(min_score=least), StageClock())[0]
            assert kept == every[:3]
        assert hits(index, options(min_score=1.0)) == [[]] * len(QUERIES)
        assert hits(index, options(min_score=0.0)) == hits(index, options())


def test_the_plan_follows_the_documents() -> None:
    with filled() as index:
        assert make_plan(index.engine.collection, options(200)).path == "flat scan"
        index.delete([f"d{i}" for i in range(190)])
        assert described(make_plan(index.engine.collection, options(200))) == (
            "admitted documents",
            N - 190,
            10,
            10,
            None,
        )
