"""How long each lock of an index is held, and how long searches take beside other calls.

    python tests/benchmarks/lock_holds.py

Each row of the table is one call, made while two threads search. It names the longest hold of each lock during the
call, in milliseconds, by whichever thread, the 99th percentile of the holds of ``state``, and the slowest search. The
last rows are those of a process that only reads, and refreshes while the writer adds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core import FDEConfig, MuveraIndex, TokenEmbeddings
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.stage_one import stage_one
from muvera_core.storage import store
from muvera_core.storage.locks import IndexLocks

D = 16
TOKENS = 4
ENCODER = PrecomputedEmbeddings(D, "random")
SMALL = FDEConfig(dimension=D, num_repetitions=2, num_simhash_projections=2, projection_dimension=4)
LARGE = FDEConfig(dimension=D, num_repetitions=10, num_simhash_projections=4, projection_dimension=8)
# Many documents whose vectors are scanned, and a graph of vectors of 1,280 dimensions. A graph takes long to build, so
# it has few documents. Each variant: documents, their encoding, and the most documents that are scanned.
VARIANTS = {"scan": (60_000, SMALL, 1_000_000), "graph": (4_000, LARGE, 1_000)}
ADDED_TOGETHER = 2_000
LOCKS = ("writing", "change", "state")


class Record:
    """The holds of each lock, and the times of searches, in seconds, since the last ``taken``."""

    def __init__(self) -> None:
        self.holds: defaultdict[str, list[float]] = defaultdict(list)
        self.searches: list[float] = []

    def taken(self) -> tuple[dict[str, list[float]], list[float]]:
        """What was recorded, and an empty record from now on."""
        holds, searches = dict(self.holds), self.searches
        self.holds, self.searches = defaultdict(list), []
        return holds, searches


RECORD = Record()


class TimedLock:
    """A reentrant lock that records how long it is held."""

    def __init__(self, name: str) -> None:
        self._name, self._lock, self._depth, self._since = name, threading.RLock(), 0, 0.0

    def acquire(self, blocking: bool = True) -> bool:
        if not self._lock.acquire(blocking):
            return False
        self._depth += 1
        if self._depth == 1:
            self._since = time.perf_counter()
        return True

    def release(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            RECORD.holds[self._name].append(time.perf_counter() - self._since)
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


def timed_locks() -> IndexLocks:
    """Locks that are recorded, for the first index. A copy of it has its own, which no search waits for."""
    setattr(store, "IndexLocks", IndexLocks)  # noqa: B010
    return IndexLocks(*(TimedLock(name) for name in LOCKS))  # type: ignore[arg-type]


def record_next_index() -> None:
    """Let the index that is opened or made next have locks that are recorded."""
    setattr(store, "IndexLocks", timed_locks)  # noqa: B010


def embeddings(seed: int, n: int) -> TokenEmbeddings:
    vectors = np.random.default_rng(seed).standard_normal((n * TOKENS, D), dtype=np.float32)
    return TokenEmbeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.arange(n + 1) * TOKENS)


def add(index: MuveraIndex, start: int, n: int, n_together: int = 1_000_000) -> None:
    for first in range(start, start + n, n_together):
        add_together(index, range(first, min(first + n_together, start + n)))


def add_together(index: MuveraIndex, numbers: range) -> None:
    index.add_embeddings(
        embeddings(numbers.start, len(numbers)),
        ids=[f"d{i}" for i in numbers],
        texts=[f"This is the text of passage {i}, which says little. " * 4 for i in numbers],
        metadatas=[
            {
                "n": i,
                "group": i % 50,
                "title": f"Passage number {i} of many",
                "tags": [f"tag{i % 7}", f"tag{i % 11}"],
                "author": {"name": f"Author {i % 300}"},
            }
            for i in numbers
        ],
    )


@contextmanager
def searching(index: MuveraIndex, n_threads: int = 2) -> Iterator[None]:
    """Let threads search, with and without a filter, while the block runs."""
    stop, failures = threading.Event(), list[BaseException]()

    def run(seed: int) -> None:
        queries = embeddings(10_000_000 + seed, 50)
        turn = 0
        try:
            while not stop.is_set():
                start = time.perf_counter()
                index.search_embeddings(queries[turn % 50], k=10, filter={"group": 7} if turn % 4 == 0 else None)
                RECORD.searches.append(time.perf_counter() - start)
                turn += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(n_threads)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def row(name: str, seconds: float) -> dict[str, Any]:
    """One line of the table, in milliseconds."""
    holds, searches = RECORD.taken()
    line: dict[str, Any] = {"call": name, "seconds": seconds}
    for lock in LOCKS:
        line[lock] = 1000 * max(holds.get(lock, [0.0]))
    line["state p99"] = 1000 * float(np.percentile(holds.get("state", [0.0]), 99))
    line["slowest search"] = 1000 * max(searches, default=0.0)
    line["search p99"] = 1000 * float(np.percentile(searches or [0.0], 99))
    return line


def show(line: dict[str, Any]) -> None:
    numbers = " ".join(f"{line[name]:10.1f}" for name in (*LOCKS, "state p99", "slowest search", "search p99"))
    print(f"{line['call']:34} {line['seconds']:8.2f} {numbers}", flush=True)


def calls(index: MuveraIndex, folder: Path, n: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls that may hold a lock for long, by name."""
    yield "nothing else", lambda: time.sleep(1.5)
    yield "find()", index.find
    yield "first $eq", lambda: index.find({"n": 5})
    yield "first $gte that admits half", lambda: index.find({"n": {"$gte": n // 2}}, limit=10)
    yield "first $ilike", lambda: index.find({"title": {"$ilike": "%NUMBER 59_ of%"}}, limit=10)
    yield "first $nin", lambda: index.find({"author.name": {"$nin": ["Author 1", "Author 2"]}}, limit=10)
    yield "first $contains", lambda: index.find({"title": {"$contains": "999"}}, limit=10)
    yield "second $ilike", lambda: index.find({"title": {"$ilike": "%5 of%"}}, limit=10)
    yield "get of a third of the ids", lambda: index.get([f"d{i}" for i in range(0, n, 3)])
    yield "sizes()", index.sizes
    yield "copy_to", lambda: index.copy_to(folder / "copy")
    yield "20 adds of 64 documents", lambda: add(index, n, 20 * 64, 64)
    yield f"add of {n // 6} documents", lambda: add(index, n + 10_000, n // 6)
    yield (
        "20 deletes of 10 documents",
        lambda: [index.delete([f"d{i}" for i in range(s, s + 10)]) for s in range(0, 200, 10)],
    )
    yield f"delete of {n // 12} documents", lambda: index.delete([f"d{i}" for i in range(1_000, 1_000 + n // 12)])
    yield "delete by a new filter", lambda: index.delete(filter={"tags": "tag3"})
    yield "compact()", index.compact


def measure(name: str) -> None:
    n, fde, stage_one.FLAT_LIMIT = VARIANTS[name]
    record_next_index()
    print(f"\n{n} documents, {name} of {fde.output_dimension} dimensions; holds and searches in milliseconds")
    names = " ".join(f"{name:>10}" for name in (*LOCKS, "state p99", "slowest", "search p99"))
    print(f"{'call':34} {'seconds':>8} {names}")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        start = time.perf_counter()
        with MuveraIndex.create(folder / "index", ENCODER, fde) as index:
            add(index, 0, n, ADDED_TOGETHER)
            show(row("building, without searches", time.perf_counter() - start))
            with searching(index):
                for call, work_of_call in calls(index, folder, n):
                    RECORD.taken()
                    start = time.perf_counter()
                    work_of_call()
                    show(row(call, time.perf_counter() - start))
            with searching(index), reader(folder / "index") as lines:
                RECORD.taken()
                start = time.perf_counter()
                add(index, n + 20_000, 20 * 64, 64)
                show(row("20 adds beside a reader", time.perf_counter() - start))
            for line in lines:
                show(line)


@contextmanager
def reader(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """A process that refreshes and searches while the block runs. The list holds its rows afterwards."""
    command = [sys.executable, __file__, "--reader", str(folder), "--flat-limit", str(stage_one.FLAT_LIMIT)]
    lines: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
        yield lines
        lines += json.loads(process.communicate("stop\n")[0])


def read(folder: Path) -> None:
    """What the reading process does: refresh until it is told to stop."""
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.readline()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    with MuveraIndex.open(folder, ENCODER, read_only=True) as index, searching(index, 1):
        print("ready", flush=True)
        start, turn = time.perf_counter(), 0
        while not stop.is_set():
            index.refresh()
            index.find({"title": {"$contains": f"{turn} of"}}, limit=5)
            turn += 1
        line = row(f"reader: {turn} refreshes and finds", time.perf_counter() - start)
    print(json.dumps([line]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", type=Path)
    parser.add_argument("--flat-limit", type=int)
    parser.add_argument("--variant", choices=VARIANTS, action="append")
    arguments = parser.parse_args()
    record_next_index()
    if arguments.reader:
        stage_one.FLAT_LIMIT = arguments.flat_limit
        read(arguments.reader)
    else:
        for name in arguments.variant or VARIANTS:
            measure(name)


if __name__ == "__main__":
    main()
