"""Quality, space and time of a default index on a collection in BEIR's format.

usage: python tests/benchmarks/quality.py FOLDER [--questions 300] [--n-candidates N] [--dimension 128]

Prints the fidelity and nDCG of the index and of exact MaxSim in the same run, bytes per document, and the median time
of each stage.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import mean, median

from machine import describe_machine

from muvera_core import MuveraIndex, StageClock
from muvera_core.encoders import BUNDLED_DIMENSION, BundledEncoder
from muvera_core.evaluation.collections import read_beir
from muvera_core.evaluation.measures import fidelity_at_k, ndcg_at_k

K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=300, help="number of queries, evenly spread (default: 300)")
    parser.add_argument("--n-candidates", type=int, default=None)
    parser.add_argument("--dimension", type=int, default=BUNDLED_DIMENSION, help="of the bundled encoder's vectors")
    arguments = parser.parse_args()
    collection = read_beir(arguments.folder)
    every = max(1, len(collection.queries) // arguments.questions)
    asked = list(collection.queries.items())[::every][: arguments.questions]

    print(describe_machine())
    print(f"{arguments.folder.name}: {len(collection.ids)} documents, {len(asked)} queries, {arguments.dimension}-d")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "index"
        start = time.perf_counter()
        with MuveraIndex.create(path, BundledEncoder(dimension=arguments.dimension)) as index:
            index.add(collection.texts, ids=collection.ids, show_progress=True)
            print(f"add: {len(index) / (time.perf_counter() - start):.1f} documents/s")
            print(f"tokens per document: {index.n_tokens / len(index):.0f}")
        for file in sorted(path.iterdir()):
            print(f"{file.name}: {file.stat().st_size / len(collection.ids):.0f} bytes/document")
        start = time.perf_counter()
        index = MuveraIndex.open(path)
        print(f"open: {time.perf_counter() - start:.2f} s")
        index.search_batch([query for _, query in asked[:20]])
        indexed = search_all(index, asked, exact=False, n_candidates=arguments.n_candidates)
        exact = search_all(index, asked, exact=True)
        index.close()

    print(
        f"fidelity@{K} to exact MaxSim: {mean(fidelity_at_k(indexed[0][id], exact[0][id], K) for id, _ in asked):.4f}"
    )
    for name, (found, clocks) in (("index", indexed), ("exact", exact)):
        ndcg = mean(ndcg_at_k(found[id], collection.relevance[id], K) for id, _ in asked)
        stages = {stage: median(clock.seconds[stage] for clock in clocks) * 1000 for stage in clocks[0].seconds}
        total = median(sum(clock.seconds.values()) for clock in clocks) * 1000
        times = ", ".join(f"{stage} {ms:.2f}" for stage, ms in stages.items())
        print(f"{name}: nDCG@{K} {ndcg:.4f}; median ms per query {total:.2f} ({times})")


def search_all(
    index: MuveraIndex, asked: list[tuple[str, str]], *, exact: bool, n_candidates: int | None = None
) -> tuple[dict[str, list[str]], list[StageClock]]:
    """Ids found for each query, and the time of each stage."""
    found, clocks = {}, []
    for id, query in asked:
        clock = StageClock()
        found[id] = [hit.id for hit in index.search(query, K, n_candidates, exact=exact, clock=clock)]
        clocks.append(clock)
    return found, clocks


if __name__ == "__main__":
    main()
