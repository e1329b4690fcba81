"""Compares searching and adding with another revision of the core: the same calls, in turns, on one machine.

    git worktree add ../before REVISION
    python tests/benchmarks/against.py ../before/core

Each turn is a process of its own. The token embeddings are made once, so the encoder's time does not count. Prints the
median of the turns and the ratio of both revisions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe_machine

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "examples" / "data" / "nq-gold"
N_QUERIES, BATCH = 300, 64


def write_embeddings(file: Path) -> None:
    """Encode the collection's passages and queries."""
    from muvera_core.encoders import BundledEncoder
    from muvera_core.evaluation import read_beir

    collection, encoder = read_beir(COLLECTION), BundledEncoder()
    documents = encoder.encode_documents(collection.texts)
    queries = encoder.encode_queries(list(collection.queries.values())[:N_QUERIES])
    np.savez(
        file,
        documents=documents.vectors,
        document_offsets=documents.offsets,
        queries=queries.vectors,
        query_offsets=queries.offsets,
    )


def measure(file: Path) -> dict[str, float]:
    """Milliseconds of each call with the core that this process imports. Uses public calls only."""
    from muvera_core import FDEConfig, MuveraIndex, TokenEmbeddings
    from muvera_core.encoders import PrecomputedEmbeddings

    with np.load(file) as arrays:
        documents = list(TokenEmbeddings(arrays["documents"], arrays["document_offsets"]))
        queries = list(TokenEmbeddings(arrays["queries"], arrays["query_offsets"]))
    encoder = PrecomputedEmbeddings(documents[0].shape[1], "benchmark")
    ids = [f"d{i}" for i in range(len(documents))]
    texts = [f"Passage {i}." for i in range(len(documents))]
    metadatas = [{"group": i % 10} for i in range(len(documents))]

    with tempfile.TemporaryDirectory() as folder:
        index = MuveraIndex.create(Path(folder) / "index", encoder, FDEConfig.for_dimension(encoder.dimension))

        def add(first: int, n: int) -> None:
            some = slice(first, first + n)
            index.add_embeddings(documents[some], ids[some], texts[some], metadatas[some])

        with index:
            times = {f"add {BATCH} documents": per_call(lambda i: add(i * BATCH, BATCH), len(documents) // BATCH)}
            times["replace 1 document"] = per_call(lambda i: add(i, 1), 40)
            times["first search"] = per_call(lambda i: index.search_embeddings(queries[i]), 1)
            times["search"] = per_call(lambda i: index.search_embeddings(queries[i]), len(queries))
            found = per_call(lambda i: index.search_embeddings(queries[i], filter={"group": i % 10}), len(queries))
            times["search with a filter"] = found
            times[f"search of {BATCH} queries"] = per_call(
                lambda i: index.search_embeddings_batch(queries[i * BATCH : (i + 1) * BATCH]), len(queries) // BATCH
            )
            times["get 10 documents"] = per_call(lambda i: index.get(ids[i * 10 : i * 10 + 10]), 100)
            times["delete 1 document"] = per_call(lambda i: index.delete(ids[i]), 40)
            start = time.perf_counter()
        times["close"] = (time.perf_counter() - start) * 1000
        start = time.perf_counter()
        MuveraIndex.open(Path(folder) / "index", encoder).close()
        times["open"] = (time.perf_counter() - start) * 1000
    return times


def per_call(call: Callable[[int], object], n: int) -> float:
    """Median milliseconds of ``call(0)``, ``call(1)``, ..."""
    times = []
    for i in range(n):
        start = time.perf_counter()
        call(i)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def turn(core: Path, file: Path) -> dict[str, float]:
    """``measure`` in a process that imports the core from ``core``."""
    command = [sys.executable, __file__, "--measure", str(file)]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(core)}, stdout=subprocess.PIPE, text=True, check=True
    )
    times: dict[str, float] = json.loads(result.stdout)
    return times


def main() -> None:
    """Measure both revisions in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?", help="the folder `core` of the other revision")
    parser.add_argument("--turns", type=int, default=7, help="how often each is measured (default: 7)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    if options.other is None or not (options.other / "muvera_core").is_dir():
        parser.error(f"expected the folder `core` of another revision, got {options.other}")
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "embeddings.npz"
        write_embeddings(file)
        cores = {"other": options.other.resolve(), "this": ROOT / "core"}
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in cores}
        for i in range(options.turns):
            for name in sorted(cores, reverse=i % 2 == 0):
                turns[name].append(turn(cores[name], file))
    print(f"{'median of ' + str(options.turns):24}{'other':>12}{'this':>12}{'this / other':>14}")
    for call in turns["this"][0]:
        other, this = (statistics.median(times[call] for times in turns[name]) for name in ("other", "this"))
        print(f"{call:24}{other:9.3f} ms{this:9.3f} ms{this / other:14.3f}")


if __name__ == "__main__":
    main()
