"""The protocol of a candidate index: one vector per document key, staged first and published with a commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol, Self

from muvera_core.token_embeddings import FloatArray, IntArray

INITIAL_CAPACITY = 64
# Deleted entries per live one above which a compacted copy is worthwhile. Building it takes about as long as it took to
# add the deleted entries.
MAX_DELETED = 0.5


class Candidates(Protocol):
    """Holds one vector per document key and finds those with the highest inner product.

    Keys are non-negative integers and are never reused while the process lives: a replaced document gets a new key.
    Only one thread at a time may call ``stage``, ``publish``, ``discard`` or ``search``; the other methods only read. A
    flat index may be searched at any time. Any call may be interrupted and made again.
    """

    kind: ClassVar[str]

    def __len__(self) -> int: ...

    def keys(self) -> IntArray:
        """All published keys, int64, ascending."""

    def stage(self, keys: Sequence[int] | IntArray, vectors: FloatArray) -> None:
        """Add new keys with their vectors, float32, shape (keys, dimension). Searches do not find them yet."""

    def publish(self, removed: Sequence[int] | IntArray) -> None:
        """Let searches find the staged keys, and no longer find ``removed``. Unknown keys are ignored."""

    def tidy(self) -> bool:
        """Do a little of the work that ``publish`` and ``discard`` leave. Returns whether there is more of it."""

    def discard(self) -> None:
        """Drop the staged keys."""

    def search(self, query: FloatArray, k: int, allowed: IntArray | None = None) -> IntArray:
        """The ``k`` keys of highest inner product with ``query`` (dimension,), best first, int64.

        Equal inner products are ordered by key. If fewer keys are published, all of them. If ``allowed`` is given, only
        keys in it.
        """

    def search_many(self, queries: FloatArray, k: int, allowed: IntArray | None = None) -> list[IntArray]:
        """What ``search`` finds for each of the queries, float32, shape (queries, dimension).

        Sums are added up in another order, so that documents of nearly equal inner products may change places.
        """

    def vectors(self, keys: IntArray) -> FloatArray:
        """The vectors of published ``keys``, float32, shape (keys, dimension)."""

    @property
    def n_bytes(self) -> int:
        """Memory that the entries take, deleted ones included."""

    @property
    def n_deleted(self) -> int:
        """Number of deleted entries that still take space."""

    @property
    def is_wasteful(self) -> bool:
        """Whether so many entries are deleted that a ``compacted`` copy is worthwhile."""

    def compacted(self) -> Self:
        """A copy of the published entries, without deleted ones."""

    def save(self, stem: Path) -> list[Path]:
        """Write the published entries to files whose paths are ``stem`` and a suffix. Returns their paths.

        Raises:
            OSError, StorageError: a file cannot be written completely.
        """
