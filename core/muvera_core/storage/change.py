"""A transaction: changes of documents and named values that become visible together, or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from muvera_core.batches import batched
from muvera_core.errors import IndexLockedError
from muvera_core.files import id_hash, record_checksum, storage_errors
from muvera_core.filters import delete_fields, insert_fields
from muvera_core.lexical import LexicalConfig
from muvera_core.storage.database import State, has_words, insert_snapshot_rows, read_state, read_version, write_state
from muvera_core.storage.documents import DocumentReader
from muvera_core.storage.filter_reader import carried_over
from muvera_core.storage.shared_connection import SharedConnection
from muvera_core.storage.snapshot import Snapshot, SnapshotRows
from muvera_core.storage.token_log import TokenLog
from muvera_core.storage.words import WORD_RULES, delete_words, empty_words, insert_words, rules_after
from muvera_core.token_embeddings import IntArray

# Documents that are read, copied or deleted at a time.
COPY_BATCH = 4096


@dataclass(frozen=True, eq=False)
class AppendedTokens:
    """Places of new documents' tokens: first row, number of rows and their CRC-32, each int64, shape (documents,)."""

    first: IntArray
    count: IntArray
    checksums: IntArray

    @classmethod
    def scattered(cls, parts: Sequence[tuple[Sequence[int] | IntArray, AppendedTokens]]) -> AppendedTokens:
        """The parts as one, each document at the position that is given with its part."""
        n = sum(len(positions) for positions, _ in parts)
        first, count, checksums = (np.empty(n, dtype=np.int64) for _ in range(3))
        for positions, part in parts:
            first[positions], count[positions], checksums[positions] = part.first, part.count, part.checksums
        return cls(first, count, checksums)


class Change:
    """A transaction on the connection for writing, begun by ``Store.apply``. It is undone unless it is committed.

    Attributes:
        removed: keys of the documents that it deletes or replaces, int64.
        after: the snapshot that results, once the change is prepared.
    """

    def __init__(self, db: sqlite3.Connection, path: Path | None, snapshot: Snapshot) -> None:
        """Prepare the transaction. ``with`` begins it.

        Args:
            db: the connection for writing.
            path: the database's file, for error messages. None for one in memory.
            snapshot: the snapshot to change.
        """
        self._db, self._path, self._snapshot = db, path, snapshot
        self._reader = DocumentReader(SharedConnection(db, path))
        self._added = SnapshotRows.empty()
        self._metadatas: list[dict[str, Any]] = []
        self._state: State = {}
        self.removed: IntArray = np.empty(0, dtype=np.int64)
        self.after: Snapshot | None = None

    def __enter__(self) -> Self:
        try:
            with storage_errors(self._path):
                self._db.execute("BEGIN IMMEDIATE")
                if read_version(self._db) != self._snapshot.version:
                    raise IndexLockedError(f"{self._path} was changed by another writer: open the index again")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._db.in_transaction:
            with storage_errors(self._path):
                self._db.execute("ROLLBACK")

    def add(
        self,
        keys: IntArray,
        ids: Sequence[str],
        texts: Sequence[str | None],
        metadatas: Sequence[str],
        images: Sequence[str | None],
        tokens: AppendedTokens,
    ) -> None:
        """Add documents. They replace those that have the same ids.

        Args:
            keys: new keys, ascending, all higher than those of earlier documents.
            ids: distinct ids.
            texts: one for each id.
            metadatas: one JSON object, as text, for each id.
            images: one ``ImageRecord``, as text, for each id; None for a document without an image.
            tokens: places of their tokens.
        """
        with storage_errors(self._path):
            replaced = self._reader.keys_of(self._snapshot, ids)
        self.delete(np.array(sorted(replaced.values()), dtype=np.int64))
        numbers = keys.tolist()
        with storage_errors(self._path):
            self._db.executemany(
                "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (*columns, record_checksum(*columns))
                    for columns in zip(numbers, ids, texts, metadatas, images, strict=True)
                ],
            )
            self._metadatas = [json.loads(metadata) for metadata in metadatas]
            insert_fields(self._db, numbers, self._metadatas)
            if self._snapshot.lexical is not None:
                documents = zip(numbers, texts, self._metadatas, strict=True)
                insert_words(self._db, self._snapshot.lexical, documents)
                self._state[WORD_RULES] = rules_after(read_state(self._db).get(WORD_RULES))
            hashes = np.array([id_hash(id) for id in ids], dtype=np.int64)
            self._added = SnapshotRows(keys, hashes, tokens.first, tokens.count, tokens.checksums)
            insert_snapshot_rows(self._db, self._added)
        self._snapshot.tokens.sync()
        self._state["next_key"] = int(keys[-1]) + 1
        self._state["n_token_rows"] = len(self._snapshot.tokens)

    def delete(self, keys: IntArray) -> None:
        """Delete the documents with these keys, which must exist."""
        for start in range(0, len(keys), COPY_BATCH):
            with storage_errors(self._path):
                documents = self._reader.documents(self._snapshot, keys[start : start + COPY_BATCH])
                numbers = [document.key for document in documents]
                delete_fields(self._db, numbers, [document.metadata for document in documents])
                if self._snapshot.lexical is not None:
                    delete_words(self._db, numbers)
                for table in ("documents", "directory"):
                    self._db.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in numbers])
        self.removed = np.concatenate([self.removed, keys])

    def move(self, tokens: TokenLog, checksums: IntArray) -> None:
        """Refer to another token log, which holds the documents' rows end to end, by ascending key.

        Args:
            tokens: the log.
            checksums: CRC-32 of each document's rows in it, int64.
        """
        count = self._snapshot.rows.count
        self._snapshot = self._snapshot.moved(self._snapshot.version, tokens, np.cumsum(count) - count, checksums)
        with storage_errors(self._path):
            insert_snapshot_rows(self._db, self._snapshot.rows)
        self._state |= {"generation": tokens.generation, "n_token_rows": len(tokens)}

    def index_words(self, lexical: LexicalConfig | None) -> None:
        """Make the word index anew from the documents, by these settings. None empties it.

        The new word index is in memory until the commit.
        """
        with storage_errors(self._path):
            if lexical is not None or has_words(self._db):
                empty_words(self._db)
        if lexical is not None:
            for keys in batched(self._snapshot.keys, COPY_BATCH):
                with storage_errors(self._path):
                    documents = self._reader.documents(self._snapshot, keys)
                    insert_words(self._db, lexical, ((d.key, d.text, d.metadata) for d in documents))
        self._state[WORD_RULES] = rules_after(None)
        self._snapshot = self._snapshot.with_lexical(lexical)

    def put_state(self, name: str, value: Any) -> None:
        """Set a named value."""
        self._state[name] = value

    def prepare(self) -> None:
        """Do the work that must precede ``commit`` and during which searches need not wait."""
        version = self._snapshot.version + 1
        known = dict(self._snapshot.filter_matches)  # at once: searches may add to it
        answers = carried_over(known, self.removed, self._added.keys, self._metadatas)
        self.after = self._snapshot.changed(version, self.removed, self._added, answers)
        with storage_errors(self._path):
            write_state(self._db, self._state | {"version": version, "digest": self.after.digest})

    def commit(self) -> Snapshot:
        """Make the change durable, after ``prepare``. Returns the snapshot that searches must see from now on."""
        assert self.after is not None
        with storage_errors(self._path):
            self._db.execute("COMMIT")
        return self.after
