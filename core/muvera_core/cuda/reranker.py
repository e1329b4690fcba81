"""Exact MaxSim on the GPU. Documents that are not cached there are copied for each search that needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from operator import is_
from typing import NamedTuple, Protocol

import numpy as np

from muvera_core.batches import runs_by_size
from muvera_core.collection import RerankRequest
from muvera_core.cuda.cached_documents import CachedDocuments
from muvera_core.cuda.document_cache import DocumentCache, documents_in
from muvera_core.cuda.engine import CudaEngine
from muvera_core.cuda.exact import Dead, best_of_all
from muvera_core.cuda.gpu_data import Documents
from muvera_core.cuda.list_ranker import LONGEST_LIST
from muvera_core.cuda.row_blocks import BYTES_AT_ONCE
from muvera_core.cuda.row_layout import rows_for_gpu
from muvera_core.cuda.selection import Selected
from muvera_core.cuda.session import CudaSession
from muvera_core.maxsim import Ranking, ranked
from muvera_core.search import sharing_documents
from muvera_core.storage import Rows, Snapshot, TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray

# Most scores that are computed together for queries with the same documents.
_SCORES_AT_ONCE = 1 << 27
# Most such queries: the second dimension of a kernel's grid counts them.
_QUERIES_AT_ONCE = 65_535
# Most pairs of query and document that are scored together for queries with different documents.
_PAIRS_AT_ONCE = 1 << 14


class TokenRows(Protocol):
    """The part of ``Store`` that the reranker needs."""

    def token_rows(self, snapshot: Snapshot, keys: IntArray) -> tuple[Rows, IntArray]: ...


class CudaReranker:
    """Ranks documents by exact MaxSim. Any number of threads may rank while one updates it.

    Attributes:
        codec: the format of the rows of all snapshots that it is given.
    """

    def __init__(self, engine: CudaEngine, store: TokenRows, codec: TokenCodec, budget: int) -> None:
        """Start with nothing on the GPU.

        Args:
            engine: the kernels and their GPU.
            store: holds the documents.
            codec: the format of its rows.
            budget: most bytes of rows to cache on the GPU.
        """
        self._engine, self._store, self.codec = engine, store, codec
        self._cache, self._lists = DocumentCache(engine.layout, budget), engine.list_ranker()

    @property
    def n_bytes(self) -> int:
        """GPU memory that cached documents take."""
        return self._cache.n_bytes

    @property
    def n_cached(self) -> int:
        """Number of documents that are cached on the GPU, without deleted ones."""
        cached = self._cache.current
        return len(cached) - cached.n_dead

    def update(self, snapshot: Snapshot, *, show_progress: bool = False) -> None:
        """Cache documents of a snapshot that are not on the GPU, while there is room. Raises DeviceError."""
        with self._engine.session() as session:
            self._cache.update(
                session,
                snapshot.keys,
                snapshot.rows.count,
                lambda keys: self._read(snapshot, keys),
                show_progress=show_progress,
            )

    @property
    def n_working_bytes(self) -> int:
        """GPU memory that is held between calls, and is not the device's."""
        return self._lists.n_bytes

    def clear(self) -> None:
        """Drop all cached documents."""
        self._cache.clear()
        self._lists.release()

    def rank(self, requests: Sequence[RerankRequest], k: int | None) -> list[Ranking]:
        """The ``k`` best documents of each request (all if None), by falling MaxSim, ties by rising key.

        Raises:
            DeviceError: the GPU fails.
            CorruptIndexError: rows that had to be read are damaged.
        """
        queries = self._in_codec_space([request.query for request in requests])
        found = self._rank_cached_lists(queries, [request.keys for request in requests], k)
        if found is not None:
            return found
        if self.codec.is_sliced:
            requests = [replace(request, query=query) for request, query in zip(requests, queries, strict=True)]
        rankings: list[Ranking] = []
        single: list[RerankRequest] = []
        for group in sharing_documents(requests):
            if len(group) == 1 and not self._cache.current.are_exactly(group[0].keys):
                single += group
                continue
            rankings += self._rank_lists(single, k) + self._rank_shared(group, k)
            single = []
        return rankings + self._rank_lists(single, k)

    def _in_codec_space(self, queries: Sequence[FloatArray]) -> Sequence[FloatArray]:
        """See ``TokenCodec.to_codec_space``. All queries are converted together."""
        if not self.codec.is_sliced or not queries:
            return queries
        ends = np.cumsum([len(query) for query in queries])
        return np.split(self.codec.to_codec_space(np.concatenate(queries)), ends[:-1])

    def _rank_cached_lists(
        self, queries: Sequence[FloatArray], lists: Sequence[IntArray], k: int | None
    ) -> list[Ranking] | None:
        """Rank each query's own documents in one call; None if that cannot be done, or not fast."""
        cached = self._cache.current
        if not len(cached) or any(map(is_, lists, lists[1:])):
            return None
        if max(map(len, lists), default=0) > LONGEST_LIST:
            return None
        return self._lists.rank(cached, queries, lists, k)

    def _rank_shared(self, requests: Sequence[RerankRequest], k: int | None) -> list[Ranking]:
        """Rank the same documents for each request. ``_SCORES_AT_ONCE`` limits the requests ranked together."""
        rankings: list[Ranking] = []
        chunks = max(self._engine.layout.n_chunks(len(request.query)) for request in requests)
        n = min(_QUERIES_AT_ONCE, max(1, _SCORES_AT_ONCE // max(1, chunks * len(requests[0].keys))))
        for start in range(0, len(requests), n):
            group = requests[start : start + n]
            with self._engine.session() as session:
                cached = self._cache.current  # is kept until the GPU has finished
                parts = list(self._select_shared(session, cached, group, k))
                rankings += _rankings(session, len(group), parts, k)
        return rankings

    def _rank_lists(self, requests: Sequence[RerankRequest], k: int | None) -> list[Ranking]:
        """Rank each request's own documents. The GPU works on some requests while the next ones are prepared."""
        if not requests:
            return []
        # At least 1 each, so that no run has more requests than a kernel's grid can count.
        bounds = runs_by_size(np.array([max(1, len(request.keys)) for request in requests]), _PAIRS_AT_ONCE)
        with self._engine.session() as session:
            cached = self._cache.current
            selections = [
                (end - start, list(self._select_lists(session, cached, requests[start:end], k)))
                for start, end in bounds
            ]
            return [ranking for n, parts in selections for ranking in _rankings(session, n, parts, k)]

    def _select_shared(
        self, session: CudaSession, cached: CachedDocuments, requests: Sequence[RerankRequest], k: int | None
    ) -> Iterator[_Selection]:
        """Select the best of the same documents for each request, first among the cached ones, then the others."""
        snapshot, keys = requests[0].snapshot, requests[0].keys
        queries = session.prepare([request.query for request in requests])
        if cached.are_exactly(keys):
            best = best_of_all(session, queries, cached.on_gpu, k, Dead(cached.dead_at, cached.n_dead))
            yield _Selection(cached.keys, None, best)
            return
        places = cached.places(keys)
        is_cached = places >= 0
        scores = session.score_all(queries, cached.on_gpu, places[is_cached])
        yield _Selection(keys[is_cached], None, session.select(scores, k))
        for batch, documents in self._uploaded(session, snapshot, keys[~is_cached]):
            yield _Selection(batch, None, best_of_all(session, queries, documents, k))

    def _select_lists(
        self, session: CudaSession, cached: CachedDocuments, requests: Sequence[RerankRequest], k: int | None
    ) -> Iterator[_Selection]:
        """Select the best of each request's own documents, first among the cached ones, then the others."""
        queries = session.prepare([request.query for request in requests])
        keys, lists = _joined([request.keys for request in requests])
        places = cached.places(keys)
        if places.min(initial=0) >= 0:
            scores = session.score_lists(queries, cached.on_gpu, places, lists)
            yield _Selection(keys, lists, session.select(scores, k))
            return
        are_cached = [places[first:end] >= 0 for first, end in pairwise(lists)]
        cached_keys, bounds = _joined([request.keys[mask] for request, mask in zip(requests, are_cached, strict=True)])
        scores = session.score_lists(queries, cached.on_gpu, places[places >= 0], bounds)
        yield _Selection(cached_keys, bounds, session.select(scores, k))
        missing = [request.keys[~mask] for request, mask in zip(requests, are_cached, strict=True)]
        for snapshot in {id(request.snapshot): request.snapshot for request in requests}.values():
            wanted = [
                of_request if request.snapshot is snapshot else of_request[:0]
                for request, of_request in zip(requests, missing, strict=True)
            ]
            for batch, documents in self._uploaded(session, snapshot, np.unique(np.concatenate(wanted))):
                here, bounds = _joined(
                    [of_request[np.isin(of_request, batch, assume_unique=True)] for of_request in wanted]
                )
                scores = session.score_lists(queries, documents, np.searchsorted(batch, here).astype(np.int32), bounds)
                yield _Selection(here, bounds, session.select(scores, k))

    def _read(self, snapshot: Snapshot, keys: IntArray) -> tuple[Rows, IntArray]:
        """Rows of documents as the kernels read them, in the codec's space, and their offsets."""
        rows, offsets = self._store.token_rows(snapshot, keys)
        return rows_for_gpu(rows, offsets, self.codec), offsets

    def _uploaded(
        self, session: CudaSession, snapshot: Snapshot, keys: IntArray
    ) -> Iterator[tuple[IntArray, Documents]]:
        """Copy documents to the GPU in batches. Yields each batch, which stays there until the next one.

        GPU memory is freed in the order of the stream's work, so rows may be dropped while they are still being scored.
        """
        layout = self._engine.layout
        counts = snapshot.rows.count[snapshot.places(keys)]
        for start, end in runs_by_size(counts, BYTES_AT_ONCE // layout.bytes_per_token):
            rows, offsets = self._read(snapshot, keys[start:end])
            uploaded = session.upload(rows, offsets)
            yield keys[start:end], documents_in(uploaded, offsets, layout)


class _Selection(NamedTuple):
    """The best documents of each request among part of its documents, on the GPU.

    Attributes:
        keys: the documents' keys, int64, request by request, ascending within each.
        lists: int64, shape (requests + 1,): request ``i`` has ``keys[lists[i]:lists[i + 1]]``. None if every request
            has all keys.
        selected: see ``CudaSession.select``.
    """

    keys: IntArray
    lists: IntArray | None
    selected: Selected


def _joined(lists: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """The lists end to end, and the bounds of each."""
    bounds = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in lists], out=bounds[1:])
    return lists[0] if len(lists) == 1 else np.concatenate(lists), bounds


def _rankings(session: CudaSession, n_requests: int, parts: Sequence[_Selection], k: int | None) -> list[Ranking]:
    """The best documents of each request, over all parts."""
    best = [_best(session, n_requests, part) for part in parts]
    return best[0] if len(best) == 1 else [_merged(of_request, k) for of_request in zip(*best, strict=True)]


def _best(session: CudaSession, n_requests: int, part: _Selection) -> list[Ranking]:
    """The best documents of each request in one part.

    Places come in ascending order, so a stable sort by score leaves ties in the order of their keys.
    """
    places, scores = session.fetch(part.selected)
    if not places.size:
        return [(part.keys[:0], scores[:0].reshape(-1))] * n_requests
    order = np.argsort(-scores, axis=1, kind="stable")
    rows = np.arange(n_requests)[:, None]
    places, scores = places[rows, order], scores[rows, order]
    first = 0 if part.lists is None else part.lists[:-1, None]
    keys = part.keys.take(first + places, mode="clip")
    counts = np.count_nonzero(scores > -np.inf, axis=1).tolist()  # lists are shorter than k, and documents deleted
    return [(keys[i, :n], scores[i, :n]) for i, n in enumerate(counts)]


def _merged(rankings: Sequence[Ranking], k: int | None) -> Ranking:
    """The best documents of several rankings."""
    keys = np.concatenate([part for part, _ in rankings])
    scores = np.concatenate([part for _, part in rankings])
    return ranked(keys, scores, k)
