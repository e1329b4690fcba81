"""Can one threshold tell relevant hits from others, and say that an index has no answer? Scores, raw and calibrated.

usage: python tests/benchmarks/relevance.py FOLDER... [--questions 400] [--few 5 50] [--results DIR] [--plot FILE.svg]

Half of the passages that answer a question are left out of each index, drawn at random, so that about half of the
questions have no answer in it. A calibration is learned from the even questions, or from parts of the passages alone,
and everything is measured on the odd questions, on their first ten hits. Each collection is also measured with the
calibrations and the thresholds of the others.

F1 own: at the threshold that is best for these questions, which nobody knows beforehand. F1 others': mean over the
best thresholds of the other collections. F1 .5: at .5. AUC: whether the best hit is relevant. refused: share of the
questions without an answer that get no hit at the threshold that keeps 95 % of the relevant hits. ECE: expected
calibration error.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from embedded import Embedded, embed
from machine import describe_machine
from matplotlib.figure import Figure

from muvera_core import Calibration, MuveraIndex
from muvera_core.calibration.report import expected_calibration_error
from muvera_core.token_embeddings import FloatArray

HITS = 10
# Documents of a question that a calibration could look at.
DEPTH = 50


@dataclass(frozen=True, eq=False)
class Ranked:
    """The best documents of a question: scores and which are relevant; its tokens; how many answers the index has."""

    scores: FloatArray
    relevant: np.ndarray
    n_tokens: int
    n_answers: int


@dataclass(frozen=True, eq=False)
class Measured:
    """One way to say how relevant the hits of some questions are.

    Attributes:
        values: of the first hits of all questions, end to end, float64.
        relevant: which of them are relevant, bool.
        n_answers: number of relevant passages in the index, over all questions.
        best: the value of each question's best hit, and whether that is relevant.
        unanswered: the value of the best hit of each question without an answer.
    """

    values: np.ndarray
    relevant: np.ndarray
    n_answers: int
    best: tuple[np.ndarray, np.ndarray]
    unanswered: np.ndarray

    @classmethod
    def of(cls, questions: Sequence[Ranked], values: Sequence[np.ndarray]) -> Measured:
        """Of questions, with the values of their documents."""
        firsts = [np.asarray(each[:HITS], dtype=np.float64) for each in values]
        return cls(
            np.concatenate(firsts),
            np.concatenate([question.relevant[:HITS] for question in questions]),
            sum(question.n_answers for question in questions),
            (np.array([each[0] for each in firsts]), np.array([question.relevant[0] for question in questions])),
            np.array([each[0] for each, question in zip(firsts, questions, strict=True) if not question.n_answers]),
        )

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Precision, recall and F1 of the hits at a threshold."""
        kept = self.values >= threshold
        n = int((kept & self.relevant).sum())
        precision, recall = n / max(1, int(kept.sum())), n / max(1, self.n_answers)
        return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)

    @property
    def best_threshold(self) -> float:
        """The threshold of highest F1."""
        order = np.argsort(-self.values)
        found = np.cumsum(self.relevant[order])
        f1 = 2 * found / (np.arange(1, len(order) + 1) + self.n_answers)
        return float(self.values[order][f1.argmax()])

    @property
    def auc(self) -> float:
        """Probability that a relevant best hit has a higher value than another question's irrelevant one."""
        values, relevant = self.best
        yes, no = values[relevant], np.sort(values[~relevant])
        below = (np.searchsorted(no, yes, "left") + np.searchsorted(no, yes, "right")) / 2
        return float(below.mean() / len(no))

    @property
    def refused(self) -> float:
        """Share of the unanswered questions without a hit at the threshold that keeps 95 % of the relevant hits."""
        return float((self.unanswered < np.quantile(self.values[self.relevant], 0.05)).mean())

    @property
    def calibration_error(self) -> float:
        return expected_calibration_error(np.clip(self.values, 0, 1), self.relevant)


