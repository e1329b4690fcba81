"""One search from end to end: candidates → exact MaxSim → hits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvera_core.batches import batched
from muvera_core.collection import Collection, RerankRequest
from muvera_core.hits import Hit
from muvera_core.maxsim import Ranking, normalize_scores
from muvera_core.search.moment import Moment, take_moment
from muvera_core.search.plan import SearchOptions, SearchPlan
from muvera_core.search.reranking import rerank
from muvera_core.search.stage_clock import StageClock
from muvera_core.storage import StoredDocument
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
    return collection.read_with_retry(lambda snapshot: take_moment(collection, snapshot, options).plan)


def find_candidates(
    collection: Collection, queries: Sequence[FloatArray], options: SearchOptions
) -> list[RerankRequest]:
    """The documents to rerank for each query, all of one snapshot.

    Raises:
        StaleError: a write has replaced the snapshot meanwhile.
    """
    moment = take_moment(collection, collection.snapshot(), options)
    plan, snapshot = moment.plan, moment.snapshot
    if plan.reranks_all:
        return [RerankRequest(query, snapshot, moment.admitted) for query in queries]
    vectors = moment.stage_one.encoder.encode_queries(TokenEmbeddings.from_list(list(queries)))
    found = _search_on_gpu(collection, moment, vectors) if plan.path == "GPU scan" else None
    if found is None:
        found = moment.search(vectors, plan.n_candidates)
    return [RerankRequest(query, snapshot, np.sort(keys)) for query, keys in zip(queries, found, strict=True)]


def _search_on_gpu(collection: Collection, moment: Moment, vectors: FloatArray) -> list[IntArray] | None:
    """The keys of each query's candidates; None if the GPU leaves the work to the CPU."""
    found = []
    for vector in vectors:
        gpu = collection.accelerator
        keys = None if gpu is None else gpu.search(moment.stage_one, moment.snapshot, vector, moment.plan.n_candidates)
        if keys is None:
            return None
        found.append(keys)
    return found


def _as_hits(collection: Collection, request: RerankRequest, ranking: Ranking, min_score: float | None) -> list[Hit]:
    keys, scores = ranking
    normalized = normalize_scores(scores, len(request.query)).tolist()
    n_hits = len(keys) if min_score is None else sum(score >= min_score for score in normalized)  # best first
    documents = collection.store.documents(request.snapshot, keys[:n_hits])
    return scored_hits(documents, scores[:n_hits].tolist(), normalized[:n_hits])


def scored_hits(documents: Sequence[StoredDocument], scores: Sequence[float], normalized: Sequence[float]) -> list[Hit]:
    """The documents with their scores and normalized scores."""
    return [
        Hit(each.id, each.text, each.metadata, score, share, **each.image_fields)
        for each, score, share in zip(documents, scores, normalized, strict=True)
    ]
