"""Exact MaxSim in NumPy: the reference for every faster kernel.

MaxSim (the paper's Chamfer similarity, arXiv 2405.19504, equation 1) of a query and a document is the sum, over
the query's tokens, of the largest inner product with any of the document's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from muvera_core.batches import runs_by_size
from muvera_core.token_embeddings import FloatArray, IntArray

# Documents are scored in groups of at most this many tokens, whose float32 rows and scores fit in the cache.
TOKENS_PER_GROUP = 4096


def maxsim_scaled(
    query: FloatArray, rows: npt.NDArray[np.generic], scales: FloatArray | None, offsets: IntArray
) -> FloatArray:
    """Score one query against documents whose tokens are stored in a compact form.

    Token ``t`` is ``rows[t] * scales[t]``. The scale multiplies the inner products instead of the row, which is
    cheaper: a row has one number per dimension, but only one product per query token.

    Args:
        query: float32, shape (query tokens, dimension).
        rows: int8, float16 or float32, shape (tokens, dimension).
        scales: float32, shape (tokens,); None if rows are the vectors themselves.
        offsets: int64, shape (documents + 1,); document ``i`` owns rows ``offsets[i]:offsets[i + 1]``, at least one.

    Returns:
        float32, shape (documents,).
    """
    scores = np.empty(len(offsets) - 1, dtype=np.float32)
    for documents, best in _best_matches(query, rows, scales, offsets):
        scores[documents] = best.sum(axis=1)
    return scores


def maxsim_of_many(
    queries: Sequence[FloatArray], rows: npt.NDArray[np.generic], scales: FloatArray | None, offsets: IntArray
) -> FloatArray:
    """Score several queries against the same documents. The documents' rows are converted only once.

    Args:
        queries: float32, shape (query tokens, dimension) each. A total of a few hundred tokens is fastest.
        rows: see ``maxsim_scaled``.
        scales: see ``maxsim_scaled``.
        offsets: see ``maxsim_scaled``.

    Returns:
        float32, shape (queries, documents); equal to the scores of ``maxsim_scaled`` up to rounding.
    """
    scores = np.empty((len(offsets) - 1, len(queries)), dtype=np.float32)
    bounds = np.cumsum([0, *map(len, queries)])[:-1]
    for documents, best in _best_matches(np.concatenate(queries), rows, scales, offsets):
        np.add.reduceat(best, bounds, axis=1, out=scores[documents])
    return scores.T


def _best_matches(
    tokens: FloatArray, rows: npt.NDArray[np.generic], scales: FloatArray | None, offsets: IntArray
) -> Iterator[tuple[slice, FloatArray]]:
    """Yield groups of documents with each query token's highest product: a slice, and (documents, query tokens)."""
    transposed = np.ascontiguousarray(tokens.T)
    for first, last in runs_by_size(np.diff(offsets), TOKENS_PER_GROUP):
        group = slice(offsets[first], offsets[last])
        products = rows[group].astype(np.float32, copy=False) @ transposed
        if scales is not None:
            products *= scales[group, None]
        yield slice(first, last), np.maximum.reduceat(products, offsets[first:last] - offsets[first], axis=0)
