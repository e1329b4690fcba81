"""The host's own share of reranking on a GPU. It needs no GPU: a driver takes its place that returns at once.

usage: python tests/benchmarks/gpu_host_share.py [--seconds 2]

Requests are those of gpu.py: queries of 32 tokens, each with 1,000 candidates of its own among 100,000 passages of 128
tokens, float16. What is left is checking, packing queries and keys, launching, and unpacking. A real driver needs some
microseconds more for each launch and copy; but then the GPU has begun to work. The same is timed without the compiled
code. Figures are medians and their spread over ten rounds, in which both take turns. Needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from machine import describe_machine

from muvera_core.collection import RerankRequest
from muvera_core.cuda import device, list_ranker
from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.engine import CudaEngine
from muvera_core.cuda.reranker import CudaReranker
from muvera_core.native import NUMPY, VARIABLE
from muvera_core.storage.snapshot import Snapshot, SnapshotRows
from muvera_core.storage.token_codec import Rows, TokenCodec
from muvera_core.storage.token_log import MemoryTokenLog
from muvera_core.token_embeddings import IntArray

D, QUERY_TOKENS, K = 128, 32, 10
N_CANDIDATES, PASSAGE_TOKENS, N_PASSAGES = 1000, 128, 100_000
ROUNDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2, help="time to spend on each figure (default: 2)")
    arguments = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        list_ranker.DRIVER = str(instant_driver(Path(folder)))
        device._import_cupy = lambda: INSTANT_CUPY
        reranker = made_reranker()
        for n_queries in (1, 64):
            calls = [partial(reranker.rank, batch, K) for batch in batches(n_queries)]
            measure(n_queries, calls, arguments.seconds)
        reranker.clear()


def measure(n_queries: int, calls: Sequence[Callable[[], object]], seconds: float) -> None:
    medians: dict[str, list[float]] = {"compiled": [], "Python": []}
    for _ in range(ROUNDS):
        medians["compiled"].append(median_seconds(calls, seconds / ROUNDS))
        os.environ[VARIABLE] = NUMPY
        medians["Python"].append(median_seconds(calls, seconds / ROUNDS))
        del os.environ[VARIABLE]
    shares = ", ".join(
        f"{name} {np.median(each) * 1e6:.0f} µs ({min(each) * 1e6:.0f} to {max(each) * 1e6:.0f})"
        for name, each in medians.items()
    )
    print(f"{n_queries} quer{'y' if n_queries == 1 else 'ies'}: {shares}")


def made_reranker() -> CudaReranker:
    codec = TokenCodec("float16", D)
    keys = np.arange(N_PASSAGES, dtype=np.int64)
    reranker = CudaReranker(CudaEngine(CudaDevice(0), codec), NoRows(codec), codec, 1 << 40)
    reranker.update(snapshot(codec, keys))
    return reranker


class NoRows:
    """Gives one row for all passages, whose contents do not matter here."""

    def __init__(self, codec: TokenCodec) -> None:
        self._row = np.zeros(1, dtype=codec.row_dtype)

    def token_rows(self, snapshot: Snapshot, keys: IntArray) -> tuple[Rows, IntArray]:
        return self._row, np.zeros(len(keys) + 1, dtype=np.int64)


def snapshot(codec: TokenCodec, keys: IntArray) -> Snapshot:
    zeros = np.zeros(len(keys), dtype=np.int64)
    counts = np.full(len(keys), PASSAGE_TOKENS, dtype=np.int64)
    return Snapshot.of(1, SnapshotRows(keys, zeros, zeros, counts, zeros), MemoryTokenLog(codec, 0))


def batches(n_queries: int) -> list[list[RerankRequest]]:
    rng = np.random.default_rng(1)
    of = snapshot(TokenCodec("float16", D), np.arange(N_PASSAGES, dtype=np.int64))
    return [
        [
            RerankRequest(
                rng.standard_normal((QUERY_TOKENS, D), dtype=np.float32),
                of,
                np.sort(rng.choice(N_PASSAGES, N_CANDIDATES, replace=False)),
            )
            for _ in range(n_queries)
        ]
        for _ in range(8)
    ]


def median_seconds(calls: Sequence[Callable[[], object]], seconds: float) -> float:
    """Median seconds of calls, which take turns."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 10 or time.perf_counter() < end:
        call = calls[len(times) % len(calls)]
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def instant_driver(folder: Path) -> Path:
    library = folder / "libinstant_cuda.so"
    source = Path(__file__).with_name("instant_cuda.cpp")
    subprocess.run(
        [os.environ.get("CXX", "c++"), "-std=c++17", "-O2", "-shared", "-fPIC", "-o", library, source], check=True
    )
    return library


class Context:
    """A device, a stream or an event of CuPy that does nothing."""

    compute_capability, ptr = "90", 0
    attributes: ClassVar = {"MultiProcessorCount": 132}

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def record(self, stream: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Memory:
    """An array of the GPU, in the host's memory."""

    def __init__(self, values: Any) -> None:
        self.values, self.dtype, self.nbytes = values, values.dtype, values.nbytes
        self.data = SimpleNamespace(ptr=values.ctypes.data)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: slice) -> Memory:
        return Memory(self.values[key])


class Function:
    """A kernel of CuPy that does nothing."""

    ptr = 0

    def __call__(self, *_: object, **__: object) -> None:
        pass


class Pool:
    """A memory pool of CuPy."""

    def malloc(self, n_bytes: int) -> Any:
        return bytearray(n_bytes)

    def free_all_blocks(self) -> None:
        pass


INSTANT_CUPY: Any = SimpleNamespace(
    empty=lambda shape, dtype: Memory(np.zeros(shape, dtype)),
    zeros=lambda shape, dtype: Memory(np.zeros(shape, dtype)),
    RawModule=lambda **_: SimpleNamespace(get_function=lambda name: SimpleNamespace(kernel=Function())),
    cuda=SimpleNamespace(
        Device=Context,
        Stream=Context,
        Event=Context,
        MemoryPool=Pool,
        PinnedMemoryPool=Pool,
        using_allocator=lambda allocate: nullcontext(),
        get_current_stream=Context,
        runtime=SimpleNamespace(getDeviceCount=lambda: 1, memcpyAsync=lambda *_: None, memcpyDefault=4),
    ),
)


if __name__ == "__main__":
    main()
