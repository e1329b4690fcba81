"""Measures a calibration on questions that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.calibration.calibration import Calibration
from muvera_core.calibration.features import Float64Array
from muvera_core.calibration.fitting import fit_calibration
from muvera_core.calibration.rankings import JudgedRanking, both_ways
from muvera_core.validation import counted

# The threshold to report on, and the hits that a search returns.
_THRESHOLD = 0.5
_HITS = 10
_FOLDS = 5
_BINS = 10
_KEPT = 0.95


@dataclass(frozen=True)
class CalibrationReport:
    """What ``MuveraIndex.calibrate`` measured on questions that were held out, once with their answers, once without.

    Attributes:
        mode: mode of search.
        n_judged: number of judged questions.
        n_made: number of questions that were made of documents.
        expected_calibration_error: how far the probability of the first ten hits is from the share that is relevant, on
            average over ten ranges of the probability. 0 is perfect.
        precision: share of the hits with a relevance of .5 or more that are relevant.
        recall: share of all relevant documents that are such hits.
        refused: share of the questions without an answer for which no hit has a relevance of .5.
        min_score_95: the highest ``min_score`` that keeps 95 % of the relevant hits.
        refused_95: share of the questions without an answer for which no hit is left then.
        calibration: the map that is in use now.
    """

    mode: str
    n_judged: int
    n_made: int
    expected_calibration_error: float
    precision: float
    recall: float
    refused: float
    min_score_95: float
    refused_95: float
    calibration: Calibration

    def __str__(self) -> str:
        questions = counted(self.n_judged, "judged question") if self.n_judged else f"{self.n_made} parts of documents"
        return "\n".join(
            (
                f"mode {self.mode!r}, measured on {questions}, held out, with their answers and without",
                f"expected calibration error: {self.expected_calibration_error:.3f}",
                f"min_score=0.5: precision {self.precision:.3f}, recall {self.recall:.3f}, "
                f"nothing returned for {self.refused:.1%} of the questions without an answer",
                f"min_score={self.min_score_95:.2f} keeps 95 % of the relevant hits: "
                f"nothing returned for {self.refused_95:.1%} of the questions without an answer",
            )
        )

    def as_json(self) -> dict[str, Any]:
        """The report in JSON's types."""
        return asdict(self)


def measure(
    mode: str, judged: Sequence[JudgedRanking], made: Sequence[JudgedRanking], n_documents: int = 0
) -> CalibrationReport:
    """Fit to all rankings, and measure on parts of them what the others predict.

    Args:
        mode: mode of search.
        judged: rankings of judged questions. If there are any, they alone are measured on.
        made: rankings of questions that were made of documents.
        n_documents: number of documents that the searches could have found.
    """
    measured, context = (judged, made) if judged else (made, ())
    n_folds = min(_FOLDS, len(measured))
    held_out: list[tuple[Float64Array, JudgedRanking]] = []
    for fold in range(n_folds):
        others = [ranking for i, ranking in enumerate(measured) if i % n_folds != fold]
        calibration = fit_calibration([*others, *context])
        for ranking in both_ways(measured[fold::n_folds]):
            relevance = calibration.relevance(ranking.scores, ranking.n_query_tokens)[:_HITS]
            held_out.append((relevance.astype(np.float64), ranking))
    probabilities = np.concatenate([relevance for relevance, _ in held_out])
    relevant = np.concatenate([ranking.relevant[:_HITS] for _, ranking in held_out])
    weights = np.concatenate([np.full(len(relevance), ranking.weight) for relevance, ranking in held_out])
    n_relevant = sum(ranking.weight * ranking.n_relevant for _, ranking in held_out)
    is_kept = probabilities >= _THRESHOLD
    n_found = float(weights[is_kept & relevant].sum())
    min_score = float(np.quantile(probabilities[relevant], 1 - _KEPT)) if relevant.any() else 0.0

    def refused(threshold: float) -> float:
        best = [relevance.max(initial=0.0) for relevance, ranking in held_out if not ranking.n_relevant]
        return float(np.mean(np.array(best) < threshold))

    return CalibrationReport(
        mode,
        len(judged),
        len(made),
        expected_calibration_error(probabilities, relevant, weights),
        _share(n_found, float(weights[is_kept].sum())),
        _share(n_found, n_relevant),
        refused(_THRESHOLD),
        min_score,
        refused(min_score),
        fit_calibration([*judged, *made], n_documents=n_documents, n_judged=len(judged), n_made=len(made)),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def expected_calibration_error(
    probabilities: Float64Array, relevant: npt.NDArray[np.bool_], weights: Float64Array | None = None
) -> float:
    """The mean difference between probability and share that is relevant, over ten ranges (Naeini et al., AAAI 2015).

    Args:
        probabilities: shape (hits,).
        relevant: shape (hits,).
        weights: how much each hit counts, shape (hits,). None counts all alike.
    """
    weights = np.ones(len(probabilities)) if weights is None else weights
    ranges = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
    claimed = np.bincount(ranges, weights * probabilities, _BINS)
    observed = np.bincount(ranges, weights * relevant, _BINS)
    return _share(float(np.abs(claimed - observed).sum()), float(weights.sum()))
