"""The durable part of an index: documents in SQLite, token vectors in an append-only file.

SQLite's commit is the commit of the index. ``append_tokens`` writes token rows and syncs them to disk; then ``add``
writes, in one transaction, the documents that refer to them. Whatever happens before the commit leaves the old state.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core.errors import CorruptIndexError
from muvera_core.filters import SCHEMA as FIELDS_SCHEMA
from muvera_core.filters import Condition, FieldIndex, flatten
from muvera_core.token_codec import Rows, TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.token_log import FileTokenLog, MemoryTokenLog, TokenLog

DATABASE_NAME = "documents.sqlite"
TOKENS_NAME = "tokens.bin"
# SQLite's limit on bound parameters was 999 for a long time.
_SQL_BATCH = 900
# Applications ask under few filters at a time (a tenant, a language), and a wide one takes long to answer.
_KEPT_ANSWERS = 16

_SCHEMA = (
    """
CREATE TABLE documents (
    key INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused, so a derived file can tell what it lacks by keys alone
    id TEXT NOT NULL UNIQUE,
    text TEXT,
    metadata TEXT NOT NULL,
    first_token INTEGER NOT NULL,
    n_tokens INTEGER NOT NULL
);
CREATE TABLE state (name TEXT PRIMARY KEY, value NOT NULL);
INSERT INTO state VALUES ('n_token_rows', 0);
"""
    + FIELDS_SCHEMA
)


@dataclass(frozen=True, eq=False)
class TokenPlaces:
    """Where documents' tokens stand in the token log: first row and number of rows, int64, shape (documents,)."""

    first: IntArray
    count: IntArray


@dataclass(frozen=True)
class StoredDocument:
    """One document as the store keeps it.

    Attributes:
        key: internal number; a replaced document gets a new one.
        id: the user's id.
        text: the passage, or None where only token embeddings were added.
        metadata: what the user attached.
    """

    key: int
    id: str
    text: str | None
    metadata: dict[str, Any]


