"""A connection to the database that several threads use in turn."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from muvera_core.errors import CLOSED, IndexClosedError
from muvera_core.files import storage_errors


class SharedConnection:
    """A connection and the lock that guards it.

    ``with connection.lock, connection.checked() as db`` holds the lock, which must not be for more than one short
    statement. The lock is not taken in ``checked``: an interruption in there could leave it taken.
    """

    def __init__(
        self, db: sqlite3.Connection, path: Path | None, lock: AbstractContextManager[Any] | None = None
    ) -> None:
        """Share a connection.

        Args:
            db: the connection.
            path: the database's file, for error messages. None for one in memory.
            lock: the lock. None for a connection that one thread uses alone.
        """
        self.db, self.path, self.lock = db, path, lock or nullcontext()
        self.is_closed = False

    @contextmanager
    def checked(self) -> Iterator[sqlite3.Connection]:
        """The connection. Errors of the system and of SQLite become MuveraErrors.

        Raises:
            IndexClosedError: the connection was closed.
        """
        if self.is_closed:
            raise IndexClosedError(CLOSED)
        with storage_errors(self.path):
            yield self.db

    def close(self) -> None:
        """Close the connection."""
        self.is_closed = True
        self.db.close()
