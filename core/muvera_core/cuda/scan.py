"""Stage one on the GPU: an exact scan of all documents' vectors, if that is faster than a search on the CPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from muvera_core.cuda.device import CudaDevice, Workspace
from muvera_core.cuda.document_cache import n_still_cached
from muvera_core.stage_one import Candidates, StageOne
from muvera_core.storage import Snapshot
from muvera_core.token_embeddings import FloatArray, IntArray

_VECTORS_AT_ONCE = 4096
# Number of searches that are timed on the GPU and on the CPU, for the usual number of hits. The medians are compared.
_TRIALS = 7
_HITS = 10
# Searches are timed again when the number of documents has grown by this factor: growth favours the CPU's graph.
_GROWTH = 1.5
# Vectors of deleted documents are scanned too. If more than this share is deleted, all vectors are copied again.
_MAX_DELETED = 0.25


@dataclass(frozen=True, eq=False)
class _SnapshotVectors:
    """All vectors of one snapshot.

    Attributes:
        snapshot: the snapshot.
        keys: the rows' keys, ascending, int64, including deleted documents.
        parts: the vectors, GPU arrays, float32, shape (rows, dimension) each.
        is_deleted: which rows belong to deleted documents, GPU array, bool; None if none do.
    """

    snapshot: Snapshot
    keys: IntArray
    parts: tuple[Any, ...]
    is_deleted: Any


class CudaScan:
    """Finds candidates by inner products with all vectors. Any number of threads may search while one updates it."""

    def __init__(self, device: CudaDevice, dimension: int) -> None:
        """Start with nothing on the GPU.

        Args:
            device: the GPU.
            dimension: width of the vectors.
        """
        self._device, self._dimension = device, dimension
        self._current: _SnapshotVectors | None = None
        self._is_faster = False
        self._n_timed = 0
        self._updating = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """GPU memory that the vectors take."""
        current = self._current
        return 0 if current is None else 4 * self._dimension * len(current.keys)

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
            keys = snapshot.keys
            if 4 * self._dimension * len(keys) > room or not len(keys):
                self._current, self._n_timed = None, 0
                return
            grows = len(keys) > _GROWTH * self._n_timed
            if not grows and not self._is_faster:
                self._current = None  # it would not be used
                return
            with self._device.workspace() as workspace:
                self._current = self._with_vectors(snapshot, stage_one.candidates, workspace)
            if grows:
                self._n_timed = len(keys)
                self._is_faster = self._is_faster_than_cpu(stage_one, snapshot)
                if not self._is_faster:
                    self._current = None

    def search(self, snapshot: Snapshot, query: FloatArray, k: int) -> IntArray | None:
        """Keys of the ``k`` documents of highest inner product, best first, ties by rising key.

        Returns:
            int64; None if the GPU was slower than the CPU, or holds the vectors of another snapshot.

        Raises:
            DeviceError: the GPU fails.
        """
        current = self._current
        return self._search(current, query, k) if current is not None and current.snapshot is snapshot else None

    def _search(self, current: _SnapshotVectors, query: FloatArray, k: int) -> IntArray:
        cupy = self._device.cupy
        with self._device.workspace() as workspace:
            vector = cupy.empty(self._dimension, dtype=np.float32)
            workspace.send_to(vector, query)
            scores = cupy.concatenate([part @ vector for part in current.parts])
            if current.is_deleted is not None:
                scores[current.is_deleted] = -np.inf
            k = min(k, len(current.snapshot))
            order = cupy.argsort(-scores)[:k]  # stable, so that ties go to the lower key
            best: IntArray = current.keys[workspace.receive(order)]
            return best

    def _with_vectors(self, snapshot: Snapshot, candidates: Candidates, workspace: Workspace) -> _SnapshotVectors:
        cupy, current = self._device.cupy, self._current
        keys: IntArray = np.empty(0, dtype=np.int64)
        parts: tuple[Any, ...] = ()
        n_live = 0
        if current is not None and (n_live := n_still_cached(current.keys, snapshot.keys, _MAX_DELETED)):
            keys, parts = current.keys, current.parts
        new = snapshot.keys[n_live:]
        if len(new):
            part = cupy.empty((len(new), self._dimension), dtype=np.float32)
            for start in range(0, len(new), _VECTORS_AT_ONCE):
                batch = new[start : start + _VECTORS_AT_ONCE]
                workspace.send_to(part[start : start + len(batch)], candidates.vectors(batch))
            parts = (*parts, part)
        all_keys = np.concatenate([keys, new])
        is_deleted = None
        if len(all_keys) > len(snapshot):
            is_deleted = cupy.asarray(~np.isin(all_keys, snapshot.keys, assume_unique=True))
        workspace.stream.synchronize()
        return _SnapshotVectors(snapshot, all_keys, parts, is_deleted)

    def _is_faster_than_cpu(self, stage_one: StageOne, snapshot: Snapshot) -> bool:
        """Whether the GPU is faster than the CPU. The vectors of random documents serve as queries."""
        current = self._current
        assert current is not None
        k = min(stage_one.n_candidates(_HITS), len(snapshot))
        vectors = stage_one.candidates.vectors(np.random.default_rng(0).choice(snapshot.keys, _TRIALS))

        def seconds(search: Callable[[FloatArray], IntArray]) -> float:
            times = []
            for vector in vectors:
                start = time.perf_counter()
                search(vector)
                times.append(time.perf_counter() - start)
            return float(np.median(times))

        on_gpu = seconds(lambda vector: self._search(current, vector, k))
        return on_gpu < seconds(lambda vector: stage_one.search(vector, k))
