"""How stored token rows lie in bytes, and reading them with NumPy: the reference for the compiled kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from muvera_core.files import read_fully
from muvera_core.token_embeddings import FloatArray

RowPrecision = Literal["int8", "float16", "float32", "8bit", "4bit", "2bit"]
# Where rows are read from: a file descriptor, or bytes in memory (uint8, one axis).
RowSource = int | npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int8]
_NO_LEVELS: Levels = np.empty(0, dtype=np.int8)
_REST_BITS = {"8bit": 6, "4bit": 2, "2bit": 0}


@dataclass(frozen=True, eq=False)
class RowLayout:
    """The bytes of a document's token rows.

    Rows of "int8" are a float32 scale and one code per dimension; those of "float16" and "float32" are plain numbers.
    The other three are slices: a document's float16 scales, then its rows of leading bits, two per dimension, then its
    rows of remaining bits (none for "2bit"). A code's low two bits are the leading ones. All numbers are little-endian.

    Attributes:
        precision: names the layout.
        dimension: width of a token vector.
        levels: of slices: the level of each code, int8, shape (4, 16 or 256,). A token is its scale times its levels.
        lead_levels: of slices: the level of each code of two leading bits, where no others are read, int8, shape (4,).
    """

    precision: RowPrecision
    dimension: int
    levels: Levels | None = None
    lead_levels: Levels | None = None

    @property
    def is_sliced(self) -> bool:
        """Whether a document's bits lie in slices."""
        return self.precision in _REST_BITS

    @property
    def lead_bytes(self) -> int:
        """Bytes of a sliced row's scale and leading bits."""
        return 2 + _bytes(2 * self.dimension)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        if not self.is_sliced:
            return self.dimension * {"int8": 1, "float16": 2, "float32": 4}[self.precision] + self._scale_bytes
        rest = _REST_BITS[self.precision]
        return self.lead_bytes + sum(_bytes(self.dimension * bits) for bits in ((4, 2) if rest == 6 else (rest,)))

    def table(self, *, coarse: bool = False) -> Levels:
        """The levels of the codes that are read, int8; none if rows are not in slices."""
        levels = self.lead_levels if coarse else self.levels
        return _NO_LEVELS if levels is None else levels

    @property
    def _scale_bytes(self) -> int:
        return 4 if self.precision == "int8" else 0


def read_block(source: RowSource, place: int, size: int) -> npt.NDArray[np.uint8]:
    """Bytes of a source.

    Raises:
        EOFError: the source is shorter.
        OSError: the file cannot be read.
    """
    if not isinstance(source, int):
        if place + size > len(source):
            raise EOFError(f"the source ends before byte {place + size}")
        return source[place : place + size]
    block = np.empty(size, dtype=np.uint8)
    read_fully(source, block.data, place)
    return block


def unpack(
    block: npt.NDArray[np.uint8], n: int, layout: RowLayout, *, coarse: bool = False
) -> tuple[npt.NDArray[Any], FloatArray | None]:
    """The rows of one document, from its bytes.

    Args:
        block: the bytes, as many as the ``n`` rows have, or their scales and leading bits if ``coarse``.
        n: number of rows.
        layout: how they lie there.
        coarse: take the leading bits only.

    Returns:
        Codes or numbers, shape (n, dimension), and scales, float32, shape (n,), or None.
    """
    d = layout.dimension
    if layout.precision == "int8":
        rows = block.reshape(n, d + 4)
        return rows[:, 4:].view(np.int8), np.ascontiguousarray(rows[:, :4]).view("<f4")[:, 0].astype(np.float32)
    if not layout.is_sliced:
        return block.view("<f2" if layout.precision == "float16" else "<f4").reshape(n, d), None
    rest = 0 if coarse else _REST_BITS[layout.precision]
    scales, block = block[: 2 * n].view("<f2").astype(np.float32), block[2 * n :]
    width = _bytes(2 * d)
    codes, block = _fields(block[: n * width].reshape(n, width), 2, d), block[n * width :].reshape(n, -1)
    if rest == 2:
        codes |= _fields(block, 2, d) << 2
    elif rest == 6:
        high = _bytes(4 * d)
        codes |= _fields(block[:, high:], 2, d) << 2 | _fields(block[:, :high], 4, d) << 4
    return layout.table(coarse=coarse)[codes], scales


def _fields(plane: npt.NDArray[np.uint8], bits: int, dimension: int) -> npt.NDArray[np.uint8]:
    """Fields of 2 or 4 bits, the lowest bits of a byte first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields = plane[:, :, None] >> shifts & np.uint8(2**bits - 1)
    return fields.reshape(len(plane), -1)[:, :dimension]


def _bytes(bits: int) -> int:
    return (bits + 7) // 8
