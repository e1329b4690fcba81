"""Exact MaxSim on the CPU, by a compiled kernel if there is one, or else by NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from muvera_core.batches import runs_by_size
from muvera_core.errors import InvalidInputError
from muvera_core.maxsim import compiled, cpu
from muvera_core.maxsim.layout import RowLayout, RowSource, read_block, unpack
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, require_dimension


def maxsim(query: FloatArray, documents: TokenEmbeddings) -> FloatArray:
    """Score one query against documents.

    Args:
        query: float32, shape (query tokens, dimension).
        documents: the documents' token embeddings.

    Returns:
        float32, shape (documents,).

    Raises:
        InvalidInputError: an argument does not hold token vectors, or holds NaN or infinity.
        DimensionMismatchError: query and documents have different widths.
    """
    (query,) = TokenEmbeddings.from_list([query])
    if not isinstance(documents, TokenEmbeddings):
        raise InvalidInputError(f"documents must be TokenEmbeddings, got {type(documents).__name__}")
    require_dimension(documents, query.shape[1], "the query")
    return maxsim_scaled(query, documents.vectors, None, documents.offsets)


def maxsim_scaled(
    query: FloatArray,
    rows: npt.NDArray[np.generic],
    scales: FloatArray | None,
    offsets: IntArray,
    n_threads: int = 1,
) -> FloatArray:
    """Score one query against documents whose tokens are stored in a compact form.

    Args:
        query: float32, shape (query tokens, dimension).
        rows: int8, float16 or float32, shape (tokens, dimension).
        scales: float32, shape (tokens,): token ``t`` is ``rows[t] * scales[t]``. None if rows are the vectors.
        offsets: int64, shape (documents + 1,); document ``i`` owns rows ``offsets[i]:offsets[i + 1]``, at least one.
        n_threads: most threads to use.

    Returns:
        float32, shape (documents,).
    """
    if compiled.are_readable(rows, scales):
        scores: FloatArray = compiled.score_rows(rows, scales, offsets, [query], n_threads)[0]
        return scores
    return cpu.maxsim_scaled(query, rows, scales, offsets)


def maxsim_of_many(
    queries: Sequence[FloatArray],
    rows: npt.NDArray[np.generic],
    scales: FloatArray | None,
    offsets: IntArray,
    n_threads: int = 1,
) -> FloatArray:
    """Score several queries against the same documents. The documents' rows are converted only once.

    Args:
        queries: float32, shape (query tokens, dimension) each. A total of a few hundred tokens is fastest.
        rows: see ``maxsim_scaled``.
        scales: see ``maxsim_scaled``.
        offsets: see ``maxsim_scaled``.
        n_threads: most threads to use.

    Returns:
        float32, shape (queries, documents); equal to the scores of ``maxsim_scaled`` up to rounding.
    """
    if compiled.are_readable(rows, scales):
        return compiled.score_rows(rows, scales, offsets, queries, n_threads)
    return cpu.maxsim_of_many(queries, rows, scales, offsets)


def score_documents(
    source: RowSource,
    first: IntArray,
    count: IntArray,
    layout: RowLayout,
    queries: Sequence[FloatArray],
    n_threads: int = 1,
    *,
    coarse: bool = False,
) -> FloatArray:
    """Score queries against documents where their token rows are stored. Each row is read and unpacked once.

    Args:
        source: where the rows are.
        first: number of each document's first row, int64.
        count: number of its rows, int64, at least 1.
        layout: the bytes of the rows.
        queries: float32, shape (query tokens, dimension) each, at least one.
        n_threads: most threads to use.
        coarse: read only the leading bits of rows in slices.

    Returns:
        float32, shape (queries, documents). ``compiled`` says how exact they are.

    Raises:
        EOFError: the source ends before the rows do.
        OSError: the file cannot be read.
    """
    if compiled.serves(layout.dimension):
        return compiled.score_documents(source, first, count, layout, queries, n_threads, coarse=coarse)
    scores = np.empty((len(queries), len(first)), dtype=np.float32)
    for start, end in runs_by_size(count, cpu.TOKENS_PER_GROUP):
        rows, scales, offsets = _unpacked(source, first[start:end], count[start:end], layout, coarse)
        scores[:, start:end] = cpu.maxsim_of_many(queries, rows, scales, offsets)
    return scores


def _unpacked(
    source: RowSource, first: IntArray, count: IntArray, layout: RowLayout, coarse: bool
) -> tuple[npt.NDArray[np.generic], FloatArray | None, IntArray]:
    """The rows of some documents, end to end, their scales if they have any, and the documents' offsets."""
    read_bytes = layout.lead_bytes if coarse else layout.row_bytes
    parts = [
        unpack(read_block(source, row * layout.row_bytes, n * read_bytes), n, layout, coarse=coarse)
        for row, n in zip(first.tolist(), count.tolist(), strict=True)
    ]
    scales = [of_document for _, of_document in parts if of_document is not None]
    offsets = np.cumsum([0, *count.tolist()], dtype=np.int64)
    return np.concatenate([rows for rows, _ in parts]), np.concatenate(scales) if scales else None, offsets