@dataclass(frozen=True, eq=False)
class Collection:
    """A collection's odd questions, and what was learned from its even ones or from its passages."""

    name: str
    questions: list[Ranked]
    made: Calibration
    judged: Calibration
    few: dict[int, Calibration]
    lines: list[str]

    def as_text(self) -> str:
        rankings = [(q.scores.tolist(), q.relevant.tolist(), q.n_tokens, q.n_answers) for q in self.questions]
        few = {n: calibration.as_json() for n, calibration in self.few.items()}
        return json.dumps([self.name, rankings, self.made.as_json(), self.judged.as_json(), few, self.lines])

    @classmethod
    def from_text(cls, text: str) -> Collection:
        name, rankings, made, judged, few, lines = json.loads(text)
        questions = [Ranked(np.array(s, np.float32), np.array(r, bool), n, answers) for s, r, n, answers in rankings]
        of_few = {int(n): Calibration(**calibration) for n, calibration in few.items()}
        return cls(name, questions, Calibration(**made), Calibration(**judged), of_few, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="collections in BEIR's format")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "muvera-benchmarks")
    parser.add_argument(
        "--questions", type=int, default=400, help="number of questions, drawn at random (default: 400)"
    )
    parser.add_argument("--few", type=int, nargs="*", default=[], help="calibrate with so many judged questions, too")
    parser.add_argument("--results", type=Path, help="folder that keeps what was found for each collection")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    print(describe_machine())
    collections = []
    for folder in arguments.folders:
        kept = None if arguments.results is None else arguments.results / f"{folder.name}.json"
        if kept is not None and kept.exists():
            collection = Collection.from_text(kept.read_text())
        else:
            collection = look_at(embed(folder, arguments.cache, arguments.questions), arguments.few)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(collection.as_text())
        print("\n".join(collection.lines), flush=True)
        collections.append(collection)
    for collection in collections:
        compare(collection, [other for other in collections if other is not collection])
    if arguments.plot:
        draw(collections, arguments.plot)


