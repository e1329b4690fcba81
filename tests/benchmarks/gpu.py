"""Speed of reranking, exact search and encoding on a GPU, compared with measured ceilings and with PyTorch.

usage: python tests/benchmarks/gpu.py [--device N] [--passages 1000000] [--seconds 2] [--no-torch]

The token vectors are random and of unit length, because speed depends only on their number. "host to host" is the time
from a call with NumPy arrays to its result in NumPy arrays, including all copies. The ceilings are timed by two events
around the kernels. All figures are medians, after warm-up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import cupy
import numpy as np
from machine import describe_machine
from settings import PUBLISHED_FDE

from muvera_core import FixedDimensionalEncoder, TokenEmbeddings
from muvera_core.collection import RerankRequest
from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.engine import CudaEngine
from muvera_core.cuda.reranker import CudaReranker
from muvera_core.cuda.set_encoders import CudaFixedDimensionalEncoder
from muvera_core.storage.snapshot import Snapshot, SnapshotRows
from muvera_core.storage.token_codec import Rows, TokenCodec, TokenPrecision
from muvera_core.storage.token_log import MemoryTokenLog
from muvera_core.token_embeddings import FloatArray, IntArray

D, QUERY_TOKENS, K = 128, 32, 10
N_CANDIDATES, CANDIDATE_TOKENS, PASSAGE_TOKENS = 1000, 128, 120
N_CANDIDATE_PASSAGES = 100_000  # candidates are drawn from these: far more than the GPU's caches hold


class Ceilings(NamedTuple):
    bytes_per_second: float
    half_per_second: float  # floating-point operations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument(
        "--passages", type=int, default=1_000_000, help="number of passages for exact search (default: 1,000,000)"
    )
    parser.add_argument("--seconds", type=float, default=1, help="time to spend on each figure (default: 1)")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    arguments = parser.parse_args()
    cupy.cuda.Device(arguments.device).use()
    gpu = cupy.cuda.runtime.getDeviceProperties(arguments.device)["name"].decode()
    version = cupy.cuda.runtime.driverGetVersion()
    print(describe_machine())
    print(f"{gpu}, CUDA driver {version // 1000}.{version % 1000 // 10}, CuPy {cupy.__version__}")
    ceilings = measure_ceilings(arguments.seconds)
    print(
        f"ceilings: copy {ceilings.bytes_per_second / 1e12:.2f} TB/s, read and written; "
        f"half-precision product {ceilings.half_per_second / 1e12:.0f} TFLOP/s"
    )
    device = CudaDevice(arguments.device)
    rerank(device, ceilings, arguments.seconds, with_torch=not arguments.no_torch)
    exact(device, ceilings, arguments.passages, arguments.seconds)
    encode(device, arguments.seconds)


def measure_ceilings(seconds: float) -> Ceilings:
    ceilings = Ceilings(copied_per_second(seconds), half_per_second(seconds))
    cupy.get_default_memory_pool().free_all_blocks()
    return ceilings


def copied_per_second(seconds: float) -> float:
    source = cupy.random.random(1 << 30, dtype=cupy.float32)
    target = cupy.empty_like(source)
    n_bytes: int = 2 * source.nbytes
    return n_bytes / seconds_on_gpu(lambda: cupy.copyto(target, source), seconds)


def half_per_second(seconds: float) -> float:
    n = 8192
    left, right = (cupy.random.standard_normal((n, n), dtype=cupy.float32).astype(cupy.float16) for _ in range(2))
    product = cupy.empty((n, n), dtype=cupy.float16)
    return 2 * n**3 / seconds_on_gpu(lambda: cupy.matmul(left, right, out=product), seconds)


class Passages:
    """Random passages of equal length. One block of rows is used for all passages."""

    def __init__(self, precision: TokenPrecision, n: int, n_tokens: int) -> None:
        self.codec, self.n_tokens = TokenCodec(precision, D), n_tokens
        n_block = min(n, 8192)
        self._block = (
            self.codec.encode(unit_vectors(n_block * n_tokens), np.arange(0, n_block * n_tokens + 1, n_tokens))
            .view(np.uint8)
            .reshape(n_block, -1)
        )
        keys = np.arange(n, dtype=np.int64)
        zeros = np.zeros(n, dtype=np.int64)
        rows = SnapshotRows(keys, zeros, keys * n_tokens, np.full(n, n_tokens, dtype=np.int64), zeros)
        self.snapshot = Snapshot.of(1, rows, MemoryTokenLog(self.codec, 0))

    def token_rows(self, snapshot: Snapshot, keys: IntArray) -> tuple[Rows, IntArray]:
        rows = self._block.take(keys % len(self._block), axis=0).reshape(-1).view(self.codec.row_dtype)
        return rows, np.arange(len(keys) + 1, dtype=np.int64) * self.n_tokens


def rerank(device: CudaDevice, ceilings: Ceilings, seconds: float, *, with_torch: bool) -> None:
    passages = Passages("float16", N_CANDIDATE_PASSAGES, CANDIDATE_TOKENS)
    reranker = CudaReranker(CudaEngine(device, passages.codec), passages, passages.codec, 1 << 40)
    reranker.update(passages.snapshot)
    print(f"\nrerank {N_CANDIDATES} of {N_CANDIDATE_PASSAGES} cached passages of {CANDIDATE_TOKENS} tokens, float16")
    print(
        f"{'':28}{'host to host':>14}{'queries/s':>12}{'read':>11}{'of copy':>9}{'against torch':>15}{'compiled':>10}"
    )
    rng = np.random.default_rng(1)
    torch_rerank = TorchRerank(device.number, passages) if with_torch else None
    for n_queries in (1, 64):
        batches = [
            (
                [unit_vectors(QUERY_TOKENS, rng) for _ in range(n_queries)],
                [np.sort(rng.choice(N_CANDIDATE_PASSAGES, N_CANDIDATES, replace=False)) for _ in range(n_queries)],
            )
            for _ in range(8)
        ]
        requests = [
            [RerankRequest(query, passages.snapshot, keys) for query, keys in zip(*batch, strict=True)]
            for batch in batches
        ]
        taken = median_seconds([partial(reranker.rank, batch, K) for batch in requests], seconds)
        n_bytes = n_queries * N_CANDIDATES * CANDIDATE_TOKENS * D * 2
        rate = n_bytes / taken
        print(
            f"{f'{n_queries} quer' + ('y' if n_queries == 1 else 'ies'):28}{taken * 1e6:>11.0f} µs"
            f"{n_queries / taken:>12,.0f}{rate / 1e12:>6.2f} TB/s{rate / ceilings.bytes_per_second:>9.0%}",
            end="",
            flush=True,
        )
        if torch_rerank is not None:
            check_same(reranker.rank(requests[0], K), torch_rerank.rank(*batches[0], compiled=False))
            for compiled in (False, True):
                calls = [partial(torch_rerank.rank, *batch, compiled=compiled) for batch in batches]
                theirs = median_seconds(calls, seconds)
                print(f"{theirs / taken:>13.1f} x" if not compiled else f"{theirs / taken:>8.1f} x", end="", flush=True)
        print()
    reranker.clear()
    device.release()


class TorchRerank:
    """The usual way in PyTorch: gather the candidates' tokens, padded to one length, multiply, maximum, sum."""

    def __init__(self, number: int, passages: Passages) -> None:
        import torch

        self.torch, self.device = torch, torch.device("cuda", number)
        n = len(passages.snapshot)
        self.tokens = torch.empty((n, passages.n_tokens, D), dtype=torch.float16, device=self.device)
        for start in range(0, n, 4096):
            keys = np.arange(start, min(n, start + 4096))
            rows, _ = passages.token_rows(passages.snapshot, keys)
            vectors = np.ascontiguousarray(rows["codes"]).reshape(len(keys), passages.n_tokens, D)
            self.tokens[start : start + len(keys)] = torch.from_numpy(vectors).to(self.device)
        self.compiled = torch.compile(self.score)

    def score(self, queries: Any, places: Any) -> Any:
        """MaxSim, (queries, candidates)."""
        candidates = self.tokens[places]
        return self.torch.einsum("qid,qntd->qnit", queries, candidates).amax(dim=3).sum(dim=2)

    def rank(self, queries: list[FloatArray], keys: list[IntArray], *, compiled: bool) -> list[tuple[Any, Any]]:
        torch = self.torch
        score = self.compiled if compiled else self.score
        all_queries = torch.from_numpy(np.stack(queries)).to(self.device, torch.float16)
        places = torch.from_numpy(np.stack(keys)).to(self.device)
        # A few queries at a time, because the gathered tokens and the products of all would not fit.
        scores = torch.cat([score(all_queries[i : i + 16], places[i : i + 16]) for i in range(0, len(queries), 16)])
        best, order = scores.topk(K, dim=1)
        best, order = best.float().cpu().numpy(), order.cpu().numpy()
        return [(of_query[chosen], some) for of_query, chosen, some in zip(keys, order, best, strict=True)]


