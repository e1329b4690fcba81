"""Stage one: which documents have the highest inner product with a query vector.

Two interchangeable holders of (key, vector) pairs: a flat scan, exact and without build time, for as long as the
collection is small, and an hnswlib graph beyond that. Both are derived from the store and can be thrown away.

Vectors are staged first, in any number of calls, and published together, so that a search finds either none or all of
the documents of one commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import hnswlib
import numpy as np
import numpy.typing as npt

from muvera_core.errors import CorruptIndexError
from muvera_core.files import write_new
from muvera_core.graph_file import check_graph_file
from muvera_core.graph_parameters import DEFAULT_GRAPH, GraphParameters
from muvera_core.token_embeddings import FloatArray, IntArray

INITIAL_CAPACITY = 64
# A rebuild of the graph costs as much as the deletions that lead to it did when they were additions.
_MAX_DELETED = 0.5


class Candidates(Protocol):
    """Holds one vector per document key and finds those with the highest inner product.

    Keys are non-negative integers that are never used again while the process lives: a replaced document gets a new
    one. One thread at a time may call ``stage``, ``publish``, ``discard`` or ``search``; the rest only read. Any of
    them may be interrupted and called again.
    """

    kind: ClassVar[str]
    file_names: ClassVar[tuple[str, ...]]

    def __len__(self) -> int: ...

    def keys(self) -> IntArray:
        """All published keys, int64, ascending."""

    def stage(self, keys: Sequence[int] | IntArray, vectors: FloatArray) -> None:
        """Take in new keys with their vectors, float32, shape (keys, dimension), not to be found yet."""

    def publish(self, removed: Sequence[int] | IntArray) -> None:
        """Let what was staged be found, and ``removed`` no longer; unknown ones of these are passed over."""

    def discard(self) -> None:
        """Forget what was staged."""

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        """The ``k`` keys of highest inner product with ``query`` (dimension,), best first, int64.

        Fewer where fewer are held. Only keys that are among ``allowed``, where that is given.
        """

    def vectors(self, keys: IntArray) -> FloatArray:
        """The vectors held for ``keys``, float32, shape (keys, dimension)."""

    @property
    def n_bytes(self) -> int:
        """Memory that the entries take, deleted ones included."""

    @property
    def n_deleted(self) -> int:
        """How many deleted entries still take space."""

    @property
    def is_wasteful(self) -> bool:
        """Whether there are enough of them to be worth a ``compacted`` copy."""

    def compacted(self) -> Self:
        """A copy of what is published, without deleted entries."""

    def save(self, folder: Path) -> None:
        """Write what is published to the files ``file_names`` in ``folder``."""


class _Rows(NamedTuple):
    """What a flat holder has, in one piece: an interruption leaves the old one or the new one.

    Attributes:
        keys: int64, shape (capacity,).
        vectors: float32, shape (capacity, dimension).
        alive: which rows can be found, bool, shape (capacity,).
        n_published: rows before this one are published or deleted.
        n: rows from there to this one are staged.
    """

    keys: IntArray
    vectors: FloatArray
    alive: npt.NDArray[np.bool_]
    n_published: int
    n: int


class FlatCandidates:
    """All vectors in one matrix; a search is one matrix-vector product."""

    kind: ClassVar[str] = "flat"
    file_names: ClassVar[tuple[str, ...]] = ("stage_one.keys", "stage_one.vectors")

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
        """Keys and vectors that aren't published yet."""
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

    def discard(self) -> None:
        self._rows = self._rows._replace(n=self._rows.n_published)

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        rows = self._rows
        admitted = rows.alive[: rows.n]
        if allowed is not None:
            admitted = admitted & np.isin(rows.keys[: rows.n], allowed)
        places = np.flatnonzero(admitted)
        keys, scores = rows.keys[places], (rows.vectors[: rows.n] @ query)[places]
        k = min(k, len(keys))
        best = np.argpartition(-scores, k - 1)[:k] if 0 < k < len(keys) else np.arange(k)
        return keys[best[np.lexsort((keys[best], -scores[best]))]]

    def vectors(self, keys: IntArray) -> FloatArray:
        places = np.flatnonzero(self._rows.alive)
        order = places[np.argsort(self._rows.keys[places])]
        return self._rows.vectors[order[np.searchsorted(self._rows.keys[order], keys)]]

    @property
    def n_bytes(self) -> int:
        rows = self._rows
        return rows.n * (4 * int(rows.vectors.shape[1]) + 8)

    @property
    def n_deleted(self) -> int:
        return self._rows.n_published - len(self)

    @property
    def is_wasteful(self) -> bool:
        return self.n_deleted > max(INITIAL_CAPACITY, _MAX_DELETED * len(self))

    def compacted(self) -> FlatCandidates:
        return self.holding(self.keys(), self.vectors(self.keys()))

    @classmethod
    def holding(cls, keys: IntArray, vectors: FloatArray) -> FlatCandidates:
        """One of these."""
        flat = cls(vectors.shape[1])
        flat.stage(keys, vectors)
        flat.publish([])
        return flat

    def save(self, folder: Path) -> None:
        places = np.flatnonzero(self._rows.alive)
        keys, vectors = self._rows.keys[places].astype("<i8"), self._rows.vectors[places].astype("<f4", copy=False)
        write_new(folder / self.file_names[0], keys.view(np.uint8).data)
        write_new(folder / self.file_names[1], vectors.reshape(-1).view(np.uint8).data)

    @classmethod
    def load(cls, folder: Path, dimension: int) -> FlatCandidates:
        """Read what ``save`` wrote. Raises CorruptIndexError where the files don't fit together."""
        keys_path, vectors_path = (folder / name for name in cls.file_names)
        keys, vectors = np.fromfile(keys_path, "<i8"), np.fromfile(vectors_path, "<f4")
        if vectors.size != len(keys) * dimension or len(np.unique(keys)) != len(keys):
            raise CorruptIndexError("the stage-one vectors and keys don't fit together")
        return cls.holding(keys, vectors.reshape(-1, dimension))


