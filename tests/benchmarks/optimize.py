"""What ``optimize`` gains on a collection, on questions that it hasn't seen.

usage: python tests/benchmarks/optimize.py FOLDER [--cache FOLDER] [--questions 300] [--target-recall 0.97]
       [--others N] [--with-questions]

Evaluates a default index with real questions; again after ``optimize`` with stand-ins for questions; and, if asked to,
on half of the questions after ``optimize`` with the other half.
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
    parser.add_argument("--with-questions", action="store_true", help="optimize with half of the questions, too")
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    questions = collection.questions
    answers = [{str(number): grade for number, grade in grades.items()} for grades in collection.relevance]
    encoding = seconds_to_encode(collection)

    print(describe_machine())
    print(f"{collection.name}: {len(collection.texts)} passages, which take {encoding:.0f} s to encode")
    with tempfile.TemporaryDirectory() as temporary, MuveraIndex.create(Path(temporary) / "index") as index:
        index.add_embeddings(collection.documents, [str(i) for i in range(len(collection.texts))], collection.texts)
        report("as it was made", index.evaluate(questions, answers))
        start = time.perf_counter()
        print(index.optimize(arguments.target_recall, show_progress=True).measured)
        seconds = time.perf_counter() - start
        print(f"optimize: {seconds:.0f} s, {seconds / encoding:.0%} of the time that encoding takes")
        report("optimized with stand-ins", index.evaluate(questions, answers))
        if arguments.with_questions:
            print(index.optimize(arguments.target_recall, questions[::2], show_progress=True).measured)
            report(
                "optimized with half of the questions, on the others", index.evaluate(questions[1::2], answers[1::2])
            )


def report(title: str, evaluation: Evaluation) -> None:
    print(f"--- {title}\n{evaluation}", flush=True)


if __name__ == "__main__":
    main()
