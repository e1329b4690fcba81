"""The format of token vectors on disk: rows of one size. A document's rows are read and written together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from muvera_core.device_rows import Rounding
from muvera_core.errors import InvalidInputError
from muvera_core.maxsim import RowLayout
from muvera_core.storage import sliced_rows
from muvera_core.storage.rotation import rotate, rotate_back
from muvera_core.token_embeddings import FloatArray, IntArray
from muvera_core.validation import shown

TokenPrecision = Literal["8bit", "4bit", "2bit", "int8", "float16"]
Rows = npt.NDArray[np.void]
# Of new indexes.
DEFAULT_PRECISION: TokenPrecision = "int8"
PRECISIONS: tuple[TokenPrecision, ...] = get_args(TokenPrecision)
INT8_MAX = 127


@dataclass(frozen=True)
class TokenCodec:
    """Converts token vectors to rows and back.

    Inner products are computed in the codec's own space: with ``to_codec_space(queries)`` and the codes of ``split``.

    Attributes:
        precision: "8bit", "4bit" and "2bit" rotate a vector and store that many bits per dimension, in slices, and a
            float16 scale per token; see ``sliced_rows``. "int8" stores one byte per dimension and a float32 scale per
            token (its largest magnitude divided by 127). "float16" stores two bytes per dimension.
        dimension: width of a token vector.

    Raises:
        InvalidInputError: the precision is unknown.
    """

    precision: TokenPrecision
    dimension: int

    def __post_init__(self) -> None:
        if not isinstance(self.precision, str) or self.precision not in PRECISIONS:
            known = f"{', '.join(map(repr, PRECISIONS[:-1]))} or {PRECISIONS[-1]!r}"
            raise InvalidInputError(f"token precision must be {known}, got {shown(self.precision)}")

    def may_replace(self, precision: TokenPrecision) -> bool:
        """Whether ``optimize`` may have rewritten tokens of this precision in the codec's own."""
        return self.is_sliced and self.row_dtype.itemsize < TokenCodec(precision, self.dimension).row_dtype.itemsize

    @property
    def is_sliced(self) -> bool:
        """Whether the leading bits of a document's tokens can be read alone."""
        return self.precision in sliced_rows.PRECISIONS

    @property
    def rounding(self) -> Rounding | None:
        """What ``decode(encode(vectors))`` does to each vector, if it does no more than that: nothing is rotated."""
        return None if self.is_sliced else "int8" if self.precision == "int8" else "float16"

    @property
    def row_dtype(self) -> np.dtype[np.void]:
        """NumPy type of one row, little-endian on every machine. Rows of a sliced precision are parts of a block."""
        if self.is_sliced:
            return np.dtype([("bytes", "u1", (self.layout.row_bytes,))])
        fields: list[Any] = [("codes", "i1" if self.precision == "int8" else "<f2", (self.dimension,))]
        if self.precision == "int8":
            fields.insert(0, ("scale", "<f4"))
        return np.dtype(fields)

    @property
    def layout(self) -> RowLayout:
        """Where the bits of a document's rows are, for MaxSim on stored rows."""
        if self.is_sliced:
            return sliced_rows.layout_of(self.precision, self.dimension)
        return RowLayout(self.precision, self.dimension)

    def encode(self, vectors: FloatArray, offsets: IntArray) -> Rows:
        """Rows for the tokens of documents.

        Args:
            vectors: float32, shape (tokens, dimension).
            offsets: int64, shape (documents + 1,); document ``i`` owns ``vectors[offsets[i]:offsets[i + 1]]``.

        Raises:
            InvalidInputError: a value, or a vector's length, is too large for float16.
        """
        if self.is_sliced:
            return sliced_rows.encode(vectors, offsets, self.layout).reshape(-1).view(self.row_dtype)
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

    def split(
        self, rows: Rows, offsets: IntArray, *, coarse: bool = False
    ) -> tuple[npt.NDArray[Any], FloatArray | None]:
        """Codes and scales in the codec's space, where vector t is codes[t] * scales[t].

        Args:
            rows: the rows of whole documents, end to end.
            offsets: int64, shape (documents + 1,); document ``i`` owns ``rows[offsets[i]:offsets[i + 1]]``.
            coarse: of sliced rows, take the leading bits only.

        Returns:
            int8 or float16, shape (tokens, dimension), and float32, shape (tokens,), or None.
        """
        if self.is_sliced:
            return sliced_rows.split(rows, offsets, self.layout, coarse=coarse)
        return rows["codes"], rows["scale"] if self.precision == "int8" else None

    def decode(self, rows: Rows, offsets: IntArray) -> FloatArray:
        """Float32 vectors, shape (tokens, dimension), of the rows of whole documents; see ``split``."""
        codes, scales = self.split(rows, offsets)
        vectors: FloatArray = codes.astype(np.float32)
        if scales is not None:
            vectors *= scales[:, None]
        return rotate_back(vectors) * sliced_rows.unit(self.dimension) if self.is_sliced else vectors

    def to_codec_space(self, vectors: FloatArray) -> FloatArray:
        """Query tokens, float32, shape (tokens, dimension), for inner products with what ``split`` gives."""
        return rotate(vectors) * sliced_rows.unit(self.dimension) if self.is_sliced else vectors
