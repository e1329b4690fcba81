"""Measure searches with questions of your own, and compare settings.

    python examples/recipes/evaluate.py
    python examples/recipes/evaluate.py --passages 1000 --questions 300

Thirty questions, each with the ids of the passages that answer it, tell more than any benchmark of others. Here they
come from Wikipedia. ``muvera evaluate INDEX questions.jsonl --relevant qrels.tsv`` does the same without Python.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from muvera_core import MuveraIndex
from muvera_core.evaluation.collections import read_beir
from muvera_core.search import SearchMode

DATA = Path(__file__).parents[1] / "data" / "nq-gold"
MODES: tuple[SearchMode, ...] = ("late", "lexical", "hybrid")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=200)
    parser.add_argument("--questions", type=int, default=30)
    arguments = parser.parse_args()
    wikipedia = read_beir(DATA)
    ids = wikipedia.ids[: arguments.passages]
    with MuveraIndex.create(None) as index:
        index.add(wikipedia.texts[: len(ids)], ids)
        # Your own: questions = ["what did we decide about pricing?", ...]; relevant = [{"minutes.md#3"}, ...]
        answered = [id for id, relevant in wikipedia.relevance.items() if set(relevant) <= set(ids)]
        answered = answered[: arguments.questions]
        questions = [wikipedia.queries[id] for id in answered]
        relevant = [wikipedia.relevance[id] for id in answered]
        print(f"{len(questions)} questions, {len(index)} passages")
        for mode in MODES:
            measured = index.evaluate(questions, relevant, k=10, mode=mode)
            # Each measure has two values: of the index's hits, and of exact MaxSim's.
            values = {"nDCG@10": measured.ndcg, "MRR": measured.mrr, "recall": measured.recall}
            print(f"{mode:8}", ", ".join(f"{name} {value[0]:.3f}" for name, value in values.items() if value))
            if mode == "late":
                worst = min(measured.by_question, key=lambda result: result.measures["ndcg"])
                print(f"{'':8} worst question: {worst.question}? found {', '.join(worst.found[:3])}")


if __name__ == "__main__":
    main()
