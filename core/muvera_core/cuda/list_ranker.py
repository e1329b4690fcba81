"""Ranks lists of cached documents in one call of compiled code, which drives the GPU by itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from muvera_core.cuda.cached_documents import CachedDocuments
from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.selection import SEGMENT
from muvera_core.maxsim import Ranking
from muvera_core.native import kernels
from muvera_core.token_embeddings import FloatArray, IntArray

# One block of threads selects the best of a list.
LONGEST_LIST = SEGMENT
# CUDA's driver, by the name under which CuPy has loaded it.
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


class ListRanker:
    """Ranks a list of cached documents for each query. Any number of threads may use it."""

    def __init__(self, device: CudaDevice, functions: Mapping[str, Any], numbers: Mapping[str, int]) -> None:
        """See ``CudaEngine.list_ranker``.

        Args:
            device: the GPU.
            functions: CuPy's functions of the kernels. They stay loaded as long as this object lives.
            numbers: what the kernels are launched with; ``cuda_ranker.h`` explains them.
        """
        self._device, self._functions, self._numbers = device, functions, numbers
        # Each has streams and memory of its own, and is used by one thread at a time.
        self._idle: list[Any] = []

    @property
    def n_bytes(self) -> int:
        """GPU memory that is held between calls."""
        return sum(ranker.n_bytes for ranker in self._idle.copy())

    def rank(
        self, cached: CachedDocuments, queries: Sequence[FloatArray], lists: Sequence[IntArray], k: int | None
    ) -> list[Ranking] | None:
        """The ``k`` best documents of each list (all if None), by falling MaxSim, ties by rising key.

        Args:
            cached: the documents on the GPU, at least one.
            queries: float32, shape (tokens, dimension) each.
            lists: for each query the keys of its documents, int64, ascending, at most ``LONGEST_LIST``.
            k: number of documents to return for each query.

        Returns:
            The rankings; None if a document is not cached, or if there is no compiled code.

        Raises:
            DeviceError: the GPU fails.
        """
        module = kernels()
        if module is None:
            return None
        counts = _counts(lists, k)
        shape: tuple[Any, ...] = (len(lists), k) if counts is None else (sum(counts),)
        keys, scores = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32)
        at = [int(column.data.ptr) for column in cached.on_gpu.columns]
        given = list(queries), list(lists), cached.places_at, cached.n_keys, *at, -1 if k is None else k, keys, scores
        with self._device.errors():
            ranks_all: bool | None = None
            with suppress(MemoryError):
                ranks_all = self._rank(module, given)
            if ranks_all is None:  # what has failed holds no memory any more, but CuPy may, without need
                self.release()
                self._device.release()
                ranks_all = self._rank(module, given)
        if not ranks_all:
            return None
        if counts is None:
            return list(zip(keys, scores, strict=True))
        bounds = accumulate(counts, initial=0)
        return [(keys[start:end], scores[start:end]) for start, end in pairwise(bounds)]

    def release(self) -> None:
        """Free the memory that is not in use."""
        self._idle.clear()

    def _rank(self, module: Any, given: tuple[Any, ...]) -> bool:
        try:
            ranker = self._idle.pop()
        except IndexError:
            functions = {name: function.ptr for name, function in self._functions.items()}
            ranker = module.CudaRanker(DRIVER, self._device.number, **functions, **self._numbers)
        ranks_all: bool = ranker.rank(*given)
        self._idle.append(ranker)  # not after an error: whatever has failed is made anew
        return ranks_all


def _counts(lists: Sequence[IntArray], k: int | None) -> list[int] | None:
    """How many documents are returned for each list; None if ``k`` for every one."""
    n = list(map(len, lists))
    if k is None:
        return n
    return None if k <= min(n, default=0) else [min(k, each) for each in n]
