"""Stage one: which documents have the highest inner product with a query vector.

Two interchangeable holders of (key, vector) pairs: a flat scan, exact and without build time, for as long as the
collection is small, and an hnswlib graph beyond that. Both are derived from the store and can be thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import hnswlib
import numpy as np

from muvera_core.errors import CorruptIndexError
from muvera_core.token_embeddings import FloatArray, IntArray

INITIAL_CAPACITY = 64


class Candidates(Protocol):
    """Holds one vector per document key and finds those with the highest inner product.

    Keys are non-negative integers that are never reused: a replaced document gets a new one.
    """

    kind: ClassVar[str]

    def __len__(self) -> int: ...

    def keys(self) -> IntArray:
        """All keys, int64, ascending."""

    def add(self, keys: Sequence[int] | IntArray, vectors: FloatArray) -> None:
        """Add new keys with their vectors, float32, shape (keys, dimension)."""

    def remove(self, keys: Sequence[int] | IntArray) -> None:
        """Remove keys; unknown ones are passed over."""

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        """The ``k`` keys of highest inner product with ``query`` (dimension,), best first, int64.

        Fewer where fewer are held. Only keys that are among ``allowed``, where that is given.
        """

    def vectors(self, keys: IntArray) -> FloatArray:
        """The vectors held for ``keys``, float32, shape (keys, dimension)."""

    def save(self, folder: Path) -> list[Path]:
        """Write to files in ``folder`` and name them."""


class FlatCandidates:
    """All vectors in one matrix; a search is one matrix-vector product."""

    kind: ClassVar[str] = "flat"

    def __init__(self, dimension: int) -> None:
        self._vectors: FloatArray = np.empty((INITIAL_CAPACITY, dimension), dtype=np.float32)
        self._keys: IntArray = np.empty(INITIAL_CAPACITY, dtype=np.int64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def keys(self) -> IntArray:
        return np.sort(self._keys[: self._size])

    def add(self, keys: Sequence[int] | IntArray, vectors: FloatArray) -> None:
        end = self._size + len(keys)
        if end > len(self._keys):
            capacity = max(end, 2 * len(self._keys))
            self._keys = np.concatenate([self._keys[: self._size], np.empty(capacity - self._size, dtype=np.int64)])
            grown = np.empty((capacity, self._vectors.shape[1]), dtype=np.float32)
            grown[: self._size] = self._vectors[: self._size]
            self._vectors = grown
        self._keys[self._size : end] = keys
        self._vectors[self._size : end] = vectors
        self._size = end

    def remove(self, keys: Sequence[int] | IntArray) -> None:
        stays = np.flatnonzero(~np.isin(self._keys[: self._size], keys))
        if len(stays) < self._size:
            self._keys[: len(stays)] = self._keys[stays]
            self._vectors[: len(stays)] = self._vectors[stays]
            self._size = len(stays)

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        keys, scores = self._keys[: self._size], self._vectors[: self._size] @ query
        if allowed is not None:
            admitted = np.isin(keys, allowed)
            keys, scores = keys[admitted], scores[admitted]
        k = min(k, len(keys))
        best = np.argpartition(-scores, k - 1)[:k] if 0 < k < len(keys) else np.arange(k)
        return keys[best[np.lexsort((keys[best], -scores[best]))]]

    def vectors(self, keys: IntArray) -> FloatArray:
        order = np.argsort(self._keys[: self._size])
        return self._vectors[order[np.searchsorted(self._keys[order], keys)]]

    def save(self, folder: Path) -> list[Path]:
        paths = [folder / "stage_one_keys.npy", folder / "stage_one_vectors.npy"]
        np.save(paths[0], self._keys[: self._size], allow_pickle=False)
        np.save(paths[1], self._vectors[: self._size], allow_pickle=False)
        return paths

    @classmethod
    def load(cls, folder: Path, dimension: int) -> FlatCandidates:
        """Read what ``save`` wrote. Raises CorruptIndexError where the files don't fit together."""
        flat = cls(dimension)
        keys = np.load(folder / "stage_one_keys.npy", allow_pickle=False)
        vectors = np.load(folder / "stage_one_vectors.npy", allow_pickle=False)
        if vectors.shape != (len(keys), dimension):
            raise CorruptIndexError(f"stage-one vectors have shape {vectors.shape}, not {(len(keys), dimension)}")
        flat.add(keys, vectors)
        return flat


