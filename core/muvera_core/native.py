"""Chooses the compiled kernels. Where there are none, NumPy does the same, more slowly."""

from __future__ import annotations

import os
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


def kernel_name() -> str:
    """The kernel that the environment names, or the fastest that can run here.

    Raises:
        InvalidInputError: the environment names a kernel that cannot run here.
    """
    return _kernel_named(os.environ.get(VARIABLE) or None)[0]


def vector_kernel() -> tuple[Any, str]:
    """The module and the name of the kernel for FDEs and for scans of vectors. The module is None for NumPy.

    Exact MaxSim has kernels of its own for some processors. The next slower kernel then serves here.

    Raises:
        InvalidInputError: the environment names a kernel that cannot run here.
    """
    name = _kernel_named(os.environ.get(VARIABLE) or None)[1]
    return (None, NUMPY) if name == NUMPY or _installed is None else (_installed, name)


@cache
def _kernel_named(wanted: str | None) -> tuple[str, str]:
    """The kernels of exact MaxSim and of vectors."""
    names = available_kernels()
    if wanted and wanted not in names:
        raise InvalidInputError(
            f"the environment variable {VARIABLE} must be one of {', '.join(names)} on this processor, got {wanted!r}"
        )
    chosen = wanted or names[0]
    of_vectors = [NUMPY] if _installed is None else [*_installed.available_kernels(), NUMPY]
    return chosen, next(name for name in names[names.index(chosen) :] if name in of_vectors)
