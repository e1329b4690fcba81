"""Exact MaxSim in NumPy: the reference that every faster kernel is checked against.

MaxSim (the paper's Chamfer similarity, arXiv 2405.19504, equation 1) of a query and a document is the sum, over
the query's tokens, of the largest inner product with any of the document's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from muvera_core.batches import runs_by_size
from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, require_dimension

# Documents are scored in groups of about this many tokens: the float32 rows and scores of a group stay in cache.
TOKENS_PER_GROUP = 4096


def maxsim(query: FloatArray, documents: TokenEmbeddings) -> FloatArray:
    """Score one query against documents.

    Args:
        query: float32, shape (query tokens, dimension).
        documents: the documents' token embeddings.

    Returns:
        float32, shape (documents,).

    Raises:
        InvalidInputError: not token vectors, or NaN or infinity among them.
        DimensionMismatchError: query and documents have different widths.
    """
    (query,) = TokenEmbeddings.from_list([query])
    if not isinstance(documents, TokenEmbeddings):
        raise InvalidInputError(f"documents must be TokenEmbeddings, got {type(documents).__name__}")
    require_dimension(documents, query.shape[1], "the query")
    return maxsim_scaled(query, documents.vectors, None, documents.offsets)


def maxsim_scaled(
    query: FloatArray, rows: npt.NDArray[np.generic], scales: FloatArray | None, offsets: IntArray
) -> FloatArray:
    """Score one query against documents whose tokens are stored compactly.

    Token ``t`` is ``rows[t] * scales[t]``. The scale multiplies the products in place of the rows: a row has as
    many numbers as the model has dimensions, but only as many products as the query has tokens.

    Args:
        query: float32, shape (query tokens, dimension).
        rows: int8, float16 or float32, shape (tokens, dimension).
        scales: float32, shape (tokens,); None where rows are the vectors themselves.
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
    """Score several queries against the same documents, whose rows are then converted only once.

    Args:
        queries: float32, shape (query tokens, dimension) each. A few hundred tokens in all are best.
        rows: see ``maxsim_scaled``, as the other arguments.
        scales: see there.
        offsets: see there.

    Returns:
        float32, shape (queries, documents); equal to the scores of ``maxsim_scaled`` but for rounding.
    """
    scores = np.empty((len(offsets) - 1, len(queries)), dtype=np.float32)
    bounds = np.cumsum([0, *map(len, queries)])[:-1]
    for documents, best in _best_matches(np.concatenate(queries), rows, scales, offsets):
        np.add.reduceat(best, bounds, axis=1, out=scores[documents])
    return scores.T


def _best_matches(
    tokens: FloatArray, rows: npt.NDArray[np.generic], scales: FloatArray | None, offsets: IntArray
) -> Iterator[tuple[slice, FloatArray]]:
    """Each query token's highest product with each document, some documents at a time: which, (documents, tokens)."""
    transposed = np.ascontiguousarray(tokens.T)
    for first, last in runs_by_size(np.diff(offsets), TOKENS_PER_GROUP):
        some = slice(offsets[first], offsets[last])
        products = rows[some].astype(np.float32, copy=False) @ transposed
        if scales is not None:
            products *= scales[some, None]
        yield slice(first, last), np.maximum.reduceat(products, offsets[first:last] - offsets[first], axis=0)
