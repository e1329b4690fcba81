"""Stage-one vectors in an hnswlib graph: approximate search that is fast for many documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import hnswlib
import numpy as np

from muvera_core.errors import CorruptIndexError
from muvera_core.files import write_new
from muvera_core.stage_one.candidates import INITIAL_CAPACITY, MAX_DELETED
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.graph_file import read_graph_file, write_graph_file
from muvera_core.stage_one.graph_parameters import DEFAULT_GRAPH, GraphParameters
from muvera_core.stage_one.shared_entries import SharedEntries, documents_of
from muvera_core.stage_one.vector_table import VectorTable, are_equal
from muvera_core.token_embeddings import FloatArray, IntArray

# Vectors that are copied out of a graph at a time.
_AT_ONCE = 1024
# Items that are marked as deleted at a time, while searches wait: 1 ms.
_MARKED_AT_ONCE = 256


class HnswCandidates:
    """An hnswlib graph over inner products that hides hnswlib's pitfalls.

    hnswlib raises if a search asks for more items than are live, if the graph exceeds its capacity, and if an item is
    deleted twice. It counts deleted items and keeps them in the graph. This class grows the graph as needed and cuts
    ``k`` to the number of live items. Staged items are in the graph, and searches skip them. (Marking them as deleted
    would hide them, too, but hnswlib links no new item to a deleted one.) Documents of equal vectors share one item;
    see ``shared_entries.py``.

    A filter of hnswlib is a Python function, which is called for each item that a search meets. So all vectors are also
    kept as codes, and a search among some documents scans theirs.
    """

    kind: ClassVar[str] = "hnsw"
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
        self._codes = FlatCandidates(dimension)
        self._live: set[int] = set()
        self._staged: set[int] = set()
        self._unmarked: set[int] = set()  # items without documents that are not marked as deleted yet
        self._shared = SharedEntries()
        self._table = VectorTable(dimension)

    def __len__(self) -> int:
        return len(self._live)

    def keys(self) -> IntArray:
        return np.sort(np.fromiter(self._live, dtype=np.int64, count=len(self._live)))

    def stage(self, keys: Sequence[int] | IntArray, vectors: FloatArray) -> None:
        keys = [int(key) for key in keys]
        self._staged.update(keys)
        self._codes.stage(keys, vectors)
        cells = self._table.cells(vectors)
        rows: dict[int, int] = {}  # the first row of each cell that is new
        for row, cell in enumerate(cells):
            if not self._table.items(cell):
                rows.setdefault(cell, row)
        self._add(keys, vectors, cells, list(rows.values()))
        if len(rows) < len(keys):
            self._join_or_add(keys, vectors, cells, [row for row, cell in enumerate(cells) if rows.get(cell) != row])

    def _add(self, keys: list[int], vectors: FloatArray, cells: list[int], rows: list[int]) -> None:
        """Add items for some of the vectors."""
        if not rows:
            return
        needed = self._graph.get_current_count() + len(rows)
        if needed > self._graph.get_max_elements():
            self._graph.resize_index(max(needed, 2 * self._graph.get_max_elements()))
        items = [keys[row] for row in rows]
        self._unmarked.difference_update(items)
        self._graph.add_items(vectors if len(rows) == len(vectors) else vectors[rows], np.array(items, np.uint64))
        for row, item in zip(rows, items, strict=True):
            self._table.put(cells[row], item)

    def _join_or_add(self, keys: list[int], vectors: FloatArray, cells: list[int], rows: list[int]) -> None:
        """Put documents into the items that have their vectors. Add items for those whose vectors are new."""
        for row in rows:
            items = self._table.items(cells[row])
            item = next((item for item in items if self._has_vector(item, vectors[row])), None)
            if item is None:
                self._add(keys, vectors, cells, [row])
            else:
                self._shared.join(keys[row], item)

    def _has_vector(self, item: int, vector: FloatArray) -> bool:
        if item in self._unmarked:
            return False
        with suppress(RuntimeError):  # it is marked as deleted
            return bool(are_equal(self._graph.get_items([item], return_type="numpy")[0], vector))
        return False

    def publish(self, removed: Sequence[int] | IntArray) -> None:
        self._codes.publish(removed)
        self._live |= self._staged
        gone = self._live.intersection(int(key) for key in removed)
        self._live -= gone
        self._staged = set()
        self._unmarked.update(self._shared.leave(gone))

    def discard(self) -> None:
        self._codes.discard()
        staged, self._staged = self._staged, set()
        self._unmarked.update(self._shared.leave(staged - self._live))

    def tidy(self) -> bool:
        """Keep deleted items off later searches' lists. Searches do not rely on it: they return live keys only."""
        for item in list(islice(self._unmarked, _MARKED_AT_ONCE)):
            with suppress(RuntimeError):  # it was never added, or is already marked
                self._graph.mark_deleted(item)
            self._unmarked.discard(item)
        return bool(self._unmarked)

    @property
    def codes(self) -> FlatCandidates:
        """The published vectors as codes. It is only for reading, and later changes do not touch it."""
        return self._codes.frozen()

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        return self._search_graph(query, k) if allowed is None else self._codes.search(query, k, allowed)

    def search_many(self, queries: FloatArray, k: int, allowed: IntArray | None = None) -> list[IntArray]:
        if allowed is not None:
            return self._codes.search_many(queries, k, allowed)
        return [self._search_graph(query, k) for query in queries]

    def _search_graph(self, query: FloatArray, k: int) -> IntArray:
        live = self._live
        k = min(k, len(live))
        if k == 0:
            return np.empty(0, dtype=np.int64)
        n_items = self._graph.get_current_count()
        n_hidden = len(self._staged) + len(self._unmarked)
        n_visible = n_items - self.n_deleted + len(self._unmarked)
        wanted = min(n_visible, k + 2 * k * n_hidden // len(live))
        ef = max(self.ef, wanted)
        while True:
            self._graph.set_ef(ef)
            try:
                labels, _ = self._graph.knn_query(query, k=wanted, num_threads=1)
                found = self._shared.documents(labels[0].tolist(), live, k)
                if len(found) == k:
                    return np.array(found, dtype=np.int64)
                wanted = min(n_visible, 4 * wanted)
            except RuntimeError:
                pass  # the search found fewer than were wanted
            # Many hidden or deleted items were in the way, or part of the graph is unreachable. A larger ef helps with
            # the first, a scan of all vectors with both.
            if ef >= n_items:
                return self._codes.search(query, k)
            ef = max(4 * ef, wanted)

    def vectors(self, keys: IntArray) -> FloatArray:
        vectors = self._graph.get_items(self._shared.entries(keys), return_type="numpy") if len(keys) else []
        return np.asarray(vectors, dtype=np.float32).reshape(len(keys), self._dimension)

    @property
    def n_bytes(self) -> int:
        # The ground level only: one in m entries is on a level above.
        entry = 4 * self._dimension + 4 * (2 * self.parameters.m + 1) + 8
        return int(self._graph.get_current_count()) * entry + self._codes.n_bytes

    @property
    def n_deleted(self) -> int:
        n_entries = self._shared.n_entries(len(self._live) + len(self._staged))
        return max(0, int(self._graph.get_current_count()) - n_entries)

    @property
    def is_wasteful(self) -> bool:
        entries = self._shared.n_entries(len(self._live))
        return self._codes.is_wasteful or self.n_deleted > max(INITIAL_CAPACITY, MAX_DELETED * entries)

    def compacted(self) -> HnswCandidates:
        keys = self.keys()
        graph = HnswCandidates(self._dimension, self._shared.n_entries(len(keys)), self.ef, self.parameters)
        for start in range(0, len(keys), _AT_ONCE):
            batch = keys[start : start + _AT_ONCE]
            graph.stage(batch, self.vectors(batch))
        graph.publish([])
        return graph

    @classmethod
    def from_vectors(
        cls, keys: IntArray, vectors: FloatArray, ef: int = DEFAULT_EF, parameters: GraphParameters = DEFAULT_GRAPH
    ) -> HnswCandidates:
        """A graph of these vectors."""
        graph = cls(vectors.shape[1], len(keys), ef, parameters)
        graph.stage(keys, vectors)
        graph.publish([])
        return graph

    def save(self, stem: Path) -> list[Path]:
        while self.tidy():
            pass
        graph = stem.with_name(f"{stem.name}.hnsw")
        write_graph_file(self._graph, graph, self.parameters)
        codes, rows = self._codes.save(stem), self._shared.as_rows(self._live)
        if not len(rows):
            return [graph, *codes]
        shared = stem.with_name(f"{stem.name}.shared")
        write_new(shared, rows.astype("<i8").reshape(-1).view(np.uint8).data)
        return [graph, shared, *codes]

    @classmethod
    def load(
        cls, files: Mapping[str, Path], dimension: int, parameters: GraphParameters = DEFAULT_GRAPH
    ) -> HnswCandidates:
        """Read what ``save`` wrote, given by suffix.

        Raises:
            CorruptIndexError: a file is damaged, or the graph has other parameters.
        """
        loaded = cls(dimension, parameters=parameters)
        loaded._graph, content = read_graph_file(files[".hnsw"], dimension, parameters)
        entries = content.labels[~content.is_deleted]
        rows = np.fromfile(files[".shared"], "<i8") if ".shared" in files else np.empty(0, np.int64)
        if len(rows) % 2:
            raise CorruptIndexError("the file of shared entries is damaged: it is cut")
        rows = rows.reshape(-1, 2)
        loaded._live = set(documents_of(entries, rows).tolist())
        loaded._shared = SharedEntries.from_rows(rows)
        loaded._table = content.table
        if ".shared" not in files and loaded._holds_equal_items(content.pairs):  # earlier versions did not share items
            return loaded.compacted()
        loaded._codes = loaded._load_codes(files)
        return loaded

    def _load_codes(self, files: Mapping[str, Path]) -> FlatCandidates:
        keys = self.keys()
        if ".codes" in files:
            codes = FlatCandidates.load(files, self._dimension)
            if not np.array_equal(codes.keys(), keys):
                raise CorruptIndexError("the file of stage-one codes does not fit the graph")
            return codes
        codes = FlatCandidates(self._dimension, len(keys))  # earlier versions did not keep them
        for start in range(0, len(keys), _AT_ONCE):
            batch = keys[start : start + _AT_ONCE]
            codes.stage(batch, self.vectors(batch))
        codes.publish([])
        return codes

    def _holds_equal_items(self, pairs: list[tuple[int, int]]) -> bool:
        return any(self._has_vector(a, self._graph.get_items([b], return_type="numpy")[0]) for a, b in pairs)
