"""Stage-one vectors as 8-bit codes: a rotation, a scale for each vector, and how queries are compared with them.

A rotation spreads what a vector holds over its coordinates. They are then nearly normal, so that 8 bits keep four
digits of a product, and even two bits keep the order (docs/benchmarks.md). Products of codes are integers, so they are
the same on every processor.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_core.files import row_hashes
from muvera_core.token_embeddings import FloatArray

Codes = npt.NDArray[np.int8]
QueryCodes = npt.NDArray[np.int16]

_LARGEST = 127
# The largest code of a query: it is 128 * high + low, where both parts are codes of 8 bits.
_LARGEST_OF_QUERY = 127 * 128
# Coordinates that are mixed with each other. More of them find nothing more.
_MOST_MIXED = 512


class EncodedVectors(NamedTuple):
    """Vectors as codes: a rotated vector is nearly its scale times its codes.

    Attributes:
        codes: int8, shape (vectors, dimension).
        scales: float32, shape (vectors,).
    """

    codes: Codes
    scales: FloatArray


def encode_vectors(vectors: FloatArray) -> EncodedVectors:
    """The codes of vectors, float32, shape (vectors, dimension)."""
    rotated = _rotated(vectors)
    scales = np.abs(rotated).max(axis=1, initial=0) / np.float32(_LARGEST)
    codes = np.rint(rotated / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
    return EncodedVectors(codes, scales)


def decode_vectors(encoded: EncodedVectors) -> FloatArray:
    """The vectors of codes, float32, shape (vectors, dimension)."""
    signs = _signs(encoded.codes.shape[1])
    return _mixed(encoded.codes.astype(np.float32) * encoded.scales[:, None]) * signs


def encode_queries(queries: FloatArray, width: int) -> QueryCodes:
    """The codes of queries, int16, shape (queries, width), with zeros after their dimension.

    The products of a query with all vectors are scaled by the same number.
    """
    rotated = _rotated(queries)
    largest = np.abs(rotated).max(axis=1, initial=0)
    scale = _LARGEST_OF_QUERY / np.where(largest > 0, largest, 1).astype(np.float64)
    codes = np.zeros((len(queries), width), dtype=np.int16)
    codes[:, : queries.shape[1]] = np.rint(rotated * scale[:, None])
    return codes


def _rotated(vectors: FloatArray) -> FloatArray:
    return _mixed(vectors * _signs(vectors.shape[1]))


def _mixed(vectors: FloatArray) -> FloatArray:
    """A Walsh-Hadamard transform of each run of coordinates. It is its own inverse.

    It only adds and subtracts, so that it gives the same bits everywhere.
    """
    n, dimension = vectors.shape
    size = min(_MOST_MIXED, dimension & -dimension)
    mixed = vectors.astype(np.float32)
    half = 1
    while half < size:
        before = mixed.reshape(n, dimension // (2 * half), 2, half)
        after = np.empty_like(before)
        np.add(before[:, :, 0], before[:, :, 1], out=after[:, :, 0])
        np.subtract(before[:, :, 0], before[:, :, 1], out=after[:, :, 1])
        mixed = after
        half *= 2
    return mixed.reshape(n, dimension) * np.float32(size**-0.5)


@lru_cache(maxsize=8)
def _signs(dimension: int) -> FloatArray:
    """A sign for each coordinate, float32: without them, equal coordinates would add up to one large one."""
    hashes = row_hashes([np.arange(dimension, dtype=np.int64)])
    return np.where(hashes < 0, -1, 1).astype(np.float32)
