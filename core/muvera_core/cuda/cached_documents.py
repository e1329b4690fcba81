"""The documents that a GPU has cached at one moment: their keys, and where their rows are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from muvera_core.cuda.columns import Column
from muvera_core.cuda.gpu_data import Documents
from muvera_core.cuda.row_blocks import RowBlocks
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.cuda.session import CudaSession
from muvera_core.token_embeddings import IntArray

# If a larger share of the cached documents has been deleted, the cache is rebuilt.
MAX_DELETED = 0.5


@dataclass(frozen=True, eq=False)
class GpuColumns:
    """What the GPU knows of the cached documents. See ``CachedDocuments`` for the columns of the same names.

    Attributes:
        rows_at: address of each document's first row, uint64.
        scales_at: address of each document's first scale, uint64; 0 if rows have no scales.
        n_tokens: number of tokens of each document, int32.
        place_of_key: int32.
        dead: int32.
    """

    rows_at: Column
    scales_at: Column
    n_tokens: Column
    place_of_key: Column
    dead: Column

    @classmethod
    def empty(cls) -> GpuColumns:
        """Columns without memory."""
        addresses = Column.empty(np.uint64), Column.empty(np.uint64)
        return cls(*addresses, *(Column.empty(np.int32) for _ in range(3)))

    @property
    def columns(self) -> tuple[Column, ...]:
        """All five columns, in order."""
        return self.rows_at, self.scales_at, self.n_tokens, self.place_of_key, self.dead

    @staticmethod
    def sizes(n_documents: int, n_keys: int) -> tuple[int, ...]:
        """How long the columns become. There is room for as many deletions as there can be before a rebuild."""
        return n_documents, n_documents, n_documents, n_keys, int(MAX_DELETED * n_documents)


@dataclass(frozen=True, eq=False)
class CachedDocuments:
    """The documents whose rows are on the GPU at one moment. The rows stay there as long as this object is used.

    Later objects share its memory: they append to it, and never change what this object shows.

    Attributes:
        rows: the memory of the rows.
        key_column: the documents' keys, ascending, int64; deleted documents included.
        place_of_key: index of each key among the documents, int32; -1 for keys that are not cached. Keys from
            ``n_keys`` on are not cached.
        dead: indices of documents that have been deleted, int32, in the order of their deletion.
        gpu: the columns of the GPU.
        on_gpu: the addresses of the rows, on the GPU.
        compared: the last array that was compared with the keys of the live documents, and whether it was equal; at
            most one entry.
    """

    rows: RowBlocks
    key_column: Column
    place_of_key: Column
    dead: Column
    gpu: GpuColumns
    on_gpu: Documents
    compared: list[tuple[IntArray, bool]] = field(default_factory=list)

    @classmethod
    def empty(cls, layout: RowLayout) -> CachedDocuments:
        """No documents."""
        numbers = Column.empty(np.int64), Column.empty(np.int32), Column.empty(np.int32)
        return cls._of(RowBlocks(layout), *numbers, GpuColumns.empty())

    @classmethod
    def _of(cls, rows: RowBlocks, keys: Column, places: Column, dead: Column, gpu: GpuColumns) -> CachedDocuments:
        on_gpu = Documents(gpu.rows_at.values, gpu.scales_at.values, gpu.n_tokens.values)
        return cls(rows, keys, places, dead, gpu, on_gpu)

    @property
    def keys(self) -> IntArray:
        """The documents' keys, ascending, int64, shape (documents,); deleted documents included."""
        keys: IntArray = self.key_column.values
        return keys

    @property
    def n_keys(self) -> int:
        """Length of the table of places: the highest key and 1."""
        return len(self.place_of_key)

    @property
    def places_at(self) -> int:
        """Address on the GPU of the place of each key, int32, shape (n_keys,)."""
        return self.gpu.place_of_key.address

    @property
    def dead_at(self) -> int:
        """Address on the GPU of the places of deleted documents, int32, shape (n_dead,)."""
        return self.gpu.dead.address

    @property
    def n_dead(self) -> int:
        """Number of deleted documents."""
        return len(self.dead)

    @property
    def n_bytes(self) -> int:
        """GPU memory, with its spare room."""
        return self.rows.n_bytes + sum(column.n_bytes for column in self.gpu.columns)

    def __len__(self) -> int:
        return len(self.key_column)

    def n_bytes_for(self, n_documents: int, n_keys: int, n_rows: int) -> int:
        """Most GPU memory that is taken while the cache is extended.

        Args:
            n_documents: number of documents, cached ones included.
            n_keys: the highest key and 1.
            n_rows: number of rows that are added.
        """
        sizes = GpuColumns.sizes(n_documents, n_keys)
        n_bytes = (column.n_bytes_for(size) for column, size in zip(self.gpu.columns, sizes, strict=True))
        return self.rows.n_bytes_for(n_rows) + sum(n_bytes)

    def places(self, keys: IntArray) -> npt.NDArray[np.int32]:
        """Index of each key among the documents; -1 if it is not cached."""
        if not self.n_keys:
            return np.full(len(keys), -1, dtype=np.int32)
        places: npt.NDArray[np.int32] = self.place_of_key.values.take(keys, mode="clip")
        places[keys >= self.n_keys] = -1
        return places

    def are_exactly(self, keys: IntArray) -> bool:
        """Whether these keys are those of all cached documents that have not been deleted."""
        if len(keys) != len(self) - self.n_dead:
            return False
        known = self.compared[0] if self.compared else None
        if known is None or known[0] is not keys:
            live = np.delete(self.keys, self.dead.values) if self.n_dead else self.keys
            known = keys, np.array_equal(keys, live)
            self.compared[:] = [known]
        return known[1]

    def deleted_since(self, keys: IntArray) -> npt.NDArray[np.int32]:
        """Places of documents that are not known to be deleted, but are not among these keys; see ``newly_deleted``."""
        return newly_deleted(self.keys, self.dead.values, keys)

    def followed_by(
        self, keys: IntArray, documents: Documents, rows: RowBlocks, dead: npt.NDArray[np.int32], session: CudaSession
    ) -> CachedDocuments:
        """These documents and others with higher keys.

        Args:
            keys: the keys of the others, ascending.
            documents: where their rows are.
            rows: the memory of all rows.
            dead: places of documents that were deleted, not among ``self.dead``.
            session: sends what is new to the GPU. The result may be used by others when it has finished.
        """
        # The keys between the last one and the new ones, and the new ones. They have no entries yet.
        places = np.full(int(keys[-1]) + 1 - self.n_keys if len(keys) else 0, -1, dtype=np.int32)
        places[keys - self.n_keys] = np.arange(len(self), len(self) + len(keys), dtype=np.int32)
        sizes = GpuColumns.sizes(len(self) + len(keys), self.n_keys + len(places))
        gpu = GpuColumns(*session.extended(self.gpu.columns, [*documents.columns, places, dead], sizes))
        columns = self.key_column.followed_by(keys), self.place_of_key.followed_by(places), self.dead.followed_by(dead)
        return self._of(rows, *columns, gpu)


def newly_deleted(keys: IntArray, dead: npt.NDArray[np.int32], live: IntArray) -> npt.NDArray[np.int32]:
    """Places among ``keys`` of documents that are neither live nor known to be dead, int32.

    Args:
        keys: keys of documents, ascending.
        dead: places of documents that are known to be deleted.
        live: the keys of those that exist, ascending.
    """
    if len(live) == len(keys) - len(dead):
        return np.empty(0, dtype=np.int32)
    is_known = np.isin(keys, live, assume_unique=True)
    is_known[dead] = True
    return np.flatnonzero(~is_known).astype(np.int32)
