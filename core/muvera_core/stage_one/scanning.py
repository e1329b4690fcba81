"""Which rows of codes have the highest inner product with a query: compiled if possible, or else in NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_core.native import installed_kernels, vector_kernel
from muvera_core.stage_one.vector_codes import Codes, EncodedVectors, QueryCodes, encode_queries
from muvera_core.threads import kernel_calls
from muvera_core.token_embeddings import FloatArray, IntArray

# Vectors of so many coordinates are first compared by two bits of each.
_WIDE = 1024
# As many of the best by two bits as this multiple of the wanted ones are compared by all bits. Twice is enough on
# 5,000 documents.
_KEPT = 4
_LEAST_KEPT = 256
# Rows whose codes NumPy copies to floats at a time.
_ROWS_AT_ONCE = 256


class Coarse(NamedTuple):
    """Two bits of each coordinate, in the order that the kernels read. Width 0 if they are not used.

    Attributes:
        codes: uint8, shape (vectors, bytes).
        scales: float32, shape (vectors,).
    """

    codes: npt.NDArray[np.uint8]
    scales: FloatArray


def coarse_width(dimension: int) -> int:
    """Bytes of a vector's coarse codes."""
    return -(-dimension // 4) if dimension >= _WIDE and vector_kernel()[0] is not None else 0


def write_coarse(encoded: EncodedVectors, coarse: Coarse) -> None:
    """Fill the coarse codes of vectors."""
    if coarse.codes.shape[1] and len(coarse.scales):
        # All kernels write the same codes. MUVERA_KERNEL may have changed since the width was decided.
        module, share = installed_kernels(), kernel_calls.share()
        name = module.available_kernels()[0]
        module.coarsen(encoded.codes, encoded.scales, coarse.codes, coarse.scales, share.n_threads, name)


def best_rows(
    encoded: EncodedVectors,
    coarse: Coarse,
    keys: IntArray,
    admitted: npt.NDArray[np.bool_],
    queries: FloatArray,
    k: int,
) -> IntArray:
    """For each query the ``k`` admitted rows of highest inner product, best first, ties by key.

    Args:
        encoded: the vectors.
        coarse: their coarse codes.
        keys: the key of each, int64, shape (vectors,).
        admitted: which rows may be found, bool, shape (vectors,).
        queries: float32, shape (queries, dimension).
        k: number of rows to find. There must be as many.

    Returns:
        int64, shape (queries, k). Each processor finds the same.
    """
    dimension, n_admitted = encoded.codes.shape[1], int(np.count_nonzero(admitted))
    found = np.empty((len(queries), k), dtype=np.int64)
    if not found.size:
        return found
    module, name = vector_kernel()
    if module is None:
        return _best_in_numpy(encoded, keys, admitted, encode_queries(queries, dimension), found)
    n_kept = max(_LEAST_KEPT, _KEPT * k)
    two_steps = coarse.codes.shape[1] > 0 and n_admitted > 2 * n_kept
    share = kernel_calls.share()
    module.find_best(
        encoded.codes,
        encoded.scales,
        coarse.codes if two_steps else None,
        coarse.scales if two_steps else None,
        keys,
        None if n_admitted == len(keys) else admitted.view(np.uint8),
        encode_queries(queries, 4 * coarse.codes.shape[1] or dimension),
        n_kept,
        found,
        share.n_threads,
        name,
    )
    return found


def _best_in_numpy(
    encoded: EncodedVectors, keys: IntArray, admitted: npt.NDArray[np.bool_], queries: QueryCodes, found: IntArray
) -> IntArray:
    places = np.flatnonzero(admitted)
    scores = np.empty((len(queries), len(places)), dtype=np.float32)
    for start in range(0, len(places), _ROWS_AT_ONCE):
        some = places[start : start + _ROWS_AT_ONCE]
        scores[:, start : start + len(some)] = _products(encoded.codes[some], queries) * encoded.scales[some]
    for row, best in zip(scores, found, strict=True):
        best[:] = places[_best(keys[places], row, len(best))]
    return found


def _products(codes: Codes, queries: QueryCodes) -> npt.NDArray[np.float64]:
    """Inner products, shape (queries, vectors). They are whole numbers, which float64 holds exactly."""
    products: npt.NDArray[np.float64] = queries.astype(np.float64) @ codes.T.astype(np.float64)
    return products


def _best(keys: IntArray, scores: FloatArray, k: int) -> IntArray:
    """The places of the ``k`` highest scores, best first, ties by key."""
    candidates = np.arange(len(scores))
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= least)
    return candidates[np.lexsort((keys[candidates], -scores[candidates]))][:k]
