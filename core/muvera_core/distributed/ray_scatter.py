"""Asks shards that live in actors of Ray, and does without members that do not answer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from muvera_core.distributed.actors import Role
from muvera_core.distributed.answers import Answer, give_warnings
from muvera_core.distributed.members import Member, Question, Watcher
from muvera_core.distributed.ray_module import require_ray
from muvera_core.distributed.scatter import ShardWriteError
from muvera_core.errors import ReadOnlyIndexError, ServiceTimeoutError, ShardUnavailableError

OnMissingShard = Literal["error", "partial"]
# Seconds between two attempts to write to a primary that Ray is starting again.
_PAUSE = 0.2
_REPORT_TIMEOUT = 2.0


@dataclass(frozen=True)
class MemberReport:
    """A process that answers for a shard.

    Attributes:
        shard: the shard's number.
        role: "primary", which writes, or "replica".
        is_alive: whether it answers.
        node: id of its node in Ray. None if it does not answer.
        n_documents: number of documents of its shard. None if it does not answer.
        memory: bytes of memory of its process. None if it does not answer, or the system does not tell.
    """

    shard: int
    role: Role
    is_alive: bool
    node: str | None = None
    n_documents: int | None = None
    memory: int | None = None


class RayScatter:
    """A ``Scatter`` over actors. Any number of threads may use it, and copies of it in other processes of Ray.

    Each shard has members: a primary, which alone writes, and replicas, which see what it has acknowledged. A read asks
    one member of each shard, in turn. If that one is dead or silent, it asks the next one, within the time-out.

    Args:
        shards: the members of each shard, the primary first; only replicas if the index cannot be written through this.
        on_missing_shard: what a read does if no member of a shard answers. "error" waits, until the time-out, for one
            that is being started again. "partial" leaves the shard out of the result at once.
        timeout: seconds that a read takes at most.
        write_timeout: seconds that a write takes at most.
    """

    def __init__(
        self,
        shards: Sequence[Sequence[Member]],
        *,
        on_missing_shard: OnMissingShard = "error",
        timeout: float = 30.0,
        write_timeout: float = 600.0,
    ) -> None:
        self._shards = [tuple(members) for members in shards]
        self._on_missing_shard, self._timeout, self._write_timeout = on_missing_shard, timeout, write_timeout
        self._turn = itertools.count()
        self._watcher = Watcher([member for members in self._shards for member in members])
        self._watcher.look()

    @property
    def n_shards(self) -> int:
        """See ``Scatter``."""
        return len(self._shards)

    @property
    def watcher(self) -> Watcher:
        """Knows which members answer."""
        return self._watcher

    def read(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        """See ``Scatter``. Asks all shards at the same time."""
        deadline = time.monotonic() + self._timeout
        answers: dict[int, Answer] = {}
        missing = list(arguments)
        while missing:
            questions = [
                question for shard in missing if (question := self._ask(shard, name, arguments[shard], deadline))
            ]
            for question in questions:
                if (answer := self._answer(question, deadline)) is not None:
                    answers[question.member.shard] = answer
            missing = [shard for shard in missing if shard not in answers]
            if not missing or time.monotonic() > deadline or not any(map(self._may_answer, missing)):
                break
            if not questions:  # no member of these shards is up
                self._watcher.wait(deadline)
        if missing and self._on_missing_shard == "error":
            raise self._unavailable(missing)
        give_warnings(answers.values())
        for answer in answers.values():
            if answer.error is not None:
                raise answer.error
        return {shard: answers[shard].value for shard in arguments if shard in answers}

    def write(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        """See ``Scatter``. Each shard's primary writes.

        If a primary dies meanwhile, it is asked again when Ray has started it again. So a method must come to the same
        state if its change was already made. After a time-out the change may still be made.
        """
        ray = require_ray()
        deadline = time.monotonic() + self._write_timeout
        answers: dict[int, Answer] = {}
        failed: dict[int, Exception] = {}
        waiting: dict[Any, int] = {}
        again = list(arguments)
        while True:
            for shard in again:
                waiting[self._begin_write(shard, name, arguments[shard])] = shard
            again = []
            if not waiting or (left := deadline - time.monotonic()) <= 0:
                break
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=left)
            for ref in done:
                shard = waiting.pop(ref)
                try:
                    answers[shard] = ray.get(ref)
                except ray.exceptions.ActorDiedError:
                    failed[shard] = self._unavailable([shard])
                except ray.exceptions.RayActorError as error:  # it has died, and is being started again
                    self._watcher.lost(self._shards[shard][0], error)
                    again.append(shard)
            if again:
                time.sleep(max(0.0, min(_PAUSE, deadline - time.monotonic())))
        for shard in waiting.values():
            failed[shard] = ServiceTimeoutError(
                f"shard {shard} did not acknowledge the change within {self._write_timeout:g} s, so it may be written "
                "or not: write it again, or raise write_timeout"
            )
        failed |= {shard: answer.error for shard, answer in answers.items() if answer.error is not None}
        give_warnings(answers.values(), after_write=True)
        values = {shard: answers[shard].value for shard in arguments if shard in answers and shard not in failed}
        if failed:
            raise ShardWriteError(values, failed)
        return values

    def members(self) -> list[MemberReport]:
        """All members, by shard, the primary first. Takes two seconds at most."""
        ray = require_ray()
        asked = {member.actor.info.options(concurrency_group="control").remote(): member for member in self._all()}
        done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_REPORT_TIMEOUT)
        reports = {asked[ref]: _report_of(asked[ref], ref) for ref in done}
        return [reports.get(member, MemberReport(member.shard, member.role, False)) for member in self._all()]

    def close(self) -> None:
        """Close all lines. The members go on, for others who use them."""
        self._watcher.close()
        for member in self._all():
            member.lost()

    def __reduce__(self) -> tuple[Any, ...]:
        options = {
            "on_missing_shard": self._on_missing_shard,
            "timeout": self._timeout,
            "write_timeout": self._write_timeout,
        }
        return _restored, (self._shards, options)

    def _all(self) -> list[Member]:
        return [member for members in self._shards for member in members]

    def _ask(self, shard: int, name: str, arguments: Sequence[Any], deadline: float) -> Question | None:
        """Ask a member of a shard. None if none of them can be reached at the moment."""
        up = [member for member in self._shards[shard] if member.is_up]
        first = next(self._turn)
        for i in range(len(up)):
            member = up[(first + i) % len(up)]
            try:
                return member.ask(name, arguments, deadline)
            except (OSError, EOFError) as error:
                self._watcher.lost(member, error)
        return None

    def _answer(self, question: Question, deadline: float) -> Answer | None:
        """The answer to a question. None if there is none; then the member is not asked until it answers a ping.

        While there are other members, a silent one gets only its part of the time that is left.
        """
        n_up = sum(member.is_up for member in self._shards[question.member.shard])
        now = time.monotonic()
        try:
            return question.answer(now + (deadline - now) / max(1, n_up))
        except (OSError, EOFError) as error:
            self._watcher.lost(question.member, error)
            return None

    def _may_answer(self, shard: int) -> bool:
        """Whether a shard may answer before the time-out, and a read waits for it."""
        members = self._shards[shard]
        if self._on_missing_shard == "partial":
            return any(member.is_up or not member.was_seen for member in members)
        return not all(member.is_gone for member in members)

    def _begin_write(self, shard: int, name: str, arguments: Sequence[Any]) -> Any:
        primary = self._shards[shard][0]
        if primary.role != "primary":
            raise ReadOnlyIndexError("the index was opened with read_only=True: open it without to change it")
        return primary.actor.write.options(concurrency_group="write").remote(name, *arguments)

    def _unavailable(self, shards: Sequence[int]) -> ShardUnavailableError:
        """The error about shards that do not answer."""
        problems = [
            f"the {member.role} of shard {member.shard}: {_first_line(problem)}"
            for member, problem in list(self._watcher.problems.items())
            if member.shard in shards
        ]
        why = f" ({'; '.join(problems)})" if problems else ""
        named = f"{'shard' if len(shards) == 1 else 'shards'} {', '.join(map(str, shards))}"
        return ShardUnavailableError(
            f"no member of {named} answers within {self._timeout:g} s{why}: "
            "look at the cluster with `ray status`, and open the index again if its processes were ended",
            tuple(shards),
        )


def _restored(shards: Sequence[Sequence[Member]], options: Mapping[str, Any]) -> RayScatter:
    return RayScatter(shards, **options)


def _report_of(member: Member, ref: Any) -> MemberReport:
    ray = require_ray()
    try:
        answer: Answer = ray.get(ref)
    except ray.exceptions.RayError:
        return MemberReport(member.shard, member.role, False)
    if answer.error is not None:
        return MemberReport(member.shard, member.role, False)
    return MemberReport(member.shard, member.role, True, *answer.value)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
