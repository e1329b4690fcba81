"""Keeps a forked child from using, or letting go of, what belongs to its parent."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Sequence


class ForkGuard:
    """Knows whether it is in a forked child of the process that made it.

    A child inherits the parent's lock and database. Letting go of them, as Python does with what is no longer used,
    would release the parent's lock and undo its transactions, so in a child they are kept alive for ever. It inherits
    what SQLite thinks of the locks on the file as well, so a fork waits until no transaction is open.
    """

    def __init__(self, *kept: object, locks: Sequence[threading.RLock]) -> None:
        """Guard an index.

        Args:
            kept: what a child must not let go of.
            locks: all that are held while the database is used, in the order in which they are taken.
        """
        self._pid = os.getpid()
        self._kept = kept
        self._locks = locks
        _guards.add(self)

    @property
    def in_child(self) -> bool:
        """Whether the process has forked since."""
        return os.getpid() != self._pid


_guards: weakref.WeakSet[ForkGuard] = weakref.WeakSet()


_forking = threading.Lock()
_held: list[threading.RLock] = []


def _before_fork() -> None:
    _forking.acquire()
    for guard in list(_guards):
        if not guard.in_child:
            for lock in guard._locks:
                lock.acquire()
                _held.append(lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _forking.release()


def _after_fork_in_child() -> None:
    for guard in list(_guards):
        for kept in guard._kept:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
