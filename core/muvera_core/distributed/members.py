"""The members of a shard as a caller sees them: which of them answer, and how to reach them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from muvera_core.distributed.actors import Role
from muvera_core.distributed.answers import Answer
from muvera_core.distributed.lines import Line, LineAddress
from muvera_core.distributed.ray_module import require_ray

# Seconds between two looks at members that do not answer.
_PAUSE = 0.2
_log = logging.getLogger(__name__)


class Member:
    """A process that answers for a shard. Any number of threads may ask it at the same time.

    Attributes:
        shard: the shard's number.
        role: "primary" or "replica".
        actor: Ray's handle of the process.
        was_seen: whether a ``Watcher`` has found out anything about it.
        is_gone: whether it has ended and will not be started again.
    """

    def __init__(self, shard: int, role: Role, actor: Any) -> None:
        self.shard, self.role, self.actor = shard, role, actor
        self.was_seen = self.is_gone = False
        self._changing = threading.Lock()
        self._address: LineAddress | None = None
        self._free: deque[Line] = deque()

    @property
    def is_up(self) -> bool:
        """Whether it can be asked."""
        return self._address is not None

    def found(self, address: LineAddress) -> None:
        """Note where the process listens. It can be asked from now on."""
        with self._changing:
            self._address, self.was_seen = address, True

    def lost(self) -> None:
        """Note that the process does not answer."""
        with self._changing:
            self._address, self.was_seen = None, True
            while self._free:
                self._free.pop().close()

    def ask(self, name: str, arguments: Sequence[Any], deadline: float) -> Question:
        """Send a call of a reading method. Raises OSError or EOFError if the process cannot be reached."""
        address = self._address
        if address is None:
            raise OSError("the process does not answer")
        line = None
        with suppress(IndexError):
            line = self._free.pop()
        line = line or Line(address, deadline)
        try:
            line.ask(name, arguments, deadline)
        except BaseException:
            line.close()
            raise
        return Question(self, address, line)

    def give_back(self, line: Line, address: LineAddress) -> None:
        """Keep a line for the next call, unless the process was lost meanwhile."""
        with self._changing:
            if address is self._address:
                self._free.append(line)
                return
        line.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Member, (self.shard, self.role, self.actor)

    def __repr__(self) -> str:
        return f"<{self.role} of shard {self.shard}>"


class Question:
    """A call that a member was asked to make."""

    def __init__(self, member: Member, address: LineAddress, line: Line) -> None:
        self.member, self._address, self._line = member, address, line

    def answer(self, deadline: float) -> Answer:
        """Wait for the answer. Raises OSError (TimeoutError among them) or EOFError if there is none."""
        try:
            received = self._line.answer(deadline)
        except BaseException:
            self._line.close()
            raise
        self.member.give_back(self._line, self._address)
        return received

    def drop(self) -> None:
        """Do without the answer."""
        self._line.close()


class Watcher:
    """Looks after members that do not answer, in a thread that runs only while there are some."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._changed = threading.Condition()
        self._is_running = self._is_closed = False
        # The last thing that went wrong with each member, for error messages.
        self.problems: dict[Member, Exception] = {}

    def lost(self, member: Member, error: Exception) -> None:
        """Note that a member does not answer, and begin to look after it."""
        self.problems[member] = error
        if member.is_up:
            _log.warning("the %s of shard %d does not answer: %s", member.role, member.shard, error)
        member.lost()
        self.look()

    def look(self) -> None:
        """Begin to look after members that are not up, unless that is going on."""
        with self._changed:
            if not self._is_running and not self._is_closed:
                self._is_running = True
                threading.Thread(target=self._watch, name="muvera-watcher", daemon=True).start()

    def wait(self, deadline: float) -> None:
        """Wait until a member comes up, or the deadline. It may return earlier."""
        with self._changed:
            self._changed.wait(max(0.0, min(_PAUSE, deadline - time.monotonic())))

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _watch(self) -> None:
        ray = require_ray()
        asked: dict[Any, Member] = {}
        while True:
            with self._changed:
                down = [member for member in self._members if not (member.is_up or member.is_gone)]
                if not down or self._is_closed:
                    self._is_running = False
                    return
            try:
                for member in down:
                    if member not in asked.values():
                        asked[member.actor.line.options(concurrency_group="control").remote()] = member
                done, _ = ray.wait(list(asked), num_returns=1, timeout=_PAUSE)
                for ref in done:
                    self._take(asked.pop(ref), ref)
            except Exception as error:  # Ray was shut down
                _log.info("members of shards are not looked after any more: %s", error)
                with self._changed:
                    self._is_running = False
                return
            with self._changed:
                self._changed.notify_all()
                if not any(member.is_up for member in down):
                    self._changed.wait(_PAUSE)

    def _take(self, member: Member, ref: Any) -> None:
        ray = require_ray()
        member.was_seen = True
        try:
            answer: Answer = ray.get(ref)
        except ray.exceptions.RayError as error:
            self.problems[member] = error
            member.is_gone = isinstance(error, ray.exceptions.ActorDiedError)
            return
        if answer.error is None:
            member.found(answer.value)
        else:
            self.problems[member] = answer.error
