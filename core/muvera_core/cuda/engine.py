"""Runs the MaxSim kernels on a card: rows go there, queries are compared with them, scores come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_core.cuda.device import CudaDevice, Lane
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.token_codec import Rows, TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray

_WARPS = 4  # of a block; WARPS_PER_BLOCK in maxsim.cu
_THREADS = 32 * _WARPS
# Blocks per place on the card: more even out documents of different lengths, fewer load queries less often.
_BLOCKS_PER_PLACE = 4
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

    def followed_by(self, others: Documents) -> Documents:
        """These and then the others."""
        return Documents(*(np.concatenate(pair) for pair in zip(self.columns, others.columns, strict=True)))


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
        self._row_dtype = codec.row_dtype
        layout = self.layout
        with device.lane():
            module = device.cupy.RawModule(
                code=kernel_source("maxsim.cu"),
                options=("-std=c++17",),
                name_expressions=[layout.kernel, layout.split_kernel],
            )
            self._maxsim = module.get_function(layout.kernel)
            self._split_queries = module.get_function(layout.split_kernel)
            self._unpack_rows = module.get_function("unpack_rows")
            self._select = module.get_function("select")

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
        self._engine._unpack_rows(
            (-(-len(rows) // _WARPS),),
            (_THREADS,),
            (
                np.uint64(stored),
                np.int64(len(rows)),
                np.int32(layout.code_bytes),
                np.int32(layout.row_bytes),
                codes,
                np.uint64(scales_at),
            ),
        )
        return HeldRows(int(codes.data.ptr), scales_at, (codes, scales))

    def wait(self) -> None:
        """Return once everything is done."""
        self._lane.stream.synchronize()

    def ask(self, queries: Sequence[FloatArray]) -> AskedQueries:
        """Queries, float32 of shape (tokens, dimension) each, for the scores that follow."""
        offsets = np.zeros(len(queries) + 1, dtype=np.int64)
        np.cumsum([len(query) for query in queries], out=offsets[1:])
        vectors = queries[0] if len(queries) == 1 else np.concatenate(queries)
        n_chunks = self._layout.n_chunks(max(map(len, queries)))
        n_rows = len(queries) * n_chunks * self._layout.chunk
        memory = self._cupy.empty(n_rows * (2 * self._layout.row_bytes + 4), dtype=np.uint8)
        return AskedQueries(vectors, offsets, n_chunks, n_rows, memory)

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
        parts = self._score(queries, columns, places_at, lists_at, len(places), len(lists) - 1, longest)
        values = parts[0] if queries.n_chunks == 1 else parts.sum(axis=0)
        return Scores(values, lists, longest, lists_at, self._lane.n_sent)

    def score_all(self, queries: AskedQueries, documents: Documents) -> Scores:
        """MaxSim of every query with every document."""
        n, n_queries = len(documents), len(queries.offsets) - 1
        lists = np.arange(n_queries + 1, dtype=np.int64) * n
        columns, _, lists_at = self._send(queries, documents, None, lists)
        parts = self._score(queries, columns, 0, lists_at, n, 1, n)
        if queries.n_chunks > 1:
            parts = parts.reshape(n_queries, queries.n_chunks, n).sum(axis=1)
        return Scores(parts, lists, n, lists_at, self._lane.n_sent)

    def select(self, scores: Scores, k: int | None) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """Wait, and return the ``k`` highest of each query's scores (all, where None), of equal ones the first.

        Returns:
            Their places in the query's list, ascending, and the scores, both of shape (queries, at most k). Where a
            query has fewer, the rest is -1 and minus infinity.
        """
        k = scores.longest if k is None else min(k, scores.longest)
        if scores.longest <= _SEGMENT or k > _SEGMENT // 16:
            # What was sent last is there as long as not more than one thing was sent since.
            is_there = self._lane.n_sent - scores.sent <= 1
            lists_at = scores.lists_at if is_there else self._lane.send(scores.lists)[0]
            chosen = self._select(scores.values, lists_at, len(scores.lists) - 1, scores.longest, k)
            places, values = self._lane.receive(chosen)
            return places, values.view(np.float32)
        # First the best of each segment, and then the best of these.
        lengths = np.diff(scores.lists)
        n_segments = -(-lengths // _SEGMENT)
        starts = np.repeat(scores.lists[:-1], n_segments)
        numbers = np.arange(n_segments.sum()) - np.repeat(np.cumsum(n_segments) - n_segments, n_segments)
        segments = np.append(starts + numbers * _SEGMENT, scores.lists[-1])
        of_list = np.concatenate([[0], np.cumsum(n_segments)]) * k
        segments_at, of_list_at = self._lane.send(segments, of_list)
        first = self._select(scores.values, segments_at, len(segments) - 1, _SEGMENT, k)
        then = self._select(first[1], of_list_at, len(lengths), int(n_segments.max()) * k, k)
        chosen, values = self._lane.receive(then)
        firsts = self._lane.receive(first[0]).reshape(-1)
        flat = of_list[:-1, None] + chosen
        places = numbers[flat // k] * _SEGMENT + firsts[flat]
        return np.where(chosen >= 0, places, -1).astype(np.int32), values.view(np.float32)

    def receive(self, scores: Scores) -> FloatArray:
        """Wait, and return all scores."""
        received: FloatArray = self._lane.receive(scores.values)
        return received

    def _select(self, values: Any, lists_at: int, n: int, longest: int, k: int) -> Any:
        """Places and, as their bits, scores of the highest, int32, shape (2, n, k), on the card."""
        chosen = self._cupy.empty((2, n, k), dtype=np.int32)
        if chosen.size:
            n_threads = min(1024, -(-longest // 32) * 32)
            at = int(chosen.data.ptr)
            arguments = (values, np.uint64(lists_at), np.int32(k), np.uint64(at), np.uint64(at + 4 * n * k))
            self._engine._select((n,), (n_threads,), arguments)
        return chosen

    def _send(
        self,
        queries: AskedQueries,
        documents: Documents,
        places: npt.NDArray[np.int32] | None,
        lists: IntArray,
    ) -> tuple[list[int], int, int]:
        """Send what isn't on the card, all in one piece: addresses of documents' columns, of places and of lists."""
        is_there = not isinstance(documents.rows_at, np.ndarray)
        arrays: list[npt.NDArray[Any]] = [lists] if places is None else [lists, places]
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
        self._engine._split_queries(
            (-(-queries.n_rows // _WARPS),),
            (_THREADS,),
            (
                np.uint64(vectors_at),
                np.uint64(offsets_at),
                np.int32(queries.vectors.shape[1]),
                np.int32(layout.row_bytes // (1 if layout.is_int8 else 2)),
                np.int32(queries.n_chunks * layout.chunk),
                np.int64(queries.n_rows),
                np.int32(layout.limit),
                *self._parts(queries),
            ),
        )
        queries.is_there = True

    def _parts(self, queries: AskedQueries) -> tuple[np.uint64, np.uint64, np.uint64]:
        """Addresses of a query's coarse rows, fine rows and scales."""
        coarse, size = int(queries.memory.data.ptr), queries.n_rows * self._layout.row_bytes
        return np.uint64(coarse), np.uint64(coarse + size), np.uint64(coarse + 2 * size)

    def _score(
        self,
        queries: AskedQueries,
        columns: Sequence[int],
        places: int,
        lists: int,
        n_pairs: int,
        n_lists: int,
        longest: int,
    ) -> Any:
        """MaxSim with each chunk, float32, (chunks, pairs); where there is one list, with those of all queries."""
        n_chunks = queries.n_chunks * (len(queries.offsets) - 1) // n_lists
        scores = self._cupy.empty((n_chunks, n_pairs), dtype=np.float32)
        if not n_pairs:
            return scores
        room = self._device.n_multiprocessors * self._layout.blocks
        wanted = min(longest * n_chunks, _WARPS * _BLOCKS_PER_PLACE * room // n_lists)
        n_blocks = -(-max(wanted, n_chunks) // _WARPS)
        rows_at, scales_at, n_tokens = columns
        self._engine._maxsim(
            (n_blocks, n_lists),
            (_THREADS,),
            (
                *self._parts(queries),
                np.int32(n_chunks),
                np.int32(self._layout.row_bytes),
                np.uint64(rows_at),
                np.uint64(scales_at),
                np.uint64(n_tokens),
                np.uint64(places),
                np.uint64(lists),
                np.int64(n_pairs),
                scores,
            ),
        )
        return scores


@dataclass(eq=False)
class AskedQueries:
    """Queries, which go to the card with the first documents that they are compared with.

    Attributes:
        vectors: of all of them, float32, shape (tokens, dimension).
        offsets: int64, shape (queries + 1,).
        n_chunks: of each.
        n_rows: on the card, those of zeros included that fill up the last chunks.
        memory: for coarse rows, fine rows and scales on the card.
        is_there: whether they are in it.
    """

    vectors: FloatArray
    offsets: IntArray
    n_chunks: int
    n_rows: int
    memory: Any
    is_there: bool = False


class Scores(NamedTuple):
    """Scores on the card.

    Attributes:
        values: float32; those of one query after those of another.
        lists: int64, shape (queries + 1,): where each query's begin and end.
        longest: the most that a query has.
        lists_at: address of ``lists`` when they were sent.
        sent: how many things had been sent then.
    """

    values: Any
    lists: IntArray
    longest: int
    lists_at: int
    sent: int


def kernel_source(name: str) -> str:
    """The text of a kernel file of this package."""
    return resources.files("muvera_core.cuda").joinpath(name).read_text(encoding="utf-8")
