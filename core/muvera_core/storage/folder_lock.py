"""The lock file in an index's folder, which admits one writing process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

from muvera_core.errors import IndexExistsError, IndexLockedError, ReadOnlyIndexError
from muvera_core.files import is_plain_file, storage_errors, sync_folder
from muvera_core.storage.database import DATABASE_NAME
from muvera_core.storage.manifest import MANIFEST_NAME
from muvera_core.storage.token_log import tokens_path

LOCK_NAME = "write.lock"
# Creation writes the manifest last. A folder with only these files, and an empty token file, never held a document.
_TOKENS = tokens_path(Path(), 0).name
_UNFINISHED = {DATABASE_NAME, f"{DATABASE_NAME}-journal", _TOKENS, f"{MANIFEST_NAME}.tmp"}

# The locks that this process holds or held, so that an error can tell where the other writer is. A lock leaves when
# nothing refers to it.
_claims: WeakValueDictionary[tuple[int, Path], FileLock] = WeakValueDictionary()


def claim_new_folder(folder: Path) -> FileLock:
    """Make a folder for a new index and lock it for writing. What an interrupted creation left there is removed.

    Raises:
        IndexExistsError: the path is a file, or the folder is not empty.
        IndexLockedError: another writer has locked the folder.
        ReadOnlyIndexError: the folder cannot be made or written.
        StorageError: there is no room for it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        _require_unused(folder)
    except (FileExistsError, NotADirectoryError):
        raise IndexExistsError(f"{folder} is a file: give a folder that is empty or does not exist") from None
    except PermissionError as error:
        raise ReadOnlyIndexError(f"{folder} cannot be made or read ({error}): choose another folder") from error
    except OSError as error:
        with storage_errors(folder):
            raise error
    lock = claim_folder(folder)
    try:
        _require_unused(folder)  # another process may have been faster
        remove_unfinished(folder)
    except BaseException:
        lock.release()
        raise
    return lock


def _require_unused(folder: Path) -> None:
    content = {entry.name for entry in folder.iterdir()} - {LOCK_NAME}
    if MANIFEST_NAME in content:
        raise IndexExistsError(f"{folder} already holds an index: open it, or choose another folder")
    unfinished = content <= _UNFINISHED and not any((folder / name).stat().st_size for name in content & {_TOKENS})
    if content and not unfinished:
        raise IndexExistsError(f"{folder} is not empty (it has {min(content)!r}): choose another folder")


def remove_unfinished(folder: Path) -> None:
    """Remove the files of an index whose creation was not finished. Such an index never held a document."""
    with storage_errors(folder):
        (folder / MANIFEST_NAME).unlink(missing_ok=True)  # written, but perhaps not durably
        sync_folder(folder)
        for name in _UNFINISHED:
            (folder / name).unlink(missing_ok=True)


def claim_folder(folder: Path) -> FileLock:
    """Lock the folder for writing. The system releases the lock when the process ends, also after a crash.

    Raises:
        IndexLockedError: another writer, in this process or another, has locked the folder.
        ReadOnlyIndexError: the folder cannot be written.
        CorruptIndexError: the lock file is a link or another thing that is not a plain file.
    """
    is_plain_file(folder / LOCK_NAME)
    lock = FileLock(folder / LOCK_NAME, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise IndexLockedError(_who_holds(folder)) from None
    except OSError as error:
        raise ReadOnlyIndexError(f"{folder} cannot be written ({error}): open it with read_only=True") from error
    _claims[_claim_of(folder)] = lock
    return lock


def _claim_of(folder: Path) -> tuple[int, Path]:
    """The key of this process's claim. A forked child does not have the claims of its parent."""
    return os.getpid(), folder.resolve()


def _who_holds(folder: Path) -> str:
    held = _claims.get(_claim_of(folder))
    if held is not None and held.is_locked:
        return (
            f"{folder} is already open for writing in this process: use the index that is open, or call close() on it "
            "first, or open this one with read_only=True"
        )
    return (
        f"{folder} is open for writing in another process: close it there first, or open this one with read_only=True"
    )


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the folder's lock during a block. Raises the same errors as ``claim_folder``."""
    lock = claim_folder(folder)
    try:
        yield
    finally:
        lock.release()
