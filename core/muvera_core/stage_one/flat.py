"""All stage-one vectors as codes in one matrix: a search compares them all, so that there is no graph to build."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_core.errors import CorruptIndexError
from muvera_core.files import write_new
from muvera_core.stage_one.candidates import INITIAL_CAPACITY, MAX_DELETED
from muvera_core.stage_one.scanning import Coarse, best_rows, coarse_width, write_coarse
from muvera_core.stage_one.vector_codes import EncodedVectors, decode_vectors, encode_vectors
from muvera_core.token_embeddings import FloatArray, IntArray

# Room for vectors grows by this factor, so that little of it is empty.
_GROWTH = 1.25
# Vectors that are encoded at a time, to bound memory.
_AT_ONCE = 1024


class _Rows(NamedTuple):
    """The content of a flat index in one object, so that an interruption leaves the old content or the new one.

    Published rows never change, and ``publish`` replaces ``alive``. So a search may go on reading the object that it
    started with while rows are staged, published and discarded.

    Attributes:
        keys: int64, shape (capacity,).
        encoded: the vectors, capacity of them.
        coarse: their coarse codes, capacity of them.
        alive: whether searches find a row, bool, shape (capacity,).
        n_published: rows below this number are published or deleted.
        n: rows from ``n_published`` up to this number are staged.
    """

    keys: IntArray
    encoded: EncodedVectors
    coarse: Coarse
    alive: npt.NDArray[np.bool_]
    n_published: int
    n: int

    @classmethod
    def empty(cls, capacity: int, dimension: int, coarse_width: int) -> _Rows:
        """Room for so many vectors of this width, with so many bytes of coarse codes each."""
        return cls(
            np.empty(capacity, dtype=np.int64),
            EncodedVectors(np.empty((capacity, dimension), dtype=np.int8), np.empty(capacity, dtype=np.float32)),
            Coarse(np.empty((capacity, coarse_width), dtype=np.uint8), np.empty(capacity, dtype=np.float32)),
            np.zeros(capacity, dtype=np.bool_),
            0,
            0,
        )

    @property
    def columns(self) -> tuple[npt.NDArray[np.generic], ...]:
        """The arrays, all with a row for each vector."""
        return self.keys, *self.encoded, *self.coarse, self.alive

    def grown(self, capacity: int) -> _Rows:
        """A copy with room for so many vectors."""
        larger = self.empty(capacity, self.encoded.codes.shape[1], self.coarse.codes.shape[1])
        for new, old in zip(larger.columns, self.columns, strict=True):
            new[: self.n] = old[: self.n]
        return larger._replace(n_published=self.n_published, n=self.n)

    def encoded_at(self, chosen: slice | IntArray) -> EncodedVectors:
        """The codes of some rows."""
        return EncodedVectors(self.encoded.codes[chosen], self.encoded.scales[chosen])

    def coarse_at(self, chosen: slice) -> Coarse:
        """The coarse codes of some rows."""
        return Coarse(self.coarse.codes[chosen], self.coarse.scales[chosen])


class FlatCandidates:
    """All vectors as codes in one matrix; a search compares each of them with the query."""

    kind: ClassVar[str] = "flat"

    def __init__(self, dimension: int, capacity: int = INITIAL_CAPACITY) -> None:
        """Make an empty index for vectors of this width, with room for ``capacity`` of them."""
        self._rows = _Rows.empty(max(INITIAL_CAPACITY, capacity), dimension, coarse_width(dimension))

    def __len__(self) -> int:
        return int(np.count_nonzero(self._rows.alive))

    def keys(self) -> IntArray:
        return np.sort(self._rows.keys[self._rows.alive])

    @property
    def staged(self) -> tuple[IntArray, FloatArray]:
        """Keys and vectors that are not published yet."""
        rows = self._rows
        chosen = slice(rows.n_published, rows.n)
        return rows.keys[chosen], decode_vectors(rows.encoded_at(chosen))

    @property
    def n_staged(self) -> int:
        """Number of vectors that are not published yet."""
        return self._rows.n - self._rows.n_published

    def stage(self, keys: Sequence[int] | IntArray, vectors: FloatArray) -> None:
        keys = np.asarray(keys, dtype=np.int64)
        for start in range(0, len(keys), _AT_ONCE):
            self._stage_encoded(keys[start : start + _AT_ONCE], encode_vectors(vectors[start : start + _AT_ONCE]))

    def _stage_encoded(self, keys: IntArray, encoded: EncodedVectors) -> None:
        rows = self._rows
        end = rows.n + len(keys)
        if end > len(rows.keys):
            rows = rows.grown(max(end, INITIAL_CAPACITY, int(_GROWTH * len(rows.keys))))
        new = slice(rows.n, end)
        rows.keys[new] = keys
        rows.encoded.codes[new], rows.encoded.scales[new] = encoded
        write_coarse(rows.encoded_at(new), rows.coarse_at(new))
        self._rows = rows._replace(n=end)

    def publish(self, removed: Sequence[int] | IntArray) -> None:
        rows = self._rows
        alive = rows.alive.copy()
        alive[rows.n_published : rows.n] = True
        alive[: rows.n] &= ~np.isin(rows.keys[: rows.n], removed)
        self._rows = rows._replace(alive=alive, n_published=rows.n)

    def tidy(self) -> bool:
        return False

    def discard(self) -> None:
        self._rows = self._rows._replace(n=self._rows.n_published)

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        return self.search_many(query[None], k, allowed)[0]

    def search_many(self, queries: FloatArray, k: int, allowed: IntArray | None = None) -> list[IntArray]:
        rows = self._rows
        published = slice(0, rows.n_published)
        keys, admitted = rows.keys[published], rows.alive[published]
        if allowed is not None:
            admitted = admitted & np.isin(keys, allowed)
        k = min(k, int(np.count_nonzero(admitted)))
        places = best_rows(rows.encoded_at(published), rows.coarse_at(published), keys, admitted, queries, k)
        return list(keys[places])

    def frozen(self) -> FlatCandidates:
        """The published content, which later changes of this object do not touch. It is only for reading."""
        return copy.copy(self)

    def vectors(self, keys: IntArray) -> FloatArray:
        return decode_vectors(self._rows.encoded_at(self._places(keys)))

    def _places(self, keys: IntArray) -> IntArray:
        """The rows of published keys."""
        places = np.flatnonzero(self._rows.alive)
        # A stable sort is fast if they are in order, as they mostly are.
        order = places[np.argsort(self._rows.keys[places], kind="stable")]
        return order[np.searchsorted(self._rows.keys[order], keys)]

    @property
    def n_bytes(self) -> int:
        rows = self._rows
        return rows.n * sum(column.nbytes for column in rows.columns) // max(1, len(rows.keys))

    @property
    def n_deleted(self) -> int:
        return self._rows.n_published - len(self)

    @property
    def is_wasteful(self) -> bool:
        return self.n_deleted > max(INITIAL_CAPACITY, MAX_DELETED * len(self))

    def compacted(self) -> FlatCandidates:
        keys = self.keys()
        return self._of(keys, self._rows.encoded_at(self._places(keys)))

    @classmethod
    def from_vectors(cls, keys: IntArray, vectors: FloatArray) -> FlatCandidates:
        """A flat index of these vectors."""
        flat = cls(vectors.shape[1], len(keys))
        flat.stage(keys, vectors)
        flat.publish([])
        return flat

    @classmethod
    def _of(cls, keys: IntArray, encoded: EncodedVectors) -> FlatCandidates:
        """A flat index of encoded vectors, which it takes over."""
        n, dimension = encoded.codes.shape
        flat, coarse = cls(dimension), _Rows.empty(n, dimension, coarse_width(dimension)).coarse
        write_coarse(encoded, coarse)
        flat._rows = _Rows(keys.astype(np.int64, copy=False), encoded, coarse, np.ones(n, dtype=np.bool_), n, n)
        return flat

    def save(self, stem: Path) -> list[Path]:
        places = np.flatnonzero(self._rows.alive)
        codes, scales = self._rows.encoded_at(places)
        content = {".keys": self._rows.keys[places].astype("<i8"), ".scales": scales.astype("<f4"), ".codes": codes}
        files = []
        for suffix, array in content.items():
            files.append(stem.with_name(stem.name + suffix))
            write_new(files[-1], array.reshape(-1).view(np.uint8).data)
        return files

    @classmethod
    def load(cls, files: Mapping[str, Path], dimension: int) -> FlatCandidates:
        """Read what ``save`` wrote, given by suffix. Raises CorruptIndexError if the files do not match each other."""
        keys = np.fromfile(files[".keys"], "<i8")
        if (np.diff(np.sort(keys, kind="stable")) == 0).any():
            raise CorruptIndexError("the file of stage-one keys is damaged: it names a key twice")
        if ".vectors" in files:  # as earlier versions wrote them
            return cls.from_vectors(keys, _matrix(files[".vectors"], "<f4", len(keys), dimension))
        scales = _matrix(files[".scales"], "<f4", len(keys), 1)[:, 0]
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise CorruptIndexError("the file of stage-one scales is damaged: it holds impossible numbers")
        return cls._of(keys, EncodedVectors(_matrix(files[".codes"], "i1", len(keys), dimension), scales))


def _matrix(path: Path, dtype: str, n: int, width: int) -> npt.NDArray[Any]:
    """The rows of a file, shape (n, width)."""
    content: npt.NDArray[Any] = np.fromfile(path, dtype)
    if content.size != n * width:
        raise CorruptIndexError(f"{path} does not match the file of stage-one keys")
    return content.reshape(n, width)
