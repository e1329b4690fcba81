"""Asks shards, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from muvera_core.distributed.shard import Shard


class Scatter(Protocol):
    """Asks the shards of an index, all at the same time."""

    @property
    def n_shards(self) -> int:
        """Number of shards. They are numbered from 0."""

    def read(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        """Call a reading method of some shards.

        Args:
            name: name of a method of ``Shard``.
            arguments: its arguments, by the shard's number.

        Returns:
            Each shard's result, by number. If partial results are allowed, shards that do not answer are left out.

        Raises:
            ShardUnavailableError: a shard does not answer, and partial results are not allowed.
            MuveraError: what a shard raised.
        """

    def write(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        """Call a writing method of some shards. Waits for all of them, also if one fails.

        Returns:
            Each shard's result, by number.

        Raises:
            ShardWriteError: at least one shard failed. It has the results of the others.
        """

    def close(self) -> None:
        """Release the shards."""


class ShardWriteError(Exception):
    """What became of a change that some shards did not acknowledge. ``ShardedMuveraIndex`` makes an error of it.

    Attributes:
        done: the results of the shards that acknowledged their part, by number.
        failed: what the others raised, by number: their own error, which left their part unwritten; or a
            ServiceError, after which nobody knows.
    """

    def __init__(self, done: dict[int, Any], failed: dict[int, Exception]) -> None:
        super().__init__(f"{len(failed)} of {len(done) + len(failed)} shards did not acknowledge a change")
        self.done, self.failed = done, failed


class LocalScatter:
    """Shards in this process, which are asked one after the other."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = list(shards)

    @property
    def n_shards(self) -> int:
        """See ``Scatter``."""
        return len(self._shards)

    def read(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        """See ``Scatter``."""
        return {number: self._shards[number].call(name, *given) for number, given in arguments.items()}

    def write(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        """See ``Scatter``."""
        done: dict[int, Any] = {}
        failed: dict[int, Exception] = {}
        for number, given in arguments.items():
            try:
                done[number] = self._shards[number].call(name, *given)
            except Exception as error:
                failed[number] = error
        if failed:
            raise ShardWriteError(done, failed)
        return done

    def close(self) -> None:
        """See ``Scatter``."""
        for shard in self._shards:
            shard.close()
