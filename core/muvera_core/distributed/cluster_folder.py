"""The folder of a sharded index: the file ``cluster.json``, and a folder of shards for each generation.

::

    PATH/cluster.json                         says which generation is the index; written last
    PATH/cluster.unfinished                   while the index is being made
    PATH/cluster.lock                         held by the handle that writes
    PATH/generation-1/shard-00000/            an ordinary index

Resharding makes the next generation beside the present one, and replaces ``cluster.json`` in one step. All nodes see
PATH by the same name. If they do not share a disk, each has only the folders of its own shards there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from muvera_core.distributed.placement import PLACEMENT
from muvera_core.errors import (
    CorruptIndexError,
    IndexExistsError,
    IndexLockedError,
    NotAnIndexError,
    ReadOnlyIndexError,
    StorageError,
    UnsupportedFormatError,
)
from muvera_core.files import is_plain_file, read_small, storage_errors, sync_folder, write_json
from muvera_core.storage import MANIFEST_NAME

CLUSTER_NAME = "cluster.json"
FORMAT = "muvera-sharded-index"
FORMAT_VERSION = 1
_UNFINISHED_NAME = "cluster.unfinished"
_LOCK_NAME = "cluster.lock"
_SIZE_LIMIT = 1 << 16
_GENERATION = re.compile(r"generation-\d+")


@dataclass(frozen=True)
class ClusterFile:
    """What ``cluster.json`` says.

    Attributes:
        cluster_id: random name of the index.
        n_shards: number of shards.
        generation: number of the generation that is the index. The first one is 1, and each resharding adds 1.
        placement: the rule that places documents on shards.
    """

    cluster_id: str
    n_shards: int
    generation: int = 1
    placement: str = PLACEMENT

    @classmethod
    def new(cls, n_shards: int) -> ClusterFile:
        """The file of a new index."""
        return cls(uuid.uuid4().hex, n_shards)

    def resharded(self, n_shards: int) -> ClusterFile:
        """The file of the next generation."""
        return replace(self, n_shards=n_shards, generation=self.generation + 1)

    def write(self, folder: Path) -> None:
        """Write the file durably. After an interruption it holds the old content or the new one."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        with storage_errors(folder / CLUSTER_NAME):
            write_json(folder / CLUSTER_NAME, {**content, "checksum": _checksum(content)})

    @classmethod
    def read(cls, folder: Path) -> ClusterFile:
        """Read the file of an index.

        Raises:
            NotAnIndexError: the folder holds no sharded index.
            UnsupportedFormatError: the index has another format, or places documents by another rule.
            CorruptIndexError: the file is damaged.
            StorageError: the file cannot be read.
        """
        path = folder / CLUSTER_NAME
        try:
            content = json.loads(read_small(path, _SIZE_LIMIT))
        except (FileNotFoundError, NotADirectoryError):
            raise NotAnIndexError(_why_none(folder)) from None
        except (ValueError, RecursionError) as error:
            raise _damaged(path, error) from error
        except OSError as error:
            raise StorageError(f"{path} cannot be read ({error}): check the disk and the permissions") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise NotAnIndexError(f"{path} was not written by muvera: give the folder of a sharded index")
        return cls._parsed(content, path)

    @classmethod
    def _parsed(cls, content: dict[str, Any], path: Path) -> ClusterFile:
        checksum = content.pop("checksum", None)
        if checksum != _checksum(content):
            raise _damaged(path, ValueError("its checksum does not match its content"))
        version, placement = content.get("format_version"), content.get("placement")
        if version != FORMAT_VERSION or placement != PLACEMENT:
            raise UnsupportedFormatError(
                f"{path.parent} has format {version!r} and places documents by {placement!r}, but this muvera reads "
                f"format {FORMAT_VERSION} and {PLACEMENT!r}: upgrade muvera-core (pip install -U muvera-core)"
            )
        try:
            file = cls(str(content["cluster_id"]), int(content["n_shards"]), int(content["generation"]))
            if file.n_shards < 1 or file.generation < 1:
                raise ValueError("a number is below 1")
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error
        return file


def holds_sharded_index(folder: Path) -> bool:
    """Whether a folder is a sharded index."""
    return os.path.lexists(folder / CLUSTER_NAME)


