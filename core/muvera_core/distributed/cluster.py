"""A sharded index that is open: its folder, and the actors that answer for its present generation."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from muvera_core.distributed.actors import EncoderSource
from muvera_core.distributed.cluster_folder import (
    ClusterFile,
    abandon_cluster,
    begin_cluster,
    finish_cluster,
    lock_cluster,
    remove_generations,
)
from muvera_core.distributed.cluster_options import ClusterOptions
from muvera_core.distributed.generation_actors import (
    ActorPlan,
    end_actors,
    find_actors,
    scatter_over,
    start_actors,
    wait_until_open,
)
from muvera_core.distributed.members import Member
from muvera_core.distributed.ray_scatter import MemberReport, RayScatter
from muvera_core.errors import (
    CLOSED,
    IndexClosedError,
    IndexFolderError,
    MuveraError,
    ReadOnlyIndexError,
    ShardUnavailableError,
)
from muvera_core.validation import require_count

# Seconds between two looks at whether another process has resharded the index.
_LOOK_INTERVAL = 1.0
# The owner of actors that all processes share.
_SHARED = "shared"
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Generation:
    """The open members of a generation.

    Attributes:
        file: its number of shards, and its own number.
        members: the members of each shard.
        scatter: asks them.
        n_uses: the number of calls that use it at the moment.
        is_retired: whether another one has taken its place.
    """

    file: ClusterFile
    members: Sequence[Sequence[Member]]
    scatter: RayScatter
    n_uses: int = 0
    is_retired: bool = False


class RayCluster:
    """An open sharded index. Use ``create_cluster`` or ``open_cluster``.

    Any number of threads may use it. It can be sent to other processes of Ray, which ask the same actors.
    """

    def __init__(self, plan: ActorPlan, generation: Generation, lock: FileLock | None, *, is_owner: bool) -> None:
        self._plan, self._lock, self._is_owner = plan, lock, is_owner
        self._generation = generation
        self._changed = threading.Condition()
        self._switching = threading.Lock()
        self._looked_at = time.monotonic()
        self._is_closed = False

    @property
    def folder(self) -> Path:
        """The index's folder."""
        return self._plan.folder

    @property
    def read_only(self) -> bool:
        """Whether changes are refused."""
        return self._plan.read_only

    @property
    def is_open(self) -> bool:
        """Whether the index can be used."""
        return not self._is_closed

    @property
    def n_shards(self) -> int:
        """Number of shards at the moment."""
        return self._generation.file.n_shards

    @contextmanager
    def current(self) -> Iterator[RayScatter]:
        """Ask the shards of one generation during a block. Resharding does not change them meanwhile.

        Raises:
            IndexClosedError: the index was closed.
        """
        if time.monotonic() - self._looked_at > _LOOK_INTERVAL:
            self.follow(wait=False)
        with self._changed:
            if self._is_closed:
                raise IndexClosedError(CLOSED)
            generation = self._generation
            generation.n_uses += 1
        try:
            yield generation.scatter
        finally:
            with self._changed:
                generation.n_uses -= 1
                self._changed.notify_all()

    def run(self, work: Callable[[RayScatter], _T]) -> _T:
        """What ``work`` returns. It is done again if it fails because another process has resharded the index."""
        generation = self._generation
        try:
            with self.current() as scatter:
                return work(scatter)
        except (ShardUnavailableError, IndexFolderError):
            self.follow()
            if self._generation is generation or self._is_closed:
                raise
        with self.current() as scatter:
            return work(scatter)

    def follow(self, *, wait: bool = True) -> None:
        """Change to the generation that ``cluster.json`` names, if another process has resharded the index.

        Args:
            wait: wait for another thread that does it already, or that reshards.
        """
        if not self._switching.acquire(timeout=self._plan.options.timeout if wait else 0):
            return
        try:
            self._looked_at = time.monotonic()
            file = self._read_file()
            if file == self._generation.file or self._is_closed:
                return
            _log.info("%s was resharded to %d shards", self.folder, file.n_shards)
            if self._is_owner and self.read_only:
                members = start_actors(self._plan, file)
            else:
                members = find_actors(self._plan, file)
            try:
                wait_until_open(self._plan, members)
            except BaseException:
                if self._is_owner and self.read_only:
                    end_actors(members, self._plan.options.close_timeout)
                raise
            retired = self.switch(Generation(file, members, scatter_over(self._plan, members)))
            threading.Thread(target=self.retire, args=(retired,), name="muvera-retire", daemon=True).start()
        finally:
            self._switching.release()

    def _read_file(self) -> ClusterFile:
        try:
            return ClusterFile.read(self.folder)
        except MuveraError as error:  # this node may not see the disk that the file is on
            _log.debug("it is not known whether %s was resharded: %s", self.folder, error)
            return self._generation.file

    @contextmanager
    def resharding(self) -> Iterator[tuple[ActorPlan, Generation]]:
        """Keep the present generation during a block, which may ``switch`` to another one.

        Raises:
            ReadOnlyIndexError: this handle cannot write, or was sent here by another process.
            IndexLockedError: another handle is resharding the index.
        """
        if self.read_only or not self._is_owner:
            raise ReadOnlyIndexError(f"only the process that opened {self.folder} for writing can reshard it")
        with self._switching:
            if self._is_closed:
                raise IndexClosedError(CLOSED)
            with lock_cluster(self.folder) if self._lock is None else nullcontext():
                yield self._plan, self._generation

    def switch(self, generation: Generation) -> Generation:
        """Let calls use another generation from now on. Returns the one that they used before."""
        with self._changed:
            retired, self._generation = self._generation, generation
            retired.is_retired = True
        return retired

    def retire(self, generation: Generation, *, remove_folders: bool = False) -> None:
        """End a generation when no call uses it any more."""
        options = self._plan.options
        with self._changed:
            self._changed.wait_for(lambda: not generation.n_uses, timeout=options.close_timeout)
        generation.scatter.close()
        if self._is_owner and not (options.detached and not remove_folders):
            end_actors(generation.members, options.close_timeout, remove_folders=remove_folders)

    def members(self) -> list[MemberReport]:
        """All processes of the index, by shard, the primary first."""
        with self.current() as scatter:
            return scatter.members()

    def close(self) -> None:
        """Close the index. Its processes close their folders and end, unless they are shared with others."""
        is_free = self._switching.acquire(timeout=self._plan.options.close_timeout)  # or else resharding is given up
        try:
            with self._changed:
                if self._is_closed:
                    return
                self._is_closed = True
            self.retire(self._generation)
        finally:
            if is_free:
                self._switching.release()
        if self._lock is not None:
            self._lock.release()

    def end(self) -> None:
        """Close the index, and end its processes also if they are shared."""
        self.close()
        end_actors(self._generation.members, self._plan.options.close_timeout)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._is_closed:
            raise IndexClosedError(CLOSED)
        return _copy, (self._plan, self._generation.file, self._generation.members)


