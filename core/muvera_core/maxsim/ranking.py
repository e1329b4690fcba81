"""Scores into rankings."""

from __future__ import annotations

import numpy as np

from muvera_core.token_embeddings import FloatArray, IntArray

# Queries that are compared with all documents together, where nobody waits for one of them.
RANKED_TOGETHER = 32
# Keys by falling MaxSim, ties by rising key, and their scores.
Ranking = tuple[IntArray, FloatArray]


def ranked(keys: IntArray, scores: FloatArray, k: int | None) -> Ranking:
    """The ``k`` best (all, where None) of documents with these scores."""
    order = np.lexsort((keys, -scores))[:k]
    return keys[order], scores[order]


def normalize_scores(scores: FloatArray, n_query_tokens: int) -> FloatArray:
    """Mean over query tokens, clipped to [0, 1]: what makes scores of different questions comparable."""
    normalized: FloatArray = np.clip(scores / np.float32(n_query_tokens), 0, 1)
    return normalized
