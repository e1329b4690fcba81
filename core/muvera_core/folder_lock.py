"""One writer for each index folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from muvera_core.errors import IndexExistsError, IndexLockedError, ReadOnlyIndexError
from muvera_core.manifest import MANIFEST_NAME

LOCK_NAME = "write.lock"


def claim_new_folder(folder: Path) -> FileLock:
    """Make a folder for a new index and become its one writer.

    Raises:
        IndexExistsError: something is there already.
        IndexLockedError: another writer is at it.
        ReadOnlyIndexError: the folder can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = {entry.name for entry in folder.iterdir()} - {LOCK_NAME}
    except (FileExistsError, NotADirectoryError):
        raise IndexExistsError(f"{folder} is a file: give a folder that doesn't exist or is empty") from None
    except PermissionError as error:
        raise ReadOnlyIndexError(f"{folder} can't be made or read ({error}): choose another folder") from error
    if MANIFEST_NAME in content:
        raise IndexExistsError(f"{folder} already holds an index: use MuveraIndex.open, or choose another folder")
    if content:
        raise IndexExistsError(f"{folder} isn't empty (it has {min(content)!r}): choose another folder")
    return claim_folder(folder)


def claim_folder(folder: Path) -> FileLock:
    """Become the one writer of an index. The lock dies with its process, so a crash leaves nothing to clean up.

    Raises:
        IndexLockedError: another writer, in this process or another, has it.
        ReadOnlyIndexError: the folder can't be written.
    """
    lock = FileLock(folder / LOCK_NAME, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise IndexLockedError(
            f"{folder} is open for writing elsewhere: close that index first, or open this one with read_only=True"
        ) from None
    except OSError as error:
        raise ReadOnlyIndexError(f"{folder} can't be written ({error}): open it with read_only=True") from error
    return lock
