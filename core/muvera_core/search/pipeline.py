"""One search from end to end: candidates → shortlist, if leading bits can be read alone → exact MaxSim → hits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from muvera_core.batches import batched
from muvera_core.collection import Collection, RerankRequest
from muvera_core.hits import Hit
from muvera_core.maxsim import Ranking, normalize_scores
from muvera_core.search.moment import Moment, take_moment
from muvera_core.search.plan import SearchOptions, SearchPlan
from muvera_core.search.reranking import rerank, shortlist
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
            plan, requests = find_candidates(collection, group, options)
        if plan.n_shortlisted is not None:
            with clock.stage("shortlist"):
                requests = shortlist(collection, requests, plan.n_shortlisted)
        with clock.stage("rerank"):
            rankings = rerank(collection, requests, options.k)
        with clock.stage("fetch"):
            return _fetch(collection, requests, rankings, options.min_score)

    hits: list[list[Hit]] = []
    for group in batched(queries, _QUERIES_TOGETHER):
        hits += collection.read_with_retry(lambda _: search_group(group))  # noqa: B023
    return hits


def make_plan(collection: Collection, options: SearchOptions) -> SearchPlan:
    """How a search with these options would find its candidates now."""
    return collection.read_with_retry(lambda snapshot: take_moment(collection, snapshot, options).plan)


def find_candidates(
    collection: Collection, queries: Sequence[FloatArray], options: SearchOptions
) -> tuple[SearchPlan, list[RerankRequest]]:
    """The plan that was followed, and the candidates of each query, all of one snapshot.

    Raises:
        StaleError: a write has replaced the snapshot meanwhile.
    """
    moment = take_moment(collection, collection.snapshot(), options)
    plan, snapshot = moment.plan, moment.snapshot
    if plan.reranks_all:
        return plan, [RerankRequest(query, snapshot, moment.admitted) for query in queries]
    vectors = moment.stage_one.encoder.encode_queries(TokenEmbeddings.from_list(list(queries)))
    found = _search_on_gpu(collection, moment, vectors) if plan.path == "GPU scan" else None
    if found is None:
        found = moment.search(vectors, plan.n_candidates)
    return plan, [RerankRequest(query, snapshot, np.sort(keys)) for query, keys in zip(queries, found, strict=True)]


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


def _fetch(
    collection: Collection, requests: Sequence[RerankRequest], rankings: Sequence[Ranking], min_score: float | None
) -> list[list[Hit]]:
    """The hits of queries that were ranked in one snapshot."""
    found: list[tuple[list[int], list[float], list[float]]] = []
    for request, (keys, scores) in zip(requests, rankings, strict=True):
        normalized = normalize_scores(scores, len(request.query)).tolist()
        n = len(keys) if min_score is None else sum(score >= min_score for score in normalized)  # best first
        found.append((keys[:n].tolist(), scores[:n].tolist(), normalized[:n]))
    documents = iter(collection.store.documents(requests[0].snapshot, [key for keys, _, _ in found for key in keys]))
    return [scored_hits(list(islice(documents, len(keys))), *scores) for keys, *scores in found]


def scored_hits(documents: Sequence[StoredDocument], scores: Sequence[float], normalized: Sequence[float]) -> list[Hit]:
    """The documents with their scores and normalized scores."""
    return [
        Hit(each.id, each.text, each.metadata, score, share, share, **each.image_fields)
        for each, score, share in zip(documents, scores, normalized, strict=True)
    ]
