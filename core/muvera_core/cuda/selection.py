"""Selects the highest scores of lists on the GPU, and fetches them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from muvera_core.cuda.device import Workspace
from muvera_core.cuda.kernels import CudaKernels
from muvera_core.cuda.launch import THREADS, launch
from muvera_core.token_embeddings import FloatArray, IntArray

# The best of lists longer than this are chosen in two steps, first in segments of this length.
SEGMENT = 8192
# Of long lists, up to this number are chosen fast.
FEW = SEGMENT // 16


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

    def lists_on_gpu(self, workspace: Workspace) -> int:
        """Address of ``lists``. They are sent again if need be."""
        # What was sent is valid until the call of ``send`` after the next.
        is_valid = workspace.n_sent - self.sent <= 1
        return self.lists_at if is_valid else workspace.send(self.lists)[0]


class Selected(NamedTuple):
    """The highest scores of each list, on the GPU.

    Attributes:
        at: address of their places, int32, shape (n, k), followed by the scores, float32. If a list has fewer than k,
            the rest is -1 and minus infinity.
        n: number of lists.
        k: scores per list.
    """

    at: int
    n: int
    k: int

    @property
    def values_at(self) -> int:
        """Address of the scores."""
        return self.at + 4 * self.n * self.k


def select(kernels: CudaKernels, workspace: Workspace, scores: Scores, k: int | None) -> Selected:
    """Select the ``k`` highest of each query's scores (all if None), in the order of the list.

    Of equal scores, the first are taken, and of minus infinities none.
    """
    k = scores.longest if k is None else min(k, scores.longest)
    n = len(scores.lists) - 1
    if scores.longest <= SEGMENT or k > FEW:
        return _select(kernels, workspace, scores.values_at, scores.lists_on_gpu(workspace), n, scores.longest, k)
    # Select the best of each segment, and then the best of these.
    n_segments = -(-np.diff(scores.lists) // SEGMENT)
    first_of_list = np.concatenate([[0], np.cumsum(n_segments)])
    origins = (np.arange(first_of_list[-1]) - np.repeat(first_of_list[:-1], n_segments)) * SEGMENT
    starts = np.repeat(scores.lists[:-1], n_segments) + origins
    segments_at, lists_at, origins_at = workspace.send(np.append(starts, scores.lists[-1]), first_of_list * k, origins)
    firsts = _select(kernels, workspace, scores.values_at, segments_at, len(starts), SEGMENT, k)
    selected = _select(kernels, workspace, firsts.values_at, lists_at, n, int(n_segments.max()) * k, k)
    look_up(kernels, selected, lists_at, firsts.at, origins_at, k)
    return selected


def look_up(
    kernels: CudaKernels, selected: Selected, lists_at: int, table_at: int, origins_at: int = 0, per_origin: int = 1
) -> None:
    """Replace places in lists by numbers of a table.

    Args:
        kernels: the kernels.
        selected: the places. They are overwritten.
        lists_at: address of the lists, int64, shape (n + 1,): places of list ``i`` are those in the table from
            ``lists[i]`` on.
        table_at: address of the table, int32.
        origins_at: address of numbers that are added, int64, one for ``per_origin`` numbers of the table; 0 for none.
        per_origin: see ``origins_at``.
    """
    n_places = selected.n * selected.k
    if n_places:
        grid = (-(-n_places // THREADS),)
        values = selected.at, lists_at, selected.n, selected.k, table_at, origins_at, per_origin
        launch(kernels.look_up, grid, *values)


def fetch(workspace: Workspace, selected: Selected) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Wait for selected scores, and copy them to the host.

    Returns:
        Places in each query's list, ascending, and the scores, both of shape (queries, k). If a query has fewer than k,
        the rest is -1 and minus infinity.
    """
    received = np.empty((2, selected.n, selected.k), dtype=np.int32)
    workspace.fetch(selected.at, received)
    return received[0], received[1].view(np.float32)


def _select(
    kernels: CudaKernels, workspace: Workspace, values_at: int, lists_at: int, n: int, longest: int, k: int
) -> Selected:
    selected = Selected(workspace.allocate(8 * n * k), n, k)
    if n * k:
        n_threads = min(1024, -(-longest // 32) * 32)
        launch(kernels.select, (n,), values_at, lists_at, k, selected.at, selected.values_at, n_threads=n_threads)
    return selected
