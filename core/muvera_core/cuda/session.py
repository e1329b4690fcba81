"""Work on a GPU with the MaxSim kernels: uploads token rows, scores queries against them, and fetches the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.cuda.columns import Column, extended_on_gpu
from muvera_core.cuda.device import Sent, Workspace
from muvera_core.cuda.gpu_data import Documents, GpuRows, PreparedQueries
from muvera_core.cuda.kernels import CudaKernels
from muvera_core.cuda.launch import THREADS, WARPS, launch
from muvera_core.cuda.row_layout import STEP
from muvera_core.cuda.selection import Scores, Selected, fetch, select
from muvera_core.storage import Rows
from muvera_core.token_embeddings import FloatArray, IntArray

# Blocks that look for the longest row of an upload.
_LENGTH_BLOCKS = 1024


class CudaSession:
    """Work that the GPU does in order, while the caller prepares the next piece.

    Attributes:
        engine: the kernels.
        workspace: the stream and the memory.
        layout: layout of the rows.
    """

    def __init__(self, engine: CudaKernels, workspace: Workspace) -> None:
        self.engine, self.workspace, self.layout = engine, workspace, engine.layout
        self._device = engine.device
        self._cupy = engine.device.cupy

    def allocate_rows(self, n: int) -> GpuRows:
        """GPU memory for rows."""
        layout, cupy = self.layout, self._cupy
        codes = cupy.empty((n, layout.row_bytes), dtype=np.uint8)
        scales = cupy.empty((n, layout.scale_bytes), dtype=np.uint8) if layout.scale_bytes else None
        return GpuRows(int(codes.data.ptr), 0 if scales is None else int(scales.data.ptr), (codes, scales))

    def upload(self, rows: Rows, offsets: IntArray, target: GpuRows | None = None) -> GpuRows:
        """Copy the rows of whole documents to the GPU.

        Args:
            rows: see ``rows_for_gpu``.
            offsets: int64, shape (documents + 1,); document ``i`` owns ``rows[offsets[i]:offsets[i + 1]]``.
            target: memory that has room for them. None for new memory.
        """
        layout = self.layout
        target = self.allocate_rows(len(rows)) if target is None else target
        if layout.is_packed:
            self._pack(rows, offsets, target)
        else:
            self._unpack(rows, target)
        launch(
            self.engine.find_largest_length,
            (min(_LENGTH_BLOCKS, -(-len(rows) // WARPS)),),
            target.rows_at,
            target.scales_at,
            len(rows),
            layout.row_bytes,
            int(self.engine.largest_length.data.ptr),
        )
        return target

    def _unpack(self, rows: Rows, target: GpuRows) -> None:
        layout = self.layout
        (stored,) = self.workspace.send(rows.view(np.uint8))
        launch(
            self.engine.unpack_rows,
            (-(-len(rows) // WARPS),),
            stored,
            len(rows),
            rows.dtype.itemsize - layout.scale_bytes,
            layout.row_bytes,
            target.rows_at,
            target.scales_at,
        )

    def _pack(self, rows: Rows, offsets: IntArray, target: GpuRows) -> None:
        layout = self.layout
        stored, offsets_at = self.workspace.send(rows.view(np.uint8), offsets)
        launch(
            self.engine.pack_rows,
            (len(offsets) - 1,),
            stored,
            offsets_at,
            layout.dimension,
            layout.bits,
            layout.steps,
            layout.query_row_bytes // (STEP * layout.steps),
            target.rows_at,
            target.scales_at,
        )

    def extended(
        self, columns: Sequence[Column], values: Sequence[npt.NDArray[Any]], sizes: Sequence[int]
    ) -> list[Column]:
        """See ``extended_on_gpu``. Before another session uses the longer columns, call ``wait``."""
        return extended_on_gpu(self.workspace, columns, values, sizes)

    def wait(self) -> None:
        """Wait for all work of this session."""
        self.workspace.stream.synchronize()

    def free_unused(self) -> None:
        """See ``CudaDevice.free_unused``."""
        self._device.free_unused()

    def prepare(self, queries: Sequence[FloatArray]) -> PreparedQueries:
        """Prepare queries, float32, shape (tokens, dimension) each, for the scoring calls that follow."""
        offsets = np.zeros(len(queries) + 1, dtype=np.int64)
        np.cumsum([len(query) for query in queries], out=offsets[1:])
        n_chunks = self.layout.n_chunks(max(map(len, queries)))
        n_rows = len(queries) * n_chunks * self.layout.chunk
        rows_at = self.workspace.allocate(n_rows * (2 * self.layout.query_row_bytes + 4))
        return PreparedQueries(queries, offsets, n_chunks, n_rows, rows_at)

    def score_lists(
        self, queries: PreparedQueries, documents: Documents, places: npt.NDArray[np.int32] | int, lists: IntArray
    ) -> Scores:
        """MaxSim of each query with its own documents.

        Args:
            queries: at most 65,535 prepared queries.
            documents: all documents that the queries may have.
            places: indices in ``documents``: those of the first query, then those of the second, and so on. Or the
                address of such an array on the GPU.
            lists: int64, shape (queries + 1,): query ``i`` has the documents ``places[lists[i]:lists[i + 1]]``.
        """
        sent = None if isinstance(places, int) else places
        columns, places_at, lists_at = self._send(queries, documents, sent, lists)
        longest = int(np.diff(lists).max(initial=0))
        if isinstance(places, int):
            places_at = places
        values_at = self._score(queries, columns, places_at, lists_at, int(lists[-1]), len(lists) - 1, longest)
        return Scores(values_at, lists, longest, lists_at, self.workspace.n_sent)

    def score_all(
        self,
        queries: PreparedQueries,
        documents: Documents,
        places: npt.NDArray[np.int32] | None = None,
        *,
        is_coarse: bool = False,
    ) -> Scores:
        """MaxSim of every query with every document, or with those at the indices ``places``.

        With ``is_coarse``, by the queries' coarse numbers alone.
        """
        n = len(documents) if places is None else len(places)
        lists = np.arange(len(queries.offsets), dtype=np.int64) * n
        columns, places_at, lists_at = self._send(queries, documents, places, lists)
        values_at = self._score(queries, columns, places_at, lists_at, n, 1, n, is_coarse=is_coarse)
        return Scores(values_at, lists, n, lists_at, self.workspace.n_sent)

    def select(self, scores: Scores, k: int | None) -> Selected:
        """See ``selection.select``."""
        return select(self.engine, self.workspace, scores, k)

    def fetch(self, selected: Selected) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """See ``selection.fetch``."""
        return fetch(self.workspace, selected)

    def receive(self, scores: Scores) -> FloatArray:
        """Wait for scores, and return all of them, float32, shape (documents of all lists,)."""
        received = np.empty(int(scores.lists[-1]), dtype=np.float32)
        self.workspace.fetch(scores.values_at, received)
        return received

    def query_addresses(self, queries: PreparedQueries) -> tuple[int, int, int]:
        """Addresses of the queries' coarse rows, fine rows and scales."""
        size = queries.n_rows * self.layout.query_row_bytes
        return queries.at, queries.at + size, queries.at + 2 * size

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
            lists_at, *addresses = self.workspace.send(*arrays)
        else:
            vectors_at, offsets_at, lists_at, *addresses = self.workspace.send(
                queries.vectors, queries.offsets, *arrays
            )
            self._split(queries, vectors_at, offsets_at)
        places_at = 0 if places is None else addresses.pop(0)
        if are_on_gpu:
            addresses = [int(column.data.ptr) for column in documents.columns]
        return addresses, places_at, lists_at

    def _split(self, queries: PreparedQueries, vectors_at: int, offsets_at: int) -> None:
        layout = self.layout
        launch(
            self.engine.split_queries,
            (-(-queries.n_rows // WARPS),),
            vectors_at,
            offsets_at,
            layout.dimension,
            layout.query_row_width,
            queries.n_chunks * layout.chunk,
            queries.n_rows,
            layout.limit,
            *self.query_addresses(queries),
        )
        queries.are_on_gpu = True

    def _score(
        self,
        queries: PreparedQueries,
        columns: Sequence[int],
        places: int,
        lists: int,
        n_pairs: int,
        n_lists: int,
        longest: int,
        *,
        is_coarse: bool = False,
    ) -> int:
        """Address of the scores, float32, shape (pairs,), or (queries, pairs) if all queries share one list."""
        n_queries = len(queries.offsets) - 1
        n_chunks = queries.n_chunks * n_queries // n_lists
        scores_at = self.workspace.allocate(4 * n_chunks * n_pairs)
        if not n_pairs:
            return scores_at
        n_sharing = -(-n_chunks // 2) if is_coarse else n_chunks  # warps that score the same documents
        wanted = max(n_sharing, min(longest * n_sharing, self.engine.most_warps // n_lists))
        # They share a multiprocessor's cache.
        n_warps = WARPS if n_sharing <= WARPS else self.layout.warps
        launch(
            self.engine.coarse_maxsim if is_coarse else self.engine.maxsim,
            (-(-wanted // n_warps), n_lists),
            *self.query_addresses(queries),
            n_chunks,
            self.layout.query_row_bytes,
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
        sums_at = self.workspace.allocate(4 * n_sums * n_pairs)
        grid = (-(-n_pairs // THREADS), n_sums)
        launch(self.engine.add_chunks, grid, scores_at, queries.n_chunks, n_pairs, sums_at)
        return sums_at
