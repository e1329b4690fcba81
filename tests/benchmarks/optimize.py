"""Measures what ``optimize`` gains on a collection, and how near it comes to its target, with queries it has not seen.

usage: python tests/benchmarks/optimize.py FOLDER [--cache FOLDER] [--questions 300] [--target-recall 0.9 0.95 0.97]
       [--others N] [--shuffle] [--without-texts] [--with-questions]

Evaluates a default index with real queries, and again after ``optimize`` with pseudo-queries, for each target. The
passages keep the order of the file, which is often sorted by topic; ``--shuffle`` puts them in random order. With
``--without-texts`` the pseudo-queries are runs of stored tokens, as for an index whose tokens were made elsewhere.
``--with-questions`` also evaluates it with half of the queries after ``optimize`` with the other half.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from embedded import collection_parser, embed, seconds_to_encode
from machine import describe_machine

from muvera_core import Evaluation, MuveraIndex


def main() -> None:
    parser = collection_parser(__doc__)
    parser.add_argument("--target-recall", type=float, nargs="+", default=[0.97])
    parser.add_argument("--shuffle", action="store_true", help="put the passages in random order")
    parser.add_argument("--without-texts", action="store_true", help="let optimize use stored tokens only")
    parser.add_argument("--with-questions", action="store_true", help="also optimize with half of the queries")
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    queries = collection.query_texts
    answers = [{str(number): grade for number, grade in grades.items()} for grades in collection.relevance]
    encoding = seconds_to_encode(collection)
    order = list(range(len(collection.texts)))
    if arguments.shuffle:
        random.Random(0).shuffle(order)

    print(describe_machine())
    print(f"{collection.name}: {len(collection.texts)} passages, {encoding:.0f} s to encode")
    with tempfile.TemporaryDirectory() as temporary, MuveraIndex.create(Path(temporary) / "index") as index:
        index.add_embeddings(
            [collection.documents[i] for i in order],
            [str(i) for i in order],
            # Without a text, a document's stored tokens are all that a pseudo-query can be made of.
            None if arguments.without_texts else [collection.texts[i] for i in order],
        )
        report("default index", index.evaluate(queries, answers))
        for target in arguments.target_recall:
            start = time.perf_counter()
            print(index.optimize(target, show_progress=True).measured)
            seconds = time.perf_counter() - start
            print(f"optimize: {seconds:.0f} s, {seconds / encoding:.0%} of the time to encode the passages")
            report(f"optimized for {target} with pseudo-queries", index.evaluate(queries, answers))
        if arguments.with_questions:
            print(index.optimize(arguments.target_recall[-1], queries[::2], show_progress=True).measured)
            report(
                "optimized with half of the queries, evaluated with the others",
                index.evaluate(queries[1::2], answers[1::2]),
            )


def report(title: str, evaluation: Evaluation) -> None:
    print(f"--- {title}\n{evaluation}", flush=True)


if __name__ == "__main__":
    main()
