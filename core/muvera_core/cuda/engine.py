"""Runs the MaxSim kernels: uploads token rows to the GPU, scores queries against them, and fetches the scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_core.cuda.device import CudaDevice, Sent, Workspace
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.storage import Rows, TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray

_WARPS = 4  # per block, unless a launch sets another number
_THREADS = 32 * _WARPS
# Warps to launch for each warp that the GPU can run at once. More of them balance documents of different lengths; fewer
# load queries less often.
_WARPS_PER_SLOT = 4
# The best of lists longer than this are chosen in two steps.
_SEGMENT = 8192


@dataclass(frozen=True, eq=False)
class Documents:
    """Where documents' rows are on the GPU. The three columns are arrays of the host or of the GPU.

    Attributes:
        rows_at: address of each document's first row, uint64, shape (documents,).
        scales_at: address of each document's first scale, uint64; 0 if rows have no scales.
        n_tokens: number of tokens of each document, at least 1, int32.
    """

    rows_at: npt.NDArray[np.uint64]
    scales_at: npt.NDArray[np.uint64]
    n_tokens: npt.NDArray[np.int32]

    @property
    def columns(self) -> tuple[Any, ...]:
        """The three columns, in order."""
        return self.rows_at, self.scales_at, self.n_tokens

    def __len__(self) -> int:
        return len(self.rows_at)

    def __getitem__(self, places: npt.NDArray[np.integer]) -> Documents:
        return Documents(*(column[places] for column in self.columns))

    def followed_by(self, *others: Documents) -> Documents:
        """These documents and then the others."""
        columns = zip(self.columns, *(other.columns for other in others), strict=True)
        return Documents(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True, eq=False)
class GpuRows:
    """Token rows on the GPU, for as long as this object lives.

    Attributes:
        rows_at: address of the first row.
        scales_at: address of the first scale; 0 if rows have no scales.
        arrays: the memory itself.
    """

    rows_at: int
    scales_at: int
    arrays: tuple[Any, ...]


class CudaEngine:
    """The kernels for one row layout, on one GPU. They are used within ``session()``."""

    def __init__(self, device: CudaDevice, codec: TokenCodec) -> None:
        """Compile the kernels, or take them from CuPy's cache. Raises DeviceError."""
        self.layout = RowLayout.of(codec)
        self._device = device
        layout = self.layout
        with device.workspace():
            module = device.cupy.RawModule(
                code=kernel_source("maxsim.cu"),
                options=("-std=c++17",),
                name_expressions=[layout.kernel, layout.split_kernel],
            )
            # The bare functions: CuPy's wrapper around them takes microseconds in every launch.
            self.maxsim, self.split_queries, self.unpack_rows, self.select, self.add_chunks = (
                module.get_function(name).kernel
                for name in (layout.kernel, layout.split_kernel, "unpack_rows", "select", "add_chunks")
            )

    @contextmanager
    def session(self) -> Iterator[CudaSession]:
        """Start a session. Raises DeviceError if the GPU fails."""
        with self._device.workspace() as workspace:
            yield CudaSession(self, workspace)


