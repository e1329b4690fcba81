"""Times on a GPU: of calls, of kernels alone, and the rates that no program exceeds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

import cupy
import numpy as np

from muvera_core import native
from muvera_core.cuda import exact, selection, session
from muvera_core.cuda.launch import launch
from muvera_core.token_embeddings import FloatArray

_COPIED_BYTES = 4 << 30
_PRODUCT_SIZE = 8192
# The modules that launch kernels.
LAUNCHING = (exact, selection, session)


class Ceilings(NamedTuple):
    """Rates of the device that are measured before everything else.

    Attributes:
        bytes_per_second: of a copy within the GPU's memory, bytes read and written.
        half_per_second: floating-point operations of a product of half-precision matrices.
    """

    bytes_per_second: float
    half_per_second: float


def measure_ceilings(seconds: float, *, n_bytes: int = _COPIED_BYTES, size: int = _PRODUCT_SIZE) -> Ceilings:
    """The ceilings. Takes about twice ``seconds``."""
    ceilings = Ceilings(_copied_per_second(seconds, n_bytes), _half_per_second(seconds, size))
    cupy.get_default_memory_pool().free_all_blocks()
    return ceilings


def _copied_per_second(seconds: float, n_bytes: int) -> float:
    source, target = cupy.empty(n_bytes // 4, dtype=np.float32), cupy.empty(n_bytes // 4, dtype=np.float32)
    source.fill(1)
    return 2 * n_bytes / seconds_on_gpu(lambda: target.__setitem__(slice(None), source), seconds)


def _half_per_second(seconds: float, size: int) -> float:
    rng = np.random.default_rng(0)
    left, right = (cupy.asarray(rng.standard_normal((size, size), dtype=np.float32).astype(np.float16)) for _ in "ab")
    return 2 * size**3 / seconds_on_gpu(lambda: cupy.matmul(left, right), seconds)


def seconds_on_gpu(call: Callable[[], object], seconds: float) -> float:
    """Median seconds between two events around a call, after a warm-up. Takes about ``seconds``."""
    times = []
    end = time.perf_counter() + seconds
    for i in range(1000):
        before, after = cupy.cuda.Event(), cupy.cuda.Event()
        before.record()
        call()
        after.record()
        after.synchronize()
        if i >= 3:
            times.append(cupy.cuda.get_elapsed_time(before, after) / 1000)
        if i > 8 and time.perf_counter() > end:
            break
    return float(np.median(times))


def median_seconds(calls: Sequence[Callable[[], object]], seconds: float) -> float:
    """Median seconds of calls that wait for their result. The calls take turns, after one round to warm up."""
    for call in calls:
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 10 or (time.perf_counter() < end and len(times) < 10_000):
        start = time.perf_counter()
        calls[len(times) % len(calls)]()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def kernel_seconds(calls: Sequence[Callable[[], object]], n_rounds: int = 3) -> float:
    """Median over calls of the seconds that the GPU spends in the kernels that a call launches.

    Each kernel is timed by two events around its launch. Before each launch the GPU gets other work to do, so that it
    has the events and the kernel at hand when it comes to them, and does not wait for the host between them. The calls
    go the way without compiled code of the host, which launches the same kernels.
    """
    busy = cupy.empty(64 << 20, dtype=np.uint8)
    pairs: list[tuple[Any, Any]] = []

    def timed(*arguments: Any, **options: Any) -> None:
        before, after = cupy.cuda.Event(), cupy.cuda.Event()
        busy.fill(0)
        before.record()
        launch(*arguments, **options)
        after.record()
        pairs.append((before, after))

    totals = []
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {native.VARIABLE: native.NUMPY}))
        for module in LAUNCHING:
            stack.enter_context(mock.patch.object(module, "launch", timed))
        for i in range(n_rounds * len(calls)):
            pairs.clear()
            calls[i % len(calls)]()
            if i >= len(calls):
                totals.append(sum(cupy.cuda.get_elapsed_time(*pair) for pair in pairs) / 1000)
    return float(np.median(totals))


def unit_vectors(n: int, dimension: int, rng: np.random.Generator | None = None) -> FloatArray:
    """Random vectors of unit length, float32, shape (n, dimension)."""
    rng = rng or np.random.default_rng(0)
    vectors = rng.standard_normal((n, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
