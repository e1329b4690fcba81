"""Rankings of documents by their scores."""

from __future__ import annotations

import numpy as np

from muvera_core.token_embeddings import FloatArray, IntArray

# Queries that are ranked over all documents in one call, if latency does not matter.
RANKED_TOGETHER = 32
# Document keys and their scores: by descending MaxSim, ties by ascending key.
Ranking = tuple[IntArray, FloatArray]


def ranked(keys: IntArray, scores: FloatArray, k: int | None) -> Ranking:
    """The ranking of the ``k`` best documents (all if ``k`` is None) with these scores."""
    order = np.lexsort((keys, -scores))[:k]
    return keys[order], scores[order]


def normalize_scores(scores: FloatArray, n_query_tokens: int) -> FloatArray:
    """The mean per query token, clipped to [0, 1]. Unlike raw scores, it is comparable between queries."""
    # ``np.clip`` takes several times as long for a few numbers.
    normalized: FloatArray = np.minimum(np.maximum(scores / np.float32(n_query_tokens), 0), 1)
    return normalized
