"""One search from end to end: candidates → exact MaxSim → hits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvera_core.batches import batched
from muvera_core.collection import Collection, RerankRequest
from muvera_core.hits import Hit
from muvera_core.maxsim import Ranking, normalize_scores
from muvera_core.search.plan import SearchOptions, SearchPlan, admitted_keys, plan_search
from muvera_core.search.reranking import rerank
from muvera_core.search.stage_clock import StageClock
from muvera_core.stage_one import StageOne
from muvera_core.storage import Snapshot, StaleError
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

# Queries that are searched together: their candidates are of one snapshot, and they are searched again together if a
# document is deleted meanwhile.
_QUERIES_TOGETHER = 64


def search(
    collection: Collection, queries: Sequence[FloatArray], options: SearchOptions, clock: StageClock
) -> list[list[Hit]]:
    """The best documents for each query's token vectors, best first."""

    def search_group(group: Sequence[FloatArray]) -> list[list[Hit]]:
        with clock.stage("candidates"):
            requests = find_candidates(collection, group, options)
        with clock.stage("rerank"):
            rankings = rerank(collection, requests, options.k)
        with clock.stage("fetch"):
            return [
                _as_hits(collection, request, ranking, options.min_score)
                for request, ranking in zip(requests, rankings, strict=True)
            ]

    hits: list[list[Hit]] = []
    for group in batched(queries, _QUERIES_TOGETHER):
        hits += collection.read_with_retry(lambda _: search_group(group))  # noqa: B023
    return hits


def make_plan(collection: Collection, options: SearchOptions) -> SearchPlan:
    """How a search with these options would find its candidates now."""
    return collection.read_with_retry(lambda _: _begin(collection, options)[0])


def find_candidates(
    collection: Collection, queries: Sequence[FloatArray], options: SearchOptions
) -> list[RerankRequest]:
    """The documents to rerank for each query, all of one snapshot.

    Raises:
        StaleError: a write has replaced the snapshot meanwhile.
    """
    plan, snapshot, stage_one, admitted = _begin(collection, options)
    if plan.path in ("every document", "admitted documents"):
        return [RerankRequest(query, snapshot, admitted) for query in queries]
    vectors = stage_one.encoder.encode_queries(TokenEmbeddings.from_list(list(queries)))
    if plan.path == "GPU scan" and collection.accelerator is not None:
        found = [collection.accelerator.search(stage_one, snapshot, vector, plan.n_candidates) for vector in vectors]
        if all(keys is not None for keys in found):
            return _requests(queries, snapshot, [keys for keys in found if keys is not None])
    allowed = None if options.admits_all else admitted
    with collection.locks.state:
        if collection.snapshot() is not snapshot or collection.stage_one is not stage_one:
            raise StaleError
        keys = [stage_one.search(vector, plan.n_candidates, allowed) for vector in vectors]
    return _requests(queries, snapshot, keys)


def _begin(collection: Collection, options: SearchOptions) -> tuple[SearchPlan, Snapshot, StageOne, IntArray]:
    """The plan of a search, and what it is carried out on: a snapshot, stage one, and the keys that are admitted."""
    snapshot = collection.snapshot()
    admitted = admitted_keys(collection, snapshot, options)
    with collection.locks.state:
        if collection.snapshot() is not snapshot:
            raise StaleError
        stage_one, gpu = collection.stage_one, collection.accelerator
        gpu_scans = gpu is not None and gpu.scans(stage_one, snapshot)
        plan = plan_search(stage_one, len(snapshot), len(admitted), options, gpu_scans=gpu_scans)
    return plan, snapshot, stage_one, admitted


def _requests(queries: Sequence[FloatArray], snapshot: Snapshot, found: Sequence[IntArray]) -> list[RerankRequest]:
    return [RerankRequest(query, snapshot, np.sort(keys)) for query, keys in zip(queries, found, strict=True)]


def _as_hits(collection: Collection, request: RerankRequest, ranking: Ranking, min_score: float | None) -> list[Hit]:
    keys, scores = ranking
    normalized = normalize_scores(scores, len(request.query)).tolist()
    n_hits = len(keys) if min_score is None else sum(score >= min_score for score in normalized)  # best first
    documents = collection.store.documents(request.snapshot, keys[:n_hits])
    scored = zip(documents, scores[:n_hits].tolist(), normalized[:n_hits], strict=True)
    return [Hit(each.id, each.text, each.metadata, score, share) for each, score, share in scored]
