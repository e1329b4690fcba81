"""What stage one needs of a candidate index: vectors by document key, staged first and published with a commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol, Self

from muvera_core.token_embeddings import FloatArray, IntArray

INITIAL_CAPACITY = 64
# A rebuild of the graph costs as much as the deletions that lead to it did when they were additions.
MAX_DELETED = 0.5


class Candidates(Protocol):
    """Holds one vector per document key and finds those with the highest inner product.

    Keys are non-negative integers that are never used again while the process lives: a replaced document gets a new
    one. One thread at a time may call ``stage``, ``publish``, ``discard`` or ``search``; the rest only read. Any of
    them may be interrupted and called again.
    """

    kind: ClassVar[str]
    file_names: ClassVar[tuple[str, ...]]

    def __len__(self) -> int: ...

    def keys(self) -> IntArray:
        """All published keys, int64, ascending."""

    def stage(self, keys: Sequence[int] | IntArray, vectors: FloatArray) -> None:
        """Take in new keys with their vectors, float32, shape (keys, dimension), not to be found yet."""

    def publish(self, removed: Sequence[int] | IntArray) -> None:
        """Let what was staged be found, and ``removed`` no longer; unknown ones of these are passed over."""

    def discard(self) -> None:
        """Forget what was staged."""

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        """The ``k`` keys of highest inner product with ``query`` (dimension,), best first, int64.

        Fewer where fewer are held. Only keys that are among ``allowed``, where that is given.
        """

    def vectors(self, keys: IntArray) -> FloatArray:
        """The vectors held for ``keys``, float32, shape (keys, dimension)."""

    @property
    def n_bytes(self) -> int:
        """Memory that the entries take, deleted ones included."""

    @property
    def n_deleted(self) -> int:
        """How many deleted entries still take space."""

    @property
    def is_wasteful(self) -> bool:
        """Whether there are enough of them to be worth a ``compacted`` copy."""

    def compacted(self) -> Self:
        """A copy of what is published, without deleted entries."""

    def save(self, folder: Path) -> None:
        """Write what is published to the files ``file_names`` in ``folder``."""
