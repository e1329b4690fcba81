"""What an evaluation measured, as text, JSON and a plot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from muvera_core.errors import InvalidInputError, MissingExtraError


@dataclass(frozen=True)
class CurvePoint:
    """What a number of candidates gives.

    Attributes:
        n_candidates: how many are reranked.
        recall: share of exact MaxSim's best documents that a search returns.
        milliseconds: median time of a search, without encoding the question.
    """

    n_candidates: int
    recall: float
    milliseconds: float


@dataclass(frozen=True)
class Evaluation:
    """What ``MuveraIndex.evaluate`` measured.

    Attributes:
        k: number of hits.
        n_queries: number of questions.
        n_documents: number of documents.
        n_candidates: how many were reranked.
        recall: share of exact MaxSim's ``k`` best documents that a search returns.
        ndcg: nDCG of the index's hits and of exact MaxSim's; None where it isn't known what is relevant.
        mrr: mean reciprocal rank of the same.
        milliseconds: median and 95th percentile of each stage and of the whole, by name.
        n_bytes: size of each part, on disk or in memory, by name.
        curve: what other numbers of candidates give.
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
            f"{self.n_documents} documents, {self.n_queries} questions, {self.n_candidates} candidates",
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
        """The same, of JSON's types."""
        return asdict(self)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw recall against time to a file, such as ``curve.svg``.

        Raises:
            MissingExtraError: matplotlib isn't installed.
            InvalidInputError: the file can't be written, or is of no kind that can be drawn.
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
            title=f"{self.n_documents} documents; numbers are candidates",
        )
        axes.grid(alpha=0.3)
        try:
            figure.savefig(path)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{path} can't be drawn to: {error}") from error
