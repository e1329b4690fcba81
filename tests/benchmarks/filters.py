"""Filtered search at several selectivities: fidelity to exact MaxSim and time.

usage: python tests/benchmarks/filters.py FOLDER --index PATH [--questions 100]

Makes an index of the collection at PATH if there is none. Each document has a random number in [0, 1) in its metadata,
so a filter on that number can admit any share of the documents. Recall is measured against exact MaxSim over the
admitted documents. Prints the median time of a search with a new filter and with a known one, and of exact MaxSim.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from machine import describe_machine

from muvera_core import Hit, MuveraIndex, StageClock
from muvera_core.evaluation.collections import BeirCollection, read_beir
from muvera_core.evaluation.measures import fidelity_at_k

K = 10
SELECTIVITIES = (0.001, 0.01, 0.03, 0.1, 0.3, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=100)
    arguments = parser.parse_args()
    collection = read_beir(arguments.folder)
    if not arguments.index.exists():
        build(arguments.index, collection)
    queries = random.Random(1).sample(sorted(collection.queries.values()), arguments.questions)
    print(describe_machine())
    with MuveraIndex.open(arguments.index, read_only=True, show_progress=True) as index:
        kind = index.engine.collection.stage_one.candidates.kind
        print(f"{arguments.folder.name}: {len(index)} documents ({kind}), {len(queries)} queries")
        index.search_batch(queries[:20])
        header = ("admits", "documents", "fidelity", "new filter", "known filter", "exact")
        print("".join(f"{name:>13}" for name in header) + "  (times: median ms)")
        one = index.find(limit=1)[0].metadata["uniform"]
        report(index, queries, lambda i: {"uniform": {"$in": [one, -i]}})
        for share in SELECTIVITIES:
            report(index, queries, partial(below, share))


def build(path: Path, collection: BeirCollection) -> None:
    rng = random.Random(0)
    with MuveraIndex.create(path) as index:
        metadatas = [{"uniform": rng.random(), "title": title} for title in collection.titles]
        index.add(collection.texts, ids=collection.ids, metadatas=metadatas, show_progress=True)


def below(share: float, i: int) -> dict[str, Any]:
    """A filter that admits this share of the documents. It differs for each ``i``."""
    return {"uniform": {"$lt": share + i * 1e-12}}


def report(index: MuveraIndex, queries: list[str], make_filter: Callable[[int], dict[str, Any]]) -> None:
    """Print one row. ``make_filter(i)`` gives a new filter for each ``i``, and all admit the same documents."""
    filter = make_filter(0)
    admitted = len(index.find(filter))
    exact, exact_ms = run(index, queries, filter, exact=True)
    alike = [make_filter(i) for i in range(1, len(queries) + 1)]
    new_ms = median(run(index, [query], f)[1] for query, f in zip(queries, alike, strict=True))
    found, known_ms = run(index, queries, filter)
    fidelity = mean(
        fidelity_at_k([hit.id for hit in f], {hit.id for hit in e}, K) for f, e in zip(found, exact, strict=False)
    )
    assert all(len(hits) == min(K, admitted) for hits in found)
    times = "".join(f"{ms:>13.1f}" for ms in (new_ms, known_ms, exact_ms))
    print(f"{admitted / len(index):>13.5f}{admitted:>13}{fidelity:>13.3f}{times}", flush=True)


def run(
    index: MuveraIndex, queries: list[str], filter: dict[str, Any], *, exact: bool = False
) -> tuple[list[list[Hit]], float]:
    """Hits of each query, and the median milliseconds of a search."""
    found, times = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(index.search(query, K, filter=filter, exact=exact, clock=StageClock()))
        times.append(time.perf_counter() - start)
    return found, median(times) * 1000


if __name__ == "__main__":
    main()
