"""Files of an index folder: written so that they survive a power cut, and never reached through a link.

An index folder may come from anywhere. A link, a pipe or a device in a file's place would lead reads and writes out of
the folder or make them wait for ever, so every file is checked to be a plain one before it is opened.
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

from muvera_core.errors import CorruptIndexError, IndexLockedError, InvalidInputError, MuveraError, StorageError

# What sqlite3 raises; the second where a message names something whose damaged name isn't text any more.
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_DAMAGE = "run muvera_core.repair_index on the folder, or restore it from a backup"


def is_plain_file(path: Path) -> bool:
    """Whether a plain file is there; False where nothing is.

    Raises:
        CorruptIndexError: a link, a folder, a pipe or a device is in its place.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        raise CorruptIndexError(
            f"{path} is not a plain file (a link, folder, pipe or device is in its place): "
            "indexes hold plain files only; copy the folder with links resolved"
        )
    return True


def open_plain(path: Path, flags: int) -> int:
    """A descriptor of a plain file. Raises as ``is_plain_file`` and ``os.open`` do."""
    is_plain_file(path)
    return os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0), 0o644)


def read_small(path: Path, limit: int) -> bytes:
    """A file's content. Raises CorruptIndexError where there is more than ``limit`` bytes of it."""
    descriptor = open_plain(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise CorruptIndexError(f"{path} is larger than {limit} bytes, which it never is: {_DAMAGE}")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file so that after any interruption the old content or the new is there, whole."""
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
    """Write a file anew; one that is there is removed first, so that a link isn't followed."""
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
    """Make renames and new files in a folder survive a power cut, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def storage_errors(path: Path | None) -> Iterator[None]:
    """Turn what the system and SQLite raise while reading or writing ``path`` into errors of our own.

    Raises:
        StorageError: disk full, I/O error, permission lost.
        CorruptIndexError: the database is damaged.
        IndexLockedError: another process held the database for too long.
        InvalidInputError: a value is larger than the database takes.
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
        return StorageError(f"there is no room to write {where} ({error}): free some space and try again")
    return StorageError(f"{where} can't be read or written ({error}): see to the disk and the permissions")


def _from_sqlite(error: Exception, where: str) -> MuveraError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return IndexLockedError(f"{where} is held by another process ({error}): try again")
    if name == "SQLITE_FULL":
        return StorageError(f"there is no room to write {where} ({error}): free some space and try again")
    if name == "SQLITE_READONLY_ROLLBACK":
        return StorageError(
            f"{where} holds a write that was interrupted and has to be undone, which this process may not do: "
            "open the index once for writing"
        )
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_READONLY", "SQLITE_NOMEM")):
        return StorageError(f"{where} can't be read or written ({error}): see to the disk and the permissions")
    if name == "SQLITE_TOOBIG" or isinstance(error, sqlite3.DataError):
        return InvalidInputError(f"a text or its metadata is larger than the database takes ({error}): split it")
    return CorruptIndexError(f"{where} is damaged ({error}): {_DAMAGE}")
