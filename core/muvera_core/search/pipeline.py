"""One search from end to end: candidates → exact MaxSim → hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from muvera_core.batches import batched
from muvera_core.collection import Collection, RerankRequest
from muvera_core.filters import Condition
from muvera_core.hits import Hit
from muvera_core.maxsim import normalize_scores
from muvera_core.search.reranking import rerank
from muvera_core.search.stage_clock import StageClock
from muvera_core.storage import StaleError, StoredDocument
from muvera_core.token_embeddings import FloatArray

# Queries that are reranked together, and searched again together if a document is deleted meanwhile.
_QUERIES_TOGETHER = 64


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search.

    Attributes:
        k: number of hits to return.
        n_candidates: number of candidates to rerank. None leaves it to stage one, which knows what its encoding needs.
        condition: the filter; None admits every document.
        exact: rerank all documents that the filter admits.
    """

    k: int
    n_candidates: int | None = None
    condition: Condition | None = None
    exact: bool = False


def search(
    collection: Collection, queries: Sequence[FloatArray], options: SearchOptions, clock: StageClock
) -> list[list[Hit]]:
    """The best documents for each query's token vectors, best first."""

    def search_group(group: Sequence[FloatArray]) -> list[list[Hit]]:
        with clock.stage("candidates"):
            requests = [find_candidates(collection, tokens, options) for tokens in group]
        with clock.stage("rerank"):
            rankings = rerank(collection, requests, options.k)
        with clock.stage("fetch"):
            return [
                _as_hits(collection.store.documents(request.snapshot, keys), scores, len(request.query))
                for request, (keys, scores) in zip(requests, rankings, strict=True)
            ]

    hits: list[list[Hit]] = []
    for group in batched(queries, _QUERIES_TOGETHER):
        hits += collection.read_with_retry(lambda _: search_group(group))  # noqa: B023
    return hits


def find_candidates(collection: Collection, query: FloatArray, options: SearchOptions) -> RerankRequest:
    """The documents to rerank for a query, of one snapshot.

    A narrow filter, few documents or ``exact`` make all admitted documents candidates.

    Raises:
        StaleError: a write has replaced the snapshot or stage one meanwhile.
    """
    stage_one, store, condition, vector = collection.stage_one, collection.store, options.condition, None
    n = max(options.k, stage_one.n_candidates(options.k) if options.n_candidates is None else options.n_candidates)
    if not options.exact and len(collection.snapshot()) > n:
        vector = stage_one.encode_query(query)
    with collection.locks.state:
        snapshot = collection.snapshot()
        if collection.stage_one is not stage_one:
            raise StaleError
        admitted = store.matching(snapshot, condition)
        if vector is None or not stage_one.is_worth_it(len(admitted), n):
            return RerankRequest(query, snapshot, admitted)
        if collection.accelerator is None or condition is not None:
            found = stage_one.search(vector, n, None if condition is None else admitted)
            return RerankRequest(query, snapshot, np.sort(found))
    on_gpu = collection.accelerator.search(stage_one, snapshot, vector, n)
    if on_gpu is not None:
        return RerankRequest(query, snapshot, np.sort(on_gpu))
    with collection.locks.state:
        if collection.snapshot() is not snapshot:
            raise StaleError
        return RerankRequest(query, snapshot, np.sort(stage_one.search(vector, n)))


def _as_hits(documents: Sequence[StoredDocument], scores: FloatArray, n_query_tokens: int) -> list[Hit]:
    scored = zip(documents, scores.tolist(), normalize_scores(scores, n_query_tokens).tolist(), strict=True)
    return [Hit(each.id, each.text, each.metadata, score, normalized) for each, score, normalized in scored]
