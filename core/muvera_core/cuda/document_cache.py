"""Which documents' token rows are cached on the GPU.

Rows are cached by document key. The rows of a key never change, so cached rows need no updating: new documents are
added, deleted ones are marked, and when many have been deleted, the cache is rebuilt. What an update costs depends on
what is new, not on what is there.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from muvera_core.batches import runs_by_size
from muvera_core.cuda.cached_documents import MAX_DELETED, CachedDocuments
from muvera_core.cuda.gpu_data import Documents, GpuRows
from muvera_core.cuda.row_blocks import BYTES_AT_ONCE, RowBlocks
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.cuda.session import CudaSession
from muvera_core.storage import Rows
from muvera_core.token_embeddings import IntArray

# Returns the stored rows and the offsets of documents with these keys.
Reader = Callable[[IntArray], tuple[Rows, IntArray]]


class DocumentCache:
    """Copies documents to the GPU, up to a budget.

    Attributes:
        current: the documents that are cached now.
    """

    def __init__(self, layout: RowLayout, budget: int) -> None:
        """Start empty.

        Args:
            layout: layout of the rows on the GPU.
            budget: most bytes to take, spare room included.
        """
        self.current = CachedDocuments.empty(layout)
        self._layout, self._budget = layout, budget
        self._updating = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """GPU memory of the cache, with its spare room."""
        return self.current.n_bytes

    def update(
        self, session: CudaSession, keys: IntArray, counts: IntArray, read: Reader, *, show_progress: bool = False
    ) -> None:
        """Copy documents that are not cached to the GPU, in the order of their keys, while there is room.

        Args:
            session: a session of the engine.
            keys: the keys of all documents, ascending.
            counts: number of tokens of each document.
            read: reads documents.
            show_progress: show a bar on standard error.
        """
        with self._updating:
            cached = self.current
            n_cached = n_still_cached(cached.keys, keys, MAX_DELETED)
            if not n_cached and len(cached):
                cached = self.current = CachedDocuments.empty(self._layout)
                session.free_unused()  # before as much is allocated
            dead = cached.deleted_since(keys[:n_cached])
            new, counts = keys[n_cached:], counts[n_cached:]
            n, n_free = self._how_many_fit(cached, new, counts)
            if not n and not len(dead):
                return
            with tqdm(total=n, desc="to the GPU", unit="doc", disable=not show_progress) as bar:
                rows, documents = self._upload(session, cached.rows, new[:n], counts[:n], n_free, read, bar)
            extended = cached.followed_by(new[:n], documents, rows, dead, session)
            session.wait()
            self.current = extended

    def clear(self) -> None:
        """Empty the cache."""
        with self._updating:
            self.current = CachedDocuments.empty(self._layout)

    def _how_many_fit(self, cached: CachedDocuments, keys: IntArray, counts: IntArray) -> tuple[int, int]:
        """How many of these documents the budget has room for, and how many bytes it then has left."""
        most = self._budget // self._layout.bytes_per_token  # the others need not be looked at
        keys, counts = keys[:most], counts[:most]
        n_rows = np.concatenate([[0], np.cumsum(counts)])

        def n_bytes(n: int) -> int:
            n_keys = int(keys[n - 1]) + 1 if n else cached.n_keys
            return cached.n_bytes_for(len(cached) + n, n_keys, int(n_rows[n]))

        n = max(0, bisect_right(range(len(keys) + 1), self._budget, key=n_bytes) - 1)
        return n, self._budget - n_bytes(n)

    def _upload(
        self,
        session: CudaSession,
        blocks: RowBlocks,
        keys: IntArray,
        counts: IntArray,
        n_free: int,
        read: Reader,
        bar: tqdm[NoReturn],
    ) -> tuple[RowBlocks, Documents]:
        """Copy rows to the GPU. Returns the blocks with them, and where the documents are."""
        parts = [Documents.nowhere()]
        for start, end in runs_by_size(counts, BYTES_AT_ONCE // self._layout.bytes_per_token):
            rows, offsets = read(keys[start:end])
            blocks, target = blocks.with_room(session, len(rows), n_free if end == len(keys) else 0)
            session.upload(rows, offsets, target)
            parts.append(documents_in(target, offsets, self._layout))
            bar.update(end - start)
        return blocks, Documents.joined(parts)


def n_still_cached(cached: IntArray, keys: IntArray, max_deleted: float) -> int:
    """The number of ``keys`` that are cached. They are the first ones, because new keys are always higher.

    Returns:
        The number; 0 if more than the share ``max_deleted`` of the cached documents has been deleted. The caller then
        rebuilds the cache.
    """
    n_live = int(np.searchsorted(keys, cached[-1], side="right")) if len(cached) else 0
    return n_live if len(cached) - n_live <= max_deleted * len(cached) else 0


def documents_in(rows: GpuRows, offsets: IntArray, layout: RowLayout) -> Documents:
    """The addresses of documents whose rows were uploaded together, in the order of ``offsets``."""
    first = offsets[:-1]
    rows_at = (rows.rows_at + first * layout.row_bytes).astype(np.uint64)
    scales_at = (rows.scales_at + first * layout.scale_bytes).astype(np.uint64)
    return Documents(rows_at, scales_at, np.diff(offsets).astype(np.int32))
