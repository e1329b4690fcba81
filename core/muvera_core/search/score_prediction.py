"""Predicts a cross-encoder's scores of documents from those of a few, by Gaussian-process regression.

ANNCUR (arXiv 2210.12579) and ADACUR (arXiv 2305.02996) predict them from a matrix of scores of past queries with the
same documents, which nobody has for documents of their own. What late interaction knows of each document takes its
place here. The rounds are ADACUR's: judge, predict, and judge next what is predicted to be high.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from muvera_core.token_embeddings import FloatArray, IntArray

Floats = npt.NDArray[np.float64]

# The share of calls that goes to the best candidates by MaxSim, before anything is predicted.
_FIRST_SHARE = 0.4
_LEAST_FIRST = 10
# What is expected before anything is known: the correlation of scores with MaxSim, and the variance of its slope. The
# first candidates are all good, so by their scores alone MaxSim would seem to matter less than it does.
_CORRELATION = 0.3
_SLOPE_VARIANCE = 0.3
# Variances due to the matches and to the contents, and of noise, where the judged scores have variance 1. Those are
# taken under which these scores are most probable.
_VARIANCES = ((0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.3, 0.3), (0.6, 0.6))
_NOISES = (0.05, 0.2, 0.6)
# Squared distance of two contents, each of unit length, over which their scores become unlike by a factor of e.
_CONTENT_SCALE = 1.0
# Deviations below this come from rounding.
_NOTHING = 1e-9


@dataclass(frozen=True, eq=False)
class Features:
    """What late interaction knows of the candidates of one query.

    Attributes:
        maxsim: float32, shape (candidates,).
        matches: the best match of each query token, float32, shape (candidates, query tokens).
        contents: sum of each candidate's token vectors, float32, shape (candidates, dimension).
    """

    maxsim: FloatArray
    matches: FloatArray
    contents: FloatArray

    @cached_property
    def scaled_matches(self) -> Floats:
        """The matches with mean 0 and deviation 1 for each query token."""
        centred = self.matches.astype(np.float64) - self.matches.mean(axis=0, dtype=np.float64)
        deviations = centred.std(axis=0)
        scaled: Floats = centred / np.where(deviations > _NOTHING, deviations, 1)
        return scaled

    @cached_property
    def scaled_contents(self) -> Floats:
        """Directions of the mean token vectors, without what all candidates have in common."""
        contents = _unit_rows(self.contents.astype(np.float64))
        return _unit_rows(contents - contents.mean(axis=0))


def choose_first(n: int, n_calls: int) -> IntArray:
    """Places of the candidates to judge first, of ``n`` in MaxSim's order."""
    return np.arange(min(n, n_calls, max(_LEAST_FIRST, round(_FIRST_SHARE * n_calls))))


def choose_next(predicted: Floats, scores: Floats, n: int) -> IntArray:
    """Places of the ``n`` candidates of highest prediction among those whose score is NaN: they were not judged."""
    return np.argsort(np.where(np.isnan(scores), -predicted, np.inf), kind="stable")[:n]


def predict_scores(features: Features, scores: Floats) -> Floats:
    """Predict the scores of all candidates from those that were judged.

    A score is taken for a line in MaxSim plus a Gaussian process (Rasmussen and Williams, "Gaussian Processes for
    Machine Learning", chapters 2 and 5): the more alike the matches and contents of two candidates are, the more
    alike are their scores.

    Args:
        features: the candidates' features.
        scores: float64, shape (candidates,); NaN where none was judged. At least one was.

    Returns:
        float64, shape (candidates,). If all judged scores are equal, the order is MaxSim's.
    """
    judged = np.flatnonzero(~np.isnan(scores))
    offset, scale = scores[judged].mean(), max(scores[judged].std(), _NOTHING)
    maxsim = features.maxsim.astype(np.float64)
    maxsim = (maxsim - maxsim[judged].mean()) / max(maxsim[judged].std(), _NOTHING)
    surprise = (scores[judged] - offset) / scale - _CORRELATION * maxsim[judged]
    of_slope = _SLOPE_VARIANCE * np.outer(maxsim, maxsim[judged])
    of_matches = _alike(features.scaled_matches, judged, 2 * features.matches.shape[1])
    of_contents = _alike(features.scaled_contents, judged, _CONTENT_SCALE)
    most_likely, predicted = -np.inf, maxsim
    for matches, contents in _VARIANCES:
        covariance = of_slope + matches * of_matches + contents * of_contents
        for noise in _NOISES:
            lower = np.linalg.cholesky(covariance[judged] + noise * np.eye(len(judged)))
            whitened = np.linalg.solve(lower, surprise)
            log_likelihood = -whitened @ whitened / 2 - np.log(np.diag(lower)).sum()
            if log_likelihood > most_likely:
                most_likely = log_likelihood
                predicted = _CORRELATION * maxsim + covariance @ np.linalg.solve(lower.T, whitened)
    scores_predicted: Floats = offset + scale * predicted
    return scores_predicted


def _alike(rows: Floats, places: IntArray, scale: float) -> Floats:
    """How alike all rows are to some, shape (rows, places): 1 if equal, and less by e per ``scale`` of distance²."""
    squares = (rows**2).sum(axis=1)
    distances = squares[:, None] + squares[places] - 2 * rows @ rows[places].T
    alike: Floats = np.exp(-np.maximum(distances, 0) / scale)
    return alike


def _unit_rows(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Floats = rows / np.where(lengths > _NOTHING, lengths, 1)
    return units
