"""Files of an index folder: written so that they survive a power cut, and never opened through a link.

An index folder may come from anywhere. A link, a pipe or a device in place of a file would redirect reads and writes
out of the folder or block them for ever, so every file is checked to be a plain one before it is opened.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from muvera_core.errors import (
    REPAIR_ADVICE,
    CorruptIndexError,
    IndexLockedError,
    InvalidInputError,
    MuveraError,
    StorageError,
)

# What sqlite3 raises: UnicodeDecodeError if its message contains a damaged name that is no longer text.
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_SYSTEM_ADVICE = "check the disk and the permissions"


def is_plain_file(path: Path) -> bool:
    """Whether there is a plain file at ``path``; False if there is nothing.

    Raises:
        CorruptIndexError: there is a link, a folder, a pipe or a device instead.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        raise CorruptIndexError(
            f"{path} is not a plain file but a link, folder, pipe or device, which an index never holds: "
            "copy the folder with links resolved"
        )
    return True


def open_plain(path: Path, flags: int) -> int:
    """Open a plain file and return its descriptor. Raises what ``is_plain_file`` and ``os.open`` raise."""
    is_plain_file(path)
    return os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0), 0o644)


def read_small(path: Path, limit: int) -> bytes:
    """A file's content. Raises CorruptIndexError if the file is larger than ``limit`` bytes."""
    descriptor = open_plain(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise CorruptIndexError(f"{path} is larger than {limit} bytes, so it is damaged: {REPAIR_ADVICE}")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file so that after any interruption it holds either the old or the new content, complete."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = open_plain(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def write_new(path: Path, content: memoryview) -> None:
    """Write a new file. An existing file is removed first, so that a link is not followed."""
    path.unlink(missing_ok=True)
    with os.fdopen(open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb", buffering=0) as file:
        while len(content):
            content = content[file.write(content) :]


def sync_file(path: Path) -> None:
    """Make a file's content survive a power cut."""
    descriptor = open_plain(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames and new files in a folder survive a power cut, if the system supports it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def storage_errors(path: Path | None) -> Iterator[None]:
    """Turn errors of the system and of SQLite while reading or writing ``path`` into MuveraErrors.

    Raises:
        StorageError: the disk is full or fails, or access was denied.
        CorruptIndexError: the database is damaged.
        IndexLockedError: another process locked the database for too long.
        InvalidInputError: a value is larger than the database allows.
    """
    where = "the index in memory" if path is None else str(path)
    try:
        yield
    except MuveraError:
        raise
    except DATABASE_ERRORS as error:
        raise _from_sqlite(error, where) from error
    except OSError as error:
        raise _from_system(error, where) from error


def _from_system(error: OSError, where: str) -> MuveraError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"there is no room to write {where} ({error}): free disk space and try again")
    return StorageError(f"{where} cannot be read or written ({error}): {_SYSTEM_ADVICE}")


def _from_sqlite(error: Exception, where: str) -> MuveraError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return IndexLockedError(f"{where} is locked by another process ({error}): try again")
    if name == "SQLITE_FULL":
        return StorageError(f"there is no room to write {where} ({error}): free disk space and try again")
    if name == "SQLITE_READONLY_ROLLBACK":
        return StorageError(
            f"{where} holds an interrupted write that must be undone, which a process without write access cannot do: "
            "open the index once for writing"
        )
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_READONLY", "SQLITE_NOMEM")):
        return StorageError(f"{where} cannot be read or written ({error}): {_SYSTEM_ADVICE}")
    if name == "SQLITE_TOOBIG" or isinstance(error, sqlite3.DataError):
        return InvalidInputError(f"a text or its metadata is larger than the database allows ({error}): split it")
    return CorruptIndexError(f"{where} is damaged ({error}): {REPAIR_ADVICE}")
