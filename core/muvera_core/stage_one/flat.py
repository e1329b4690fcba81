"""All stage-one vectors in one matrix, for small collections: a search is exact, and there is no graph to build."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_core.errors import CorruptIndexError
from muvera_core.files import write_new
from muvera_core.stage_one.candidates import INITIAL_CAPACITY, MAX_DELETED
from muvera_core.token_embeddings import FloatArray, IntArray

# Queries whose products with all vectors are held at a time: 3 MB with the most vectors that are scanned.
_QUERIES_AT_ONCE = 64


class _Rows(NamedTuple):
    """The content of a flat index in one object, so that an interruption leaves the old content or the new one.

    Published rows never change, and ``publish`` replaces ``alive``. So a search may go on reading the object that it
    started with while rows are staged, published and discarded.

    Attributes:
        keys: int64, shape (capacity,).
        vectors: float32, shape (capacity, dimension).
        alive: whether searches find a row, bool, shape (capacity,).
        n_published: rows below this number are published or deleted.
        n: rows from ``n_published`` up to this number are staged.
    """

    keys: IntArray
    vectors: FloatArray
    alive: npt.NDArray[np.bool_]
    n_published: int
    n: int


class FlatCandidates:
    """All vectors in one matrix; a search is one product with it."""

    kind: ClassVar[str] = "flat"

    def __init__(self, dimension: int) -> None:
        self._rows = _Rows(
            np.empty(INITIAL_CAPACITY, dtype=np.int64),
            np.empty((INITIAL_CAPACITY, dimension), dtype=np.float32),
            np.zeros(INITIAL_CAPACITY, dtype=np.bool_),
            0,
            0,
        )

    def __len__(self) -> int:
        return int(np.count_nonzero(self._rows.alive))

    def keys(self) -> IntArray:
        return np.sort(self._rows.keys[self._rows.alive])

    @property
    def staged(self) -> tuple[IntArray, FloatArray]:
        """Keys and vectors that are not published yet."""
        keys, vectors, _, n_published, n = self._rows
        return keys[n_published:n], vectors[n_published:n]

    def stage(self, keys: Sequence[int] | IntArray, vectors: FloatArray) -> None:
        rows = self._rows
        end = rows.n + len(keys)
        if end > len(rows.keys):
            rows = _grown(rows, max(end, 2 * len(rows.keys)))
        rows.keys[rows.n : end] = keys
        rows.vectors[rows.n : end] = vectors
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
        n = rows.n_published
        keys, vectors, admitted = rows.keys[:n], rows.vectors[:n], rows.alive[:n]
        if allowed is not None:
            admitted = admitted & np.isin(keys, allowed)
        places = np.flatnonzero(admitted)
        keys, found = keys[places], list[IntArray]()
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            scores = queries[start : start + _QUERIES_AT_ONCE] @ vectors.T
            found += [_best(keys, row, k) for row in (scores if len(places) == len(vectors) else scores[:, places])]
        return found

    def frozen(self) -> FlatCandidates:
        """The published content, which later changes of this object do not touch. It is only for reading."""
        return copy.copy(self)

    def vectors(self, keys: IntArray) -> FloatArray:
        rows = self._rows
        places = np.flatnonzero(rows.alive)
        order = places[np.argsort(rows.keys[places])]
        return rows.vectors[order[np.searchsorted(rows.keys[order], keys)]]

    @property
    def n_bytes(self) -> int:
        rows = self._rows
        return rows.n * (4 * int(rows.vectors.shape[1]) + 8)

    @property
    def n_deleted(self) -> int:
        return self._rows.n_published - len(self)

    @property
    def is_wasteful(self) -> bool:
        return self.n_deleted > max(INITIAL_CAPACITY, MAX_DELETED * len(self))

    def compacted(self) -> FlatCandidates:
        return self.from_vectors(self.keys(), self.vectors(self.keys()))

    @classmethod
    def from_vectors(cls, keys: IntArray, vectors: FloatArray) -> FlatCandidates:
        """A flat index of these vectors."""
        flat = cls(vectors.shape[1])
        flat.stage(keys, vectors)
        flat.publish([])
        return flat

    def save(self, stem: Path) -> list[Path]:
        places = np.flatnonzero(self._rows.alive)
        keys, vectors = self._rows.keys[places].astype("<i8"), self._rows.vectors[places].astype("<f4", copy=False)
        files = [stem.with_name(stem.name + suffix) for suffix in (".keys", ".vectors")]
        write_new(files[0], keys.view(np.uint8).data)
        write_new(files[1], vectors.reshape(-1).view(np.uint8).data)
        return files

    @classmethod
    def load(cls, files: Mapping[str, Path], dimension: int) -> FlatCandidates:
        """Read what ``save`` wrote, given by suffix. Raises CorruptIndexError if the files do not match each other."""
        keys, vectors = np.fromfile(files[".keys"], "<i8"), np.fromfile(files[".vectors"], "<f4")
        if vectors.size != len(keys) * dimension or len(np.unique(keys)) != len(keys):
            raise CorruptIndexError("the files of stage-one vectors and keys do not match")
        return cls.from_vectors(keys, vectors.reshape(-1, dimension))


def _best(keys: IntArray, scores: FloatArray, k: int) -> IntArray:
    """The ``k`` keys with the highest scores, best first, ties by key."""
    k = min(k, len(keys))
    if 0 < k < len(keys):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
        equal = equal[np.argsort(keys[equal], kind="stable")[: k - len(above)]]
        best = np.concatenate([above, equal])
        keys, scores = keys[best], scores[best]
    return keys[np.lexsort((keys, -scores))][:k]


def _grown(rows: _Rows, capacity: int) -> _Rows:
    keys, vectors = np.empty(capacity, np.int64), np.empty((capacity, rows.vectors.shape[1]), np.float32)
    alive = np.zeros(capacity, np.bool_)
    keys[: rows.n], vectors[: rows.n], alive[: rows.n] = (
        rows.keys[: rows.n],
        rows.vectors[: rows.n],
        rows.alive[: rows.n],
    )
    return _Rows(keys, vectors, alive, rows.n_published, rows.n)
