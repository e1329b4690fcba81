"""Maximal marginal relevance: a choice of hits that are relevant and unlike one another."""

from __future__ import annotations

import numpy as np

from muvera_core.token_embeddings import FloatArray, IntArray


def maximal_marginal_relevance(
    relevance: FloatArray, similarity: FloatArray, k: int, relevance_weight: float
) -> IntArray:
    """Choose ``k`` items one by one (Carbonell and Goldstein, SIGIR 1998).

    Each time the item is taken for which ``relevance_weight * relevance - (1 - relevance_weight) * redundancy`` is
    highest, where redundancy is the largest similarity to an item that was taken before.

    Args:
        relevance: of each item, shape (items,).
        similarity: of each pair, shape (items, items), on about the scale of relevance.
        k: how many to choose; all where there are fewer.
        relevance_weight: 1 looks at relevance only, 0 at redundancy only.

    Returns:
        Positions of the chosen items in the order of choice, int64, shape (min(k, items),).
    """
    chosen: list[int] = []
    redundancy = np.zeros(len(relevance), dtype=np.float32)
    left = np.ones(len(relevance), dtype=bool)
    for _ in range(min(k, len(relevance))):
        gain = relevance_weight * relevance - (1 - relevance_weight) * redundancy
        best = int(np.where(left, gain, -np.inf).argmax())
        redundancy = similarity[best] if not chosen else np.maximum(redundancy, similarity[best])
        chosen.append(best)
        left[best] = False
    return np.array(chosen, dtype=np.int64)
