"""The token vectors of several texts in one ragged array: the input and output of every stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self, TypeGuard

import numpy as np
import numpy.typing as npt

from muvera_core.device_rows import DeviceRows
from muvera_core.errors import DimensionMismatchError, InvalidInputError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
# The largest magnitude of a number in a vector. Products of two such numbers, added up over a million dimensions and a
# million query tokens, stay below the largest float32, 2**128, so no score is infinity or NaN.
MAX_MAGNITUDE = 2.0**40
# DLPack's device types for host memory: ordinary, pinned for CUDA, pinned for ROCm.
_HOST_MEMORY = (1, 3, 11)


@dataclass(frozen=True, eq=False)
class TokenEmbeddings:
    """The token vectors of several texts, one text after the other.

    Late-interaction models give vectors of unit length. Vectors of other lengths are accepted, but
    ``normalized_score`` is then meaningless.

    Arrays of PyTorch, CuPy and other libraries are accepted wherever vectors are, also in GPU memory (through DLPack,
    with NumPy 2.1 or newer).

    Attributes:
        vectors: float32, shape (total tokens, dimension), C-contiguous.
        offsets: int64, shape (number of texts + 1,); text ``i`` owns ``vectors[offsets[i]:offsets[i + 1]]``.

    Raises:
        InvalidInputError: an array has the wrong number of axes, the offsets do not fit the vectors, a text has no
            tokens, or a vector holds NaN, infinity or a number beyond ``MAX_MAGNITUDE``.
    """

    vectors: FloatArray
    offsets: IntArray

    def __post_init__(self) -> None:
        vectors = _as_float32(self.vectors, "vectors")
        offsets = _as_array(self.offsets, "offsets")
        if offsets.ndim != 1 or len(offsets) == 0 or offsets.dtype.kind not in "iu":
            raise InvalidInputError(
                f"offsets must be a 1-d integer array of length texts + 1, got {offsets.dtype} of shape {offsets.shape}"
            )
        offsets = offsets.astype(np.int64, copy=False)
        if offsets[0] != 0 or offsets[-1] != len(vectors):
            raise InvalidInputError(
                f"offsets must start at 0 and end at the number of vectors, {len(vectors)}; "
                f"got {offsets[0]} and {offsets[-1]}"
            )
        # Compare neighbours: the difference of two large offsets can overflow.
        empty = np.flatnonzero(offsets[1:] <= offsets[:-1])
        if len(empty):
            raise InvalidInputError(
                f"every text needs at least one token vector, but the offsets of item {empty[0]} go from "
                f"{offsets[empty[0]]} to {offsets[empty[0] + 1]}"
            )
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "_on_gpu", None)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_on_gpu": None}

    @classmethod
    def from_list(
        cls, arrays: Sequence[npt.ArrayLike], dimension: int | None = None, *, keep_on_gpu: bool = False
    ) -> TokenEmbeddings:
        """Build from one (tokens, dimension) array per text.

        Args:
            arrays: one array-like per text, all of the same width.
            dimension: the expected width; by default that of the first array. Needed only if there are no arrays.
            keep_on_gpu: let ``on_gpu`` refer to the arrays, if all of them are in the memory of one GPU. They must not
                be changed as long as the result is in use.

        Raises:
            InvalidInputError: an array is not 2-d, is empty, or holds NaN, infinity or a number beyond
                ``MAX_MAGNITUDE``.
            DimensionMismatchError: an array has another width.
        """
        usable = isinstance(arrays, Iterable) and not isinstance(arrays, (str, bytes, memoryview, Mapping))
        if not usable or getattr(arrays, "ndim", 1) == 0:
            raise InvalidInputError(f"expected a list with one array per text, got {type(arrays).__name__}")
        given = list(arrays)
        rows = [_as_float32(array, f"item {i}") for i, array in enumerate(given)]
        if dimension is not None and (type(dimension) is not int or dimension < 0):
            raise InvalidInputError(
                "dimension must be a whole number of at least 0, got "
                + ("a negative number" if type(dimension) is int else type(dimension).__name__)
            )
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
        return cls(vectors, offsets).with_gpu(DeviceRows.of(given) if keep_on_gpu else None)

    @classmethod
    def concatenate(cls, parts: Sequence[TokenEmbeddings]) -> TokenEmbeddings:
        """Join several into one, in order. Raises InvalidInputError if ``parts`` is empty."""
        if not isinstance(parts, (list, tuple)) or not all(isinstance(part, TokenEmbeddings) for part in parts):
            raise InvalidInputError(
                "parts must be a list of TokenEmbeddings, got other objects: "
                "convert arrays with TokenEmbeddings.from_list"
            )
        if not parts:
            raise InvalidInputError("concatenate needs at least one TokenEmbeddings, got none")
        joined = cls.from_list([part[i] for part in parts for i in range(len(part))], dimension=parts[0].dimension)
        return joined.with_gpu(DeviceRows.join([part.on_gpu for part in parts if len(part)]))

    @property
    def on_gpu(self) -> DeviceRows | None:
        """The same vectors in the memory of a GPU, if they came from there and are still known to be there.

        ``part`` and ``take`` keep it, and so does ``concatenate``. A copy of another process does not have it.
        """
        found: DeviceRows | None = vars(self)["_on_gpu"]
        return found

    def with_gpu(self, rows: DeviceRows | None) -> Self:
        """The same embeddings, with ``rows`` as ``on_gpu``: the same vectors, in the same order."""
        if rows is None and self.on_gpu is None:
            return self
        twin = copy(self)
        object.__setattr__(twin, "_on_gpu", rows)
        return twin

    def part(self, start: int, stop: int) -> TokenEmbeddings:
        """Texts ``start`` to ``stop``. The vectors are a view."""
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        part = TokenEmbeddings(self.vectors[low:high], self.offsets[start : stop + 1] - low)
        return part.with_gpu(None if self.on_gpu is None else self.on_gpu.part(low, high))

    def take(self, places: Sequence[int]) -> TokenEmbeddings:
        """The texts at these places, in this order."""
        taken = TokenEmbeddings.from_list([self[place] for place in places], self.dimension)
        if self.on_gpu is None:
            return taken
        rows = [self.on_gpu.part(int(self.offsets[place]), int(self.offsets[place + 1])) for place in places]
        return taken.with_gpu(DeviceRows.join(rows))

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
            raise IndexError(f"text {i} is out of range: the number of texts is {len(self)}")
        i %= len(self)
        return self.vectors[self.offsets[i] : self.offsets[i + 1]]

    def __iter__(self) -> Iterator[FloatArray]:
        return (self[i] for i in range(len(self)))


def require_dimension(embeddings: TokenEmbeddings, expected: int, what: str) -> None:
    """Raise DimensionMismatchError unless the vectors have the expected width. Empty embeddings always fit."""
    if not isinstance(embeddings, TokenEmbeddings):
        raise InvalidInputError(
            f"{what} takes TokenEmbeddings, got {type(embeddings).__name__}: use TokenEmbeddings.from_list"
        )
    if len(embeddings) and embeddings.dimension != expected:
        raise DimensionMismatchError(
            f"got {embeddings.dimension}-d token vectors, but {what} works with {expected}-d ones"
        )


def _as_float32(array: npt.ArrayLike, name: str) -> FloatArray:
    values = _as_array(array, name)
    if values.ndim != 2:
        raise InvalidInputError(f"{name} must have shape (tokens, dimension), got shape {values.shape}")
    if values.dtype.kind not in "fiu":
        raise InvalidInputError(f"{name} must hold real numbers, got dtype {values.dtype}")
    with np.errstate(over="ignore"):  # a number that is too large becomes infinity, which is refused below
        result = np.ascontiguousarray(values, dtype=np.float32)
    # Written so that NaN fails the check: every comparison with NaN is false.
    if not (result.max(initial=0) <= MAX_MAGNITUDE and result.min(initial=0) >= -MAX_MAGNITUDE):
        finite = np.isfinite(result).all(axis=1)
        if not finite.all():
            bad = int(np.flatnonzero(~finite)[0])
            raise InvalidInputError(f"{name} has NaN or infinity in token {bad}: check the encoder that made it")
        bad = int(np.flatnonzero((np.abs(result) > MAX_MAGNITUDE).any(axis=1))[0])
        raise InvalidInputError(
            f"{name} has a number beyond {MAX_MAGNITUDE:.0f} in token {bad}, so scores could overflow: "
            "scale the vectors to unit length"
        )
    return result


def _as_array(value: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInputError(f"{name} is a masked array, but vectors cannot have gaps: fill it first")
    # NumPy descends 64 levels: a list that contains itself twice would have 2**64 elements.
    if isinstance(value, (list, tuple)) and any(
        isinstance(number, (list, tuple)) for row in value if isinstance(row, (list, tuple)) for number in row
    ):
        raise InvalidInputError(f"{name} must have shape (tokens, dimension), got lists nested more deeply")
    if _is_on_device(value):
        try:
            return np.from_dlpack(value, device="cpu")
        except Exception as error:  # the array's library can raise anything
            raise InvalidInputError(
                f"{name}, of type {type(value).__name__}, is on a device from which NumPy cannot copy it: {error}. "
                "Copy it to the host first"
            ) from error
    try:
        return np.asarray(value)
    except Exception as error:  # a ragged list; or an array-like of another library, which can raise anything
        raise InvalidInputError(f"{name} is not an array of numbers: {error}") from error


def _is_on_device(value: object) -> TypeGuard[Any]:
    """Whether a value is, according to DLPack, an array in memory that the host cannot read."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return False
    try:
        return value.__dlpack_device__()[0] not in _HOST_MEMORY
    except Exception:  # not a real DLPack array, which the caller notices when it reads the value
        return False


def unit_length(vectors: FloatArray) -> FloatArray:
    """Scale each row to length 1, float32. A row of zeros stays as it is."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: FloatArray = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)
    return scaled
