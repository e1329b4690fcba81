"""What ``optimize`` gains on a collection, on questions that it hasn't seen.

usage: python tests/benchmarks/optimize.py FOLDER [--questions 300] [--target-recall 0.97] [--others N]

Evaluates a default index with real questions; again after ``optimize`` with stand-ins for questions; and, on half of
the questions, after ``optimize`` with the other half.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from candidates import with_others
from machine import describe_machine

from muvera_core import Evaluation, MuveraIndex
from muvera_core.evaluation import read_beir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=300, help="how many, evenly spread (default: 300)")
    parser.add_argument("--target-recall", type=float, default=0.97)
    parser.add_argument("--others", type=int, help="of the passages that answer nothing, take so many (default: all)")
    arguments = parser.parse_args()
    collection = read_beir(arguments.folder)
    if arguments.others is not None:
        collection = with_others(collection, arguments.others)
    every = max(1, len(collection.queries) // arguments.questions)
    asked = list(collection.queries.items())[::every][: arguments.questions]
    questions, answers = [text for _, text in asked], [collection.relevance[id] for id, _ in asked]

    print(describe_machine())
    print(f"{arguments.folder.name}: {len(collection.ids)} passages, {len(asked)} questions")
    with tempfile.TemporaryDirectory() as temporary, MuveraIndex.create(Path(temporary) / "index") as index:
        start = time.perf_counter()
        index.add(collection.texts, ids=collection.ids, show_progress=True)
        encoding = time.perf_counter() - start
        print(f"add: {encoding:.0f} s")
        report("as it was made", index.evaluate(questions, answers))
        start = time.perf_counter()
        print(index.optimize(arguments.target_recall, show_progress=True).measured)
        seconds = time.perf_counter() - start
        print(f"optimize: {seconds:.0f} s, {seconds / encoding:.0%} of the time that adding took")
        report("optimized with stand-ins", index.evaluate(questions, answers))
        print(index.optimize(arguments.target_recall, questions[::2], show_progress=True).measured)
        report("optimized with half of the questions, on the others", index.evaluate(questions[1::2], answers[1::2]))


def report(title: str, evaluation: Evaluation) -> None:
    print(f"--- {title}\n{evaluation}", flush=True)


if __name__ == "__main__":
    main()
