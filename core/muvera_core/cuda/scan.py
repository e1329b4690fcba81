"""Stage one on the GPU: an exact scan of all documents' vectors, if that is faster than a search on the CPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from muvera_core.cuda.cached_documents import newly_deleted
from muvera_core.cuda.columns import GROWTH, Column, extended_on_gpu
from muvera_core.cuda.device import CudaDevice, Workspace
from muvera_core.cuda.document_cache import n_still_cached
from muvera_core.stage_one import Candidates, StageOne
from muvera_core.storage import Snapshot
from muvera_core.token_embeddings import FloatArray, IntArray

_VECTORS_AT_ONCE = 4096
# Most inner products that are computed together.
_SCORES_AT_ONCE = 1 << 24
# Number of searches that are timed on the GPU and on the CPU, for the usual number of hits. The medians are compared.
_TRIALS = 7
_HITS = 10
# Searches are timed again when the number of documents has grown by this factor: growth favours the CPU's graph.
_GROWTH = 1.5
# Vectors of deleted documents are scanned too. If more than this share is deleted, all vectors are copied again.
_MAX_DELETED = 0.25


@dataclass(frozen=True, eq=False)
class _ScannedVectors:
    """All vectors of one snapshot. Those of later snapshots are put behind them, into the same memory.

    Attributes:
        snapshot: the snapshot.
        keys: the rows' keys, ascending, int64, including deleted documents.
        matrix: the vectors, GPU array, float32, shape (capacity, dimension). The first rows are in use, one per key.
        dead: rows of deleted documents, int32, in the order of their deletion.
        dead_on_gpu: the same on the GPU.
    """

    snapshot: Snapshot
    keys: Column
    matrix: Any
    dead: Column
    dead_on_gpu: Column

    @classmethod
    def empty(cls, snapshot: Snapshot, matrix: Any) -> _ScannedVectors:
        """No vectors, and memory for them."""
        return cls(snapshot, Column.empty(np.int64), matrix, Column.empty(np.int32), Column.empty(np.int32))

    @property
    def n_bytes(self) -> int:
        """GPU memory, with its spare room."""
        return int(self.matrix.nbytes) + self.dead_on_gpu.n_bytes


class CudaScan:
    """Finds candidates by inner products with all vectors. Any number of threads may search while one updates it."""

    def __init__(self, device: CudaDevice, dimension: int) -> None:
        """Start with nothing on the GPU.

        Args:
            device: the GPU.
            dimension: width of the vectors.
        """
        self._device, self._dimension = device, dimension
        self._current: _ScannedVectors | None = None
        self._is_faster = False
        self._n_timed = 0
        self._updating = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """GPU memory that the vectors take, with its spare room."""
        current = self._current
        return 0 if current is None else current.n_bytes

    @property
    def is_used(self) -> bool:
        """Whether searches run on the GPU: the GPU has all vectors and was faster than the CPU."""
        return self._current is not None and self._is_faster

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether the GPU has all vectors of this snapshot."""
        current = self._current
        return current is not None and current.snapshot is snapshot

    def update(self, snapshot: Snapshot, stage_one: StageOne, room: int) -> None:
        """Copy the vectors that are missing to the GPU, and time searches. Drops all vectors if there is no room.

        Args:
            snapshot: the current snapshot.
            stage_one: the CPU's stage one for it.
            room: bytes of GPU memory that may be taken.

        Raises:
            DeviceError: the GPU fails.
        """
        with self._updating:
            n, most = len(snapshot), room // (4 * self._dimension + 4)  # a row may be marked as deleted
            if n > most or not n:
                self._n_timed = 0
                self._drop()
                return
            grows = n > _GROWTH * self._n_timed
            if not grows and not self._is_faster:
                self._drop()  # it would not be used
                return
            with self._device.workspace() as workspace:
                current = self._with_room(snapshot, most)
                is_moved = self._current is not None and current.matrix is not self._current.matrix
                self._current = self._with_vectors(current, snapshot, stage_one.candidates, workspace)
            if is_moved:
                self._device.free_unused()
            if grows:
                self._n_timed = n
                self._is_faster = self._is_faster_than_cpu(stage_one, snapshot)
                if not self._is_faster:
                    self._drop()

    def search(self, snapshot: Snapshot, queries: FloatArray, k: int) -> list[IntArray] | None:
        """Keys of the ``k`` documents of highest inner product with each query, best first, ties by rising key.

        Args:
            snapshot: the documents.
            queries: float32, shape (queries, dimension).
            k: number of keys.

        Returns:
            int64 arrays; None if the GPU was slower than the CPU, or holds the vectors of another snapshot.

        Raises:
            DeviceError: the GPU fails.
        """
        current = self._current
        return self._search(current, queries, k) if current is not None and current.snapshot is snapshot else None

    def _search(self, current: _ScannedVectors, queries: FloatArray, k: int) -> list[IntArray]:
        cupy = self._device.cupy
        n, k = len(current.keys), min(k, len(current.snapshot))
        step = max(1, _SCORES_AT_ONCE // n)
        with self._device.workspace() as workspace:
            vectors = cupy.empty(queries.shape, dtype=np.float32)
            workspace.send_to(vectors, queries)
            best = cupy.empty((len(queries), k), dtype=np.int64)
            for start in range(0, len(queries), step):
                scores = vectors[start : start + step] @ current.matrix[:n].T
                for i, row in enumerate(scores):
                    if len(current.dead):
                        row[current.dead_on_gpu.values] = -np.inf
                    best[start + i] = cupy.argsort(-row)[:k]  # stable, so that ties go to the lower key
            return list(current.keys.values[workspace.receive(best)])

    def _with_room(self, snapshot: Snapshot, most: int) -> _ScannedVectors:
        """The current vectors, or none, in memory that has room for those of a snapshot.

        Args:
            snapshot: has at most ``most`` documents.
            most: number of rows that the GPU has memory for.
        """
        current, n = self._current, len(snapshot)
        n_live = n_still_cached(current.keys.values, snapshot.keys, _MAX_DELETED) if current is not None else 0
        capacity = n
        if current is not None and n_live:
            n_rows = len(current.keys) + n - n_live
            if n_rows <= len(current.matrix) <= most:
                return current
            # At most half of the memory that is left becomes spare room, so that the last of it is taken in few steps.
            capacity = min(max(n_rows, int(GROWTH * len(current.matrix))), n + (most - n) // 2)
            if n_rows <= capacity and len(current.matrix) + capacity <= most:  # while one is copied, both exist
                matrix = self._device.cupy.empty((capacity, self._dimension), dtype=np.float32)
                matrix[: len(current.keys)] = current.matrix[: len(current.keys)]
                return replace(current, matrix=matrix)
        del current
        self._drop()
        return _ScannedVectors.empty(snapshot, self._device.cupy.empty((capacity, self._dimension), dtype=np.float32))

    def _drop(self) -> None:
        """Free the memory. Searches that still use it keep it until they end."""
        if self._current is not None:
            self._current = None
            self._device.free_unused()

    def _with_vectors(
        self, current: _ScannedVectors, snapshot: Snapshot, candidates: Candidates, workspace: Workspace
    ) -> _ScannedVectors:
        """These vectors and a snapshot's others. There is room for them."""
        keys = current.keys.values
        n_live = int(np.searchsorted(snapshot.keys, keys[-1], side="right")) if len(keys) else 0
        dead = newly_deleted(keys, current.dead.values, snapshot.keys[:n_live])
        new, first = snapshot.keys[n_live:], len(keys)
        for start in range(0, len(new), _VECTORS_AT_ONCE):
            batch = new[start : start + _VECTORS_AT_ONCE]
            rows = current.matrix[first + start : first + start + len(batch)]
            workspace.send_to(rows, candidates.vectors(batch))
        (dead_on_gpu,) = extended_on_gpu(workspace, [current.dead_on_gpu], [dead], [0])
        workspace.stream.synchronize()
        columns = current.keys.followed_by(new), current.matrix, current.dead.followed_by(dead)
        return _ScannedVectors(snapshot, *columns, dead_on_gpu)

    def _is_faster_than_cpu(self, stage_one: StageOne, snapshot: Snapshot) -> bool:
        """Whether the GPU is faster than the CPU. The vectors of random documents serve as queries."""
        current = self._current
        assert current is not None
        k = min(stage_one.n_candidates(_HITS), len(snapshot))
        vectors = stage_one.candidates.vectors(np.random.default_rng(0).choice(snapshot.keys, _TRIALS))

        def seconds(search: Callable[[FloatArray], object]) -> float:
            times = []
            for vector in vectors:
                start = time.perf_counter()
                search(vector)
                times.append(time.perf_counter() - start)
            return float(np.median(times))

        on_gpu = seconds(lambda vector: self._search(current, vector[None], k))
        return on_gpu < seconds(lambda vector: stage_one.search(vector, k))
