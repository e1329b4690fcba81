"""Searches from many threads of one process: questions per second, and how long one question waits.

    python tests/benchmarks/under_load.py
    python tests/benchmarks/under_load.py --core ../before/core     # beside another revision, in turns

Each turn is a process of its own. Questions are texts, so their encoding counts. Prints, for each number of threads,
questions per second, and the median and 99 % of the milliseconds that a question takes; then questions per second of
``search_batch`` with one thread and with one per core; and the ratios.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from machine import describe_machine

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "examples" / "data" / "nq-gold"
N_THREADS, N_QUESTIONS = (1, 2, 4, 8), 400


def measure(folder: Path, n_questions: int) -> dict[str, float]:
    """Figures of the core that this process imports, by name. The index is built if it is not there."""
    from muvera_core import MuveraIndex
    from muvera_core.evaluation import read_beir

    collection = read_beir(COLLECTION)
    questions = list(collection.queries.values())[:n_questions]
    with MuveraIndex.open_or_create(folder) as index:
        if not len(index):
            index.add(collection.texts, collection.ids)
        for question in questions[:50]:
            index.search(question)

        def seconds(question: str) -> float:
            start = time.perf_counter()
            index.search(question)
            return time.perf_counter() - start

        figures: dict[str, float] = {}
        for n_threads in N_THREADS:
            with ThreadPoolExecutor(n_threads) as pool:
                start = time.perf_counter()
                times = list(pool.map(seconds, questions))
                figures[f"{n_threads} threads: questions/s"] = len(questions) / (time.perf_counter() - start)
            figures[f"{n_threads} threads: median ms"] = 1000 * statistics.median(times)
            figures[f"{n_threads} threads: 99 % ms"] = 1000 * float(np.quantile(times, 0.99))
        for n_threads in (1, os.cpu_count() or 1):
            os.environ["MUVERA_NUM_THREADS"] = str(n_threads)
            index.search_batch(questions)  # the first batch reads all tokens
            start = time.perf_counter()
            index.search_batch(questions)
            rate = len(questions) / (time.perf_counter() - start)
            figures[f"search_batch, MUVERA_NUM_THREADS={n_threads}: questions/s"] = rate
    return figures


def run_turn(core: Path, folder: Path, n_questions: int) -> dict[str, float]:
    """``measure`` in a process that imports this core."""
    command = [sys.executable, __file__, "--turn", str(folder), "--questions", str(n_questions)]
    found = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(core), *found])}
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=Path, help="folder `core` of another revision")
    parser.add_argument("--turns", type=int, default=3, help="turns of each core (default: 3)")
    parser.add_argument("--questions", type=int, default=N_QUESTIONS, help=f"number of them (default: {N_QUESTIONS})")
    parser.add_argument("--turn", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        print(json.dumps(measure(arguments.turn, arguments.questions)))
        return
    cores = ([arguments.core.resolve()] if arguments.core else []) + [ROOT / "core"]
    turns: dict[Path, list[dict[str, float]]] = {core: [] for core in cores}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.turns):
            for number, core in enumerate(cores):
                turns[core].append(run_turn(core, Path(folder) / str(number), arguments.questions))
    print(describe_machine())
    print("median of turns" + (", other revision / this one, ratio" if arguments.core else ""))
    for name in turns[cores[0]][0]:
        medians = [statistics.median(turn[name] for turn in turns[core]) for core in cores]
        ratio = f"  x {medians[-1] / medians[0]:.2f}" if len(medians) > 1 else ""
        print(f"{name:48s} " + " ".join(f"{median:9.2f}" for median in medians) + ratio)


if __name__ == "__main__":
    main()
