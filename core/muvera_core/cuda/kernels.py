"""The kernels for rows of one layout, compiled for one GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.launch import kernel_source
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.storage import TokenCodec

# Each file comes after those that it needs.
MAXSIM_FILES = ("maxsim.cu", "selection.cu", "exact.cu")
# Warps to launch for each warp that the GPU can run at once. More of them balance documents of different lengths; fewer
# load queries less often.
_WARPS_PER_SLOT = 4


class CudaKernels:
    """The kernels, as CuPy's functions, and what they share.

    Attributes:
        device: the GPU.
        layout: layout of the rows.
        largest_length: largest length of the vectors of all rows that were uploaded, float32, shape (1,), on the GPU.
        n_to_skip: number of searches to come that do not begin with coarse scores; see ``exact.py``.
    """

    def __init__(self, device: CudaDevice, codec: TokenCodec) -> None:
        """Compile the kernels, or take them from CuPy's cache. Raises DeviceError."""
        self.layout = RowLayout.of(codec)
        self.n_to_skip = 0
        self.device = device
        layout = self.layout
        with device.workspace():
            module = device.cupy.RawModule(
                code=kernel_source(*MAXSIM_FILES),
                options=("-std=c++17",),
                name_expressions=layout.kernels,
            )

            def function(name: str) -> Any:
                # The bare function: CuPy's wrapper around it takes microseconds in every launch.
                return module.get_function(name).kernel

            self.maxsim, self.coarse_maxsim = function(layout.kernel), function(layout.coarse_kernel)
            self.split_queries = function(layout.split_kernel)
            self.unpack_rows, self.pack_rows = function("unpack_rows"), function("pack_rows")
            self.add_chunks, self.select, self.look_up = map(function, ("add_chunks", "select", "look_up"))
            self.find_largest_length, self.least_scores = function(layout.length_kernel), function(layout.bound_kernel)
            self.bury, self.collect, self.find_places = map(function, ("bury", "collect", "find_places"))
            self.largest_length = device.cupy.zeros(1, dtype=np.float32)
            device.cupy.cuda.get_current_stream().synchronize()

    @property
    def most_warps(self) -> int:
        """Warps of the MaxSim kernel that are launched together, as long as there is work for them."""
        return _WARPS_PER_SLOT * self.device.n_multiprocessors * self.layout.warps
