"""Stage-one vectors in an hnswlib graph: approximate search that is fast for many documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import hnswlib
import numpy as np

from muvera_core.errors import CorruptIndexError
from muvera_core.stage_one.candidates import INITIAL_CAPACITY, MAX_DELETED
from muvera_core.stage_one.graph_file import check_graph_file
from muvera_core.stage_one.graph_parameters import DEFAULT_GRAPH, GraphParameters
from muvera_core.token_embeddings import FloatArray, IntArray


class Admitted(NamedTuple):
    """The documents that a search may find.

    Attributes:
        keys: their keys.
        is_filtered: whether others are published, too.
    """

    keys: set[int]
    is_filtered: bool


class HnswCandidates:
    """An hnswlib graph over inner products that hides hnswlib's pitfalls.

    hnswlib raises if a search asks for more items than are live, if the graph exceeds its capacity, and if an item is
    deleted twice. It counts deleted items and keeps them in the graph. This class grows the graph as needed and cuts
    ``k`` to the number of live items. Staged items are in the graph, and searches skip them. (Marking them as deleted
    would hide them, too, but hnswlib links no new item to a deleted one.)
    """

    kind: ClassVar[str] = "hnsw"
    file_names: ClassVar[tuple[str, ...]] = ("stage_one.hnsw",)
    # With this ef, 97 % of 400 candidates are those of a flat scan.
    DEFAULT_EF: ClassVar[int] = 200
    SEED: ClassVar[int] = 42

    def __init__(
        self,
        dimension: int,
        capacity: int = INITIAL_CAPACITY,
        ef: int = DEFAULT_EF,
        parameters: GraphParameters = DEFAULT_GRAPH,
    ) -> None:
        """Make an empty graph.

        Args:
            dimension: width of the vectors.
            capacity: number of vectors to make room for.
            ef: size of the list of best items that a graph search keeps; at least k is used.
            parameters: parameters of the graph.
        """
        self.ef, self.parameters = ef, parameters
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
        """Keep these keys off later searches' lists. Searches do not rely on it: they return live keys only."""
        for key in keys:
            with suppress(RuntimeError):  # it was never added, or is already marked
                self._graph.mark_deleted(key)

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        return self.search_admitted(query, k, self.admitted(allowed))

    def search_many(self, queries: FloatArray, k: int, allowed: IntArray | None = None) -> list[IntArray]:
        admitted = self.admitted(allowed)
        return [self.search_admitted(query, k, admitted) for query in queries]

    def admitted(self, allowed: IntArray | None) -> Admitted:
        """What a search may find. It holds until documents are published or removed."""
        if allowed is None:
            return Admitted(self._live, is_filtered=False)
        return Admitted(self._live.intersection(allowed.tolist()), is_filtered=True)

    def search_admitted(self, query: FloatArray, k: int, among: Admitted) -> IntArray:
        """Like ``search``, among documents that ``admitted`` gave."""
        admitted, is_filtered = among
        k = min(k, len(admitted))
        if k == 0:
            return np.empty(0, dtype=np.int64)
        n_visible, n_hidden = self._graph.get_current_count(), 0 if is_filtered else len(self._staged)
        wanted = min(n_visible, k + 2 * k * n_hidden // len(admitted))
        ef = max(self.ef, wanted)
        while True:
            self._graph.set_ef(ef)
            try:
                labels, _ = self._graph.knn_query(
                    query, k=wanted, num_threads=1, filter=admitted.__contains__ if is_filtered else None
                )
                found = [key for key in labels[0].tolist() if key in admitted]
                if len(found) >= k:
                    return np.array(found[:k], dtype=np.int64)
                wanted = min(n_visible, 4 * wanted)
            except RuntimeError:
                pass  # the search found fewer than were wanted
            # Many hidden or deleted items were in the way, or part of the graph is unreachable. A larger ef helps with
            # the first, a scan of all vectors with both.
            if ef >= n_visible:
                return self._scan(query, k, admitted)
            ef = max(4 * ef, wanted)

    def vectors(self, keys: IntArray) -> FloatArray:
        vectors = self._graph.get_items(keys, return_type="numpy") if len(keys) else []
        return np.asarray(vectors, dtype=np.float32).reshape(len(keys), self._dimension)

    @property
    def n_bytes(self) -> int:
        # The ground level only: one in m entries is on a level above.
        return int(self._graph.get_current_count()) * (4 * self._dimension + 4 * (2 * self.parameters.m + 1) + 8)

    @property
    def n_deleted(self) -> int:
        return int(self._graph.get_current_count()) - len(self._live) - len(self._staged)

    @property
    def is_wasteful(self) -> bool:
        return self.n_deleted > max(INITIAL_CAPACITY, MAX_DELETED * len(self._live))

    def compacted(self) -> HnswCandidates:
        return self.from_vectors(self.keys(), self.vectors(self.keys()), self.ef, self.parameters)

    @classmethod
    def from_vectors(
        cls, keys: IntArray, vectors: FloatArray, ef: int = DEFAULT_EF, parameters: GraphParameters = DEFAULT_GRAPH
    ) -> HnswCandidates:
        """A graph of these vectors."""
        graph = cls(vectors.shape[1], len(keys), ef, parameters)
        graph.stage(keys, vectors)
        graph.publish([])
        return graph

    def save(self, folder: Path) -> None:
        path = folder / self.file_names[0]
        path.unlink(missing_ok=True)
        self._graph.save_index(str(path))

    @classmethod
    def load(cls, folder: Path, dimension: int, parameters: GraphParameters = DEFAULT_GRAPH) -> HnswCandidates:
        """Read what ``save`` wrote. Raises CorruptIndexError if the file is damaged or has other parameters."""
        path = folder / cls.file_names[0]
        n, live = check_graph_file(path, dimension, parameters)
        loaded = cls(dimension, parameters=parameters)
        loaded._graph = hnswlib.Index(space="ip", dim=dimension)
        try:
            loaded._graph.load_index(str(path), max_elements=n)
        except RuntimeError as error:
            raise CorruptIndexError(f"hnswlib cannot read the graph: {error}") from error
        loaded._live = set(live.tolist())
        return loaded

    def _scan(self, query: FloatArray, k: int, admitted: set[int]) -> IntArray:
        keys = np.sort(np.fromiter(admitted, dtype=np.int64, count=len(admitted)))
        return keys[np.argsort(-(self.vectors(keys) @ query), kind="stable")[:k]]
