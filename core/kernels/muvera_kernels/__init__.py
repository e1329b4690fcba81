"""The compiled kernels of muvera. They check no arguments: ``muvera_core`` does, and is their only caller."""

from __future__ import annotations

from muvera_kernels._native import (
    CudaRanker,
    FdeEncoder,
    available_kernels,
    coarsen,
    crc32,
    find_best,
    maxsim_kernels,
    score_documents,
    score_rows,
)

__all__ = [
    "CudaRanker",
    "FdeEncoder",
    "available_kernels",
    "coarsen",
    "crc32",
    "find_best",
    "maxsim_kernels",
    "score_documents",
    "score_rows",
]
