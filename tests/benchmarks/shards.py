"""Measures an index over 1, 2 and 4 shards, in processes of Ray on this machine, beside one index.

Both answer the same questions, in turn, in one run. It prints the time to build, the time of a question, what the
shards add to it, and the memory of each shard's process. Every exact search must find the same documents with the same
scores. With ``--model`` it then computes, from what it measured, what 10^8 and 10^9 passages would take; the prices and
sizes of machines are assumptions, which the output states.

    python tests/benchmarks/shards.py examples/data/nq-gold --model
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from embedded import Embedded, collection_parser, embed
from machine import describe_machine

from muvera_core import Hit, MuveraIndex
from muvera_core.distributed import ClusterOptions, ShardedMuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.index import IndexCalls

_SHARDS = (1, 2, 4)
_ADDED_TOGETHER = 500
# What the model assumes: memory and price per hour of a machine with eight cores, and its disk reads of 64 kB.
_MACHINE_MEMORY = 64e9
_MACHINE_DOLLARS = 0.40
_CORES = 8
# The share of memory that an index may take; the rest is for the system and its cache of files.
_FULL = 0.75


@dataclass(frozen=True)
class Measured:
    """What was measured of an index.

    Attributes:
        build: seconds to add all documents, whose tokens are given.
        late: milliseconds of a question in mode "late", median and 95th percentile, without encoding it.
        hybrid: the same in mode "hybrid", which asks the shards three times. The question is encoded.
        memory: bytes of memory of each shard's process. Empty for one index, which is in this process.
        disk: bytes on disk.
    """

    build: float
    late: tuple[float, float]
    hybrid: tuple[float, float]
    memory: Sequence[int]
    disk: int


def main() -> None:
    """Measure and print."""
    parser: argparse.ArgumentParser = collection_parser(__doc__)
    parser.add_argument("--model", action="store_true", help="compute what 10^8 and 10^9 passages would take")
    arguments = parser.parse_args()
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        _node_ip_address="127.0.0.2",
    )
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    print(f"{describe_machine()}, Ray {ray.__version__}")
    print(f"{collection.name}: {len(collection.documents)} passages, {len(collection.queries)} questions\n")
    encoder = BundledEncoder()
    with tempfile.TemporaryDirectory() as folder, MuveraIndex.create(Path(folder) / "one", encoder) as one:
        build = _fill(one, collection)
        exact = [one.search_embeddings(query, exact=True) for query in collection.queries]
        for n in _SHARDS:
            path = Path(folder) / f"{n} shards"
            with ShardedMuveraIndex.create(path, encoder, n_shards=n, options=ClusterOptions()) as index:
                spent = _fill(index, collection)
                _require_same(exact, [index.search_embeddings(query, exact=True) for query in collection.queries])
                alone, spread = _timed([one, index], collection)
                memory = [report.memory or 0 for report in index.members()]
                _print(f"{n} shards", Measured(spent, *spread, memory, index.sizes()["documents and tokens on disk"]))
                _print("one index", Measured(build, *alone, (), one.sizes()["documents and tokens on disk"]))
                print(
                    f"    the shards add {spread[0][0] - alone[0][0]:.2f} ms to a question (hybrid: "
                    f"{spread[1][0] - alone[1][0]:.2f} ms)\n"
                )
        if arguments.model:
            _print_model(one, collection)
    ray.shutdown()


def _fill(index: IndexCalls, collection: Embedded) -> float:
    start = time.perf_counter()
    ids = [str(i) for i in range(len(collection.documents))]
    for first in range(0, len(ids), _ADDED_TOGETHER):
        some = slice(first, first + _ADDED_TOGETHER)
        tokens = [collection.documents[i] for i in range(len(ids))[some]]
        index.add_embeddings(tokens, ids[some], collection.texts[some])
    return time.perf_counter() - start


def _require_same(expected: Sequence[Sequence[Hit]], got: Sequence[Sequence[Hit]]) -> None:
    for some, others in zip(expected, got, strict=True):
        if [hit.score for hit in some] != [hit.score for hit in others]:
            raise SystemExit("an exact search over shards found other scores than one index")
        # Documents with equal scores may come in another order.
        if {hit.id for hit in some if hit.score > some[-1].score} - {hit.id for hit in others}:
            raise SystemExit("an exact search over shards found other documents than one index")


def _timed(
    indexes: Sequence[IndexCalls], collection: Embedded
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """For each index the milliseconds of a late and of a hybrid question. Each question is asked of all in turn."""

    def late(index: IndexCalls, i: int) -> object:
        return index.search_embeddings(collection.queries[i])

    def hybrid(index: IndexCalls, i: int) -> object:
        return index.search(collection.query_texts[i], mode="hybrid")

    n = len(collection.queries)
    return list(zip(_in_turn(indexes, late, n), _in_turn(indexes, hybrid, n), strict=True))


def _in_turn(
    indexes: Sequence[IndexCalls], ask: Callable[[IndexCalls, int], object], n: int
) -> list[tuple[float, float]]:
    """Median and 95th percentile of each index's milliseconds for ``n`` questions."""
    spent: list[list[float]] = [[] for _ in indexes]
    for i in range(n):
        for index, times in zip(indexes, spent, strict=True):
            start = time.perf_counter()
            ask(index, i)
            times.append((time.perf_counter() - start) * 1000)
    return [(float(np.median(times)), float(np.percentile(times, 95))) for times in spent]