def generation_folder(folder: Path, generation: int) -> Path:
    """The folder of a generation's shards."""
    return folder / f"generation-{generation}"


def shard_folder(folder: Path, generation: int, shard: int) -> Path:
    """The folder of a shard, which is an ordinary index."""
    return generation_folder(folder, generation) / f"shard-{shard:05d}"


def begin_cluster(folder: Path) -> FileLock:
    """Make the folder of a new index and lock it. What an interrupted creation left there is removed.

    The folder is an index once ``finish_cluster`` is called.

    Raises:
        IndexExistsError: the path is a file, or the folder is in use.
        IndexLockedError: another writer has locked the folder.
        ReadOnlyIndexError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        _require_unused(folder)
    except (FileExistsError, NotADirectoryError):
        raise IndexExistsError(f"{folder} is a file: give a folder that is empty or does not exist") from None
    except PermissionError as error:
        raise ReadOnlyIndexError(f"{folder} cannot be made or read ({error}): choose another folder") from error
    lock = lock_cluster(folder)
    try:
        _require_unused(folder)  # another process may have been faster
        with storage_errors(folder):
            remove_generations(folder)
            (folder / _UNFINISHED_NAME).touch()
            sync_folder(folder)
    except BaseException:
        lock.release()
        raise
    return lock


def finish_cluster(folder: Path, file: ClusterFile) -> None:
    """Make the folder an index, after its shards are made."""
    file.write(folder)
    with storage_errors(folder):
        (folder / _UNFINISHED_NAME).unlink(missing_ok=True)
        sync_folder(folder)


def abandon_cluster(folder: Path) -> None:
    """Remove what was made since ``begin_cluster``."""
    with storage_errors(folder):
        remove_generations(folder)
        (folder / _UNFINISHED_NAME).unlink(missing_ok=True)


def lock_cluster(folder: Path) -> FileLock:
    """Lock the folder for writing. The system releases the lock when the process ends.

    Raises:
        IndexLockedError: another writer has locked the folder.
        ReadOnlyIndexError: the folder cannot be written.
    """
    is_plain_file(folder / _LOCK_NAME)
    lock = FileLock(folder / _LOCK_NAME, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise IndexLockedError(
            f"{folder} is open for writing already: use that index, close it first, or open this one with "
            "read_only=True"
        ) from None
    except OSError as error:
        raise ReadOnlyIndexError(f"{folder} cannot be written ({error}): open it with read_only=True") from error
    return lock


def remove_generations(folder: Path, *, keep: int | None = None) -> None:
    """Remove the folders of all generations on this node but one. They are leftovers.

    Args:
        folder: the folder of the sharded index.
        keep: number of the generation to keep. None keeps none.
    """
    with storage_errors(folder):
        if not folder.is_dir():
            return
        for entry in list(folder.iterdir()):
            if _GENERATION.fullmatch(entry.name) and (keep is None or entry != generation_folder(folder, keep)):
                # Another node may remove the same folder of a shared disk at the same time.
                shutil.rmtree(entry, ignore_errors=True)


def _require_unused(folder: Path) -> None:
    content = {entry.name for entry in folder.iterdir()} - {_LOCK_NAME}
    for name, kind in ((CLUSTER_NAME, "a sharded index"), (MANIFEST_NAME, "an index that is not sharded")):
        if name in content:
            raise IndexExistsError(f"{folder} already holds {kind}: open it, or choose another folder")
    if content and _UNFINISHED_NAME not in content:
        raise IndexExistsError(f"{folder} is not empty (it has {min(content)!r}): choose another folder")


def _why_none(folder: Path) -> str:
    if os.path.lexists(folder / MANIFEST_NAME):
        return f"{folder} is an index that is not sharded: open it with MuveraIndex.open"
    advice = "give the folder of a sharded index, or make one first"
    if os.path.lexists(folder / _UNFINISHED_NAME):
        advice = "it was being made, which was interrupted; make it again"
    return f"{folder} is not a sharded index (it has no {CLUSTER_NAME}): {advice}"


def _damaged(path: Path, error: Exception) -> CorruptIndexError:
    return CorruptIndexError(
        f"{path} is damaged ({error!r}), but the shards beside it are not affected: restore the file from a backup"
    )


def _checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
