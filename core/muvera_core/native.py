"""Says which compiled kernels to use. Where there are none, the NumPy code does the same, more slowly."""

from __future__ import annotations

import importlib
import os
from functools import cache
from types import ModuleType

from muvera_core.errors import InvalidInputError

# Names a kernel, or "numpy" for none. It is read whenever a kernel is called.
VARIABLE = "MUVERA_KERNEL"
NUMPY = "numpy"


def kernels() -> ModuleType | None:
    """The module ``muvera_kernels``; None if it is not installed, or if the environment says to use NumPy."""
    return None if os.environ.get(VARIABLE) == NUMPY else _installed()


def kernel_name() -> str:
    """The kernel that the environment names, or the fastest that the processor can run; "numpy" if there is none.

    Raises:
        InvalidInputError: the environment names a kernel that does not exist or cannot run here.
    """
    return _kernel_named(os.environ.get(VARIABLE))


def thread_count() -> int:
    """Threads for a kernel: ``OMP_NUM_THREADS``, as in linear algebra, or one per processor of this process."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdecimal() and int(limit) > 0:
        return min(int(limit), 1024)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _kernel_named(wanted: str | None) -> str:
    module = _installed()
    if module is None or wanted == NUMPY:
        return NUMPY
    names: list[str] = module.available_kernels()
    if wanted and wanted not in names:
        raise InvalidInputError(
            f"the environment variable {VARIABLE} must be one of {', '.join([*names, NUMPY])} on this processor, "
            f"got {wanted!r}"
        )
    return wanted or names[0]


@cache
def _installed() -> ModuleType | None:
    try:
        return importlib.import_module("muvera_kernels")
    except ImportError:
        return None
