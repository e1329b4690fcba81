"""Reads vectors where an encoder left them in the GPU's memory, without a way through the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from muvera_core.device_rows import DeviceRows

_THREADS = 128  # per block; THREADS in encodings.cu
_VECTORS_PER_BLOCK = _THREADS // 32  # a warp for each


def rows_on_gpu(rows: DeviceRows, cupy: Any, round_to_int8: Any) -> Any:
    """The rows in one array, rounded as they ask for.

    Call it within a workspace. The rows come by DLPack: CuPy names its current stream, here the workspace's, and the
    library that made the rows lets that stream wait for its own work on them. The other way round nothing waits. So
    the arrays of ``rows``, which hold the memory, must live until the workspace's stream is done.

    Args:
        rows: rows in this GPU's memory.
        cupy: the module.
        round_to_int8: the kernel of encodings.cu.

    Returns:
        A CuPy array, float32, shape (rows, dimension), contiguous. It can be the memory of the rows themselves: do not
        write to it.
    """
    parts = [cupy.from_dlpack(run.array)[run.start : run.stop] for run in rows.runs]
    parts = [cupy.ascontiguousarray(part, dtype=np.float32) for part in parts]
    vectors = parts[0] if len(parts) == 1 else cupy.concatenate(parts)
    if rows.rounding == "float16":
        return vectors.astype(np.float16).astype(np.float32)
    if rows.rounding == "int8":
        n, width = vectors.shape
        rounded = cupy.empty((n, width), dtype=np.float32)
        grid = (-(-n // _VECTORS_PER_BLOCK),)
        round_to_int8(grid, (_THREADS,), (vectors, np.int64(n), np.int32(width), rounded))
        return rounded
    return vectors
