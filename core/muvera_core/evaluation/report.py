"""The result of an evaluation, as text, JSON and a plot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from muvera_core.errors import InvalidInputError, MissingExtraError
from muvera_core.validation import counted


@dataclass(frozen=True)
class CurvePoint:
    """Recall and search time for one number of candidates.

    Attributes:
        n_candidates: number of candidates that are reranked.
        recall: share of exact MaxSim's best documents that a search returns.
        milliseconds: median time of a search, without encoding the query.
    """

    n_candidates: int
    recall: float
    milliseconds: float


@dataclass(frozen=True)
class Evaluation:
    """The result of ``MuveraIndex.evaluate``.

    Attributes:
        k: number of hits.
        n_queries: number of queries.
        n_documents: number of documents.
        n_candidates: number of candidates that were reranked.
        recall: share of exact MaxSim's ``k`` best documents that a search returns.
        ndcg: nDCG of the index's hits, and of exact MaxSim's; None if no relevant documents were given.
        mrr: mean reciprocal rank of the index's hits, and of exact MaxSim's; None if ``ndcg`` is None.
        milliseconds: median and 95th percentile of the time of each stage and of the whole search, by name.
        n_bytes: size of each part, on disk or in memory, by name.
        curve: recall and time for other numbers of candidates.
    """

    k: int
    n_queries: int
    n_documents: int
    n_candidates: int
    recall: float
    ndcg: tuple[float, float] | None
    mrr: tuple[float, float] | None
    milliseconds: Mapping[str, tuple[float, float]]
    n_bytes: Mapping[str, int]
    curve: tuple[CurvePoint, ...]

    def __str__(self) -> str:
        lines = [
            ", ".join(
                (
                    counted(self.n_documents, "document"),
                    counted(self.n_queries, "question"),
                    counted(self.n_candidates, "candidate"),
                )
            ),
            f"recall@{self.k} against exact MaxSim: {self.recall:.4f}",
        ]
        for name, value in (("nDCG", self.ndcg), ("MRR", self.mrr)):
            if value is not None:
                lines.append(f"{name}@{self.k}: {value[0]:.4f} (exact MaxSim {value[1]:.4f})")
        lines.append(f"{'':12}{'median':>10}{'95 %':>10}")
        lines += [f"{name:12}{p50:7.2f} ms{p95:7.2f} ms" for name, (p50, p95) in self.milliseconds.items()]
        lines += [f"{name}: {size / 1e6:.1f} MB" for name, size in self.n_bytes.items()]
        lines.append(f"{'candidates':>12}{'recall':>10}{'search':>10}")
        lines += [f"{p.n_candidates:12}{p.recall:10.4f}{p.milliseconds:7.2f} ms" for p in self.curve]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The result in JSON's types."""
        return asdict(self)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw recall against time to a file, such as ``curve.svg``.

        Raises:
            MissingExtraError: matplotlib is not installed.
            InvalidInputError: the file cannot be written, or matplotlib does not know its type.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("drawing needs matplotlib: pip install 'muvera-core[plot]'") from error
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot([p.milliseconds for p in self.curve], [p.recall for p in self.curve], marker="o")
        for point in self.curve:
            axes.annotate(
                str(point.n_candidates), (point.milliseconds, point.recall), xytext=(4, -10), textcoords="offset points"
            )
        axes.set(
            xlabel="search, ms (median)",
            ylabel=f"recall@{self.k} against exact MaxSim",
            title=f"{counted(self.n_documents, 'document')}; numbers are candidates",
        )
        axes.grid(alpha=0.3)
        try:
            figure.savefig(path)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"the plot cannot be written to {path}: {error}") from error
