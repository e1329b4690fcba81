"""What a learned encoder computes of tokens: features of queries' tokens, best matches of documents'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from muvera_core.token_embeddings import FloatArray

# Tokens of one document that are compared with the anchors at once: bounds memory, and keeps the products in the cache.
_TOKENS_AT_ONCE = 512


def standardized(tokens: FloatArray, center: FloatArray, spread: FloatArray | np.float32) -> FloatArray:
    """Tokens less the mean token, in units of their mean distance from it."""
    result: FloatArray = (tokens - center) / spread
    return result


def features(tokens: FloatArray, hidden: FloatArray, threshold: float) -> FloatArray:
    """Features of standardized tokens, float32, shape (tokens, hidden units + d + 1).

    A hidden unit's is the square of what the inner product with it exceeds the threshold by. The token itself and a
    constant let linear functions be exact.
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
    """For each document, its highest inner product with each of the anchors (d, n): float32, shape (n,)."""
    products = np.empty((_TOKENS_AT_ONCE, anchors.shape[1]), dtype=np.float32)
    for tokens in documents:
        best = np.full(anchors.shape[1], -np.inf, dtype=np.float32)
        for start in range(0, len(tokens), _TOKENS_AT_ONCE):
            some = tokens[start : start + _TOKENS_AT_ONCE]
            np.maximum(best, np.matmul(some, anchors, out=products[: len(some)]).max(axis=0), out=best)
        yield best
