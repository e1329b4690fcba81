"""Token rows in slices of bits: the leading bits of a document's tokens lie together, and the remaining bits behind.

A search reads the leading bits of many documents, and all bits of the best ones. The rows of one document of n tokens
are one block of n rows' size:

- n scales, float16;
- n rows of leading bits, two per dimension: whether the coordinate is large (1), and whether it is negative (2);
- n rows of remaining bits: none, or 2 or 6 per dimension. 6 are stored as the upper four, and then the lower two.

Numbers of 2 or 4 bits fill bytes from the lowest bits on. ``levels`` says what codes stand for.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from muvera_core.batches import runs_by_size
from muvera_core.errors import InvalidInputError
from muvera_core.maxsim import RowLayout, RowPrecision, unpack
from muvera_core.storage.levels import FIXED_RANGE, MAX_MAGNITUDE, RANGE, REMAINING_BITS, levels
from muvera_core.storage.rotation import rotate
from muvera_core.token_embeddings import FloatArray, IntArray

PRECISIONS = tuple(REMAINING_BITS)
# Tokens that are encoded at a time, so that the float32 numbers in between stay small.
_ENCODED_TOGETHER = 16_384
_TWO_BITS = np.uint8(3)


@lru_cache(maxsize=16)
def layout_of(precision: RowPrecision, dimension: int) -> RowLayout:
    """The layout of the blocks of a sliced precision, with its levels."""
    n_codes = 4 << REMAINING_BITS[precision]
    return RowLayout(precision, dimension, levels(precision).level_of[:n_codes], levels("2bit").level_of[:4])


def unit(dimension: int) -> np.float32:
    """What scales are stored in multiples of, so that float16's range is centred on vectors of unit length."""
    return np.float32(2.0 ** -(5 + dimension.bit_length() // 2))


def encode(vectors: FloatArray, offsets: IntArray, layout: RowLayout) -> npt.NDArray[np.uint8]:
    """The blocks of documents, uint8, shape (tokens, bytes of a row).

    A document's block depends on this document alone.

    Args:
        vectors: float32, shape (tokens, dimension).
        offsets: int64, shape (documents + 1,).
        layout: the blocks' layout.

    Raises:
        InvalidInputError: a vector is too long for a float16 scale.
    """
    blocks = np.empty((len(vectors), layout.row_bytes), dtype=np.uint8)
    for first, end in runs_by_size(np.diff(offsets), _ENCODED_TOGETHER):
        tokens = slice(offsets[first], offsets[end])
        _fill(blocks[tokens], _slices(vectors[tokens], layout), offsets[first : end + 1] - offsets[first])
    return blocks


def split(
    rows: npt.NDArray[np.void], offsets: IntArray, layout: RowLayout, *, coarse: bool = False
) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Levels, int8, shape (tokens, dimension), and scales, float32, shape (tokens,); see ``TokenCodec.split``."""
    content = rows.view(np.uint8).reshape(-1)
    found = np.empty((len(rows), layout.dimension), dtype=np.int8)
    scales: FloatArray = np.empty(len(rows), dtype=np.float32)
    n_read = layout.lead_bytes if coarse else layout.row_bytes
    for start, end in pairwise(offsets.tolist()):
        place = start * layout.row_bytes
        block = content[place : place + (end - start) * n_read]
        found[start:end], scales[start:end] = unpack(block, end - start, layout, coarse=coarse)
    return found, scales


def _slices(vectors: FloatArray, layout: RowLayout) -> list[npt.NDArray[np.uint8]]:
    """The bytes of each slice: of scales, of leading bits and, if there are any, of remaining bits."""
    codes, scales = _quantize(vectors, layout)
    if len(scales) and scales.max() > np.finfo(np.float16).max:
        raise InvalidInputError(
            f"a token vector is too long for {layout.precision!r}, which takes lengths up to about 30,000: scale it to "
            "unit length"
        )
    slices = [scales.astype("<f2")[:, None].view(np.uint8), _pack(codes & _TWO_BITS, 2)]
    if layout.precision == "8bit":
        slices.append(np.hstack([_pack(codes >> np.uint8(4), 4), _pack(codes >> np.uint8(2) & _TWO_BITS, 2)]))
    elif layout.precision == "4bit":
        slices.append(_pack(codes >> np.uint8(2), 2))
    return slices


def _quantize(vectors: FloatArray, layout: RowLayout) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """Codes, uint8, shape (tokens, dimension), and scales in ``unit``s, float32, shape (tokens,).

    The scale makes a stored token's inner product with the original one equal to that of the original with itself.
    """
    table = levels(layout.precision)
    peaks = np.abs(vectors).max(axis=1, initial=0)
    some: FloatArray = np.where(peaks > 0, peaks, 1).astype(np.float32)
    rotated = rotate(vectors / some[:, None])  # of a length from 1 to √dimension, so that no square over- or underflows
    magnitudes = np.abs(rotated)
    squares = np.einsum("nd,nd->n", rotated, rotated)
    steps = RANGE / MAX_MAGNITUDE * np.sqrt(squares / layout.dimension)
    if layout.precision not in FIXED_RANGE:
        steps = np.maximum(steps, magnitudes.max(axis=1, initial=0) / MAX_MAGNITUDE)
    divisor = np.where(steps > 0, steps, 1).astype(np.float32)
    rounded = np.minimum(np.rint(magnitudes / divisor[:, None]), MAX_MAGNITUDE).astype(np.uint8)
    codes = table.code_of[rounded]
    products = np.einsum("nd,nd->n", table.level_of[codes].astype(np.float32), magnitudes)
    codes |= (rotated < 0).astype(np.uint8) << np.uint8(1)
    scales: FloatArray = squares / np.where(products > 0, products, 1) * (peaks / unit(layout.dimension))
    return codes, scales


def _fill(blocks: npt.NDArray[np.uint8], slices: list[npt.NDArray[np.uint8]], offsets: IntArray) -> None:
    """Write the slices of each document into its block."""
    for start, end in pairwise(offsets.tolist()):
        block, place = blocks[start:end].reshape(-1), 0
        for part in slices:
            size = (end - start) * part.shape[1]
            block[place : place + size] = part[start:end].reshape(-1)
            place += size


def _pack(numbers: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Pack each row of numbers of 2 or 4 bits into bytes. Bits behind the last number are 0."""
    per_byte = 8 // bits
    padded = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % per_byte)))
    packed = padded[:, ::per_byte].copy()
    for i in range(1, per_byte):
        packed |= padded[:, i::per_byte] << np.uint8(bits * i)
    return packed
