"""How many threads a call may use: the cores of this process, divided among the calls that run at the same time.

A library that takes all cores for each call slows down a server that answers many questions at once: the threads of
one answer hinder those of the others.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path

from muvera_core.errors import InvalidInputError

VARIABLE = "MUVERA_NUM_THREADS"
# Where Linux says how much of the processors' time a container may use: microseconds, and in how many. Version 2 of
# control groups, and version 1.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_OLD_QUOTA = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


@cache
def available_cores() -> int:
    """The number of cores that this process may use: as its container allows, at least 1."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(n, _allowed_by_container() or n))


def max_threads() -> int:
    """The largest number of threads of one call.

    The environment variable MUVERA_NUM_THREADS sets it. Without it, it is the number of cores, or less if
    OMP_NUM_THREADS, which bounds linear algebra, is less.

    Raises:
        InvalidInputError: MUVERA_NUM_THREADS is not a whole number of at least 1.
    """
    value = os.environ.get(VARIABLE, "").strip()
    if not value:
        of_linear_algebra = os.environ.get("OMP_NUM_THREADS", "")
        limit = int(of_linear_algebra) if of_linear_algebra.isdecimal() else 0
        return min(available_cores(), limit) if limit else available_cores()
    if not (value.isascii() and value.isdigit() and int(value[:9]) >= 1):
        raise InvalidInputError(
            f"the environment variable {VARIABLE} must be a whole number of at least 1, got {value!r}"
        )
    return int(value[:9])


class Share:
    """The part of the cores that one call may use. It counts as running for as long as something refers to it.

    Attributes:
        n_threads: number of threads, at least 1.
    """

    n_threads = 1


class ThreadBudget:
    """Divides the cores among calls that run at the same time."""

    def __init__(self) -> None:
        # Weak references, so that a call that was interrupted anywhere does not count any more.
        self._running: weakref.WeakSet[Share] = weakref.WeakSet()

    def share(self) -> Share:
        """What a call may use that begins now. The caller keeps it until it is done. Raises like ``max_threads``."""
        share = Share()
        self._running.add(share)
        share.n_threads = max(1, max_threads() // len(self._running))
        return share


# The calls of compiled kernels in this process share one budget.
kernel_calls = ThreadBudget()


def _allowed_by_container() -> int | None:
    """The number of cores whose time the container may use, rounded up. None if there is no limit."""
    with suppress(OSError, ValueError):
        quota, period = _QUOTA.read_text().split()[:2]
        return None if quota == "max" else -(-int(quota) // int(period))
    with suppress(OSError, ValueError):
        micros, of = (int(path.read_text()) for path in _OLD_QUOTA)
        return None if micros <= 0 else -(-micros // of)
    return None