def _grown(rows: _Rows, capacity: int) -> _Rows:
    keys, vectors = np.empty(capacity, np.int64), np.empty((capacity, rows.vectors.shape[1]), np.float32)
    alive = np.zeros(capacity, np.bool_)
    keys[: rows.n], vectors[: rows.n], alive[: rows.n] = (
        rows.keys[: rows.n],
        rows.vectors[: rows.n],
        rows.alive[: rows.n],
    )
    return _Rows(keys, vectors, alive, rows.n_published, rows.n)


class HnswCandidates:
    """An hnswlib graph over inner products, with hnswlib's traps taken care of.

    hnswlib raises when asked for more items than are live, when filled beyond its capacity and when an item is
    deleted twice; it counts deleted items, and it keeps them in the graph. Here the graph grows by itself, and ``k`` is
    cut to what is live. What is staged is in the graph, where a search passes over it. (Marked as deleted it would be
    hidden, too, but hnswlib links no new item to a deleted one.)
    """

    kind: ClassVar[str] = "hnsw"
    file_names: ClassVar[tuple[str, ...]] = ("stage_one.hnsw",)
    # Of 400 candidates 97 % are then those of a flat scan.
    BEAM: ClassVar[int] = 200
    SEED: ClassVar[int] = 42

    def __init__(
        self,
        dimension: int,
        capacity: int = INITIAL_CAPACITY,
        beam: int = BEAM,
        parameters: GraphParameters = DEFAULT_GRAPH,
    ) -> None:
        """Make an empty graph.

        Args:
            dimension: width of the vectors.
            capacity: how many to make room for.
            beam: how many of the best found so far a search goes on from ("ef"), or k where that is more.
            parameters: what it is made with.
        """
        self.beam, self.parameters = beam, parameters
        self._dimension = dimension
        self._graph: Any = hnswlib.Index(space="ip", dim=dimension)
        self._graph.init_index(
            max_elements=max(INITIAL_CAPACITY, capacity),
            M=parameters.m,
            ef_construction=parameters.ef_construction,
            random_seed=self.SEED,
        )
        self._live: set[int] = set()
        self._staged: set[int] = set()

    def __len__(self) -> int:
        return len(self._live)

    def keys(self) -> IntArray:
        return np.sort(np.fromiter(self._live, dtype=np.int64, count=len(self._live)))

    def stage(self, keys: Sequence[int] | IntArray, vectors: FloatArray) -> None:
        if not len(keys):
            return
        needed = self._graph.get_current_count() + len(keys)
        if needed > self._graph.get_max_elements():
            self._graph.resize_index(max(needed, 2 * self._graph.get_max_elements()))
        self._staged.update(int(key) for key in keys)
        self._graph.add_items(vectors, np.asarray(keys, dtype=np.uint64))

    def publish(self, removed: Sequence[int] | IntArray) -> None:
        self._live |= self._staged
        gone = self._live.intersection(int(key) for key in removed)
        self._live -= gone
        self._staged = set()
        self._mark_deleted(gone)

    def discard(self) -> None:
        staged, self._staged = self._staged, set()
        self._mark_deleted(staged - self._live)

    def _mark_deleted(self, keys: Iterable[int]) -> None:
        """Keep them out of later beams. Searches don't rely on it: they return nothing that isn't live."""
        for key in keys:
            with suppress(RuntimeError):  # it never got in, or is marked already
                self._graph.mark_deleted(key)

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        admitted = self._live if allowed is None else self._live.intersection(allowed.tolist())
        k = min(k, len(admitted))
        if k == 0:
            return np.empty(0, dtype=np.int64)
        n_visible, n_hidden = self._graph.get_current_count(), len(self._staged) if allowed is None else 0
        wanted = min(n_visible, k + 2 * k * n_hidden // len(admitted))
        beam = max(self.beam, wanted)
        while True:
            self._graph.set_ef(beam)
            try:
                labels, _ = self._graph.knn_query(
                    query, k=wanted, num_threads=1, filter=None if allowed is None else admitted.__contains__
                )
                found = [key for key in labels[0].tolist() if key in admitted]
                if len(found) >= k:
                    return np.array(found[:k], dtype=np.int64)
                wanted = min(n_visible, 4 * wanted)
            except RuntimeError:
                pass  # the beam ended with fewer than were wanted
            # Many hidden or deleted items were in the beam's way, or part of the graph can't be reached. A wider beam
            # helps with the first, looking at every vector with both.
            if beam >= n_visible:
                return self._scan(query, k, admitted)
            beam = max(4 * beam, wanted)

    def vectors(self, keys: IntArray) -> FloatArray:
        vectors = self._graph.get_items(keys, return_type="numpy") if len(keys) else []
        return np.asarray(vectors, dtype=np.float32).reshape(len(keys), self._dimension)

    @property
    def n_bytes(self) -> int:
        # On the ground level; the levels above have one in m of the entries.
        return int(self._graph.get_current_count()) * (4 * self._dimension + 4 * (2 * self.parameters.m + 1) + 8)

    @property
    def n_deleted(self) -> int:
        return int(self._graph.get_current_count()) - len(self._live) - len(self._staged)

    @property
    def is_wasteful(self) -> bool:
        return self.n_deleted > max(INITIAL_CAPACITY, _MAX_DELETED * len(self._live))

    def compacted(self) -> HnswCandidates:
        return self.holding(self.keys(), self.vectors(self.keys()), self.beam, self.parameters)

    @classmethod
    def holding(
        cls, keys: IntArray, vectors: FloatArray, beam: int = BEAM, parameters: GraphParameters = DEFAULT_GRAPH
    ) -> HnswCandidates:
        """A graph of these."""
        graph = cls(vectors.shape[1], len(keys), beam, parameters)
        graph.stage(keys, vectors)
        graph.publish([])
        return graph

    def save(self, folder: Path) -> None:
        path = folder / self.file_names[0]
        path.unlink(missing_ok=True)
        self._graph.save_index(str(path))

    @classmethod
    def load(cls, folder: Path, dimension: int, parameters: GraphParameters = DEFAULT_GRAPH) -> HnswCandidates:
        """Read what ``save`` wrote. Raises CorruptIndexError where the file is damaged, or of other parameters."""
        path = folder / cls.file_names[0]
        n, live = check_graph_file(path, dimension, parameters)
        held = cls(dimension, parameters=parameters)
        held._graph = hnswlib.Index(space="ip", dim=dimension)
        try:
            held._graph.load_index(str(path), max_elements=n)
        except RuntimeError as error:
            raise CorruptIndexError(f"hnswlib can't read the graph: {error}") from error
        held._live = set(live.tolist())
        return held

    def _scan(self, query: FloatArray, k: int, admitted: set[int]) -> IntArray:
        keys = np.sort(np.fromiter(admitted, dtype=np.int64, count=len(admitted)))
        return keys[np.argsort(-(self.vectors(keys) @ query), kind="stable")[:k]]


KINDS: dict[str, type[FlatCandidates] | type[HnswCandidates]] = {c.kind: c for c in (FlatCandidates, HnswCandidates)}
