"""The fixed rotation that spreads a token vector evenly over its coordinates.

After it, the coordinates of every token are close to a normal distribution with the deviation |token| / √dimension, so
one table of levels serves all tokens of all models. The rotation is signs · DCT · signs · DCT, made in float64: the
same for all indexes, on every machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from muvera_core.token_embeddings import FloatArray, IntArray

# Wider vectors are rotated in several parts, so that no matrix becomes large.
_WIDEST_PART = 1024


def rotate(vectors: FloatArray) -> FloatArray:
    """The rotated vectors, float32, of the same shape (tokens, dimension)."""
    return _in_parts(vectors, inverse=False)


def rotate_back(vectors: FloatArray) -> FloatArray:
    """Undo ``rotate``."""
    return _in_parts(vectors, inverse=True)


def _in_parts(vectors: FloatArray, *, inverse: bool) -> FloatArray:
    n_parts = -(-vectors.shape[1] // _WIDEST_PART)
    if n_parts == 1:
        matrix = _matrix(vectors.shape[1])
        return vectors @ (matrix.T if inverse else matrix)
    rotated = np.empty_like(vectors)
    for part in range(n_parts):  # every n-th coordinate, because neighbours may be alike
        columns = vectors[:, part::n_parts]
        matrix = _matrix(columns.shape[1])
        rotated[:, part::n_parts] = columns @ (matrix.T if inverse else matrix)
    return rotated


@lru_cache(maxsize=8)
def _matrix(dimension: int) -> FloatArray:
    """The orthogonal matrix, float32, shape (dimension, dimension): a rotated row vector is ``row @ matrix``."""
    numbers = np.arange(dimension)
    # The cosine's argument is reduced in integers: cos is then called for numbers below 2π only.
    quarters = np.outer(2 * numbers + 1, numbers) % (4 * dimension)
    dct = np.cos(np.pi * quarters / (2 * dimension)) * np.sqrt(2 / dimension)
    dct[:, 0] /= np.sqrt(2)
    matrix = (_signs(numbers)[:, None] * dct) @ (_signs(numbers + dimension)[:, None] * dct)
    return np.ascontiguousarray(matrix, dtype=np.float32)


def _signs(numbers: IntArray) -> npt.NDArray[np.float64]:
    """±1 for each number: the highest bit of its splitmix64 hash (Steele, Lea and Flood, OOPSLA 2014)."""
    state = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return np.where(state >> np.uint64(63), -1.0, 1.0)
