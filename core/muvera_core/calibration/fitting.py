"""Fits a calibration to judged rankings, by logistic regression with a small ridge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvera_core.calibration.calibration import Calibration
from muvera_core.calibration.features import N_PEERS, Float64Array, decay_of, features
from muvera_core.calibration.rankings import JudgedRanking, both_ways
from muvera_core.errors import InvalidInputError

# Documents of each query to learn from. Further ones are hardly ever relevant, and hardly ever returned.
_DEPTH = 20
# Strength of the ridge, in observations per question: it keeps weights finite if judgements separate the documents
# perfectly.
_RIDGE = 1 / 300
_STEPS = 100
_CONVERGED = 1e-8
_STEEPEST = 30.0


def fit_calibration(
    rankings: Sequence[JudgedRanking], *, n_documents: int = 0, n_judged: int = 0, n_made: int = 0
) -> Calibration:
    """Learn from rankings, each with its relevant documents and without them.

    Args:
        rankings: what to learn from.
        n_documents: number of documents that the searches could have found, to note.
        n_judged: number of judged questions among them, to note.
        n_made: number of questions that were made of documents, to note.

    Raises:
        InvalidInputError: no ranking has a relevant document, or none has another one.
    """
    rankings = both_ways(rankings)
    n_relevant = sum(int(ranking.relevant[:_DEPTH].sum()) for ranking in rankings)
    n_others = sum(len(ranking.relevant[:_DEPTH]) for ranking in rankings) - n_relevant
    if not n_relevant or not n_others:
        raise InvalidInputError(
            f"calibrating needs relevant documents and others among the best {_DEPTH} of some question, got "
            f"{n_relevant} relevant ones and {n_others} others: give more questions with relevant documents"
        )
    long = [ranking for ranking in rankings if len(ranking.scores) > N_PEERS]
    leads = [features(ranking.scores, ranking.n_query_tokens, 0.0)[0, 2] for ranking in long]
    typical_lead = float(np.average(leads, weights=[ranking.weight for ranking in long])) if long else 0.0
    decays = [decay_of(ranking.scores, ranking.n_query_tokens) for ranking in long]
    decay = float(np.mean([each for each in decays if each is not None] or [0.0]))
    x = np.concatenate([features(r.scores, r.n_query_tokens, typical_lead)[:_DEPTH] for r in rankings])
    y = np.concatenate([r.relevant[:_DEPTH] for r in rankings]).astype(np.float64)
    weights = np.concatenate([np.full(len(r.relevant[:_DEPTH]), r.weight) for r in rankings])
    slopes, intercept = _rising_logistic(x, y, weights, _RIDGE * sum(ranking.weight for ranking in rankings))
    similarity, closeness, lead = slopes.tolist()
    return Calibration(intercept, similarity, closeness, lead, typical_lead, decay, n_documents, n_judged, n_made)


def _rising_logistic(
    x: Float64Array, y: Float64Array, weights: Float64Array, ridge: float
) -> tuple[Float64Array, float]:
    """Slopes, none below 0, and intercept. A feature whose slope would fall is left out, and the others fit again."""
    slopes, used = np.zeros(x.shape[1]), np.ones(x.shape[1], dtype=bool)
    while True:
        slopes[:] = 0
        slopes[used], intercept = _logistic(x[:, used], y, weights, ridge)
        if (slopes >= 0).all():
            return slopes, intercept
        used &= slopes > 0


def _logistic(x: Float64Array, y: Float64Array, weights: Float64Array, ridge: float) -> tuple[Float64Array, float]:
    """Slopes and intercept of highest penalised likelihood, by Newton's method on standardized features."""
    mean = np.average(x, axis=0, weights=weights)
    spread = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
    spread[spread < 1e-9] = 1.0  # a constant feature gets no slope, because of the ridge
    z = np.column_stack([(x - mean) / spread, np.ones(len(x))])
    penalty = np.diag([ridge] * x.shape[1] + [1e-6])
    share = np.average(y, weights=weights)
    beta = np.append(np.zeros(x.shape[1]), np.log(share / (1 - share)))

    def loss(beta: Float64Array) -> float:
        logits = z @ beta
        return float(weights @ (np.logaddexp(0, logits) - y * logits) + beta @ penalty @ beta / 2)

    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(z @ beta, -_STEEPEST, _STEEPEST)))
        gradient = z.T @ (weights * (p - y)) + penalty @ beta
        curvature = (z * (weights * p * (1 - p))[:, None]).T @ z + penalty
        step = np.linalg.solve(curvature, gradient)
        while loss(beta - step) > loss(beta) and np.abs(step).max() > _CONVERGED:
            step = step / 2  # a full step may go too far
        beta = beta - step
        if np.abs(step).max() < _CONVERGED:
            break
    slopes = beta[:-1] / spread
    return slopes, float(beta[-1] - slopes @ mean)
