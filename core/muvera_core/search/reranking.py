"""Exact MaxSim of queries with their candidates, on the GPU if there is one, or else on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from muvera_core.batches import runs_by_size
from muvera_core.collection import Collection, RerankRequest
from muvera_core.maxsim import Ranking, ranked
from muvera_core.storage import Store

# Documents that are scored in one call, which Ctrl-C cannot interrupt.
_DOCUMENTS_TOGETHER = 4096
# Query tokens that are compared with the same documents together: their products stay in the caches.
_QUERY_TOKENS_TOGETHER = 512


def rerank(collection: Collection, requests: Sequence[RerankRequest], k: int | None = None) -> list[Ranking]:
    """The ``k`` best documents of each request (all if None), by falling MaxSim, ties by rising key."""
    rankings = None if collection.accelerator is None else collection.accelerator.rank(requests, k)
    if rankings is not None:
        return rankings
    rankings = []
    for group in sharing_documents(requests):
        n_tokens = np.array([len(request.query) for request in group])
        for first, end in runs_by_size(n_tokens, _QUERY_TOKENS_TOGETHER):
            rankings += _rerank_on_cpu(collection.store, group[first:end], k)
    return rankings


def sharing_documents(requests: Sequence[RerankRequest]) -> Iterator[list[RerankRequest]]:
    """Runs of consecutive requests that share their documents."""
    return (list(group) for _, group in groupby(requests, key=lambda request: id(request.keys)))


def _rerank_on_cpu(store: Store, requests: Sequence[RerankRequest], k: int | None) -> list[Ranking]:
    """Rank the same documents for each request."""
    snapshot, keys = requests[0].snapshot, requests[0].keys
    queries = [request.query for request in requests]
    scores = np.empty((len(requests), len(keys)), dtype=np.float32)
    for start in range(0, len(keys), _DOCUMENTS_TOGETHER):
        some = slice(start, start + _DOCUMENTS_TOGETHER)
        scores[:, some] = store.score(snapshot, keys[some], queries)
    return [ranked(keys, of_request, k) for of_request in scores]