def exact(device: CudaDevice, ceilings: Ceilings, n: int, seconds: float) -> None:
    passages = Passages("int8", n, PASSAGE_TOKENS)
    reranker = CudaReranker(CudaEngine(device, passages.codec), passages, passages.codec, 1 << 40)
    start = time.perf_counter()
    reranker.update(passages.snapshot)
    loading = time.perf_counter() - start
    print(
        f"\nexact MaxSim over {n:,} passages of {PASSAGE_TOKENS} tokens, int8: {reranker.n_bytes / 1e9:.1f} GB, "
        f"copied to the GPU in {loading:.0f} s"
    )
    print(f"{'':28}{'host to host':>14}{'a query':>12}{'of copy':>9}{'of half':>9}{'of the limit':>14}")
    rng = np.random.default_rng(2)
    keys = passages.snapshot.keys
    for n_queries in (1, 8, 32):
        requests = [
            [RerankRequest(unit_vectors(QUERY_TOKENS, rng), passages.snapshot, keys) for _ in range(n_queries)]
            for _ in range(3)
        ]
        taken = median_seconds([partial(reranker.rank, batch, K) for batch in requests], seconds)
        of_copy = n * PASSAGE_TOKENS * (D + 4) / taken / ceilings.bytes_per_second
        of_half = 2 * n_queries * QUERY_TOKENS * n * PASSAGE_TOKENS * D / taken / ceilings.half_per_second
        print(
            f"{f'{n_queries} quer' + ('y' if n_queries == 1 else 'ies'):28}{taken * 1e3:>11.2f} ms"
            f"{taken / n_queries * 1e3:>9.2f} ms{of_copy:>9.0%}{of_half:>9.0%}{max(of_copy, of_half):>14.0%}",
            flush=True,
        )
    reranker.clear()
    device.release()


