"""Measures of retrieval quality."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence


def recall_at_k(found: Sequence[str], expected: Collection[str], k: int = 10) -> float:
    """Share of the ``expected`` ids among the first ``k`` found; 1 if nothing is expected."""
    return len(set(found[:k]) & set(expected)) / len(expected) if expected else 1.0


def ndcg_at_k(found: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Normalised discounted cumulative gain with linear gains, as trec_eval and BEIR compute it.

    Args:
        found: ids, best first.
        relevance: grade of each relevant id. Other ids have grade 0.
        k: number of found ids that count.

    Returns:
        A value in [0, 1]; 0 if no id is relevant.
    """
    ideal = _discounted_gain(sorted((grade for grade in relevance.values() if grade > 0), reverse=True)[:k])
    return _discounted_gain([relevance.get(id, 0) for id in found[:k]]) / ideal if ideal else 0.0


def mrr_at_k(found: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Reciprocal rank of the first relevant id among the first ``k`` found; 0 if there is none."""
    ranks = (rank for rank, id in enumerate(found[:k], start=1) if relevance.get(id, 0) > 0)
    return 1 / next(ranks, math.inf)


def _discounted_gain(grades: Sequence[float]) -> float:
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades))
