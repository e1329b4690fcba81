"""Return nothing if nothing is relevant: calibrate once, then one min_score fits all questions.

    python examples/recipes/nothing_relevant.py
    python examples/recipes/nothing_relevant.py --passages 1000

``calibrate`` needs no labelled questions and ten documents or more. Until then a hit's relevance is its normalized
score, for which no threshold fits all questions: unrelated passages reach 0.6.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from muvera_core import MuveraIndex
from muvera_core.evaluation.collections import read_beir

DATA = Path(__file__).parents[1] / "data" / "nq-gold"
ANSWERED = "who got the first nobel prize in physics"
UNANSWERED = "how do I reset the password of my router"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=200)
    n = parser.parse_args().passages
    wikipedia = read_beir(DATA)
    with MuveraIndex.create(None) as index:
        index.add(wikipedia.texts[:n], wikipedia.ids[:n])
        for question in (ANSWERED, UNANSWERED):
            print(f"normalized score {index.search(question, k=1)[0].relevance:.2f}: {question}")
        report = index.calibrate()
        print(report)
        for question in (ANSWERED, UNANSWERED):
            print(f"probability {index.search(question, k=1)[0].relevance:.2f}: {question}")
            hits = index.search(question, k=3, min_score=0.5)
            print("  " + (", ".join(hit.id for hit in hits) or "nothing relevant"))


if __name__ == "__main__":
    main()
