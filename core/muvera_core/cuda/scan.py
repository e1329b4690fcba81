"""Stage one on a card: an exact scan of all documents' vectors, where that is faster than what the host does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from muvera_core.cuda.device import CudaDevice, Lane
from muvera_core.cuda.residence import n_held
from muvera_core.stage_one import Candidates, StageOne
from muvera_core.storage import Snapshot
from muvera_core.token_embeddings import FloatArray, IntArray

_VECTORS_AT_ONCE = 4096
# Searches that are timed with either, for as many hits as are usual; the median decides.
_TRIALS = 7
_HITS = 10
# Timed again when the number of documents has grown by this factor, which favours a graph.
_GROWTH = 1.5
# Deleted documents' vectors are scanned, too, so when there are so many, all are brought anew.
_MAX_DELETED = 0.25


@dataclass(frozen=True, eq=False)
class _Scanned:
    """All vectors of one committed state.

    Attributes:
        snapshot: the state.
        keys: of the rows, ascending, int64; deleted ones among them.
        parts: the vectors, on the card, float32, (rows, dimension) each.
        is_dead: which rows are deleted, on the card, bool; None where none is.
    """

    snapshot: Snapshot
    keys: IntArray
    parts: tuple[Any, ...]
    is_dead: Any


class CudaScan:
    """Finds candidates by inner products with all vectors. Any number of threads may search while one updates."""

    def __init__(self, device: CudaDevice, dimension: int) -> None:
        """Start with nothing on the card.

        Args:
            device: the card.
            dimension: width of the vectors.
        """
        self._device, self._dimension = device, dimension
        self._now: _Scanned | None = None
        self._is_faster = False
        self._n_timed = 0
        self._changing = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Memory of the card that the vectors take."""
        now = self._now
        return 0 if now is None else 4 * self._dimension * len(now.keys)

    @property
    def is_used(self) -> bool:
        """Whether searches go to the card: it has all vectors, and was faster."""
        return self._now is not None and self._is_faster

    def update(self, snapshot: Snapshot, stage_one: StageOne, room: int) -> None:
        """Bring the vectors to the card that aren't there, and time searches; let go of all where there is no room.

        Args:
            snapshot: the committed state.
            stage_one: what the host has of it.
            room: bytes of the card that may be taken.

        Raises:
            DeviceError: the card fails.
        """
        with self._changing:
            keys = snapshot.keys
            if 4 * self._dimension * len(keys) > room or not len(keys):
                self._now, self._n_timed = None, 0
                return
            grows = len(keys) > _GROWTH * self._n_timed
            if not grows and not self._is_faster:
                self._now = None  # not worth the room
                return
            with self._device.lane() as lane:
                self._now = self._with_vectors(snapshot, stage_one.candidates, lane)
            if grows:
                self._n_timed = len(keys)
                self._is_faster = self._beats(stage_one, snapshot)
                if not self._is_faster:
                    self._now = None

    def search(self, snapshot: Snapshot, query: FloatArray, k: int) -> IntArray | None:
        """Keys of the ``k`` documents of highest inner product, best first, ties by rising key.

        Returns:
            int64; None where the card hasn't just this state's vectors or was slower than the host.

        Raises:
            DeviceError: the card fails.
        """
        now = self._now
        return self._search(now, query, k) if now is not None and now.snapshot is snapshot else None

    def _search(self, now: _Scanned, query: FloatArray, k: int) -> IntArray:
        cupy = self._device.cupy
        with self._device.lane() as lane:
            vector = cupy.empty(self._dimension, dtype=np.float32)
            lane.send_to(vector, query)
            scores = cupy.concatenate([part @ vector for part in now.parts])
            if now.is_dead is not None:
                scores[now.is_dead] = -np.inf
            k = min(k, len(now.snapshot))
            order = cupy.argsort(-scores)[:k]  # stable, so that ties go to the lower key
            best: IntArray = now.keys[lane.receive(order)]
            return best

    def _with_vectors(self, snapshot: Snapshot, candidates: Candidates, lane: Lane) -> _Scanned:
        cupy, now = self._device.cupy, self._now
        keys: IntArray = np.empty(0, dtype=np.int64)
        parts: tuple[Any, ...] = ()
        n_live = 0
        if now is not None and (n_live := n_held(now.keys, snapshot.keys, _MAX_DELETED)):
            keys, parts = now.keys, now.parts
        new = snapshot.keys[n_live:]
        if len(new):
            part = cupy.empty((len(new), self._dimension), dtype=np.float32)
            for start in range(0, len(new), _VECTORS_AT_ONCE):
                some = new[start : start + _VECTORS_AT_ONCE]
                lane.send_to(part[start : start + len(some)], candidates.vectors(some))
            parts = (*parts, part)
        all_keys = np.concatenate([keys, new])
        on_card = None
        if len(all_keys) > len(snapshot):
            on_card = cupy.asarray(~np.isin(all_keys, snapshot.keys, assume_unique=True))
        lane.stream.synchronize()
        return _Scanned(snapshot, all_keys, parts, on_card)

    def _beats(self, stage_one: StageOne, snapshot: Snapshot) -> bool:
        """Whether the card is faster than the host, for documents' vectors in the place of queries'."""
        now = self._now
        assert now is not None
        k = min(stage_one.n_candidates(_HITS), len(snapshot))
        vectors = stage_one.candidates.vectors(np.random.default_rng(0).choice(snapshot.keys, _TRIALS))

        def seconds(search: Callable[[FloatArray], IntArray]) -> float:
            times = []
            for vector in vectors:
                start = time.perf_counter()
                search(vector)
                times.append(time.perf_counter() - start)
            return float(np.median(times))

        on_card = seconds(lambda vector: self._search(now, vector, k))
        return on_card < seconds(lambda vector: stage_one.search(vector, k))