def create_cluster(
    path: Path,
    n_shards: int,
    encoder: EncoderSource = None,
    settings: Mapping[str, Any] | None = None,
    options: ClusterOptions | None = None,
) -> RayCluster:
    """Make an empty sharded index.

    Args:
        path: a folder that does not exist or is empty.
        n_shards: number of shards.
        encoder: an encoder that can be pickled, or a function without arguments that makes it in each process. None
            takes the bundled encoder.
        settings: arguments of ``MuveraIndex.create``: fde, token_precision, pool_factor, keep_tokens, lexical.
        options: how its processes run. None takes the defaults.

    Raises:
        IndexExistsError: the folder is in use.
        ServiceTimeoutError: the cluster has no room for the processes, or they are too slow.
        MuveraError: what making a shard raised. Nothing is left of the index.
    """
    options = options or ClusterOptions()
    file = ClusterFile.new(require_count("n_shards", n_shards))
    plan = ActorPlan(path, _owner(options), encoder, options)
    lock = begin_cluster(path)
    members: list[list[Member]] = []
    try:
        members = start_actors(plan, file, dict(settings or {}))
        wait_until_open(plan, members)
        finish_cluster(path, file)
    except BaseException:
        end_actors(members, options.close_timeout, remove_folders=True)
        abandon_cluster(path)
        lock.release()
        raise
    return _opened(plan, file, members, lock)


def open_cluster(
    path: Path,
    encoder: EncoderSource = None,
    options: ClusterOptions | None = None,
    *,
    read_only: bool = False,
) -> RayCluster:
    """Open a sharded index.

    Args:
        path: its folder.
        encoder: see ``create_cluster``.
        options: how its processes run. None takes the defaults.
        read_only: refuse changes. Any number of handles can read an index while one writes.

    Raises:
        NotAnIndexError: the folder holds no sharded index.
        IndexLockedError: another handle writes to it.
        ServiceTimeoutError: the cluster has no room for the processes, or they are too slow.
        MuveraError: what opening a shard raised.
    """
    options = options or ClusterOptions()
    file = ClusterFile.read(path)
    plan = ActorPlan(path, f"{_owner(options)}{'-reading' if read_only else ''}", encoder, options, read_only)
    lock = None if read_only or options.detached else lock_cluster(path)
    members: list[list[Member]] = []
    try:
        if lock is not None:
            file = ClusterFile.read(path)  # another process may have resharded it before the lock was taken
            remove_generations(path, keep=file.generation)
        members = start_actors(plan, file, removes_leftovers=not read_only)
        wait_until_open(plan, members)
    except BaseException:
        if not options.detached:
            end_actors(members, options.close_timeout)
        if lock is not None:
            lock.release()
        raise
    return _opened(plan, file, members, lock)


def _opened(
    plan: ActorPlan, file: ClusterFile, members: Sequence[Sequence[Member]], lock: FileLock | None
) -> RayCluster:
    if plan.options.detached and lock is not None:
        lock.release()  # the shards' own locks keep other writers away
        lock = None
    return RayCluster(plan, Generation(file, members, scatter_over(plan, members)), lock, is_owner=True)


def _copy(plan: ActorPlan, file: ClusterFile, members: Sequence[Sequence[Member]]) -> RayCluster:
    return RayCluster(plan, Generation(file, members, scatter_over(plan, members)), None, is_owner=False)


def _owner(options: ClusterOptions) -> str:
    return _SHARED if options.detached else uuid.uuid4().hex
