"""The MaxSim kernels at work: in sessions, and in calls of compiled code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from muvera_core.cuda.kernels import CudaKernels
from muvera_core.cuda.launch import WARPS
from muvera_core.cuda.list_ranker import ListRanker
from muvera_core.cuda.session import CudaSession


class CudaEngine(CudaKernels):
    """The kernels for one row layout, on one GPU, and what uses them."""

    @contextmanager
    def session(self) -> Iterator[CudaSession]:
        """Start a session. Raises DeviceError if the GPU fails."""
        with self.device.workspace() as workspace:
            yield CudaSession(self, workspace)

    def list_ranker(self) -> ListRanker:
        """Ranks lists of cached documents with these kernels."""
        layout = self.layout
        kernels = {
            "find_places": self.find_places,
            "split_queries": self.split_queries,
            "maxsim": self.maxsim,
            "add_chunks": self.add_chunks,
            "select": self.select,
        }
        numbers = {
            "dimension": layout.dimension,
            "query_row_bytes": layout.query_row_bytes,
            "query_row_width": layout.query_row_width,
            "limit": layout.limit,
            "chunk": layout.chunk,
            "warps_together": layout.warps,
            "warps_per_block": WARPS,
            "most_warps": self.most_warps,
        }
        return ListRanker(self.device, kernels, numbers)
