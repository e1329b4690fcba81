"""Exact MaxSim of queries with their candidates, on the GPU if there is one, or else on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from muvera_core.batches import runs_by_size
from muvera_core.collection import Collection, RerankRequest
from muvera_core.maxsim import Ranking, ranked
from muvera_core.search.query_reduction import QueryReduction
from muvera_core.storage import Store, TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray

# Documents that are scored in one call, which Ctrl-C cannot interrupt.
_DOCUMENTS_TOGETHER = 4096
# Two bits of each of fewer numbers say too little about a token to make a shortlist.
_LEAST_DIMENSION = 16
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


def shortlist(
    collection: Collection, requests: Sequence[RerankRequest], n: int, reduction: QueryReduction | None = None
) -> list[RerankRequest]:
    """The requests, each with its ``n`` best documents by the leading bits of their tokens, or by a shorter query.

    Args:
        collection: holds the documents.
        requests: the queries and their candidates.
        n: number of documents to keep for each.
        reduction: makes the queries shorter for this choice. The requests that are returned have all their tokens. One
            whose query gets too little shorter to save anything keeps all its documents, unless leading bits are read.
    """
    coarse = collection.accelerator is None and has_leading_bits(requests[0].snapshot.tokens.codec)
    shorter = [each.query if reduction is None else reduction.apply(each.query) for each in requests]
    chosen = list(requests)
    places = [
        i
        for i, (request, query) in enumerate(zip(requests, shorter, strict=True))
        if coarse or len(request.keys) * len(query) + n * len(request.query) < len(request.keys) * len(request.query)
    ]
    asked = [replace(requests[i], query=shorter[i]) for i in places]
    for i, keys in zip(places, _best_keys(collection, asked, n, coarse=coarse), strict=True):
        chosen[i] = replace(requests[i], keys=keys)
    return chosen


def has_leading_bits(codec: TokenCodec) -> bool:
    """Whether the leading bits of tokens can be read alone, and say enough."""
    return codec.is_sliced and codec.dimension >= _LEAST_DIMENSION


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


def _best_keys(
    collection: Collection, requests: Sequence[RerankRequest], n: int, *, coarse: bool
) -> Iterator[IntArray]:
    """The keys of each request's ``n`` best documents, ascending."""
    rankings = None if collection.accelerator is None else collection.accelerator.rank(requests, n)
    if rankings is not None:
        yield from (np.sort(keys) for keys, _ in rankings)
        return
    for request, scores in zip(requests, _scores(collection.store, requests, coarse=coarse), strict=True):
        yield _best(request, scores, n)


def _best(request: RerankRequest, scores: FloatArray, n: int) -> IntArray:
    """The request's ``n`` documents of highest score, by rising key."""
    if len(scores) <= n:
        return request.keys
    return np.sort(request.keys[np.argsort(-scores, kind="stable")[:n]])  # keys ascend, so ties go to the lowest