def _print(name: str, measured: Measured) -> None:
    late, hybrid = (f"p50 {p50:6.2f} p95 {p95:6.2f} ms" for p50, p95 in (measured.late, measured.hybrid))
    memory = ", ".join(f"{each / 1e6:.0f}" for each in measured.memory)
    print(
        f"{name:10} build {measured.build:6.2f} s   question {late}   hybrid {hybrid}   "
        f"disk {measured.disk / 1e6:.1f} MB{f'   memory {memory} MB' if memory else ''}"
    )


def _print_model(one: MuveraIndex, collection: Embedded) -> None:
    """What larger collections would take, if each shard's costs grow as those that were measured here."""
    sizes, n = one.sizes(), len(collection.documents)
    on_disk = sizes["documents and tokens on disk"] / n
    stage_one, directory = sizes["stage one in memory"] / n, sizes["directory in memory"] / n
    seconds = []
    for query in collection.queries:
        start = time.process_time()
        one.search_embeddings(query)
        seconds.append(time.process_time() - start)
    per_query = float(np.median(seconds))
    print(
        f"\nMeasured: {on_disk:.0f} B on disk, {stage_one:.0f} B of stage one and {directory:.0f} B of directory in "
        f"memory a passage; {per_query * 1000:.1f} ms of processor time a question and shard ({n} passages)."
    )
    print(
        f"Assumed: machines of {_CORES} cores and {_MACHINE_MEMORY / 1e9:.0f} GB at ${_MACHINE_DOLLARS:.2f} an hour, "
        f"filled to {_FULL:.0%}."
    )
    for stage, vector in (("FDE, 2,560 numbers", stage_one), ("learned, 256 numbers", 256 * 4 + 150)):
        for passages in (1e8, 1e9):
            in_memory = (vector + directory) * passages
            machines = math.ceil(in_memory / (_FULL * _MACHINE_MEMORY))
            by_questions = machines * _CORES / (per_query * machines)
            print(
                f"{stage:22} {passages:.0e} passages: {machines:5} machines, memory {in_memory / 1e12:.2f} TB, disk "
                f"{on_disk * passages / 1e12:.2f} TB, at most {by_questions:.0f} questions/s, "
                f"${machines * _MACHINE_DOLLARS / by_questions / 3.6:.4f} per 1,000 questions at that rate"
            )


if __name__ == "__main__":
    main()
