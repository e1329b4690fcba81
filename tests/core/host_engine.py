"""A GPU simulated with NumPy, so that everything but the kernels is tested without a GPU.

It has the interfaces of ``CudaDevice``, ``CudaEngine`` and ``CudaSession``, and computes with the CPU's own MaxSim. It
also detects what would be a fault on a GPU: the use of an address whose memory has been freed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.cuda.engine import Documents, GpuRows, Scores
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.errors import DeviceError
from muvera_core.maxsim.cpu import maxsim_scaled
from muvera_core.storage.token_codec import Rows, TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray


class HostDevice:
    """Takes the place of a ``CudaDevice``."""

    number, name, n_bytes = 0, "cuda:0", 0
    cupy = np

    def __init__(self, free: int = 1 << 30) -> None:
        self.free, self.fails, self.released = free, False, 0

    def free_bytes(self) -> int:
        return self.free

    def release(self) -> None:
        self.released += 1

    @contextmanager
    def workspace(self) -> Iterator[Any]:
        if self.fails:
            raise DeviceError("cuda:0 has too little free memory (out of memory)")
        yield SimpleNamespace(
            send_to=lambda target, array: target.__setitem__(slice(None), array),
            receive=lambda array: array.copy(),
            stream=SimpleNamespace(synchronize=lambda: None),
        )


class HostEngine:
    """Takes the place of a ``CudaEngine``."""

    def __init__(self, device: HostDevice, codec: TokenCodec) -> None:
        self.layout, self.device = RowLayout.of(codec), device
        # Rows in slices come as rows of int8.
        self.codec = TokenCodec("int8", codec.dimension) if codec.is_sliced else codec
        self.memory: dict[int, tuple[FloatArray, weakref.ref[GpuRows]]] = {}
        self.uploaded: list[int] = []  # number of rows in each call of ``upload``
        self.prepared: list[int] = []  # number of queries in each call of ``prepare``
        self.next, self.lock = 1 << 20, threading.Lock()

    @contextmanager
    def session(self) -> Iterator[HostSession]:
        if self.device.fails:
            raise DeviceError("cuda:0 cannot be used: unspecified launch failure")
        yield HostSession(self)


class HostSession:
    def __init__(self, engine: HostEngine) -> None:
        self.engine, self.scores = engine, list[FloatArray]()

    def upload(self, rows: Rows) -> GpuRows:
        engine = self.engine
        with engine.lock:
            engine.uploaded.append(len(rows))
            uploaded = GpuRows(engine.next, 1 if engine.layout.is_int8 else 0, ())
            engine.memory[engine.next] = engine.codec.decode(rows, np.arange(len(rows) + 1)), weakref.ref(uploaded)
            engine.next += len(rows) * engine.layout.row_bytes + 256
            return uploaded

    def wait(self) -> None:
        pass

    def prepare(self, queries: Sequence[FloatArray]) -> list[FloatArray]:
        self.engine.prepared.append(len(queries))
        return list(queries)

    def on_gpu(self, documents: Documents) -> Documents:
        return documents

    def score_lists(
        self, queries: list[FloatArray], documents: Documents, places: npt.NDArray[np.int32], lists: IntArray
    ) -> Scores:
        parts = [
            self._scores(query, documents[places[first:end]])
            for query, first, end in zip(queries, lists[:-1], lists[1:], strict=True)
        ]
        return self._stored(np.concatenate(parts), lists)

    def score_all(self, queries: list[FloatArray], documents: Documents) -> Scores:
        values = np.stack([self._scores(query, documents) for query in queries])
        return self._stored(values.reshape(-1), np.arange(len(queries) + 1) * len(documents))

    def select(self, scores: Scores, k: int | None) -> Any:
        k = scores.longest if k is None else min(k, scores.longest)
        places = np.full((len(scores.lists) - 1, k), -1, dtype=np.int32)
        values = np.full(places.shape, -np.inf, dtype=np.float32)
        flat = self.scores[scores.values_at]
        for i, (first, end) in enumerate(pairwise(scores.lists)):
            best = np.sort(np.argsort(-flat[first:end], kind="stable")[:k])
            places[i, : len(best)], values[i, : len(best)] = best, flat[first:end][best]
        return places, values

    def fetch(self, selected: Any) -> Any:
        return selected

    def _stored(self, values: FloatArray, lists: IntArray) -> Scores:
        self.scores.append(values)
        return Scores(len(self.scores) - 1, lists, int(np.diff(lists).max()), 0, 0)

    def _scores(self, query: FloatArray, documents: Documents) -> FloatArray:
        scores = np.empty(len(documents), dtype=np.float32)
        bases = np.array(sorted(self.engine.memory))
        for i, (address, n) in enumerate(zip(documents.rows_at.tolist(), documents.n_tokens.tolist(), strict=True)):
            base = int(bases[np.searchsorted(bases, address, side="right") - 1])
            vectors, owner = self.engine.memory[base]
            assert owner() is not None, "rows were freed while they were needed"
            first = (address - base) // self.engine.layout.row_bytes
            assert first + n <= len(vectors)
            offsets = np.array([0, n], dtype=np.int64)
            scores[i] = maxsim_scaled(query, vectors[first : first + n], None, offsets)[0]
        return scores
