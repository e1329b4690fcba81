"""Which documents share an entry of a graph because their vectors are equal, up to rounding.

hnswlib links an item to its nearest items. Items that are equal link to each other only, and nothing leads away from a
few hundred of them: searches that reach them find nothing else, and others never find them. So a graph holds each
vector once.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from muvera_core.errors import CorruptIndexError
from muvera_core.token_embeddings import IntArray


class SharedEntries:
    """The documents of each entry of a graph. An entry is named by the key of the document that it was made for.

    Most entries have that document only, and nothing is noted about these. An entry lives as long as it has a document,
    also if the one that it is named by is gone.
    """

    def __init__(self) -> None:
        self._entry_of: dict[int, int] = {}  # of documents that are in the entry of another
        self._documents: dict[int, dict[int, None]] = {}  # of entries that others are in; the dict is an ordered set
        self._headless: set[int] = set()  # entries in which the document that they are named by is gone

    def join(self, key: int, entry: int) -> None:
        """Put a document into an entry."""
        if key != entry:
            self._entry_of[key] = entry
            self._documents.setdefault(entry, {entry: None})[key] = None

    def leave(self, keys: Iterable[int]) -> list[int]:
        """Take documents out of their entries. Returns the entries that have none any more."""
        empty = []
        for key in keys:
            entry = self._entry_of.pop(key, key)
            documents = self._documents.get(entry)
            if documents is None:
                empty.append(entry)
                continue
            documents.pop(key, None)
            if not documents:
                del self._documents[entry]
                self._headless.discard(entry)
                empty.append(entry)
            elif entry == key:
                self._headless.add(entry)
            elif len(documents) == 1 and entry in documents:
                del self._documents[entry]
        return empty

    def entries(self, keys: IntArray) -> IntArray:
        """The entry of each document, int64."""
        if not self._entry_of:
            return keys
        return np.fromiter((self._entry_of.get(key, key) for key in keys.tolist()), np.int64, len(keys))

    def n_entries(self, n_documents: int) -> int:
        """The number of entries of so many documents."""
        return n_documents - len(self._entry_of) + len(self._headless)

    def documents(self, entries: Iterable[int], keys: set[int], k: int) -> list[int]:
        """The first ``k`` documents of these entries that are in ``keys``, entry by entry, by key within each."""
        if not self._documents:
            return [entry for entry in entries if entry in keys][:k]
        found: list[int] = []
        for entry in entries:
            alone = () if entry in self._entry_of else (entry,)
            found += [key for key in self._documents.get(entry, alone) if key in keys]
            if len(found) >= k:
                break
        return found[:k]

    def as_rows(self, keys: set[int]) -> npt.NDArray[np.int64]:
        """Which of these documents are in shared entries: rows of entry and key, shape (documents, 2)."""
        rows = [
            (entry, key) for entry, documents in self._documents.items() for key in sorted(documents) if key in keys
        ]
        return np.array(rows, dtype=np.int64).reshape(-1, 2)

    @classmethod
    def from_rows(cls, rows: npt.NDArray[np.int64]) -> SharedEntries:
        """What ``as_rows`` described, and ``documents_of`` has checked."""
        shared = cls()
        for entry, key in rows.tolist():
            shared._documents.setdefault(entry, {})[key] = None
            if key != entry:
                shared._entry_of[key] = entry
        shared._headless = {entry for entry, documents in shared._documents.items() if entry not in documents}
        return shared


def documents_of(entries: IntArray, rows: npt.NDArray[np.int64]) -> IntArray:
    """The keys of a graph's documents.

    Args:
        entries: the graph's entries that are not deleted.
        rows: what ``SharedEntries.as_rows`` gave, shape (documents, 2).

    Raises:
        CorruptIndexError: the rows do not fit the graph.
    """
    keys = np.concatenate([np.setdiff1d(entries, rows[:, 0]), rows[:, 1]])
    if not np.isin(rows[:, 0], entries).all() or len(np.unique(keys)) != len(keys) or keys.min(initial=0) < 0:
        raise CorruptIndexError("the file of shared entries is damaged: it does not fit the graph")
    return keys