class Store:
    """Documents, metadata and token rows. Not thread-safe: the index holds a lock around every call."""

    def __init__(
        self, folder: Path | None, codec: TokenCodec, *, read_only: bool = False, create: bool = False
    ) -> None:
        """Open the store in ``folder``, or in memory where it is None.

        Raises:
            CorruptIndexError: the database is missing or damaged, or refers to tokens that aren't there.
        """
        self.codec = codec
        self._keys: IntArray
        self._first: IntArray
        self._count: IntArray
        self._matching: dict[Condition, IntArray] = {}
        if folder is None:
            self._db = sqlite3.connect(":memory:", check_same_thread=False)
            create = True
        else:
            mode = "ro" if read_only else ("rwc" if create else "rw")
            uri = f"{(folder / DATABASE_NAME).absolute().as_uri()}?mode={mode}"
            try:
                self._db = sqlite3.connect(uri, uri=True, check_same_thread=False)
            except sqlite3.Error as error:
                raise CorruptIndexError(f"{folder / DATABASE_NAME} can't be opened: {error}") from error
        try:
            self._db.execute("PRAGMA synchronous = EXTRA")
            self._db.create_function("casefold", 1, str.casefold, deterministic=True)
            if create:
                self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            n_rows = self.get_state("n_token_rows")
            self._read_directory()
            self._tokens: TokenLog = (
                MemoryTokenLog(codec.row_dtype)
                if folder is None
                else FileTokenLog(folder / TOKENS_NAME, codec.row_dtype, n_rows, read_only=read_only)
            )
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise CorruptIndexError(
                f"{folder and folder / DATABASE_NAME} is damaged ({error}): restore it from a backup"
            ) from error
        except BaseException:
            self._db.close()
            raise

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, id: str) -> bool:
        return self._db.execute("SELECT 1 FROM documents WHERE id = ?", (id,)).fetchone() is not None

    def keys(self) -> IntArray:
        """Keys of all documents, int64, ascending."""
        return self._keys

    @property
    def n_tokens(self) -> int:
        """Number of token vectors of all documents."""
        return int(self._count.sum())

    def append_tokens(self, batches: Iterable[TokenEmbeddings]) -> TokenPlaces:
        """Write token rows that no document refers to yet; ``add`` or ``roll_back`` must follow.

        Args:
            batches: token embeddings of documents, in order, in any grouping. They are written as they come, so
                that they never have to be in memory together.
        """
        first, count = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for batch in batches:
            first.append(len(self._tokens) + batch.offsets[:-1])
            count.append(batch.lengths)
            self._tokens.append(self.codec.encode(batch.vectors))
        self._tokens.sync()
        return TokenPlaces(np.concatenate(first), np.concatenate(count))

    def add(
        self, ids: Sequence[str], texts: Sequence[str | None], metadatas: Sequence[str], places: TokenPlaces
    ) -> tuple[IntArray, IntArray]:
        """Commit documents, replacing those that have the same id, all or none.

        Args:
            ids: distinct ids.
            texts: one for each id.
            metadatas: one JSON object, as text, for each id.
            places: where their tokens are, from ``append_tokens``.

        Returns:
            The new documents' keys and the replaced ones' keys.
        """
        with self._db:
            replaced = self._delete_rows(self._select("id", ids))
            self._db.executemany(
                "INSERT INTO documents (id, text, metadata, first_token, n_tokens) VALUES (?, ?, ?, ?, ?)",
                zip(ids, texts, metadatas, places.first.tolist(), places.count.tolist(), strict=True),
            )
            # AUTOINCREMENT gives rising keys, and nothing else inserts, so the new ones are the last.
            (last,) = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'documents'").fetchone()
            added = np.arange(last - len(ids) + 1, last + 1, dtype=np.int64)
            self._db.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)", _field_rows(added.tolist(), metadatas))
            self._set_state("n_token_rows", len(self._tokens))
        self._forget(replaced)
        self._matching.clear()
        self._keys = np.concatenate([self._keys, added])
        self._first = np.concatenate([self._first, places.first])
        self._count = np.concatenate([self._count, places.count])
        return added, replaced

    def roll_back(self) -> None:
        """Return to what is committed, after a write that failed."""
        self._tokens.truncate(self.get_state("n_token_rows"))
        self._read_directory()

    def delete(self, keys: IntArray) -> None:
        """Delete documents, all or none; unknown keys are passed over."""
        with self._db:
            self._delete_rows(self._select("key", keys.tolist()))
        self._forget(keys)

    def documents(self, keys: Sequence[int] | IntArray) -> list[StoredDocument]:
        """The documents with these keys, in the order of the keys; unknown keys are passed over."""
        found = {row[0]: row for row in self._select("key", [int(key) for key in keys])}
        return [_document(found[int(key)]) for key in keys if int(key) in found]

    def keys_of(self, ids: Sequence[str]) -> IntArray:
        """Keys of the documents with these ids, ascending; unknown ids are passed over."""
        return np.array(sorted(row[0] for row in self._select("id", ids)), dtype=np.int64)

    def documents_by_id(self, ids: Sequence[str]) -> list[StoredDocument]:
        """The documents with these ids, in the order of the ids; unknown ids are passed over."""
        found = {row[1]: row for row in self._select("id", ids)}
        return [_document(found[id]) for id in ids if id in found]

    def matching(self, condition: Condition | None) -> IntArray:
        """Keys of the documents that a filter admits, ascending; all of them where there is none.

        The answers to the latest filters are kept until the next write.
        """
        if condition is None:
            return self._keys
        if condition not in self._matching:
            if len(self._matching) >= _KEPT_ANSWERS:
                del self._matching[next(iter(self._matching))]
            self._matching[condition] = condition.keys(FieldIndex(self._db, self._keys))
        return self._matching[condition]

    def live(self, keys: IntArray) -> IntArray:
        """Those of ``keys`` that are still documents, in their order."""
        return keys[np.isin(keys, self._keys)]

    def tokens(self, keys: Sequence[int] | IntArray) -> tuple[Rows, IntArray]:
        """Token rows of documents, which must exist, end to end, with their offsets (documents + 1,)."""
        places = np.searchsorted(self._keys, keys)
        first, count = self._first[places], self._count[places]
        offsets = np.zeros(len(places) + 1, dtype=np.int64)
        np.cumsum(count, out=offsets[1:])
        view = self._tokens.view()
        if not len(places):
            return view[:0], offsets
        if (first[1:] == first[:-1] + count[:-1]).all():
            return view[first[0] : first[-1] + count[-1]], offsets
        row_numbers = np.repeat(first - offsets[:-1], count) + np.arange(offsets[-1])
        # NumPy copies rows of bytes four times as fast as rows of a structured type.
        as_bytes = np.asarray(view).view(np.uint8).reshape(len(view), -1)
        rows: Rows = as_bytes.take(row_numbers, axis=0).reshape(-1).view(self.codec.row_dtype)
        return rows, offsets

    def embeddings(self, keys: Sequence[int] | IntArray) -> TokenEmbeddings:
        """Token embeddings of documents, which must exist, decoded to float32."""
        rows, offsets = self.tokens(keys)
        return TokenEmbeddings(self.codec.decode(rows), offsets)

    def mean_token(self) -> FloatArray:
        """Mean of all documents' token vectors, float32, shape (dimension,)."""
        total = np.zeros(self.codec.dimension)
        for key in self._keys:
            total += self.codec.decode(self.tokens([key])[0]).sum(axis=0, dtype=np.float64)
        return (total / max(1, self.n_tokens)).astype(np.float32)

    def get_state(self, name: str) -> Any:
        """A named value that is committed with the documents, or None."""
        row = self._db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def put_state(self, name: str, value: Any) -> None:
        """Commit a named value."""
        with self._db:
            self._set_state(name, value)

    def close(self) -> None:
        """Close the files."""
        self._db.close()
        self._tokens.close()

    def _read_directory(self) -> None:
        """Where each document's tokens stand, by ascending key: every search reads it, so it is kept in memory."""
        rows = self._db.execute("SELECT key, first_token, n_tokens FROM documents ORDER BY key").fetchall()
        directory: IntArray = np.array(rows, dtype=np.int64).reshape(-1, 3).T.copy()
        self._keys, self._first, self._count = directory

    def _set_state(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, value))

    def _select(self, column: str, values: Sequence[Any]) -> Iterable[tuple[Any, ...]]:
        for start in range(0, len(values), _SQL_BATCH):
            some = values[start : start + _SQL_BATCH]
            yield from self._db.execute(
                f"SELECT key, id, text, metadata FROM documents WHERE {column} IN ({','.join('?' * len(some))})", some
            )

    def _delete_rows(self, rows: Iterable[tuple[Any, ...]]) -> IntArray:
        rows = sorted(rows)
        keys = [row[0] for row in rows]
        self._db.executemany("DELETE FROM documents WHERE key = ?", [(key,) for key in keys])
        self._db.executemany(
            "DELETE FROM fields WHERE path = ? AND kind = ? AND value = ? AND key = ?",
            _field_rows(keys, [row[3] for row in rows]),
        )
        return np.array(keys, dtype=np.int64)

    def _forget(self, keys: IntArray) -> None:
        self._matching.clear()
        stays = ~np.isin(self._keys, keys)
        self._keys, self._first, self._count = self._keys[stays], self._first[stays], self._count[stays]


def _field_rows(keys: Sequence[int], metadatas: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for key, metadata in zip(keys, metadatas, strict=True):
        for field in flatten(json.loads(metadata)):
            yield (*field, key)


def _document(row: tuple[Any, ...]) -> StoredDocument:
    return StoredDocument(row[0], row[1], row[2], json.loads(row[3]))
