"""Runs the MaxSim kernels on a card: rows go there, queries are compared with them, scores come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_core.cuda.device import CudaDevice, Lane, Sent
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.storage import Rows, TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray

_WARPS = 4  # of a block, where there is no reason for another number
_THREADS = 32 * _WARPS
# Warps per place on the card: more even out documents of different lengths, fewer load queries less often.
_WARPS_PER_PLACE = 4
# The best of longer lists are chosen in two steps.
_SEGMENT = 8192


@dataclass(frozen=True, eq=False)
class Documents:
    """Where documents' rows are on the card. The columns themselves are on the host or on the card.

    Attributes:
        rows_at: address of each one's first row, uint64, shape (documents,).
        scales_at: address of each one's first scale, uint64; 0 where rows have none.
        n_tokens: at least 1 each, int32.
    """

    rows_at: npt.NDArray[np.uint64]
    scales_at: npt.NDArray[np.uint64]
    n_tokens: npt.NDArray[np.int32]

    @property
    def columns(self) -> tuple[Any, ...]:
        """All three, in order."""
        return self.rows_at, self.scales_at, self.n_tokens

    def __len__(self) -> int:
        return len(self.rows_at)

    def __getitem__(self, places: npt.NDArray[np.integer]) -> Documents:
        return Documents(*(column[places] for column in self.columns))

    def followed_by(self, *others: Documents) -> Documents:
        """These and then the others."""
        columns = zip(self.columns, *(some.columns for some in others), strict=True)
        return Documents(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True, eq=False)
class HeldRows:
    """Rows on the card, for as long as this object lives.

    Attributes:
        rows_at: address of the first row.
        scales_at: address of the first scale; 0 where rows have none.
        arrays: the memory itself.
    """

    rows_at: int
    scales_at: int
    arrays: tuple[Any, ...]


class CudaEngine:
    """The kernels for one kind of rows, on one card. Used within ``session()``."""

    def __init__(self, device: CudaDevice, codec: TokenCodec) -> None:
        """Compile the kernels, or take them from CuPy's cache. Raises DeviceError."""
        self.layout = RowLayout.of(codec)
        self._device = device
        layout = self.layout
        with device.lane():
            module = device.cupy.RawModule(
                code=kernel_source("maxsim.cu"),
                options=("-std=c++17",),
                name_expressions=[layout.kernel, layout.split_kernel],
            )
            # The functions themselves: what CuPy wraps around them takes microseconds with every launch.
            self.maxsim, self.split_queries, self.unpack_rows, self.select, self.add_chunks = (
                module.get_function(name).kernel
                for name in (layout.kernel, layout.split_kernel, "unpack_rows", "select", "add_chunks")
            )

    @contextmanager
    def session(self) -> Iterator[CudaSession]:
        """A stream of work. Raises DeviceError where the card fails."""
        with self._device.lane() as lane:
            yield CudaSession(self, lane)


