"""Exact MaxSim of queries with their candidates, on the GPU if there is one, or else on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from muvera_core.batches import runs_by_size
from muvera_core.collection import Collection, RerankRequest
from muvera_core.maxsim import Ranking, ranked
from muvera_core.storage import Store
from muvera_core.token_embeddings import FloatArray, IntArray

# Documents that are scored in one call, which Ctrl-C cannot interrupt.
_DOCUMENTS_TOGETHER = 4096
# Query tokens that are compared with the same documents together: their products stay in the caches.
_QUERY_TOKENS_TOGETHER = 512


def rerank(collection: Collection, requests: Sequence[RerankRequest], k: int | None = None) -> list[Ranking]:
    """The ``k`` best documents of each request (all if None), by falling MaxSim, ties by rising key."""
    rankings = None if collection.accelerator is None else collection.accelerator.rank(requests, k)
    if rankings is not None:
        return rankings
    return [
        ranked(request.keys, scores, k)
        for request, scores in zip(requests, _scores(collection.store, requests), strict=True)
    ]


def shortlist(collection: Collection, requests: Sequence[RerankRequest], n: int) -> list[RerankRequest]:
    """The requests, each with the ``n`` documents that are best by the leading bits of their tokens."""
    scores = _scores(collection.store, requests, coarse=True)
    return [replace(request, keys=_best(request, of_it, n)) for request, of_it in zip(requests, scores, strict=True)]


def sharing_documents(requests: Sequence[RerankRequest]) -> Iterator[list[RerankRequest]]:
    """Runs of consecutive requests that share their documents."""
    return (list(group) for _, group in groupby(requests, key=lambda request: id(request.keys)))


def _scores(store: Store, requests: Sequence[RerankRequest], *, coarse: bool = False) -> Iterator[FloatArray]:
    """MaxSim of each request's query with its documents. Documents that requests share are read once."""
    for group in sharing_documents(requests):
        snapshot, keys = group[0].snapshot, group[0].keys
        queries = [snapshot.tokens.codec.to_codec_space(request.query) for request in group]
        for first, end in runs_by_size(np.array([len(query) for query in queries]), _QUERY_TOKENS_TOGETHER):
            scores = np.empty((end - first, len(keys)), dtype=np.float32)
            for start in range(0, len(keys), _DOCUMENTS_TOGETHER):
                some = slice(start, start + _DOCUMENTS_TOGETHER)
                scores[:, some] = store.score(snapshot, keys[some], queries[first:end], coarse=coarse)
            yield from scores


def _best(request: RerankRequest, scores: FloatArray, n: int) -> IntArray:
    """The request's ``n`` documents of highest score, by rising key."""
    if len(scores) <= n:
        return request.keys
    return np.sort(request.keys[np.argsort(-scores, kind="stable")[:n]])  # keys ascend, so ties go to the lowest
