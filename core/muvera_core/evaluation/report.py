"""The result of an evaluation, as text, JSON and a plot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from muvera_core.errors import InvalidInputError, MissingExtraError
from muvera_core.search import SearchMode
from muvera_core.validation import counted

# How the measures against labels are printed, by attribute.
_PRINTED = {
    "ndcg": "nDCG",
    "mrr": "MRR",
    "hit_rate": "hit rate",
    "precision": "precision",
    "recall": "recall",
    "map": "MAP",
}


@dataclass(frozen=True)
class CurvePoint:
    """Fidelity and search time for one number of candidates.

    Attributes:
        n_candidates: number of candidates that are reranked.
        fidelity: share of exact MaxSim's best documents that a search returns.
        milliseconds: median time of a search, without encoding the query.
    """

    n_candidates: int
    fidelity: float
    milliseconds: float


@dataclass(frozen=True)
class QuestionResult:
    """What one question found.

    Attributes:
        question: the question.
        found: ids of the hits, best first.
        measures: "fidelity" to exact MaxSim, and if relevant documents were given what was measured against them, by
            the names of ``Evaluation``'s attributes.
    """

    question: str
    found: tuple[str, ...]
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """The result of ``MuveraIndex.evaluate``.

    ``fidelity`` says how well searches approximate exact MaxSim. It says nothing about how good exact MaxSim's own hits
    are: that is measured against labels, the relevant documents that were given. Each such measure is a mean over the
    questions, of the index's hits and of exact MaxSim's. It is None if no relevant documents were given.

    Attributes:
        k: number of hits.
        n_queries: number of queries.
        n_documents: number of documents.
        n_candidates: number of candidates that were reranked; 0 in mode "lexical", which reranks none by itself.
        fidelity: share of exact MaxSim's ``k`` best documents that a search returns. In modes other than "late" it says
            how near the hits are to MaxSim's, and not how good they are.
        ndcg: nDCG@k, the order of the hits by their grades.
        mrr: reciprocal rank of the first relevant hit.
        hit_rate: share of questions with a relevant hit.
        precision: share of relevant documents among the hits.
        recall: share of the relevant documents that are among the hits.
        map: average precision, trec_eval's map_cut.
        milliseconds: median and 95th percentile of the time of each stage and of the whole search, by name.
        n_bytes: size of each part, on disk or in memory, by name.
        curve: fidelity and time for other numbers of candidates; empty in mode "lexical".
        by_question: the result of each question, in the order in which they were given.
        mode: what ranked the documents; see ``MuveraIndex.search``.
    """

    k: int
    n_queries: int
    n_documents: int
    n_candidates: int
    fidelity: float
    ndcg: tuple[float, float] | None
    mrr: tuple[float, float] | None
    hit_rate: tuple[float, float] | None
    precision: tuple[float, float] | None
    recall: tuple[float, float] | None
    map: tuple[float, float] | None
    milliseconds: Mapping[str, tuple[float, float]]
    n_bytes: Mapping[str, int]
    curve: tuple[CurvePoint, ...]
    by_question: tuple[QuestionResult, ...] = ()
    mode: SearchMode = "late"

    def __str__(self) -> str:
        lines = [
            ", ".join(
                (
                    counted(self.n_documents, "document"),
                    counted(self.n_queries, "question"),
                    *([counted(self.n_candidates, "candidate")] if self.n_candidates else []),
                    *([f"mode {self.mode}"] if self.mode != "late" else []),
                )
            ),
            f"fidelity@{self.k} to exact MaxSim: {self.fidelity:.4f}",
        ]
        for attribute, name in _PRINTED.items():
            value = getattr(self, attribute)
            if value is not None:
                lines.append(f"{name}@{self.k}: {value[0]:.4f} (exact MaxSim {value[1]:.4f})")
        lines.append(f"{'':12}{'median':>10}{'95 %':>10}")
        lines += [f"{name:12}{p50:7.2f} ms{p95:7.2f} ms" for name, (p50, p95) in self.milliseconds.items()]
        lines += [f"{name}: {size / 1e6:.1f} MB" for name, size in self.n_bytes.items()]
        if self.curve:
            lines.append(f"{'candidates':>12}{'fidelity':>10}{'search':>10}")
        lines += [f"{p.n_candidates:12}{p.fidelity:10.4f}{p.milliseconds:7.2f} ms" for p in self.curve]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The result in JSON's types."""
        return asdict(self)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw fidelity against time to a file, such as ``curve.svg``.

        Raises:
            MissingExtraError: matplotlib is not installed.
            InvalidInputError: there is no curve, the file cannot be written, or matplotlib does not know its type.
        """
        if not self.curve:
            raise InvalidInputError(f"mode {self.mode!r} reranks no candidates, so there is no curve to draw")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("drawing needs matplotlib: pip install 'muvera-core[plot]'") from error
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot([p.milliseconds for p in self.curve], [p.fidelity for p in self.curve], marker="o")
        for point in self.curve:
            axes.annotate(
                str(point.n_candidates),
                (point.milliseconds, point.fidelity),
                xytext=(4, -10),
                textcoords="offset points",
            )
        axes.set(
            xlabel="search, ms (median)",
            ylabel=f"fidelity@{self.k} to exact MaxSim",
            title=f"{counted(self.n_documents, 'document')}; numbers are candidates",
        )
        axes.grid(alpha=0.3)
        try:
            figure.savefig(path)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"the plot cannot be written to {path}: {error}") from error
