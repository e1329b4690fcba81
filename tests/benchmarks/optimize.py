"""Measures what ``optimize`` gains on a collection, with queries that it has not seen.

usage: python tests/benchmarks/optimize.py FOLDER [--cache FOLDER] [--questions 300] [--target-recall 0.97]
       [--others N] [--with-questions]

Evaluates a default index with real queries, and again after ``optimize`` with pseudo-queries. ``--with-questions`` also
evaluates it with half of the queries after ``optimize`` with the other half.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from embedded import collection_parser, embed, seconds_to_encode
from machine import describe_machine

from muvera_core import Evaluation, MuveraIndex


def main() -> None:
    parser = collection_parser(__doc__)
    parser.add_argument("--target-recall", type=float, default=0.97)
    parser.add_argument("--with-questions", action="store_true", help="also optimize with half of the queries")
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    queries = collection.query_texts
    answers = [{str(number): grade for number, grade in grades.items()} for grades in collection.relevance]
    encoding = seconds_to_encode(collection)

    print(describe_machine())
    print(f"{collection.name}: {len(collection.texts)} passages, {encoding:.0f} s to encode")
    with tempfile.TemporaryDirectory() as temporary, MuveraIndex.create(Path(temporary) / "index") as index:
        index.add_embeddings(collection.documents, [str(i) for i in range(len(collection.texts))], collection.texts)
        report("default index", index.evaluate(queries, answers))
        start = time.perf_counter()
        print(index.optimize(arguments.target_recall, show_progress=True).measured)
        seconds = time.perf_counter() - start
        print(f"optimize: {seconds:.0f} s, {seconds / encoding:.0%} of the time to encode the passages")
        report("optimized with pseudo-queries", index.evaluate(queries, answers))
        if arguments.with_questions:
            print(index.optimize(arguments.target_recall, queries[::2], show_progress=True).measured)
            report(
                "optimized with half of the queries, evaluated with the others",
                index.evaluate(queries[1::2], answers[1::2]),
            )


def report(title: str, evaluation: Evaluation) -> None:
    print(f"--- {title}\n{evaluation}", flush=True)


if __name__ == "__main__":
    main()
