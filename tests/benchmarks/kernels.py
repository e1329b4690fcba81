"""Reranking by exact MaxSim from stored tokens: the compiled kernels, NumPy, the code before them, and maxsim-cpu.

usage: python tests/benchmarks/kernels.py [--passages 200] [--tokens 115] [--query-tokens 32] [--dimension 128]
           [--rounds 15] [--folder FOLDER] [--kernels KERNEL...]

Passages are chosen at random from 5,000. All ways score the same ones, one after the other in each round. Times are
the least of all rounds. "CPU" adds up the time of all threads. Every way is measured on one thread unless it says
otherwise (set OMP_NUM_THREADS=1 for NumPy's linear algebra). maxsim-cpu is measured if it is installed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from machine import describe_machine

from muvera_core.maxsim import RowLayout, cpu, score_documents
from muvera_core.native import NUMPY, VARIABLE, available_kernels
from muvera_core.storage.token_codec import PRECISIONS, TokenCodec, TokenPrecision
from muvera_core.storage.token_log import FileTokenLog

N_STORED = 5000
# Ways that others are compared with.
BASELINES = ("maxsim-cpu, float32 in memory", "NumPy, float16 gathered", "before: int8 gathered, NumPy")


class Task(NamedTuple):
    """Passages to score.

    Attributes:
        vectors: tokens of all stored passages, float32, shape (tokens, dimension).
        query: float32, shape (query tokens, dimension).
        starts: number of each passage's first token, int64.
        first: number of each chosen passage's first token, int64.
        n_tokens: number of its tokens, int64.
    """

    vectors: npt.NDArray[np.float32]
    query: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    n_tokens: npt.NDArray[np.int64]

    @property
    def n_products(self) -> int:
        """Multiplications of numbers that exact MaxSim takes."""
        return int(self.n_tokens.sum()) * self.query.size


Way = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=200, help="passages to score (default: 200)")
    parser.add_argument("--tokens", type=int, default=115, help="tokens of a passage, on average (default: 115)")
    parser.add_argument("--query-tokens", type=int, default=32, help="tokens of the query (default: 32)")
    parser.add_argument("--dimension", type=int, default=128, help="width of a token (default: 128)")
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each way (default: 15)")
    parser.add_argument("--folder", type=Path, help="where to write token files (default: a temporary folder)")
    parser.add_argument("--kernels", nargs="+", default=compiled(), help="kernels to measure (default: %(default)s)")
    arguments = parser.parse_args()
    print(describe_machine())
    task = make_task(arguments.passages, arguments.tokens, arguments.query_tokens, arguments.dimension)
    print(
        f"{len(task.first)} passages, {task.n_tokens.sum():,} tokens x {len(task.query)} query tokens x "
        f"{arguments.dimension}: {task.n_products / 1e6:.0f} million products, "
        f"{task.n_tokens.sum() * (arguments.dimension + 4) / 1e6:.1f} MB of int8 rows"
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report(measure(dict(all_ways(task, Path(folder), arguments.kernels)), arguments.rounds), task)


def compiled() -> list[str]:
    """The kernels that are faster than NumPy."""
    names = available_kernels()
    return names[: names.index(NUMPY)]


def make_task(n_passages: int, n_tokens: int, n_query_tokens: int, dimension: int) -> Task:
    """Random unit vectors. Passages have between half and one and a half times the number of tokens."""
    rng = np.random.default_rng(0)
    counts = rng.integers(max(1, n_tokens // 2), n_tokens + n_tokens // 2 + 1, N_STORED)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    vectors = unit(rng.standard_normal((counts.sum(), dimension), dtype=np.float32))
    chosen = np.sort(rng.choice(N_STORED, n_passages, replace=False))
    query = unit(rng.standard_normal((n_query_tokens, dimension), dtype=np.float32))
    return Task(vectors, query, starts, starts[chosen], counts[chosen])


def unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def all_ways(task: Task, folder: Path, kernels: list[str]) -> Iterator[tuple[str, Way]]:
    """Every way of scoring, by name."""
    yield from numpy_ways(task, folder)
    dimension = task.vectors.shape[1]
    n = len(task.vectors)
    stored = {precision: (TokenCodec(precision, dimension), encoded(task, precision)) for precision in PRECISIONS}
    for kernel in kernels:
        for precision, (codec, rows) in stored.items():
            layout = codec.layout
            path = folder / f"{precision}.bin"
            if not path.exists():
                path.write_bytes(rows.data)
            log = FileTokenLog(path, codec, n, writable=False)
            yield f"{kernel}: {precision} in a file", native_way(kernel, task, layout, log)
            if precision == "int8":
                yield f"{kernel}: {precision} in a file, 2 threads", native_way(kernel, task, layout, log, 2)
            yield f"{kernel}: {precision} in memory", native_way(kernel, task, layout, rows)
        yield (
            f"{kernel}: leading bits, in a file",
            native_way(kernel, task, *as_log(stored["8bit"][0], folder, n), coarse=True),
        )


def as_log(codec: TokenCodec, folder: Path, n: int) -> tuple[RowLayout, FileTokenLog]:
    """The rows of 8 bits."""
    return codec.layout, FileTokenLog(folder / "8bit.bin", codec, n, writable=False)


def encoded(task: Task, precision: TokenPrecision) -> npt.NDArray[np.uint8]:
    """Rows of all stored tokens, as bytes."""
    offsets = np.append(task.starts, len(task.vectors))
    return TokenCodec(precision, task.vectors.shape[1]).encode(task.vectors, offsets).view(np.uint8).reshape(-1)


def native_way(
    kernel: str,
    task: Task,
    layout: RowLayout,
    rows: npt.NDArray[np.uint8] | FileTokenLog,
    n_threads: int = 1,
    *,
    coarse: bool = False,
) -> Way:
    def score() -> Any:
        os.environ[VARIABLE] = kernel
        if isinstance(rows, np.ndarray):
            return score_documents(rows, task.first, task.n_tokens, layout, [task.query], n_threads, coarse=coarse)
        with rows.source() as source:
            return score_documents(source, task.first, task.n_tokens, layout, [task.query], n_threads, coarse=coarse)

    return score


def numpy_ways(task: Task, folder: Path) -> Iterator[tuple[str, Way]]:
    """NumPy, the code before the compiled kernels, and maxsim-cpu."""
    offsets = np.concatenate([[0], np.cumsum(task.n_tokens)])
    picked = np.repeat(task.first - offsets[:-1], task.n_tokens) + np.arange(offsets[-1])
    halves = task.vectors.astype(np.float16)

    def from_floats(vectors: npt.NDArray[Any]) -> Way:
        return lambda: cpu.maxsim_scaled(task.query, vectors.take(picked, axis=0), None, offsets)

    codec = TokenCodec("int8", task.vectors.shape[1])
    path = folder / "int8.bin"
    path.write_bytes(encoded(task, "int8").data)
    log = FileTokenLog(path, codec, len(task.vectors), writable=False)

    def before() -> Any:
        codes, scales = codec.split(log.read(task.first, task.n_tokens), offsets)
        return cpu.maxsim_scaled(task.query, codes, scales, offsets)

    yield BASELINES[1], from_floats(halves)
    yield "NumPy, float32 gathered", from_floats(task.vectors)
    yield BASELINES[2], before
    rival = installed("maxsim_cpu")
    if rival is not None:
        documents = [
            np.ascontiguousarray(task.vectors[first : first + n])
            for first, n in zip(task.first, task.n_tokens, strict=True)
        ]
        yield BASELINES[0], lambda: rival.maxsim_scores_variable(task.query, documents)


def installed(module: str) -> ModuleType | None:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def measure(ways: dict[str, Way], n_rounds: int) -> dict[str, tuple[float, float]]:
    """CPU and wall seconds of each way: the least of all rounds, which other programs disturb least."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(n_rounds):
        for name, way in ways.items():
            way()  # so that what it reads is in the caches as in a run of searches
            cpu_began, began = time.process_time(), time.perf_counter()
            for _ in range(3):
                way()
            times[name].append(((time.process_time() - cpu_began) / 3, (time.perf_counter() - began) / 3))
    return {name: (min(cpu for cpu, _ in of), min(wall for _, wall in of)) for name, of in times.items()}


def report(times: dict[str, tuple[float, float]], task: Task) -> None:
    """Print a line for each way, and how many times faster it is than each baseline, in CPU time."""
    baselines = [name for name in BASELINES if name in times]
    columns = "".join(f"{'x ' + name.split(',')[0].split(':')[0]:>14}" for name in baselines)
    print(f"{'':<38}{'CPU ms':>9}{'wall ms':>9}{'G products/s':>14}{columns}")
    for name, (used, wall) in times.items():
        ratios = "".join(f"{times[baseline][0] / used:>14.1f}" for baseline in baselines)
        print(f"{name:<38}{used * 1e3:>9.2f}{wall * 1e3:>9.2f}{task.n_products / used / 1e9:>14.0f}{ratios}")


if __name__ == "__main__":
    main()