class HnswCandidates:
    """An hnswlib graph over inner products, with hnswlib's traps taken care of.

    hnswlib raises when asked for more items than are live, when filled beyond its capacity and when an item is
    deleted twice; it counts deleted items, and it keeps them in the graph. Here the graph grows by itself, ``k`` is
    cut to what is live, and the graph is built anew once more than half of it is deleted.
    """

    kind: ClassVar[str] = "hnsw"
    M: ClassVar[int] = 16
    EF_CONSTRUCTION: ClassVar[int] = 200
    # The beam is k wide, or this where k is less: of 400 candidates 97 % are then those of a flat scan.
    MIN_EF: ClassVar[int] = 200
    SEED: ClassVar[int] = 42

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._graph = self._new_graph(INITIAL_CAPACITY)
        self._live: set[int] = set()

    def __len__(self) -> int:
        return len(self._live)

    def keys(self) -> IntArray:
        return np.sort(np.fromiter(self._live, dtype=np.int64, count=len(self._live)))

    def add(self, keys: Sequence[int] | IntArray, vectors: FloatArray) -> None:
        if not len(keys):
            return
        needed = self._graph.get_current_count() + len(keys)
        if needed > self._graph.get_max_elements():
            self._graph.resize_index(max(needed, 2 * self._graph.get_max_elements()))
        self._graph.add_items(vectors, np.asarray(keys, dtype=np.uint64))
        self._live.update(int(key) for key in keys)

    def remove(self, keys: Sequence[int] | IntArray) -> None:
        for key in {int(key) for key in keys} & self._live:
            self._graph.mark_deleted(key)
            self._live.remove(key)
        if self._graph.get_current_count() > max(INITIAL_CAPACITY, 2 * len(self._live)):
            self._drop_deleted()

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        admitted = self._live if allowed is None else self._live.intersection(allowed.tolist())
        k = min(k, len(admitted))
        if k == 0:
            return np.empty(0, dtype=np.int64)
        ef = max(self.MIN_EF, k)
        while True:
            self._graph.set_ef(ef)
            try:
                labels, _ = self._graph.knn_query(
                    query, k=k, num_threads=1, filter=None if allowed is None else admitted.__contains__
                )
                return np.asarray(labels[0], dtype=np.int64)
            except RuntimeError:
                # The beam ended with fewer than k live items: many deleted ones were in its way, or part of the
                # graph can't be reached. A wider beam helps with the first, looking at every vector with both.
                if ef >= self._graph.get_current_count():
                    return self._scan(query, k, admitted)
                ef *= 4

    def vectors(self, keys: IntArray) -> FloatArray:
        return np.asarray(self._graph.get_items(keys, return_type="numpy"), dtype=np.float32)

    def save(self, folder: Path) -> list[Path]:
        paths = [folder / "stage_one_keys.npy", folder / "stage_one.hnsw"]
        np.save(paths[0], self.keys(), allow_pickle=False)
        self._graph.save_index(str(paths[1]))
        return paths

    @classmethod
    def load(cls, folder: Path, dimension: int) -> HnswCandidates:
        """Read what ``save`` wrote. Raises CorruptIndexError where the files don't fit together."""
        graph = cls(dimension)
        graph._graph = hnswlib.Index(space="ip", dim=dimension)
        try:
            graph._graph.load_index(str(folder / "stage_one.hnsw"))
        except RuntimeError as error:
            raise CorruptIndexError(f"hnswlib can't read the graph: {error}") from error
        graph._live = {int(key) for key in np.load(folder / "stage_one_keys.npy", allow_pickle=False)}
        if not graph._live <= {int(label) for label in graph._graph.get_ids_list()}:
            raise CorruptIndexError("the graph lacks some of the keys it was saved with")
        return graph

    def _new_graph(self, capacity: int) -> Any:
        graph = hnswlib.Index(space="ip", dim=self._dimension)
        graph.init_index(max_elements=capacity, M=self.M, ef_construction=self.EF_CONSTRUCTION, random_seed=self.SEED)
        return graph

    def _drop_deleted(self) -> None:
        keys = self.keys()
        vectors = self.vectors(keys) if len(keys) else np.empty((0, self._dimension), dtype=np.float32)
        self._graph, self._live = self._new_graph(max(INITIAL_CAPACITY, len(keys))), set()
        self.add(keys, vectors)

    def _scan(self, query: FloatArray, k: int, admitted: set[int]) -> IntArray:
        keys = np.sort(np.fromiter(admitted, dtype=np.int64, count=len(admitted)))
        return keys[np.argsort(-(self.vectors(keys) @ query), kind="stable")[:k]]


KINDS: dict[str, type[FlatCandidates] | type[HnswCandidates]] = {c.kind: c for c in (FlatCandidates, HnswCandidates)}
