"""How kernels are launched, and their sources."""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np

# Warps and threads of a block, unless a launch sets another number.
WARPS = 4
THREADS = 32 * WARPS


def launch(kernel: Any, grid: tuple[int, ...], *values: int, n_threads: int = THREADS) -> None:
    """Launch a kernel whose argument is one structure of integers and addresses."""
    structure = np.array(values, dtype=np.int64).view(f"V{8 * len(values)}")
    kernel(grid, (n_threads,), (structure,))


def kernel_source(*names: str) -> str:
    """Source of kernel files of this package, after the instructions that all of them share."""
    folder = resources.files("muvera_core.cuda")
    return "\n".join(folder.joinpath(part).read_text(encoding="utf-8") for part in ("instructions.cu", *names))
