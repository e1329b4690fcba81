"""The layout of token rows on the GPU, and the variant of the MaxSim kernel that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from muvera_core.storage import Rows, TokenCodec, TokenPrecision
from muvera_core.token_embeddings import IntArray

# Bytes of a query's row that one matrix instruction takes.
STEP = 32
# A warp holds query rows up to this size in registers. It works through wider ones in slices of 128 bytes.
_WHOLE = 16 * STEP
_SLICE = 4 * STEP
_TILE = 8
_INT8_LIMIT = 127 * 128
# Bits of a number on the GPU. Rows of "8bit" are unpacked to int8.
_BITS = {"float16": 16, "int8": 8, "8bit": 8, "4bit": 4, "2bit": 2}
_PACKED: dict[int, TokenPrecision] = {4: "4bit", 2: "2bit"}
_SCALE_BYTES = {16: 0, 8: 4, 4: 2, 2: 2}


@dataclass(frozen=True)
class RowLayout:
    """The bytes of a token row on the GPU, and the parameters of the kernel for such rows.

    Attributes:
        dimension: width of a token vector.
        bits: of a number of a document's row: 16 (float16), 8 (int8 codes with a float32 scale per row), or 4 or 2
            (packed codes with a float16 scale, which become int8 in the kernel's registers).
        query_row_bytes: size of a query's row of float16 or int8 numbers, padded with zeros.
        steps: number of steps of 32 such bytes that a warp holds at once; a parameter of the kernel.
        tiles: number of tiles of 8 query tokens that a warp holds; a parameter of the kernel.
        warps: number of warps that should fit on a multiprocessor; a parameter of the kernel.
        limit: for queries of int8, the integer that a query token's largest value is scaled to. It is small enough that
            a sum of products stays below 2**31.
    """

    dimension: int
    bits: int
    query_row_bytes: int
    steps: int
    tiles: int
    warps: int
    limit: int

    @classmethod
    def of(cls, codec: TokenCodec) -> RowLayout:
        """The layout for the rows of a codec."""
        bits = _BITS[codec.precision]
        n_bytes = codec.dimension * (2 if bits == 16 else 1)
        unit = STEP if n_bytes <= _WHOLE else _SLICE
        row_bytes = -(-n_bytes // unit) * unit
        steps = (row_bytes if row_bytes <= _WHOLE else _SLICE) // STEP
        tiles, warps = (4, 12) if steps <= 4 else (4, 8) if steps <= 8 else (2, 8)
        limit = min(_INT8_LIMIT, ((1 << 31) - 1) // (127 * codec.dimension))
        return cls(codec.dimension, bits, row_bytes, steps, tiles, warps, limit)

    @property
    def is_int8(self) -> bool:
        """Whether the matrix instructions multiply int8. Otherwise, they multiply float16."""
        return self.bits < 16

    @property
    def is_packed(self) -> bool:
        """Whether codes are packed into fewer than 8 bits."""
        return self.bits < 8

    @property
    def is_sliced(self) -> bool:
        """Whether query rows are too wide for a warp to hold whole."""
        return self.query_row_bytes > _WHOLE

    @property
    def row_bytes(self) -> int:
        """Size of a document's row, padded with zeros."""
        return self.query_row_bytes * min(self.bits, 8) // 8

    @property
    def scale_bytes(self) -> int:
        """Size of a document token's scale; 0 if there are no scales. Rows and scales lie in two arrays."""
        return _SCALE_BYTES[self.bits]

    @property
    def bytes_per_token(self) -> int:
        """GPU memory that a document's token takes."""
        return self.row_bytes + self.scale_bytes

    @property
    def chunk(self) -> int:
        """Number of query tokens that a warp holds."""
        return _TILE * self.tiles

    @property
    def query_row_width(self) -> int:
        """Numbers in a row of a query token."""
        return self.query_row_bytes // (1 if self.is_int8 else 2)

    @property
    def kernel(self) -> str:
        """C++ name of the kernel's variant."""
        return self._variant("false")

    @property
    def coarse_kernel(self) -> str:
        """C++ name of the variant that computes coarse scores. A warp of it holds two chunks."""
        return self._variant("true")

    def _variant(self, is_coarse: str) -> str:
        is_sliced = str(self.is_sliced).lower()
        return f"maxsim<{_row_type(self.bits)}, {self.steps}, {self.tiles}, {is_sliced}, {self.warps}, {is_coarse}>"

    @property
    def length_kernel(self) -> str:
        """C++ name of the kernel that finds the largest length of rows' vectors."""
        return f"largest_length<{_row_type(self.bits)}>"

    @property
    def bound_kernel(self) -> str:
        """C++ name of the kernel that finds the least coarse scores of documents that may be among the best."""
        return f"least_scores<{'Int8' if self.is_int8 else 'Float16'}>"

    @property
    def split_kernel(self) -> str:
        """C++ name of the kernel that prepares queries."""
        return f"split_queries<{'signed char' if self.is_int8 else 'unsigned short'}>"

    @property
    def kernels(self) -> list[str]:
        """C++ names of all kernels for these rows."""
        return [self.kernel, self.coarse_kernel, self.split_kernel, self.length_kernel, self.bound_kernel]

    def n_chunks(self, n_query_tokens: int) -> int:
        """Number of chunks that a query's tokens take, at least 1."""
        return max(1, -(-n_query_tokens // self.chunk))


def rows_for_gpu(rows: Rows, offsets: IntArray, codec: TokenCodec) -> Rows:
    """Stored rows of documents as they are uploaded: rows of "8bit" become rows of int8 codes with a scale each."""
    if codec.precision != "8bit":
        return rows
    unpacked = np.empty(len(rows), dtype=TokenCodec("int8", codec.dimension).row_dtype)
    unpacked["codes"], unpacked["scale"] = codec.split(rows, offsets)
    return unpacked


@cache
def _row_type(bits: int) -> str:
    """C++ name of the type of documents' rows. The levels of packed codes are parameters of the type."""
    if bits >= 8:
        return "Int8" if bits == 8 else "Float16"
    level_of = TokenCodec(_PACKED[bits], 1).layout.table()
    tables = [level_of] if bits == 2 else [level_of[:8], _inverted(level_of[8:])]
    words = np.concatenate(tables).view("<u4")
    return f"Packed{bits}<{', '.join(f'0x{word:08x}' for word in words)}>"


def _inverted(table: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """The table with the bits of negative levels inverted, as ``Packed4`` needs its second table."""
    return np.where(table < 0, ~table, table)
