"""How token rows lie on the card, and which variant of the MaxSim kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass

from muvera_core.storage import TokenCodec

# A matrix instruction takes 32 bytes of a row.
STEP = 32
# Rows up to here are held in registers by a whole warp; wider ones are worked through in slices of 128 bytes.
_WHOLE = 16 * STEP
_SLICE = 4 * STEP
_TILE = 8
_INT8_LIMIT = 127 * 128


@dataclass(frozen=True)
class RowLayout:
    """Where a document's token is on the card, and how a query meets it.

    Attributes:
        is_int8: whether rows are int8 codes with a scale each, or float16 numbers.
        code_bytes: of a row as it is stored.
        row_bytes: of a row on the card, padded with zeros.
        steps: of 32 bytes that a warp holds at once; the kernel's parameter.
        tiles: of 8 query tokens that a warp holds; the kernel's parameter.
        warps: that are to fit on a multiprocessor; the kernel's parameter.
        limit: the whole number that a query token's largest value becomes, for int8 rows: such that a sum of products
            stays below 2**31.
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
        """The layout for rows of a codec."""
        is_int8 = codec.precision == "int8"
        code_bytes = codec.dimension * (1 if is_int8 else 2)
        unit = STEP if code_bytes <= _WHOLE else _SLICE
        row_bytes = -(-code_bytes // unit) * unit
        steps = (row_bytes if row_bytes <= _WHOLE else _SLICE) // STEP
        tiles, warps = (4, 12) if steps <= 4 else (4, 8) if steps <= 8 else (2, 8)
        limit = min(_INT8_LIMIT, ((1 << 31) - 1) // (127 * codec.dimension))
        return cls(is_int8, code_bytes, row_bytes, steps, tiles, warps, limit)

    @property
    def is_sliced(self) -> bool:
        """Whether rows are too wide to be held whole."""
        return self.row_bytes > _WHOLE

    @property
    def chunk(self) -> int:
        """Query tokens that a warp holds."""
        return _TILE * self.tiles

    @property
    def bytes_per_token(self) -> int:
        """Memory that a token takes on the card."""
        return self.row_bytes + (4 if self.is_int8 else 0)

    @property
    def kernel(self) -> str:
        """Name of the kernel's variant, as C++ writes it."""
        row_type, is_sliced = "Int8" if self.is_int8 else "Float16", str(self.is_sliced).lower()
        return f"maxsim<{row_type}, {self.steps}, {self.tiles}, {is_sliced}, {self.warps}>"

    @property
    def split_kernel(self) -> str:
        """Name of the kernel that prepares queries."""
        return f"split_queries<{'signed char' if self.is_int8 else 'unsigned short'}>"

    def n_chunks(self, n_query_tokens: int) -> int:
        """How many chunks the query's tokens take."""
        return max(1, -(-n_query_tokens // self.chunk))
