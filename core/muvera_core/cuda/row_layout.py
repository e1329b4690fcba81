"""The layout of token rows on the GPU, and the variant of the MaxSim kernel that reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muvera_core.storage import Rows, TokenCodec
from muvera_core.token_embeddings import IntArray

# Bytes of a row that one matrix instruction takes.
STEP = 32
# A warp holds rows up to this size in registers. It works through wider ones in slices of 128 bytes.
_WHOLE = 16 * STEP
_SLICE = 4 * STEP
_TILE = 8
_INT8_LIMIT = 127 * 128


@dataclass(frozen=True)
class RowLayout:
    """The bytes of a token row on the GPU, and the parameters of the kernel for such rows.

    Attributes:
        is_int8: True for rows of int8 codes with a scale each, to which rows in slices are unpacked, too. False for
            rows of float16 numbers.
        code_bytes: size of a stored row, without its scale.
        row_bytes: size of a row on the GPU, padded with zeros.
        steps: number of steps of 32 bytes that a warp holds at once; a parameter of the kernel.
        tiles: number of tiles of 8 query tokens that a warp holds; a parameter of the kernel.
        warps: number of warps that should fit on a multiprocessor; a parameter of the kernel.
        limit: for int8 rows, the integer that a query token's largest value is scaled to. It is small enough that a
            sum of products stays below 2**31.
    """

    is_int8: bool
    code_bytes: int
    row_bytes: int
    steps: int
    tiles: int
    warps: int
    limit: int

    @classmethod
    def of(cls, codec: TokenCodec) -> RowLayout:
        """The layout for the rows of a codec."""
        is_int8 = codec.precision != "float16"
        code_bytes = codec.dimension * (1 if is_int8 else 2)
        unit = STEP if code_bytes <= _WHOLE else _SLICE
        row_bytes = -(-code_bytes // unit) * unit
        steps = (row_bytes if row_bytes <= _WHOLE else _SLICE) // STEP
        tiles, warps = (4, 12) if steps <= 4 else (4, 8) if steps <= 8 else (2, 8)
        limit = min(_INT8_LIMIT, ((1 << 31) - 1) // (127 * codec.dimension))
        return cls(is_int8, code_bytes, row_bytes, steps, tiles, warps, limit)

    @property
    def is_sliced(self) -> bool:
        """Whether rows are too wide for a warp to hold whole."""
        return self.row_bytes > _WHOLE

    @property
    def chunk(self) -> int:
        """Number of query tokens that a warp holds."""
        return _TILE * self.tiles

    @property
    def bytes_per_token(self) -> int:
        """GPU memory that a token takes."""
        return self.row_bytes + (4 if self.is_int8 else 0)

    @property
    def kernel(self) -> str:
        """C++ name of the kernel's variant."""
        row_type, is_sliced = "Int8" if self.is_int8 else "Float16", str(self.is_sliced).lower()
        return f"maxsim<{row_type}, {self.steps}, {self.tiles}, {is_sliced}, {self.warps}>"

    @property
    def split_kernel(self) -> str:
        """C++ name of the kernel that prepares queries."""
        return f"split_queries<{'signed char' if self.is_int8 else 'unsigned short'}>"

    def n_chunks(self, n_query_tokens: int) -> int:
        """Number of chunks that a query's tokens take, at least 1."""
        return max(1, -(-n_query_tokens // self.chunk))


def rows_for_gpu(rows: Rows, offsets: IntArray, codec: TokenCodec) -> Rows:
    """Stored rows of documents as the kernels read them: rows in slices become rows of int8 codes with a scale each."""
    if not codec.is_sliced:
        return rows
    unpacked = np.empty(len(rows), dtype=TokenCodec("int8", codec.dimension).row_dtype)
    unpacked["codes"], unpacked["scale"] = codec.split(rows, offsets)
    return unpacked
