"""Keeps a forked child from using or releasing what belongs to its parent."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Sequence


class ForkGuard:
    """Tells whether the code runs in a forked child of the process that made this object.

    A child inherits the parent's folder lock and database connections. If Python freed them in the child, it would
    release the parent's lock and undo its transactions, so a child keeps them alive for ever. A child also inherits
    SQLite's record of the locks on the file, so a fork waits until no transaction is open.
    """

    def __init__(self, *kept: object, locks: Sequence[threading.RLock]) -> None:
        """Guard an index.

        Args:
            kept: objects that a child must keep alive.
            locks: the locks that are held while the database is used, in the order in which they are taken.
        """
        self._pid = os.getpid()
        self._kept = kept
        self._locks = locks
        _guards.add(self)

    @property
    def in_child(self) -> bool:
        """Whether this process is a fork of the one that made the guard."""
        return os.getpid() != self._pid


_guards: weakref.WeakSet[ForkGuard] = weakref.WeakSet()


_forking = threading.Lock()
_locks_for_fork: list[threading.RLock] = []


def _before_fork() -> None:
    _forking.acquire()
    for guard in list(_guards):
        if not guard.in_child:
            for lock in guard._locks:
                lock.acquire()
                _locks_for_fork.append(lock)


def _after_fork() -> None:
    while _locks_for_fork:
        _locks_for_fork.pop().release()
    _forking.release()


def _after_fork_in_child() -> None:
    for guard in list(_guards):
        for kept in guard._kept:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
