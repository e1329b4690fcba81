"""The compiled kernels of exact MaxSim, from the distribution muvera-kernels.

Rows of codes (int8, or in slices) are multiplied with query tokens in fixed point: a token's numbers are rounded to
multiples of its step, which is its largest magnitude divided by ``most_code``. All sums of products are exact. So a
score differs from that of the stored rows in float64 by at most the sum, over the query's tokens, of step / 2 times the
largest L1 norm of a stored row, and by the rounding of a few operations in float32. It is the same on every processor,
for any number of threads, and whatever else is scored in the same call. Rows of float16 and float32 are multiplied in
float32.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.maxsim.layout import RowLayout, RowSource, read_block
from muvera_core.native import NUMPY, kernel_name, kernels
from muvera_core.token_embeddings import FloatArray, IntArray

# The largest magnitude of a query token's codes, for full and for leading bits.
_MOST_CODE = 127 * 256 + 127
_MOST_COARSE_CODE = 127
# Wider rows would leave the query's codes too few bits.
WIDEST = 8192


def most_code(dimension: int, *, coarse: bool = False) -> int:
    """The largest magnitude of a query token's codes: sums of their products with codes of a byte stay in 32 bits."""
    return min((2**31 - 1) // (128 * dimension), _MOST_COARSE_CODE if coarse else _MOST_CODE)


def serves(dimension: int) -> bool:
    """Whether a compiled kernel scores rows of this width."""
    return kernel_name() != NUMPY and 0 < dimension <= WIDEST


def score_documents(
    source: RowSource,
    first: IntArray,
    count: IntArray,
    layout: RowLayout,
    queries: Sequence[FloatArray],
    n_threads: int,
    *,
    coarse: bool = False,
) -> FloatArray:
    """Scores of stored documents. See ``muvera_core.maxsim.score_documents``."""
    tokens, offsets = _end_to_end(queries)
    scores = np.empty((len(queries), len(first)), dtype=np.float32)
    _module().score_documents(
        source,
        _int64(first),
        _int64(count),
        layout.precision,
        layout.table(coarse=coarse),
        tokens,
        offsets,
        n_threads,
        coarse,
        kernel_name(),
        scores,
    )
    return scores


def score_rows(
    rows: npt.NDArray[np.generic],
    scales: FloatArray | None,
    offsets: IntArray,
    queries: Sequence[FloatArray],
    n_threads: int,
) -> FloatArray:
    """Scores of documents whose rows lie in arrays, float32, shape (queries, documents). See ``maxsim_of_many``."""
    tokens, query_offsets = _end_to_end(queries)
    scores = np.empty((len(queries), len(offsets) - 1), dtype=np.float32)
    _module().score_rows(rows, scales, _int64(offsets), tokens, query_offsets, n_threads, kernel_name(), scores)
    return scores


def are_readable(rows: npt.NDArray[np.generic], scales: FloatArray | None) -> bool:
    """Whether a compiled kernel can read these arrays where they lie."""
    if not serves(rows.shape[1]) or rows.strides[1] != rows.itemsize or rows.strides[0] < 0:
        return False
    if rows.dtype == np.int8:
        return scales is not None and scales.strides[0] >= 0 and scales.strides[0] % 4 == 0
    aligned = rows.strides[0] % rows.itemsize == 0
    return scales is None and aligned and rows.dtype.isnative and rows.dtype in (np.float16, np.float32)


def row_checksums(source: RowSource, first: IntArray, count: IntArray, row_bytes: int) -> npt.NDArray[np.uint32]:
    """CRC-32 of each document's rows, as ``zlib.crc32`` computes it, uint32, shape (documents,).

    Args:
        source: where the rows are.
        first: number of each document's first row, int64.
        count: number of its rows, int64.
        row_bytes: bytes of a row.

    Raises:
        EOFError: the source ends before the rows do.
        OSError: the file cannot be read.
    """
    found = np.empty(len(first), dtype=np.uint32)
    if (module := kernels()) is not None:
        module.crc32(source, _int64(first), _int64(count), row_bytes, found)
        return found
    for i, (place, size) in enumerate(zip((first * row_bytes).tolist(), (count * row_bytes).tolist(), strict=True)):
        found[i] = zlib.crc32(read_block(source, place, size).data)
    return found


def _module() -> Any:
    """The compiled kernels. Only called where ``serves`` says that one is used."""
    return kernels()


def _end_to_end(queries: Sequence[FloatArray]) -> tuple[FloatArray, IntArray]:
    tokens = np.concatenate(queries) if len(queries) > 1 else queries[0]
    offsets = np.cumsum([0, *map(len, queries)], dtype=np.int64)
    return np.ascontiguousarray(tokens, dtype=np.float32), offsets


def _int64(numbers: IntArray) -> IntArray:
    return np.ascontiguousarray(numbers, dtype=np.int64)
