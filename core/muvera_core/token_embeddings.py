"""The ragged array that every stage takes and gives: one row of vectors per text, one vector per token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muvera_core.errors import DimensionMismatchError, InvalidInputError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenEmbeddings:
    """Token vectors of several texts, laid end to end.

    Late-interaction models give unit-length vectors. Others are accepted, but ``normalized_score`` then
    loses its meaning.

    Attributes:
        vectors: float32, shape (total tokens, dimension), C-contiguous.
        offsets: int64, shape (number of texts + 1,); text ``i`` owns ``vectors[offsets[i]:offsets[i + 1]]``.

    Raises:
        InvalidInputError: wrong number of axes, offsets that don't fit, a text without tokens, NaN or infinity.
    """

    vectors: FloatArray
    offsets: IntArray

    def __post_init__(self) -> None:
        vectors = _as_float32(self.vectors, "vectors")
        offsets = np.asarray(self.offsets)
        if offsets.ndim != 1 or len(offsets) == 0 or not np.issubdtype(offsets.dtype, np.integer):
            raise InvalidInputError(
                f"offsets must be a 1-d integer array of length texts + 1, got shape {offsets.shape} of {offsets.dtype}"
            )
        offsets = offsets.astype(np.int64, copy=False)
        if offsets[0] != 0 or offsets[-1] != len(vectors):
            raise InvalidInputError(
                f"offsets must start at 0 and end at the number of vectors, {len(vectors)}; "
                f"got {offsets[0]} and {offsets[-1]}"
            )
        empty = np.flatnonzero(np.diff(offsets) <= 0)
        if len(empty):
            raise InvalidInputError(
                f"every text needs at least one token vector; item {empty[0]} has {np.diff(offsets)[empty[0]]}"
            )
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def from_list(cls, arrays: Sequence[npt.ArrayLike], dimension: int | None = None) -> TokenEmbeddings:
        """Build from one (tokens, dimension) array per text.

        Args:
            arrays: one array-like per text; all must have the same width.
            dimension: the width to expect. Needed only for an empty sequence; otherwise taken from the first array.

        Raises:
            InvalidInputError: an array isn't 2-d, is empty, or holds NaN or infinity.
            DimensionMismatchError: an array's width differs.
        """
        rows = [_as_float32(array, f"item {i}") for i, array in enumerate(arrays)]
        if dimension is None:
            dimension = rows[0].shape[1] if rows else 0
        for i, row in enumerate(rows):
            if row.shape[1] != dimension:
                raise DimensionMismatchError(
                    f"item {i} has {row.shape[1]}-d token vectors, expected {dimension}-d: "
                    "all texts must be encoded by the same model"
                )
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        vectors = np.concatenate(rows) if rows else np.empty((0, dimension), dtype=np.float32)
        return cls(vectors, offsets)

    @classmethod
    def concatenate(cls, parts: Sequence[TokenEmbeddings]) -> TokenEmbeddings:
        """Join several into one, in order. Raises InvalidInputError where ``parts`` is empty."""
        if not parts:
            raise InvalidInputError("concatenate needs at least one TokenEmbeddings, got none")
        return cls.from_list([part[i] for part in parts for i in range(len(part))], dimension=parts[0].dimension)

    @property
    def dimension(self) -> int:
        """Width of one token vector."""
        return int(self.vectors.shape[1])

    @property
    def lengths(self) -> IntArray:
        """Number of tokens of each text, int64, shape (number of texts,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> FloatArray:
        """The (tokens, dimension) vectors of text ``i``, as a view."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"text {i} of {len(self)}")
        i %= len(self)
        return self.vectors[self.offsets[i] : self.offsets[i + 1]]

    def __iter__(self) -> Iterator[FloatArray]:
        return (self[i] for i in range(len(self)))


def require_dimension(embeddings: TokenEmbeddings, expected: int, what: str) -> None:
    """Raise DimensionMismatchError unless ``embeddings`` is ``expected`` wide (an empty one always fits)."""
    if len(embeddings) and embeddings.dimension != expected:
        raise DimensionMismatchError(
            f"got {embeddings.dimension}-d token vectors, but {what} works with {expected}-d ones"
        )


def _as_float32(array: npt.ArrayLike, name: str) -> FloatArray:
    values = np.asarray(array)
    if values.ndim != 2:
        raise InvalidInputError(f"{name} must have shape (tokens, dimension), got shape {values.shape}")
    if not (np.issubdtype(values.dtype, np.floating) or np.issubdtype(values.dtype, np.integer)):
        raise InvalidInputError(f"{name} must hold real numbers, got dtype {values.dtype}")
    result = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(result).all():
        bad = int(np.flatnonzero(~np.isfinite(result).all(axis=1))[0])
        raise InvalidInputError(f"{name} has NaN or infinity in token {bad}: check the encoder that made it")
    return result