def look_at(embedded: Embedded, few: Sequence[int]) -> Collection:
    """Index a collection without half of its answers, and calibrate the index in every way."""
    answers = np.unique([i for relevant in embedded.relevance for i in relevant])
    left_out = set(np.random.default_rng(0).choice(answers, len(answers) // 2, replace=False).tolist())
    kept = [i for i in range(len(embedded.texts)) if i not in left_out]
    with MuveraIndex.create(None) as index:
        index.add_embeddings(
            [embedded.documents[i] for i in kept], ids=[str(i) for i in kept], texts=[embedded.texts[i] for i in kept]
        )
        found = index.search_embeddings_batch(list(embedded.queries), DEPTH)
        questions = []
        for hits, tokens, relevant in zip(found, embedded.queries, embedded.relevance, strict=True):
            present = {str(i) for i, grade in relevant.items() if grade > 0} - {str(i) for i in left_out}
            is_relevant = np.array([hit.id in present for hit in hits])
            scores = np.array([hit.score for hit in hits], dtype=np.float32)
            questions.append(Ranked(scores, is_relevant, len(tokens), len(present)))
        ids = [[str(i) for i, grade in relevant.items() if grade > 0] for relevant in embedded.relevance]
        texts = embedded.query_texts
        made = index.calibrate().calibration
        report = index.calibrate(texts[::2], ids[::2])
        n_answered = sum(question.n_answers > 0 for question in questions[1::2])
        lines = [
            f"{embedded.name}: {len(kept)} passages; {n_answered} of {len(questions[1::2])} questions to measure with "
            f"have an answer\n{report}"
        ]
        lines += stability(index, embedded)
        of_few = {n: index.calibrate(texts[: 2 * n : 2], ids[: 2 * n : 2]).calibration for n in few}
    return Collection(embedded.name, questions[1::2], made, report.calibration, of_few, lines)


def stability(index: MuveraIndex, embedded: Embedded, n: int = 60) -> list[str]:
    """How far the relevance of the best hit moves with the number of candidates, and under a filter."""
    queries = list(embedded.queries)[:n]
    rng = np.random.default_rng(0)
    exact = [hits[0] for hits in index.search_embeddings_batch(queries, 1, exact=True)]
    moves: dict[str, list[float]] = {
        "10 candidates": [],
        "50 candidates": [],
        "400 candidates": [],
        "a filter that admits a tenth": [],
        "a filter that admits 20 documents": [],
    }
    every = [document.id for document in index.find()]
    for query, best in zip(queries, exact, strict=True):
        for name, n_candidates in (("10 candidates", 10), ("50 candidates", 50), ("400 candidates", 400)):
            hit = index.search_embeddings(query, 1, n_candidates)[0]
            if hit.id == best.id:
                moves[name].append(abs(hit.relevance - best.relevance))
        for name, size in (
            ("a filter that admits a tenth", len(every) // 10),
            ("a filter that admits 20 documents", 20),
        ):
            admitted = [best.id, *rng.choice(every, size, replace=False).tolist()]
            moves[name].append(abs(index.search_embeddings(query, 1, ids=admitted)[0].relevance - best.relevance))
    return [
        f"relevance of the best hit, {name} against exact search: moves by {np.mean(each):.3f} on average, 95 % by "
        f"at most {np.quantile(each, 0.95):.3f}"
        for name, each in moves.items()
    ]


def values_of(questions: Sequence[Ranked], calibration: Calibration) -> list[np.ndarray]:
    return [calibration.relevance(question.scores, question.n_tokens) for question in questions]


def ways(collection: Collection) -> dict[str, Measured]:
    """Raw scores and each calibration of the collection itself, on its odd questions."""
    questions = collection.questions
    found = {
        "raw MaxSim": Measured.of(questions, [question.scores for question in questions]),
        "normalized score": Measured.of(questions, [question.scores / question.n_tokens for question in questions]),
        "parts of documents": Measured.of(questions, values_of(questions, collection.made)),
    }
    for n, calibration in collection.few.items():
        found[f"{n} judged questions"] = Measured.of(questions, values_of(questions, calibration))
    found["judged questions"] = Measured.of(questions, values_of(questions, collection.judged))
    return found


def compare(collection: Collection, others: Sequence[Collection]) -> None:
    """Print a table for one collection."""
    print(f"\n| {collection.name} | F1 own | F1 others' | at .5: precision | recall | F1 | AUC | refused | ECE |")
    print("|---|---|---|---|---|---|---|---|---|")
    questions = collection.questions
    for n in (1, HITS):
        kept = sum(int(question.relevant[:n].sum()) for question in questions)
        precision = kept / sum(len(question.relevant[:n]) for question in questions)
        recall = kept / sum(question.n_answers for question in questions)
        f1 = 2 * precision * recall / (precision + recall)
        print(f"| the first {n} | {f1:.3f} | {f1:.3f} | {precision:.3f} | {recall:.3f} | {f1:.3f} | | .000 | |")
    of_others = [ways(other) for other in others]
    for name, measured in ways(collection).items():
        thresholds = [of_other[name].best_threshold for of_other in of_others]
        print(row(name, measured, thresholds, is_probability=name not in ("raw MaxSim", "normalized score")))
    for other in others:
        measured = Measured.of(questions, values_of(questions, other.judged))
        print(row(f"judged questions of {other.name}", measured, [ways(other)["judged questions"].best_threshold]))


def row(name: str, measured: Measured, thresholds: Sequence[float], *, is_probability: bool = True) -> str:
    own = measured.at(measured.best_threshold)[2]
    transferred = f"{np.mean([measured.at(each)[2] for each in thresholds]):.3f}" if thresholds else ""
    at_half = " | ".join(f"{each:.3f}" for each in measured.at(0.5)) if name != "raw MaxSim" else " | | "
    error = f"{measured.calibration_error:.3f}" if name != "raw MaxSim" else ""
    return f"| {name} | {own:.3f} | {transferred} | {at_half} | {measured.auc:.3f} | {measured.refused:.3f} | {error} |"


def draw(collections: Sequence[Collection], path: Path) -> None:
    """Draw the share of hits that are relevant against what is said of them, for each collection."""
    figure = Figure(figsize=(3.2 * len(collections), 3.4), layout="constrained")
    for axes, collection in zip(
        np.atleast_1d(figure.subplots(1, len(collections), sharey=True)), collections, strict=True
    ):
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        found = ways(collection)
        for name, style in (("normalized score", ":"), ("parts of documents", "-"), ("judged questions", "--")):
            measured = found[name]
            ranges = np.minimum((np.clip(measured.values, 0, 1) * 10).astype(int), 9)
            points = [
                (measured.values[ranges == i].mean(), measured.relevant[ranges == i].mean())
                for i in range(10)
                if (ranges == i).any()
            ]
            axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=name)
        axes.set(title=collection.name, xlabel="relevance")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share that is relevant")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main()
