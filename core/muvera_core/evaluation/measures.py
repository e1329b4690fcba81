"""Measures of one question's hits: against exact MaxSim, and against labels, as trec_eval defines them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType


def fidelity_at_k(found: Sequence[str], exact: Collection[str], k: int = 10) -> float:
    """Share of exact MaxSim's ids that are among the first ``k`` found; 1 if there are none."""
    return len(set(found[:k]) & set(exact)) / len(exact) if exact else 1.0


def ndcg_at_k(found: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Normalised discounted cumulative gain with linear gains, as trec_eval's ndcg_cut and BEIR compute it.

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
    return 1 / next(iter(_relevant_ranks(found, relevance, k)), math.inf)


def hit_rate_at_k(found: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """1 if a relevant id is among the first ``k`` found, or else 0: trec_eval's success."""
    return float(bool(_relevant_ranks(found, relevance, k)))


def precision_at_k(found: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Share of relevant ids among the first ``k`` places: trec_eval's P. Places that nothing fills count, too."""
    return len(_relevant_ranks(found, relevance, k)) / k


def recall_at_k(found: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Share of the relevant ids that are among the first ``k`` found: trec_eval's recall; 0 if no id is relevant."""
    n_relevant = _n_relevant(relevance)
    return len(_relevant_ranks(found, relevance, k)) / n_relevant if n_relevant else 0.0


def map_at_k(found: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Average precision: the precision at the rank of each relevant id found, summed, over the number of relevant ids.

    This is trec_eval's map_cut. Others divide by ``min(k, relevant ids)``, which gives higher values if more than ``k``
    ids are relevant.

    Returns:
        A value in [0, 1]; 0 if no id is relevant.
    """
    ranks = _relevant_ranks(found, relevance, k)
    return sum(nth / rank for nth, rank in enumerate(ranks, start=1)) / _n_relevant(relevance) if ranks else 0.0


# What is measured against labels, by the name that an ``Evaluation`` gives it.
LABEL_MEASURES: Mapping[str, Callable[[Sequence[str], Mapping[str, float], int], float]] = MappingProxyType(
    {
        "ndcg": ndcg_at_k,
        "mrr": mrr_at_k,
        "hit_rate": hit_rate_at_k,
        "precision": precision_at_k,
        "recall": recall_at_k,
        "map": map_at_k,
    }
)


def _relevant_ranks(found: Sequence[str], relevance: Mapping[str, float], k: int) -> list[int]:
    """Ranks of the relevant ids among the first ``k`` found, from 1."""
    return [rank for rank, id in enumerate(found[:k], start=1) if relevance.get(id, 0) > 0]


def _n_relevant(relevance: Mapping[str, float]) -> int:
    return sum(grade > 0 for grade in relevance.values())


def _discounted_gain(grades: Sequence[float]) -> float:
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades))
