"""Spreads the documents of an index over another number of shards, while it is searched."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from muvera_core.distributed.answers import Answer
from muvera_core.distributed.cluster import Generation, RayCluster
from muvera_core.distributed.cluster_folder import ClusterFile, remove_generations
from muvera_core.distributed.generation_actors import end_actors, scatter_over, start_actors, wait_until_open
from muvera_core.distributed.members import Member
from muvera_core.distributed.ray_module import require_ray
from muvera_core.distributed.shard_copying import ShardSettings, joined_settings
from muvera_core.errors import MuveraError, ServiceTimeoutError, ShardUnavailableError
from muvera_core.validation import require_count

# Seconds between two attempts to read from a process that Ray is starting again.
_PAUSE = 0.2
# Pages that each new shard may have before it, so that few are in memory.
_PAGES_AHEAD = 2


@dataclass(frozen=True)
class Resharded:
    """What resharding did.

    Attributes:
        n_documents: number of documents that were copied.
        optimize_again: whether ``optimize`` had chosen settings for the earlier shards, which may not suit these.
    """

    n_documents: int
    optimize_again: bool


def reshard(cluster: RayCluster, n_shards: int, *, show_progress: bool = False) -> Resharded:
    """Spread the documents over ``n_shards`` shards.

    The shards of the next generation are made beside the present ones, from their stored tokens, which go from process
    to process. Searches go on with the present ones until all is done; then every call uses the new ones. Writes are
    refused with IndexLockedError meanwhile. An interruption leaves the index as it was.

    Raises:
        ReadOnlyIndexError: the index was opened for reading, or by another process.
        IndexLockedError: another process is resharding the index.
        ShardUnavailableError: a process ended for good.
        ServiceTimeoutError: nothing was copied for ``write_timeout`` seconds.
        MuveraError: what reading or writing a shard raised.
    """
    require_count("n_shards", n_shards)
    with cluster.resharding() as (plan, old):
        file = old.file.resharded(n_shards)
        remove_generations(plan.folder, keep=old.file.generation)
        sources = [members[0] for members in old.members]
        calls = _Calls(plan.options.write_timeout)
        new: list[list[Member]] = []
        try:
            calls.all([(member, "freeze", "write", ()) for member in sources])
            parts: list[ShardSettings] = calls.all([(member, "settings", "copy", ()) for member in sources])
            settings, optimize_again = joined_settings(parts, n_shards)
            new = start_actors(plan, file)
            targets = [members[0] for members in new]
            calls.all([(member, "begin_copy", "write", (settings,)) for member in targets])
            n_documents = sum(part.n_documents for part in parts)
            with tqdm(total=n_documents, desc="resharding", unit="doc", disable=not show_progress) as bar:
                _Copy(calls, sources, targets, bar.update).run()
            calls.all([(member, "finish_copy", "write", ()) for member in targets])
            wait_until_open(plan, new)
            file.write(plan.folder)
        except BaseException:
            if not _is_current(cluster, file):
                end_actors(new, plan.options.close_timeout, remove_folders=True)
                remove_generations(plan.folder, keep=old.file.generation)
                with suppress(MuveraError):
                    calls.all([(member, "thaw", "control", ()) for member in sources])
                raise
        retired = cluster.switch(Generation(file, new, scatter_over(plan, new)))
    cluster.retire(retired, remove_folders=True)
    remove_generations(plan.folder, keep=file.generation)
    return Resharded(n_documents, optimize_again)


def _is_current(cluster: RayCluster, file: ClusterFile) -> bool:
    """Whether the file was written, although something failed after it."""
    with suppress(MuveraError):
        return ClusterFile.read(cluster.folder) == file
    return False


class _Calls:
    """Calls of actors that are repeated if the process is started again meanwhile."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def all(self, calls: Sequence[tuple[Member, str, str, tuple[Any, ...]]]) -> list[Any]:
        """Make calls at the same time: member, method, concurrency group and arguments. Returns their results."""
        ray = require_ray()
        results: dict[int, Any] = {}
        waiting = {self.begin(*call): i for i, call in enumerate(calls)}
        while waiting:
            for ref in self.wait(list(waiting)):
                i = waiting.pop(ref)
                try:
                    results[i] = result_of(ray.get(ref))
                except ray.exceptions.RayActorError as error:
                    self.pause_before_retry(calls[i][0], error)
                    waiting[self.begin(*calls[i])] = i
        return [results[i] for i in range(len(calls))]

    def begin(self, member: Member, name: str, group: str, arguments: tuple[Any, ...], n_returns: int = 1) -> Any:
        method = getattr(member.actor, name).options(concurrency_group=group, num_returns=n_returns)
        return method.remote(*arguments)

    def wait(self, refs: list[Any]) -> list[Any]:
        """Those that are done, at least one."""
        done, _ = require_ray().wait(refs, num_returns=1, timeout=self._timeout, fetch_local=False)
        if not done:
            raise ServiceTimeoutError(
                f"resharding made no progress for {self._timeout:g} s: look at the cluster with `ray status`, or raise "
                "write_timeout"
            )
        return list(done)

    def pause_before_retry(self, member: Member, error: Exception) -> None:
        if isinstance(error, require_ray().exceptions.ActorDiedError):
            raise ShardUnavailableError(
                f"{member!r} has ended for good: open the index again, and then reshard it", (member.shard,)
            ) from error
        time.sleep(_PAUSE)


class _Copy:
    """Copies all pages of the sources to the targets. No document goes through this process."""

    def __init__(
        self, calls: _Calls, sources: Sequence[Member], targets: Sequence[Member], report: Callable[[int], object]
    ) -> None:
        self._calls, self._sources, self._targets, self._report = calls, sources, targets, report
        self._ray = require_ray()
        # What is under way: pages that are read, by their first reference, and pages that are written.
        self._reading: dict[Any, tuple[Member, int, list[Any]]] = {}
        self._writing: dict[Any, int] = {}
        self._next = [(source, 0) for source in sources]

    def run(self) -> None:
        while self._next or self._reading or self._writing:
            while self._next and len(self._writing) < _PAGES_AHEAD * len(self._targets):
                self._read(*self._next.pop(0))
            for ref in self._calls.wait([*self._reading, *self._writing]):
                if ref in self._reading:
                    self._send(*self._reading.pop(ref), ref)
                else:
                    self._report(self._writing.pop(ref))
                    self._require_written(ref)

    def _read(self, source: Member, first: int) -> None:
        n = len(self._targets)
        head, *pages = self._calls.begin(source, "send_page", "copy", (first, n), n + 1)
        self._reading[head] = source, first, pages

    def _send(self, source: Member, first: int, pages: list[Any], head: Any) -> None:
        try:
            following, counts = result_of(self._ray.get(head))
        except self._ray.exceptions.RayActorError as error:
            self._calls.pause_before_retry(source, error)
            self._next.append((source, first))
            return
        for target, page, count in zip(self._targets, pages, counts, strict=True):
            if count:
                self._writing[self._calls.begin(target, "take_page", "write", (page,))] = count
        if following is not None:
            self._next.append((source, following))

    def _require_written(self, ref: Any) -> None:
        """A page is not sent twice: the shard of a process that died is not finished, so all begins anew."""
        try:
            result_of(self._ray.get(ref))
        except self._ray.exceptions.RayError as error:
            raise ShardUnavailableError(
                f"a process died while a new shard was made ({type(error).__name__}), so the index was left as it was: "
                "reshard it again"
            ) from error


def result_of(answer: Answer) -> Any:
    """The result of a call. Raises its error."""
    if answer.error is not None:
        raise answer.error
    return answer.value
