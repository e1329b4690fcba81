"""Which documents' token rows are cached on the GPU, and where.

Rows are cached by document key. The rows of a key never change, so cached rows need no updating: new documents are
added, and when many have been deleted, the cache is rebuilt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera_core.batches import runs_by_size
from muvera_core.cuda.engine import Documents, GpuRows
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.storage import Rows
from muvera_core.token_embeddings import IntArray

# Most rows that are copied to the GPU at a time, in bytes on the GPU.
BYTES_AT_ONCE = 64 << 20
# If a larger share of the cached documents has been deleted, the cache is rebuilt.
_MAX_DELETED = 0.5


class Session(Protocol):
    """The part of ``CudaSession`` that the cache needs."""

    def upload(self, rows: Rows) -> GpuRows: ...

    def on_gpu(self, documents: Documents) -> Documents: ...

    def wait(self) -> None: ...


@dataclass(frozen=True, eq=False)
class CachedDocuments:
    """The documents whose rows are on the GPU at one moment. The rows stay there as long as this object is used.

    Attributes:
        keys: the documents' keys, ascending, int64, shape (documents,).
        documents: addresses of their rows.
        place_of_key: index of each key in ``documents``, int32, shape (highest key + 2,). It is -1 for keys that are
            not cached. The last entry is -1 and stands for all higher keys.
        on_gpu: ``documents``, with its columns on the GPU.
        rows: the memory of the rows.
        n_tokens: number of tokens, deleted documents included.
        equal: the last array that was found to be equal to ``keys``; at most one entry.
    """

    keys: IntArray
    documents: Documents
    place_of_key: npt.NDArray[np.int32]
    on_gpu: Documents
    rows: tuple[GpuRows, ...]
    n_tokens: int
    equal: list[IntArray] = field(default_factory=list)

    @classmethod
    def empty(cls) -> CachedDocuments:
        """No documents."""
        nothing = Documents(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int32))
        return cls(np.empty(0, np.int64), nothing, np.full(1, -1, np.int32), nothing, (), 0)

    def places(self, keys: IntArray) -> npt.NDArray[np.int32]:
        """Index of each key in ``documents``; -1 if it is not cached."""
        return self.place_of_key.take(keys, mode="clip")

    def are_exactly(self, keys: IntArray) -> bool:
        """Whether these keys are those of all cached documents."""
        if len(keys) != len(self.keys):
            return False
        if not (self.equal and self.equal[0] is keys) and np.array_equal(keys, self.keys):
            self.equal[:] = [keys]
        return bool(self.equal) and self.equal[0] is keys

    def followed_by(self, parts: Sequence[tuple[IntArray, Documents, GpuRows]], session: Session) -> CachedDocuments:
        """These documents and others with higher keys, given as keys, addresses and memory."""
        keys = np.concatenate([self.keys, *(part[0] for part in parts)])
        documents = self.documents.followed_by(*(part[1] for part in parts))
        place_of_key = np.full(int(keys[-1]) + 2, -1, dtype=np.int32)
        place_of_key[keys] = np.arange(len(keys), dtype=np.int32)
        rows = (*self.rows, *(part[2] for part in parts))
        n_tokens = int(documents.n_tokens.sum())
        return CachedDocuments(keys, documents, place_of_key, session.on_gpu(documents), rows, n_tokens)


class DocumentCache:
    """Copies documents to the GPU, up to a budget.

    Attributes:
        current: the documents that are cached now.
    """

    def __init__(self, layout: RowLayout, budget: int) -> None:
        """Start empty.

        Args:
            layout: layout of the rows on the GPU.
            budget: most bytes to take.
        """
        self.current = CachedDocuments.empty()
        self._layout, self._budget = layout, budget
        self._updating = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """GPU memory that the rows take."""
        return self.current.n_tokens * self._layout.bytes_per_token

    def update(
        self,
        session: Session,
        keys: IntArray,
        counts: IntArray,
        read: Callable[[IntArray], tuple[Rows, IntArray]],
        *,
        show_progress: bool = False,
    ) -> None:
        """Copy documents that are not cached to the GPU, in the order of their keys, while there is room.

        Args:
            session: a session of the engine.
            keys: the keys of all documents, ascending.
            counts: number of tokens of each document.
            read: returns the stored rows and the offsets of documents.
            show_progress: show a bar on standard error.
        """
        with self._updating:
            cached = self.current
            n_cached = n_still_cached(cached.keys, keys, _MAX_DELETED)
            if not n_cached:
                cached = self.current = CachedDocuments.empty()
            room = self._budget // self._layout.bytes_per_token - cached.n_tokens
            n = int(np.searchsorted(np.cumsum(counts[n_cached:]), room, side="right"))
            keys, counts = keys[n_cached : n_cached + n], counts[n_cached : n_cached + n]
            with tqdm(total=n, desc="to the GPU", unit="doc", disable=not show_progress) as bar:
                parts = []
                for start, end in runs_by_size(counts, BYTES_AT_ONCE // self._layout.bytes_per_token):
                    rows, offsets = read(keys[start:end])
                    uploaded = session.upload(rows)
                    parts.append((keys[start:end], documents_in(uploaded, offsets, self._layout), uploaded))
                    bar.update(end - start)
            if parts:
                extended = cached.followed_by(parts, session)
                session.wait()
                self.current = extended

    def clear(self) -> None:
        """Empty the cache."""
        with self._updating:
            self.current = CachedDocuments.empty()


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
    scales_at = (rows.scales_at + 4 * first if rows.scales_at else 0 * first).astype(np.uint64)
    return Documents(rows_at, scales_at, np.diff(offsets).astype(np.int32))