class CudaSession:
    """Work that is done in order, while the caller prepares what comes next."""

    def __init__(self, engine: CudaEngine, lane: Lane) -> None:
        self._engine, self._lane, self._layout = engine, lane, engine.layout
        self._device = engine._device
        self._cupy = engine._device.cupy

    def hold(self, rows: Rows) -> HeldRows:
        """Bring stored rows to the card."""
        layout, cupy = self._layout, self._cupy
        (stored,) = self._lane.send(rows.view(np.uint8))
        codes = cupy.empty((len(rows), layout.row_bytes), dtype=np.uint8)
        scales = cupy.empty(len(rows), dtype=np.float32) if layout.is_int8 else None
        scales_at = 0 if scales is None else int(scales.data.ptr)
        _launch(
            self._engine.unpack_rows,
            (-(-len(rows) // _WARPS),),
            stored,
            len(rows),
            layout.code_bytes,
            layout.row_bytes,
            int(codes.data.ptr),
            scales_at,
        )
        return HeldRows(int(codes.data.ptr), scales_at, (codes, scales))

    def wait(self) -> None:
        """Return once everything is done."""
        self._lane.stream.synchronize()

    def ask(self, queries: Sequence[FloatArray]) -> AskedQueries:
        """Queries, float32 of shape (tokens, dimension) each, for the scores that follow."""
        offsets = np.zeros(len(queries) + 1, dtype=np.int64)
        np.cumsum([len(query) for query in queries], out=offsets[1:])
        n_chunks = self._layout.n_chunks(max(map(len, queries)))
        n_rows = len(queries) * n_chunks * self._layout.chunk
        rows_at = self._lane.room(n_rows * (2 * self._layout.row_bytes + 4))
        return AskedQueries(queries, offsets, n_chunks, n_rows, rows_at)

    def on_card(self, documents: Documents) -> Documents:
        """The same documents, with what is known of them on the card, so that it needn't be sent each time."""
        return Documents(*(self._cupy.asarray(column) for column in documents.columns))

    def score_lists(
        self, queries: AskedQueries, documents: Documents, places: npt.NDArray[np.int32], lists: IntArray
    ) -> Scores:
        """MaxSim of each query with its own documents.

        Args:
            queries: at most 65,535.
            documents: all that queries may have.
            places: the queries' documents among them, one query's after the other's.
            lists: int64, shape (queries + 1,): query ``i`` has ``places[lists[i]:lists[i + 1]]``.
        """
        columns, places_at, lists_at = self._send(queries, documents, places, lists)
        longest = int(np.diff(lists).max(initial=0))
        values_at = self._score(queries, columns, places_at, lists_at, len(places), len(lists) - 1, longest)
        return Scores(values_at, lists, longest, lists_at, self._lane.n_sent)

    def score_all(self, queries: AskedQueries, documents: Documents) -> Scores:
        """MaxSim of every query with every document."""
        n = len(documents)
        lists = np.arange(len(queries.offsets), dtype=np.int64) * n
        columns, _, lists_at = self._send(queries, documents, None, lists)
        values_at = self._score(queries, columns, 0, lists_at, n, 1, n)
        return Scores(values_at, lists, n, lists_at, self._lane.n_sent)

    def select(self, scores: Scores, k: int | None) -> Selected:
        """Choose the ``k`` highest of each query's scores (all, where None), of equal ones the first."""
        k = scores.longest if k is None else min(k, scores.longest)
        n = len(scores.lists) - 1
        if scores.longest <= _SEGMENT or k > _SEGMENT // 16:
            # What was sent last is there as long as not more than one thing was sent since.
            is_there = self._lane.n_sent - scores.sent <= 1
            lists_at = scores.lists_at if is_there else self._lane.send(scores.lists)[0]
            return Selected(self._select(scores.values_at, lists_at, n, scores.longest, k), n, k, None)
        # First the best of each segment, and then the best of these.
        n_segments = -(-np.diff(scores.lists) // _SEGMENT)
        first_of_list = np.concatenate([[0], np.cumsum(n_segments)])
        numbers = np.arange(first_of_list[-1]) - np.repeat(first_of_list[:-1], n_segments)
        starts = np.repeat(scores.lists[:-1], n_segments) + numbers * _SEGMENT
        segments_at, lists_at = self._lane.send(np.append(starts, scores.lists[-1]), first_of_list * k)
        first_at = self._select(scores.values_at, segments_at, len(starts), _SEGMENT, k)
        values_at = first_at + 4 * len(starts) * k
        then_at = self._select(values_at, lists_at, n, int(n_segments.max()) * k, k)
        return Selected(then_at, n, k, _Segments(first_at, numbers, first_of_list))

    def fetch(self, selected: Selected) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """Wait for what was selected.

        Returns:
            Places in each query's list, ascending, and the scores, both of shape (queries, k). Where a query has fewer,
            the rest is -1 and minus infinity.
        """
        received = np.empty((2, selected.n, selected.k), dtype=np.int32)
        self._lane.fetch(selected.at, received)
        places, values, segments = received[0], received[1].view(np.float32), selected.segments
        if segments is None:
            return places, values
        firsts = np.empty(len(segments.numbers) * selected.k, dtype=np.int32)
        self._lane.fetch(segments.at, firsts)
        flat = segments.first_of_list[:-1, None] * selected.k + places
        in_list = segments.numbers[flat // selected.k] * _SEGMENT + firsts[flat]
        return np.where(places >= 0, in_list, -1).astype(np.int32), values

    def receive(self, scores: Scores) -> FloatArray:
        """Wait, and return all scores, float32, shape (all lists' documents,)."""
        received = np.empty(int(scores.lists[-1]), dtype=np.float32)
        self._lane.fetch(scores.values_at, received)
        return received

    def _select(self, values_at: int, lists_at: int, n: int, longest: int, k: int) -> int:
        """Address of the places of the highest, int32, shape (n, k), and then of their scores, float32."""
        chosen_at = self._lane.room(8 * n * k)
        if n * k:
            n_threads = min(1024, -(-longest // 32) * 32)
            values = values_at, lists_at, k, chosen_at, chosen_at + 4 * n * k
            _launch(self._engine.select, (n,), *values, n_threads=n_threads)
        return chosen_at

    def _send(
        self,
        queries: AskedQueries,
        documents: Documents,
        places: npt.NDArray[np.int32] | None,
        lists: IntArray,
    ) -> tuple[list[int], int, int]:
        """Send what isn't on the card, all in one piece: addresses of documents' columns, of places and of lists."""
        is_there = not isinstance(documents.rows_at, np.ndarray)
        arrays: list[Sent] = [lists] if places is None else [lists, places]
        if not is_there:
            arrays += documents.columns
        if queries.is_there:
            lists_at, *addresses = self._lane.send(*arrays)
        else:
            vectors_at, offsets_at, lists_at, *addresses = self._lane.send(queries.vectors, queries.offsets, *arrays)
            self._split(queries, vectors_at, offsets_at)
        places_at = 0 if places is None else addresses.pop(0)
        if is_there:
            addresses = [int(column.data.ptr) for column in documents.columns]
        return addresses, places_at, lists_at

    def _split(self, queries: AskedQueries, vectors_at: int, offsets_at: int) -> None:
        layout = self._layout
        _launch(
            self._engine.split_queries,
            (-(-queries.n_rows // _WARPS),),
            vectors_at,
            offsets_at,
            queries.vectors[0].shape[1],
            layout.row_bytes // (1 if layout.is_int8 else 2),
            queries.n_chunks * layout.chunk,
            queries.n_rows,
            layout.limit,
            *self._parts(queries),
        )
        queries.is_there = True

    def _parts(self, queries: AskedQueries) -> tuple[int, int, int]:
        """Addresses of queries' coarse rows, fine rows and scales."""
        size = queries.n_rows * self._layout.row_bytes
        return queries.at, queries.at + size, queries.at + 2 * size

    def _score(
        self,
        queries: AskedQueries,
        columns: Sequence[int],
        places: int,
        lists: int,
        n_pairs: int,
        n_lists: int,
        longest: int,
    ) -> int:
        """Address of MaxSim, float32, (pairs,); where there is one list, (queries, pairs)."""
        n_queries = len(queries.offsets) - 1
        n_chunks = queries.n_chunks * n_queries // n_lists
        scores_at = self._lane.room(4 * n_chunks * n_pairs)
        if not n_pairs:
            return scores_at
        places_on_card = self._device.n_multiprocessors * self._layout.warps
        wanted = max(n_chunks, min(longest * n_chunks, _WARPS_PER_PLACE * places_on_card // n_lists))
        # Warps that look at the same documents share a multiprocessor's cache.
        n_warps = _WARPS if n_chunks <= _WARPS else self._layout.warps
        _launch(
            self._engine.maxsim,
            (-(-wanted // n_warps), n_lists),
            *self._parts(queries),
            n_chunks,
            self._layout.row_bytes,
            *columns,
            places,
            lists,
            n_pairs,
            scores_at,
            n_threads=32 * n_warps,
        )
        if queries.n_chunks == 1:
            return scores_at
        # Chunks of one query lie one after the other, all pairs of each.
        n_sums = n_queries // n_lists
        sums_at = self._lane.room(4 * n_sums * n_pairs)
        grid = (-(-n_pairs // _THREADS), n_sums)
        _launch(self._engine.add_chunks, grid, scores_at, queries.n_chunks, n_pairs, sums_at)
        return sums_at


@dataclass(eq=False)
class AskedQueries:
    """Queries, which go to the card with the first documents that they are compared with.

    Attributes:
        vectors: of each, float32, shape (tokens, dimension).
        offsets: int64, shape (queries + 1,).
        n_chunks: of each.
        n_rows: on the card, those of zeros included that fill up the last chunks.
        at: address there of coarse rows, then fine rows, then scales.
        is_there: whether they are there yet.
    """

    vectors: Sequence[FloatArray]
    offsets: IntArray
    n_chunks: int
    n_rows: int
    at: int
    is_there: bool = False


class Scores(NamedTuple):
    """Scores on the card.

    Attributes:
        values_at: address of the scores, float32; those of one query after those of another.
        lists: int64, shape (queries + 1,): where each query's begin and end.
        longest: the most that a query has.
        lists_at: address of ``lists`` when they were sent.
        sent: how many things had been sent then.
    """

    values_at: int
    lists: IntArray
    longest: int
    lists_at: int
    sent: int


class Selected(NamedTuple):
    """The highest scores on the card.

    Attributes:
        at: address of their places, int32, shape (n, k), and then of the scores.
        n: how many lists.
        k: of each.
        segments: that places are in, where lists were long.
    """

    at: int
    n: int
    k: int
    segments: _Segments | None


class _Segments(NamedTuple):
    """Long lists in segments.

    Attributes:
        at: address of the places of each segment's best, int32, shape (segments, k).
        numbers: of each segment in its list.
        first_of_list: number of each list's first segment, and at the end that of all.
    """

    at: int
    numbers: IntArray
    first_of_list: IntArray


def _launch(kernel: Any, grid: tuple[int, ...], *values: int, n_threads: int = _THREADS) -> None:
    """Launch a kernel that takes one structure of whole numbers and addresses."""
    structure = np.array(values, dtype=np.int64).view(f"V{8 * len(values)}")
    kernel(grid, (n_threads,), (structure,))


def kernel_source(name: str) -> str:
    """The text of a kernel file of this package."""
    return resources.files("muvera_core.cuda").joinpath(name).read_text(encoding="utf-8")