def encode(device: CudaDevice, seconds: float) -> None:
    encoder = FixedDimensionalEncoder(PUBLISHED_FDE)
    accelerated = CudaFixedDimensionalEncoder(encoder, device)
    n = 4096
    sets = TokenEmbeddings(unit_vectors(n * PASSAGE_TOKENS), np.arange(n + 1) * PASSAGE_TOKENS)
    on_host = TokenEmbeddings(sets.vectors[: 64 * PASSAGE_TOKENS], sets.offsets[:65])
    tokens = cupy.asarray(sets.vectors)
    taken = {
        "the CPU": median_seconds([lambda: encoder.encode_documents(on_host)], seconds) / 64,
        "the GPU, host to host": median_seconds([lambda: accelerated.encode_documents(sets)], seconds) / n,
        "the GPU, tokens already there": median_seconds(
            [lambda: accelerated.encode_documents_on_gpu(tokens, sets.offsets)], seconds
        )
        / n,
    }
    print(f"\ndocument FDEs of {encoder.output_dimension:,} dimensions, {PASSAGE_TOKENS} tokens")
    for name, each in taken.items():
        print(f"{name:40}{1 / each:>12,.0f} documents/s{taken['the CPU'] / each:>9.0f} x")


def check_same(ours: list[tuple[IntArray, FloatArray]], theirs: list[tuple[Any, Any]]) -> None:
    """Compare within the error of PyTorch, which adds up products in float32 but rounds them to float16."""
    for (keys, scores), (their_keys, their_scores) in zip(ours, theirs, strict=True):
        assert len(np.intersect1d(keys, their_keys)) >= K - 2, "the two rankings differ"
        np.testing.assert_allclose(scores, their_scores, rtol=5e-3)


def unit_vectors(n: int, rng: np.random.Generator | None = None) -> FloatArray:
    rng = rng or np.random.default_rng(0)
    vectors = rng.standard_normal((n, D), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def seconds_on_gpu(call: Callable[[], object], seconds: float) -> float:
    """Median seconds between two events around a call."""
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
    """Median seconds of calls that wait for their result. The calls take turns."""
    for call in calls:
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 10 or (time.perf_counter() < end and len(times) < 10_000):
        start = time.perf_counter()
        calls[len(times) % len(calls)]()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    main()