class CudaSession:
    """Work that the GPU does in order, while the caller prepares the next piece."""

    def __init__(self, engine: CudaEngine, workspace: Workspace) -> None:
        self._engine, self._workspace, self._layout = engine, workspace, engine.layout
        self._device = engine._device
        self._cupy = engine._device.cupy

    def upload(self, rows: Rows) -> GpuRows:
        """Copy stored rows to the GPU."""
        layout, cupy = self._layout, self._cupy
        (stored,) = self._workspace.send(rows.view(np.uint8))
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
        return GpuRows(int(codes.data.ptr), scales_at, (codes, scales))

    def wait(self) -> None:
        """Wait for all work of this session."""
        self._workspace.stream.synchronize()

    def prepare(self, queries: Sequence[FloatArray]) -> PreparedQueries:
        """Prepare queries, float32, shape (tokens, dimension) each, for the scoring calls that follow."""
        offsets = np.zeros(len(queries) + 1, dtype=np.int64)
        np.cumsum([len(query) for query in queries], out=offsets[1:])
        n_chunks = self._layout.n_chunks(max(map(len, queries)))
        n_rows = len(queries) * n_chunks * self._layout.chunk
        rows_at = self._workspace.allocate(n_rows * (2 * self._layout.row_bytes + 4))
        return PreparedQueries(queries, offsets, n_chunks, n_rows, rows_at)

    def on_gpu(self, documents: Documents) -> Documents:
        """The same documents with their columns on the GPU, so that they are not sent with every scoring call."""
        return Documents(*(self._cupy.asarray(column) for column in documents.columns))

    def score_lists(
        self, queries: PreparedQueries, documents: Documents, places: npt.NDArray[np.int32], lists: IntArray
    ) -> Scores:
        """MaxSim of each query with its own documents.

        Args:
            queries: at most 65,535 prepared queries.
            documents: all documents that the queries may have.
            places: indices in ``documents``: those of the first query, then those of the second, and so on.
            lists: int64, shape (queries + 1,): query ``i`` has the documents ``places[lists[i]:lists[i + 1]]``.
        """
        columns, places_at, lists_at = self._send(queries, documents, places, lists)
        longest = int(np.diff(lists).max(initial=0))
        values_at = self._score(queries, columns, places_at, lists_at, len(places), len(lists) - 1, longest)
        return Scores(values_at, lists, longest, lists_at, self._workspace.n_sent)

    def score_all(self, queries: PreparedQueries, documents: Documents) -> Scores:
        """MaxSim of every query with every document."""
        n = len(documents)
        lists = np.arange(len(queries.offsets), dtype=np.int64) * n
        columns, _, lists_at = self._send(queries, documents, None, lists)
        values_at = self._score(queries, columns, 0, lists_at, n, 1, n)
        return Scores(values_at, lists, n, lists_at, self._workspace.n_sent)

    def select(self, scores: Scores, k: int | None) -> Selected:
        """Select the ``k`` highest of each query's scores (all if None). Of equal scores, the first are taken."""
        k = scores.longest if k is None else min(k, scores.longest)
        n = len(scores.lists) - 1
        if scores.longest <= _SEGMENT or k > _SEGMENT // 16:
            # What was sent is valid until the call of ``send`` after the next.
            is_valid = self._workspace.n_sent - scores.sent <= 1
            lists_at = scores.lists_at if is_valid else self._workspace.send(scores.lists)[0]
            return Selected(self._select(scores.values_at, lists_at, n, scores.longest, k), n, k, None)
        # Select the best of each segment, and then the best of these.
        n_segments = -(-np.diff(scores.lists) // _SEGMENT)
        first_of_list = np.concatenate([[0], np.cumsum(n_segments)])
        numbers = np.arange(first_of_list[-1]) - np.repeat(first_of_list[:-1], n_segments)
        starts = np.repeat(scores.lists[:-1], n_segments) + numbers * _SEGMENT
        segments_at, lists_at = self._workspace.send(np.append(starts, scores.lists[-1]), first_of_list * k)
        first_at = self._select(scores.values_at, segments_at, len(starts), _SEGMENT, k)
        values_at = first_at + 4 * len(starts) * k
        then_at = self._select(values_at, lists_at, n, int(n_segments.max()) * k, k)
        return Selected(then_at, n, k, _Segments(first_at, numbers, first_of_list))

    def fetch(self, selected: Selected) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """Wait for selected scores, and copy them to the host.

        Returns:
            Places in each query's list, ascending, and the scores, both of shape (queries, k). If a query has fewer
            than k, the rest is -1 and minus infinity.
        """
        received = np.empty((2, selected.n, selected.k), dtype=np.int32)
        self._workspace.fetch(selected.at, received)
        places, values, segments = received[0], received[1].view(np.float32), selected.segments
        if segments is None:
            return places, values
        firsts = np.empty(len(segments.numbers) * selected.k, dtype=np.int32)
        self._workspace.fetch(segments.at, firsts)
        flat = segments.first_of_list[:-1, None] * selected.k + places
        in_list = segments.numbers[flat // selected.k] * _SEGMENT + firsts[flat]
        return np.where(places >= 0, in_list, -1).astype(np.int32), values

    def receive(self, scores: Scores) -> FloatArray:
        """Wait for scores, and return all of them, float32, shape (documents of all lists,)."""
        received = np.empty(int(scores.lists[-1]), dtype=np.float32)
        self._workspace.fetch(scores.values_at, received)
        return received

    def _select(self, values_at: int, lists_at: int, n: int, longest: int, k: int) -> int:
        """Address of the places of the highest scores, int32, shape (n, k), followed by the scores, float32."""
        chosen_at = self._workspace.allocate(8 * n * k)
        if n * k:
            n_threads = min(1024, -(-longest // 32) * 32)
            values = values_at, lists_at, k, chosen_at, chosen_at + 4 * n * k
            _launch(self._engine.select, (n,), *values, n_threads=n_threads)
        return chosen_at

    def _send(
        self,
        queries: PreparedQueries,
        documents: Documents,
        places: npt.NDArray[np.int32] | None,
        lists: IntArray,
    ) -> tuple[list[int], int, int]:
        """Send arrays that are not on the GPU, in one transfer. Returns the addresses of columns, places and lists."""
        are_on_gpu = not isinstance(documents.rows_at, np.ndarray)
        arrays: list[Sent] = [lists] if places is None else [lists, places]
        if not are_on_gpu:
            arrays += documents.columns
        if queries.are_on_gpu:
            lists_at, *addresses = self._workspace.send(*arrays)
        else:
            vectors_at, offsets_at, lists_at, *addresses = self._workspace.send(
                queries.vectors, queries.offsets, *arrays
            )
            self._split(queries, vectors_at, offsets_at)
        places_at = 0 if places is None else addresses.pop(0)
        if are_on_gpu:
            addresses = [int(column.data.ptr) for column in documents.columns]
        return addresses, places_at, lists_at

    def _split(self, queries: PreparedQueries, vectors_at: int, offsets_at: int) -> None:
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
            *self._query_addresses(queries),
        )
        queries.are_on_gpu = True

    def _query_addresses(self, queries: PreparedQueries) -> tuple[int, int, int]:
        """Addresses of the queries' coarse rows, fine rows and scales."""
        size = queries.n_rows * self._layout.row_bytes
        return queries.at, queries.at + size, queries.at + 2 * size

    def _score(
        self,
        queries: PreparedQueries,
        columns: Sequence[int],
        places: int,
        lists: int,
        n_pairs: int,
        n_lists: int,
        longest: int,
    ) -> int:
        """Address of the scores, float32, shape (pairs,), or (queries, pairs) if all queries share one list."""
        n_queries = len(queries.offsets) - 1
        n_chunks = queries.n_chunks * n_queries // n_lists
        scores_at = self._workspace.allocate(4 * n_chunks * n_pairs)
        if not n_pairs:
            return scores_at
        n_slots = self._device.n_multiprocessors * self._layout.warps
        wanted = max(n_chunks, min(longest * n_chunks, _WARPS_PER_SLOT * n_slots // n_lists))
        # Warps that score the same documents share a multiprocessor's cache.
        n_warps = _WARPS if n_chunks <= _WARPS else self._layout.warps
        _launch(
            self._engine.maxsim,
            (-(-wanted // n_warps), n_lists),
            *self._query_addresses(queries),
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
        # The chunks of a query follow one another, each with the scores of all pairs.
        n_sums = n_queries // n_lists
        sums_at = self._workspace.allocate(4 * n_sums * n_pairs)
        grid = (-(-n_pairs // _THREADS), n_sums)
        _launch(self._engine.add_chunks, grid, scores_at, queries.n_chunks, n_pairs, sums_at)
        return sums_at


@dataclass(eq=False)
class PreparedQueries:
    """Queries. They are sent to the GPU with the first documents that they are scored against.

    Attributes:
        vectors: each query's token vectors, float32, shape (tokens, dimension).
        offsets: number of each query's first token, int64, shape (queries + 1,).
        n_chunks: chunks per query.
        n_rows: rows on the GPU, including the rows of zeros that fill up the last chunks.
        at: address on the GPU of the coarse rows, followed by the fine rows and the scales.
        are_on_gpu: whether they have been sent.
    """

    vectors: Sequence[FloatArray]
    offsets: IntArray
    n_chunks: int
    n_rows: int
    at: int
    are_on_gpu: bool = False


class Scores(NamedTuple):
    """Scores on the GPU.

    Attributes:
        values_at: address of the scores, float32, query by query.
        lists: int64, shape (queries + 1,): the scores of query ``i`` are ``lists[i]`` to ``lists[i + 1]``.
        longest: length of the longest list.
        lists_at: address of ``lists`` when they were sent.
        sent: value of ``Workspace.n_sent`` at that time.
    """

    values_at: int
    lists: IntArray
    longest: int
    lists_at: int
    sent: int


class Selected(NamedTuple):
    """The highest scores of each list, on the GPU.

    Attributes:
        at: address of their places, int32, shape (n, k), followed by the scores.
        n: number of lists.
        k: scores per list.
        segments: the segments into which lists were divided; the places then refer to the segments' best. None if no
            list was long.
    """

    at: int
    n: int
    k: int
    segments: _Segments | None


class _Segments(NamedTuple):
    """The segments of long lists.

    Attributes:
        at: address of the places of each segment's best, int32, shape (segments, k).
        numbers: number of each segment in its list.
        first_of_list: index of each list's first segment, and at the end the number of segments.
    """

    at: int
    numbers: IntArray
    first_of_list: IntArray


def _launch(kernel: Any, grid: tuple[int, ...], *values: int, n_threads: int = _THREADS) -> None:
    """Launch a kernel whose argument is one structure of integers and addresses."""
    structure = np.array(values, dtype=np.int64).view(f"V{8 * len(values)}")
    kernel(grid, (n_threads,), (structure,))


def kernel_source(name: str) -> str:
    """Source of a kernel file of this package."""
    return resources.files("muvera_core.cuda").joinpath(name).read_text(encoding="utf-8")
