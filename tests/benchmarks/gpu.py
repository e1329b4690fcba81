"""Speed of reranking, exact search, encoding and writing on a GPU, compared with measured ceilings and with PyTorch.

usage: python tests/benchmarks/gpu.py [--device N] [--passages 1000000] [--packed 10000000] [--seconds 1] [--no-torch]

The token vectors are random and of unit length, because speed depends only on their number. "Host to host" is the time
from a call with NumPy arrays to its result in NumPy arrays, including all copies. "Kernels" is the GPU's own time in
the kernels that such a call launches. The ceilings are timed by two events around the kernels. All figures are medians,
after warm-up. The whole takes less than four minutes on a GPU with 141 GB. With less memory, ask for fewer passages.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import cupy
import numpy as np
from gpu_timing import Ceilings, kernel_seconds, measure_ceilings, median_seconds, unit_vectors
from gpu_torch import TorchRerank
from machine import describe_machine
from settings import PUBLISHED_FDE

from muvera_core import FixedDimensionalEncoder, TokenEmbeddings
from muvera_core.collection import RerankRequest
from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.engine import CudaEngine
from muvera_core.cuda.reranker import CudaReranker
from muvera_core.cuda.set_encoders import CudaFixedDimensionalEncoder
from muvera_core.maxsim import Ranking
from muvera_core.storage.snapshot import Snapshot, SnapshotRows
from muvera_core.storage.token_codec import Rows, TokenCodec, TokenPrecision
from muvera_core.storage.token_log import MemoryTokenLog
from muvera_core.token_embeddings import IntArray

D, QUERY_TOKENS, K = 128, 32, 10
PASSAGE_TOKENS = 120
# Different passages that the rows of all passages are copies of.
_DIFFERENT = 8192


class Sizes(NamedTuple):
    """How large the measured work is.

    Attributes:
        cached: passages that the candidates of reranking are drawn from: far more than the GPU's caches hold.
        candidates: passages that are reranked for a query.
        candidate_tokens: tokens of each.
        exact: passages of exact search in int8.
        packed: passages of exact search in 2bit.
        encoded: passages that are encoded in one call.
        seconds: time to spend on each figure.
    """

    cached: int = 100_000
    candidates: int = 1000
    candidate_tokens: int = 128
    exact: int = 1_000_000
    packed: int = 10_000_000
    encoded: int = 4096
    seconds: float = 1


def main() -> None:
    started = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--passages", type=int, default=1_000_000, help="passages of exact search in int8")
    parser.add_argument("--packed", type=int, default=10_000_000, help="passages of exact search in 2bit; 0 for none")
    parser.add_argument("--seconds", type=float, default=1, help="time to spend on each figure (default: 1)")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    arguments = parser.parse_args()
    cupy.cuda.Device(arguments.device).use()
    gpu = cupy.cuda.runtime.getDeviceProperties(arguments.device)["name"].decode()
    version = cupy.cuda.runtime.driverGetVersion()
    print(describe_machine())
    print(f"{gpu}, CUDA driver {version // 1000}.{version % 1000 // 10}, CuPy {cupy.__version__}")
    sizes = Sizes(exact=arguments.passages, packed=arguments.packed, seconds=arguments.seconds)
    measure(CudaDevice(arguments.device), measure_ceilings(sizes.seconds), sizes, with_torch=not arguments.no_torch)
    print(f"\nall of it took {time.perf_counter() - started:.0f} s")


def measure(device: CudaDevice, ceilings: Ceilings, sizes: Sizes, *, with_torch: bool) -> None:
    """Measure and print everything."""
    print(
        f"ceilings: copy {ceilings.bytes_per_second / 1e12:.2f} TB/s, read and written; "
        f"half-precision product {ceilings.half_per_second / 1e12:.0f} TFLOP/s"
    )
    rerank(device, ceilings, sizes, with_torch=with_torch)
    exact(device, ceilings, "int8", sizes.exact, (1, 8, 32), sizes.seconds)
    if sizes.packed:
        exact(device, ceilings, "2bit", sizes.packed, (1, 32), sizes.seconds)
    encode(device, sizes)


class Passages:
    """Random passages of equal length. One block of rows is used for all passages."""

    def __init__(self, precision: TokenPrecision, n: int, n_tokens: int) -> None:
        self.codec, self.n_tokens = TokenCodec(precision, D), n_tokens
        n_block = min(n, _DIFFERENT)
        offsets = np.arange(0, n_block * n_tokens + 1, n_tokens)
        encoded = self.codec.encode(unit_vectors(n_block * n_tokens, D), offsets)
        self._block = encoded.view(np.uint8).reshape(n_block, -1)
        self.snapshot = self._snapshot_of(n)

    def grow(self, n: int) -> Snapshot:
        """Another snapshot, with ``n`` more passages."""
        self.snapshot = self._snapshot_of(len(self.snapshot) + n)
        return self.snapshot

    def rows_of(self, keys: IntArray) -> Rows:
        """The stored rows of passages."""
        return self._block.take(keys % len(self._block), axis=0).reshape(-1).view(self.codec.row_dtype)

    def token_rows(self, snapshot: Snapshot, keys: IntArray) -> tuple[Rows, IntArray]:
        return self.rows_of(keys), np.arange(len(keys) + 1, dtype=np.int64) * self.n_tokens

    def _snapshot_of(self, n: int) -> Snapshot:
        keys = np.arange(n, dtype=np.int64)
        zeros = np.zeros(n, dtype=np.int64)
        rows = SnapshotRows(keys, zeros, keys * self.n_tokens, np.full(n, self.n_tokens, dtype=np.int64), zeros)
        return Snapshot.of(1, rows, MemoryTokenLog(self.codec, 0))


def rerank(device: CudaDevice, ceilings: Ceilings, sizes: Sizes, *, with_torch: bool) -> None:
    """Each query with candidates of its own, in float16."""
    passages = Passages("float16", sizes.cached, sizes.candidate_tokens)
    reranker = CudaReranker(CudaEngine(device, passages.codec), passages, passages.codec, 1 << 40)
    reranker.update(passages.snapshot)
    print(
        f"\nrerank {sizes.candidates} of {sizes.cached:,} cached passages of {sizes.candidate_tokens} tokens, float16"
    )
    print(
        f"{'':14}{'host to host':>14}{'kernels':>12}{'queries/s':>12}{'read':>11}{'of copy':>9}"
        + (f"{'against torch':>15}{'compiled':>10}" if with_torch else "")
    )
    rng = np.random.default_rng(1)
    torch_rerank = None
    if with_torch:
        torch_rerank = TorchRerank(device.number, sizes.cached, sizes.candidate_tokens, D, passages.rows_of)
    for n_queries in (1, 64):
        queries = [[unit_vectors(QUERY_TOKENS, D, rng) for _ in range(n_queries)] for _ in range(8)]
        keys = [
            [np.sort(rng.choice(sizes.cached, sizes.candidates, replace=False)) for _ in range(n_queries)]
            for _ in range(8)
        ]
        requests = [
            [RerankRequest(query, passages.snapshot, own) for query, own in zip(*batch, strict=True)]
            for batch in zip(queries, keys, strict=True)
        ]
        calls = [partial(reranker.rank, batch, K) for batch in requests]
        taken = median_seconds(calls, sizes.seconds)
        n_bytes = n_queries * sizes.candidates * sizes.candidate_tokens * D * 2
        rate = n_bytes / taken
        print(
            f"{_named(n_queries):14}{taken * 1e6:>11.0f} µs{kernel_seconds(calls) * 1e6:>9.0f} µs"
            f"{n_queries / taken:>12,.0f}{rate / 1e12:>6.2f} TB/s{rate / ceilings.bytes_per_second:>9.0%}",
            end="",
            flush=True,
        )
        if torch_rerank is not None:
            _require_same(reranker.rank(requests[0], K), torch_rerank.rank(queries[0], keys[0], K, compiled=False))
            for compiled in (False, True):
                theirs = median_seconds(
                    [
                        partial(torch_rerank.rank, q, own, K, compiled=compiled)
                        for q, own in zip(queries, keys, strict=True)
                    ],
                    sizes.seconds,
                )
                print(f"{theirs / taken:>{8 if compiled else 13}.1f} x", end="", flush=True)
        print()
    reranker.clear()
    device.release()


def exact(
    device: CudaDevice,
    ceilings: Ceilings,
    precision: TokenPrecision,
    n: int,
    batches: Sequence[int],
    seconds: float,
) -> None:
    """Every query with all passages, and a small write."""
    passages = Passages(precision, n, PASSAGE_TOKENS)
    reranker = CudaReranker(CudaEngine(device, passages.codec), passages, passages.codec, 1 << 40)
    start = time.perf_counter()
    reranker.update(passages.snapshot)
    loading = time.perf_counter() - start
    row_bytes = reranker.n_bytes / (n * PASSAGE_TOKENS)
    print(
        f"\nexact MaxSim over {n:,} passages of {PASSAGE_TOKENS} tokens, {precision}: {reranker.n_bytes / 1e9:.1f} GB, "
        f"copied to the GPU in {loading:.0f} s"
    )
    print(f"{'':14}{'host to host':>14}{'kernels':>12}{'a query':>12}{'of copy':>9}{'of half':>9}{'of the limit':>14}")
    rng = np.random.default_rng(2)
    keys = passages.snapshot.keys
    for n_queries in batches:
        requests = [
            [RerankRequest(unit_vectors(QUERY_TOKENS, D, rng), passages.snapshot, keys) for _ in range(n_queries)]
            for _ in range(3)
        ]
        calls = [partial(reranker.rank, batch, K) for batch in requests]
        taken = median_seconds(calls, seconds)
        of_copy = n * PASSAGE_TOKENS * row_bytes / taken / ceilings.bytes_per_second
        of_half = 2 * n_queries * QUERY_TOKENS * n * PASSAGE_TOKENS * D / taken / ceilings.half_per_second
        print(
            f"{_named(n_queries):14}{taken * 1e3:>11.2f} ms{kernel_seconds(calls) * 1e3:>9.2f} ms"
            f"{taken / n_queries * 1e3:>9.2f} ms{of_copy:>9.0%}{of_half:>9.0%}{max(of_copy, of_half):>14.0%}",
            flush=True,
        )
    writes = []
    for _ in range(10):
        snapshot = passages.grow(10)
        start = time.perf_counter()
        reranker.update(snapshot)
        writes.append(time.perf_counter() - start)
    print(f"taking in 10 more passages: {np.median(writes) * 1e3:.2f} ms")
    reranker.clear()
    device.release()


def encode(device: CudaDevice, sizes: Sizes) -> None:
    """Document FDEs in the published setting."""
    encoder = FixedDimensionalEncoder(PUBLISHED_FDE)
    accelerated = CudaFixedDimensionalEncoder(encoder, device)
    n, seconds = sizes.encoded, sizes.seconds
    sets = TokenEmbeddings(unit_vectors(n * PASSAGE_TOKENS, D), np.arange(n + 1) * PASSAGE_TOKENS)
    few = min(64, n)
    on_host = TokenEmbeddings(sets.vectors[: few * PASSAGE_TOKENS], sets.offsets[: few + 1])
    tokens = cupy.asarray(sets.vectors)
    taken = {
        "the CPU": median_seconds([lambda: encoder.encode_documents(on_host)], seconds) / few,
        "the GPU, host to host": median_seconds([lambda: accelerated.encode_documents(sets)], seconds) / n,
        "the GPU, tokens already there": median_seconds(
            [lambda: accelerated.encode_documents_on_gpu(tokens, sets.offsets)], seconds
        )
        / n,
    }
    print(f"\ndocument FDEs of {encoder.output_dimension:,} dimensions, {PASSAGE_TOKENS} tokens")
    for name, each in taken.items():
        print(f"{name:40}{1 / each:>12,.0f} documents/s{taken['the CPU'] / each:>9.0f} x")


def _require_same(ours: Sequence[Ranking], theirs: Sequence[tuple[Any, Any]]) -> None:
    """Compare within the error of PyTorch, which adds up products in float32 but rounds them to float16."""
    for (keys, scores), (their_keys, their_scores) in zip(ours, theirs, strict=True):
        assert len(np.intersect1d(keys, their_keys)) >= K - 2, "the two rankings differ"
        np.testing.assert_allclose(scores, their_scores, rtol=5e-3)


def _named(n_queries: int) -> str:
    return "1 query" if n_queries == 1 else f"{n_queries} queries"


if __name__ == "__main__":
    main()
