"""Chooses the compiled kernels. Where there are none, NumPy does the same, more slowly."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

from muvera_core.errors import InvalidInputError

# Names a kernel, or "numpy" for none. It is read whenever a kernel is called.
VARIABLE = "MUVERA_KERNEL"
NUMPY = "numpy"
PORTABLE = "portable"

_installed: ModuleType | None
try:
    import muvera_kernels as _installed
except ImportError:
    _installed = None


def kernels() -> ModuleType | None:
    """The module of compiled kernels; None if it is not installed, or if the environment says to use NumPy."""
    return None if os.environ.get(VARIABLE) == NUMPY else _installed


def installed_kernels() -> Any:
    """The module of compiled kernels, whatever the environment says; None if it is not installed."""
    return _installed


def available_kernels() -> list[str]:
    """Names of the kernels that can run here, "numpy" among them, the fastest first."""
    names: list[str] = [] if _installed is None else _installed.maxsim_kernels()
    # NumPy's linear algebra is compiled for the processor, unlike the portable kernel.
    return [*(name for name in names if name != PORTABLE), NUMPY, *(name for name in names if name == PORTABLE)]


def kernel_name(having: Sequence[str] | None = None) -> str:
    """The kernel that the environment names, or the fastest that can run here.

    Args:
        having: the kernels that a kind of work has, the fastest first. If the chosen one is not among them, the next
            slower one is taken. None for exact MaxSim, which has all.

    Raises:
        InvalidInputError: the environment names a kernel that cannot run here.
    """
    return _kernel_named(os.environ.get(VARIABLE) or None, None if having is None else tuple(having))


@cache
def _kernel_named(wanted: str | None, having: tuple[str, ...] | None) -> str:
    names = available_kernels()
    if wanted and wanted not in names:
        raise InvalidInputError(
            f"the environment variable {VARIABLE} must be one of {', '.join(names)} on this processor, got {wanted!r}"
        )
    chosen = wanted or names[0]
    if having is None or chosen == NUMPY:
        return chosen
    return next(name for name in names[names.index(chosen) :] if name in having or name == NUMPY)
