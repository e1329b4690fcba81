"""The computations of a learned encoder: features of query tokens, and best matches of document tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from muvera_core.token_embeddings import FloatArray

# Tokens of one document that are compared with the anchors at once, to bound memory and keep products in the cache.
_TOKENS_AT_ONCE = 512


def standardized(tokens: FloatArray, center: FloatArray, spread: FloatArray | np.float32) -> FloatArray:
    """Tokens minus ``center``, divided by ``spread``."""
    result: FloatArray = (tokens - center) / spread
    return result


def features(tokens: FloatArray, hidden: FloatArray, threshold: float) -> FloatArray:
    """Features of standardized tokens, float32, shape (tokens, hidden units + d + 1).

    The feature of a hidden unit is the square of the amount by which the inner product with it exceeds the threshold.
    The token itself and a constant make linear functions exact.
    """
    m = hidden.shape[1]
    psi = np.ones((len(tokens), m + tokens.shape[1] + 1), dtype=np.float32)
    excess = tokens @ hidden
    excess -= np.float32(threshold)
    np.maximum(excess, 0, out=excess)
    np.square(excess, out=psi[:, :m])
    psi[:, m:-1] = tokens
    return psi


def best_matches(documents: Iterable[FloatArray], anchors: FloatArray) -> Iterator[FloatArray]:
    """Yield each document's highest inner product with each of the anchors (d, n): float32, shape (n,)."""
    products = np.empty((_TOKENS_AT_ONCE, anchors.shape[1]), dtype=np.float32)
    for tokens in documents:
        best = np.full(anchors.shape[1], -np.inf, dtype=np.float32)
        for start in range(0, len(tokens), _TOKENS_AT_ONCE):
            batch = tokens[start : start + _TOKENS_AT_ONCE]
            np.maximum(best, np.matmul(batch, anchors, out=products[: len(batch)]).max(axis=0), out=best)
        yield best
