"""The format of token vectors on disk: one fixed-size row per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from muvera_core.errors import InvalidInputError
from muvera_core.maxsim import RowLayout
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import shown

TokenPrecision = Literal["int8", "float16"]
Rows = npt.NDArray[np.void]
INT8_MAX = 127


@dataclass(frozen=True)
class TokenCodec:
    """Converts token vectors to rows and back.

    Attributes:
        precision: "int8" stores one byte per dimension and one float32 scale per token (its largest magnitude
            divided by 127); "float16" stores two bytes per dimension.
        dimension: width of a token vector.

    Raises:
        InvalidInputError: the precision is unknown.
    """

    precision: TokenPrecision
    dimension: int

    def __post_init__(self) -> None:
        if not isinstance(self.precision, str) or self.precision not in ("int8", "float16"):
            raise InvalidInputError(f"token precision must be 'int8' or 'float16', got {shown(self.precision)}")

    @property
    def row_dtype(self) -> np.dtype[np.void]:
        """NumPy type of one row, little-endian on every machine."""
        fields: list[Any] = [("codes", "i1" if self.precision == "int8" else "<f2", (self.dimension,))]
        if self.precision == "int8":
            fields.insert(0, ("scale", "<f4"))
        return np.dtype(fields)

    @property
    def layout(self) -> RowLayout:
        """The bytes of rows, as ``muvera_core.maxsim`` reads them."""
        return RowLayout(self.precision, self.dimension)

    def encode(self, vectors: FloatArray) -> Rows:
        """Rows for float32 vectors of shape (tokens, dimension).

        Raises:
            InvalidInputError: a value is too large for float16.
        """
        rows = np.zeros(len(vectors), dtype=self.row_dtype)
        if self.precision == "float16":
            if len(vectors) and np.abs(vectors).max() > np.finfo(np.float16).max:
                raise InvalidInputError("a token vector is too large for float16: scale it to unit length")
            rows["codes"] = vectors
            return rows
        rows["scale"] = np.abs(vectors).max(axis=1, initial=0) / INT8_MAX
        divisor = np.where(rows["scale"] > 0, rows["scale"], 1)[:, None]
        rows["codes"] = np.clip(np.rint(vectors / divisor), -INT8_MAX, INT8_MAX)
        return rows

    def split(self, rows: Rows) -> tuple[npt.NDArray[Any], FloatArray | None]:
        """Codes, shape (tokens, dimension), and scales, shape (tokens,) or None: vector t is codes[t] * scales[t]."""
        return rows["codes"], rows["scale"] if self.precision == "int8" else None

    def decode(self, rows: Rows) -> FloatArray:
        """Float32 vectors, shape (tokens, dimension)."""
        codes, scales = self.split(rows)
        vectors: FloatArray = codes.astype(np.float32)
        if scales is not None:
            vectors *= scales[:, None]
        return vectors
