"""The compiled kernels of muvera. They check no arguments: ``muvera_core`` does, and is their only caller."""

from __future__ import annotations

from muvera_kernels._native import available_kernels

__all__ = ["available_kernels"]
