"""The durable part of an index: documents in SQLite, token vectors in an append-only file.

SQLite's commit is the commit of the index. ``append_tokens`` writes token rows; ``Change.add`` syncs them to disk and
writes the documents that refer to them; ``Change.commit`` makes those visible, all at once. Whatever happens before
that leaves the old state. Two connections, so that searches read on while a change is written:
only the commit itself makes them wait.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from muvera_core.checksums import id_hash, record_checksum, signed_sum
from muvera_core.database import (
    DATABASE_NAME,
    State,
    connect,
    create_database,
    insert_directory,
    read_directory,
    read_one_state,
    read_state,
    read_version,
    select_by_key,
    write_state,
)
from muvera_core.directory import Directory, DirectoryRows
from muvera_core.errors import CorruptIndexError, IndexClosedError, IndexLockedError, MuveraError
from muvera_core.fields import delete_fields, insert_fields, verify_path
from muvera_core.files import DATABASE_ERRORS, storage_errors
from muvera_core.filters import Condition, FieldIndex
from muvera_core.token_codec import Rows, TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.token_log import FileTokenLog, MemoryTokenLog, TokenLog, token_generations, tokens_path

# Applications ask under few filters at a time (a tenant, a language), and a wide one takes long to answer.
_KEPT_ANSWERS = 16
# Deleted tokens may take this much, or half of what the others take, before they are worth rewriting the file.
_MIN_WASTE = 1 << 20
_COPY_BATCH = 4096
_VACUUM_PAGES = 500
_MAX_KEY = 1 << 62
_T = TypeVar("_T")
_MAX_GENERATION = 10**12 - 1


class StaleError(MuveraError):
    """The state that was read from has been replaced by another; read again from that one. Never reaches users."""


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


@dataclass(frozen=True, eq=False)
class AppendedTokens:
    """Where new documents' tokens stand: first row, number of rows, CRC-32 of them, int64, shape (documents,)."""

    first: IntArray
    count: IntArray
    checksums: IntArray

    @classmethod
    def joined(cls, parts: Sequence[AppendedTokens]) -> AppendedTokens:
        """Several as one."""
        return cls(
            np.concatenate([part.first for part in parts]),
            np.concatenate([part.count for part in parts]),
            np.concatenate([part.checksums for part in parts]),
        )


class Store:
    """Documents, metadata and token rows.

    One thread writes at a time; the index sees to that. ``lock`` guards what searches see: hold it around every call
    but ``append_tokens``, ``token_rows``, ``load``, ``apply`` and ``compact``.
    """

    def __init__(
        self,
        folder: Path | None,
        codec: TokenCodec,
        lock: threading.RLock,
        *,
        read_only: bool = False,
        create: State | None = None,
        generation: int = 0,
    ) -> None:
        """Open the store in ``folder``, or make one in memory where it is None.

        Args:
            folder: where the files are.
            codec: how token vectors are stored.
            lock: guards the state that searches see.
            read_only: allow no changes.
            create: make a new store, with these named values.
            generation: of the token file of a new store.

        Raises:
            CorruptIndexError: files are missing or damaged.
            StorageError: they can't be read or written.
        """
        self.codec, self.lock, self._folder = codec, lock, folder
        self._path = None if folder is None else folder / DATABASE_NAME
        self._writable = not read_only
        self._closed = False
        self._compacted: TokenLog | None = None
        self._verified_paths: set[str] = set()
        # Held while a change is made, before ``lock`` where both are.
        self.change_lock = threading.RLock()
        new = create is not None or folder is None
        self._db = connect(self._path, write=new, create=new)
        # Changes, and the reading of all that is new, go through a connection of their own: searches don't wait for it.
        self._write_db = self._db
        try:
            with storage_errors(self._path):
                if new:
                    first = {"version": 0, "next_key": 1, "n_token_rows": 0, "generation": generation, "digest": 0}
                    create_database(self._db, first | (create or {}))
            if folder is not None:
                self._write_db = connect(self._path, write=not read_only)
            self.directory = self._load(None)
            if not read_only:
                self.roll_back()
        except BaseException:
            self._closed = True
            self._db.close()
            self._write_db.close()
            raise

    # Reading

    def documents(self, directory: Directory, keys: Sequence[int] | IntArray) -> list[StoredDocument]:
        """The documents with these keys, which must be in ``directory``, in the order of the keys.

        Raises:
            StaleError: some were deleted since.
            CorruptIndexError: some are damaged.
        """
        wanted = [int(key) for key in keys]
        with self._using():
            found = {row[0]: row for row in select_by_key(self._db, "key, id, text, metadata, checksum", wanted)}
            if len(found) < len(set(wanted)):
                self._explain_missing(directory, [key for key in wanted if key not in found])
        return [_document(found[key]) for key in wanted]

    def keys_of(self, directory: Directory, ids: Sequence[str]) -> dict[str, int]:
        """Keys of those of the ids that are in ``directory``. Raises as ``documents`` does."""
        maybe, wanted = directory.keys_that_may_be(ids), set(ids)
        with self._using():
            rows = list(select_by_key(self._db, "key, id", maybe.tolist()))
            if len(rows) < len(maybe):
                self._explain_missing(directory, sorted(set(maybe.tolist()) - {key for key, _ in rows}))
        hashes = dict(zip(maybe.tolist(), directory.rows.id_hashes[directory.places(maybe)].tolist(), strict=True))
        for key, id in rows:
            if not isinstance(id, str) or id_hash(id) != hashes[key]:
                raise _damaged_document(key)
        return {id: key for key, id in rows if id in wanted}

    def matching(self, directory: Directory, condition: Condition | None) -> IntArray:
        """Keys of the documents that a filter admits, ascending; all of them where there is none.

        Raises:
            StaleError: another process has committed something since.
            CorruptIndexError: the index over the fields is damaged.
        """
        if condition is None:
            return directory.keys
        answers = directory.answers
        if condition not in answers:
            with self._using():
                answer = read_one_state(self._db, lambda: self._answer(directory, condition))
            if len(answers) >= _KEPT_ANSWERS:
                del answers[next(iter(answers))]
            answers[condition] = answer
        return answers[condition]

    def token_rows(self, directory: Directory, keys: Sequence[int] | IntArray) -> tuple[Rows, IntArray]:
        """Token rows of documents, which must be in ``directory``, end to end, with their offsets (documents + 1,).

        The first read of a document's rows since opening compares them with their checksum.

        Raises:
            CorruptIndexError: some are damaged.
        """
        places = directory.places(keys)
        count = directory.rows.count[places]
        offsets = np.zeros(len(places) + 1, dtype=np.int64)
        np.cumsum(count, out=offsets[1:])
        rows = directory.tokens.read(directory.rows.first[places], count)
        unverified = np.flatnonzero(~directory.verified[places])
        if len(unverified):
            content = rows.view(np.uint8).data
            size = rows.dtype.itemsize
            for i in unverified.tolist():
                checksum = zlib.crc32(content[offsets[i] * size : offsets[i + 1] * size])
                if checksum != directory.rows.token_checksums[places[i]]:
                    raise CorruptIndexError(
                        f"the tokens of {self._name(directory.keys[places[i]])} are damaged: its text is safe, and so "
                        "are the other documents; run muvera_core.repair_index on the folder, or delete the document"
                    )
            directory.verified[places] = True
        return rows, offsets

    def embeddings(self, directory: Directory, keys: Sequence[int] | IntArray) -> TokenEmbeddings:
        """Token embeddings of documents, which must be in ``directory``, decoded to float32."""
        rows, offsets = self.token_rows(directory, keys)
        return TokenEmbeddings(self.codec.decode(rows), offsets)

    def mean_token(self) -> FloatArray:
        """Mean of all documents' token vectors, float32, shape (dimension,)."""
        directory, total = self.directory, np.zeros(self.codec.dimension)
        for start in range(0, len(directory), _COPY_BATCH):
            embeddings = self.embeddings(directory, directory.keys[start : start + _COPY_BATCH])
            total += embeddings.vectors.sum(axis=0, dtype=np.float64)
        return (total / max(1, directory.n_tokens)).astype(np.float32)

    def get_state(self, name: str) -> Any:
        """A named value that is committed with the documents, or None."""
        with self._using():
            return read_one_state(self._db, lambda: read_state(self._db)).get(name)

    def load(self) -> Directory:
        """What is committed now; ``directory`` itself where that is it. Needs no lock."""
        with self._using():
            if read_version(self._write_db) == self.directory.version:
                return self.directory
            return self._load(self.directory)

    def frozen(self, read: Callable[[], _T]) -> _T:
        """What ``read`` gives while no other process can commit."""

        def with_lock() -> _T:
            read_version(self._db)  # takes the lock that BEGIN only promises
            return read()

        with self._using():
            return read_one_state(self._db, with_lock)

    # Writing

    def append_tokens(self, embeddings: TokenEmbeddings) -> tuple[AppendedTokens, TokenEmbeddings]:
        """Write token rows that no document refers to yet; a ``Change`` or ``roll_back`` must follow.

        Returns:
            Where they are, and the token embeddings that will be read from there.
        """
        rows = self.codec.encode(embeddings.vectors)
        return self.append_rows(rows, embeddings.offsets), TokenEmbeddings(self.codec.decode(rows), embeddings.offsets)

    def append_rows(self, rows: Rows, offsets: IntArray) -> AppendedTokens:
        """The same for token rows, where document ``i`` owns ``rows[offsets[i]:offsets[i + 1]]``."""
        content, ends = rows.view(np.uint8).data, (offsets * rows.dtype.itemsize).tolist()
        checksums = [zlib.crc32(content[start:end]) for start, end in pairwise(ends)]
        tokens = self.directory.tokens
        first = len(tokens) + offsets[:-1]
        tokens.append(rows)
        return AppendedTokens(first, np.diff(offsets), np.array(checksums, dtype=np.int64))

    def apply(self, fill: Callable[[Change], None], then: Callable[[IntArray], None] = lambda removed: None) -> None:
        """Make a change in one transaction.

        Args:
            fill: says what to change.
            then: called in the moment in which the change becomes visible, with the keys that it removed.
        """
        # In memory there is one connection, and readers would see what isn't committed.
        unseen = self.lock if self._folder is None else nullcontext()
        with self.change_lock, unseen, Change(self, self._write_db, self._path) as change:
            fill(change)
            change.prepare()
            with self.lock:
                change.commit()
                then(change.removed)

    def roll_back(self) -> None:
        """Return to what is committed, after a write that failed or was interrupted."""
        with self._using():
            if self._write_db.in_transaction:
                self._write_db.execute("ROLLBACK")
            state = read_state(self._db)
            if state.get("version") != self.directory.version:
                self.directory = self._load(self.directory)
            self.directory.tokens.reset(state["n_token_rows"])
            self._compacted = None
        self._remove_leftovers()

    @property
    def is_wasteful(self) -> bool:
        """Whether enough of the token file is deleted documents' to be worth rewriting it."""
        size, live = self.codec.row_dtype.itemsize, self.directory.n_tokens
        return (len(self.directory.tokens) - live) * size > max(_MIN_WASTE, live * size // 2)

    def size_on_disk(self) -> int:
        """Bytes of the documents and their tokens; 0 for a store in memory."""
        if self._folder is None or self._path is None:
            return 0
        with storage_errors(self._folder):
            tokens = tokens_path(self._folder, self.directory.tokens.generation)
            return self._path.stat().st_size + tokens.stat().st_size

    def compact(self) -> None:
        """Rewrite the token file without deleted documents' rows, and give free pages of the database back.

        Where it fails, ``roll_back`` must follow.

        Raises:
            CorruptIndexError: a document's tokens are damaged; nothing was changed.
            StorageError: no room for the copy; nothing was changed.
        """
        directory = self.directory
        if len(directory.tokens) > directory.n_tokens:
            generation = directory.tokens.generation + 1
            tokens = self._compacted = self._new_log(generation)
            for start in range(0, len(directory), _COPY_BATCH):
                tokens.append(self.token_rows(directory, directory.keys[start : start + _COPY_BATCH])[0])
            tokens.sync()
            self.apply(lambda change: change.move(tokens))
            self._compacted = None
            self._remove_leftovers()
        self._vacuum()

    def close(self) -> None:
        """Close the database. The token file is closed when the last search that reads it ends."""
        self._closed = True
        self._db.close()
        self._write_db.close()
        no_tokens = MemoryTokenLog(self.codec.row_dtype, 0)
        self.directory = Directory.of(self.directory.version, DirectoryRows.empty(), no_tokens)

    # Inner workings

    @contextmanager
    def _using(self) -> Iterator[None]:
        if self._closed:
            raise IndexClosedError("the index is closed: open it again with MuveraIndex.open")
        with storage_errors(self._path):
            yield

    def _load(self, earlier: Directory | None) -> Directory:
        """The committed state, checked. Token rows are checked when they are read."""
        db = self._write_db
        while True:
            with storage_errors(self._path):
                state, (rows, hashes) = read_one_state(db, lambda: (read_state(db), read_directory(db)))
            _check_directory(rows, hashes, state)
            if earlier is not None and earlier.tokens.generation == state["generation"]:
                if not self._writable:
                    earlier.tokens.reset(state["n_token_rows"])
                return Directory.of(state["version"], rows, earlier.tokens).trusting(earlier)
            if self._compacted is not None and self._compacted.generation == state["generation"]:
                return Directory.of(state["version"], rows, self._compacted)
            try:
                tokens = self._open_log(state["generation"], state["n_token_rows"])
            except CorruptIndexError:
                with storage_errors(self._path):
                    if read_version(db) == state["version"]:
                        raise
                continue  # the writer has compacted the index meanwhile
            return Directory.of(state["version"], rows, tokens)

    def _open_log(self, generation: int, n_rows: int) -> TokenLog:
        if self._folder is None:
            return MemoryTokenLog(self.codec.row_dtype, generation)
        path = tokens_path(self._folder, generation)
        return FileTokenLog(path, self.codec.row_dtype, n_rows, writable=self._writable, generation=generation)

    def _new_log(self, generation: int) -> TokenLog:
        if self._folder is not None:
            with storage_errors(self._folder):
                tokens_path(self._folder, generation).unlink(missing_ok=True)
        return self._open_log(generation, 0)

    def _remove_leftovers(self) -> None:
        """Remove token files that an interrupted or finished compaction left."""
        if self._folder is None:
            return
        with storage_errors(self._folder):
            for generation in token_generations(self._folder):
                if generation != self.directory.tokens.generation:
                    with suppress(OSError):  # Windows keeps files that are open; the next opening removes them
                        tokens_path(self._folder, generation).unlink()

    def _vacuum(self) -> None:
        with self._using():
            free, before = self._free_pages(), -1
            while free and free != before:
                with self.change_lock, self.lock:  # a few milliseconds at a time
                    self._write_db.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
                free, before = self._free_pages(), free

    def _free_pages(self) -> int:
        return int(self._write_db.execute("PRAGMA freelist_count").fetchone()[0])

    def _answer(self, directory: Directory, condition: Condition) -> IntArray:
        if read_version(self._db) != directory.version:
            raise StaleError
        answer = condition.keys(FieldIndex(self._db, directory.keys, self._verify_path))
        if not directory.has(answer).all():
            raise CorruptIndexError(
                f"the index over metadata fields in {self._path} names documents that aren't there: "
                "run muvera_core.repair_index on the folder"
            )
        return answer

    def _verify_path(self, path: str) -> None:
        if path not in self._verified_paths and verify_path(self._db, path):
            self._verified_paths.add(path)

    def _explain_missing(self, directory: Directory, keys: Sequence[int]) -> None:
        if directory.version != read_version(self._db):
            raise StaleError
        raise _damaged_document(keys[0])

    def _name(self, key: int) -> str:
        with suppress(MuveraError, *DATABASE_ERRORS), self.lock:
            for (id,) in select_by_key(self._db, "id", [int(key)]):
                return f"document {id!r}"
        return f"document number {key}"


class Change:
    """A transaction, made by ``Store.apply``: what is done in it becomes visible with ``commit``, or is undone.

    Attributes:
        removed: keys of documents that it deletes or replaces, int64.
    """

    def __init__(self, store: Store, db: sqlite3.Connection, path: Path | None) -> None:
        self._store, self._db, self._path = store, db, path
        self._after: Directory | None = None
        self._directory = store.directory
        self._added = DirectoryRows.empty()
        self._state: State = {}
        self.removed: IntArray = np.empty(0, dtype=np.int64)

    def __enter__(self) -> Self:
        try:
            with self._store._using():
                self._db.execute("BEGIN IMMEDIATE")
                if read_version(self._db) != self._directory.version:
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
        tokens: AppendedTokens,
    ) -> None:
        """Add documents, replacing those that have the same id.

        Args:
            keys: rising, and higher than any before.
            ids: distinct ids.
            texts: one for each id.
            metadatas: one JSON object, as text, for each id.
            tokens: where their tokens are.
        """
        with self._store.lock:
            replaced = self._store.keys_of(self._directory, ids)
        self.delete(np.array(sorted(replaced.values()), dtype=np.int64))
        numbers = keys.tolist()
        with storage_errors(self._path):
            self._db.executemany(
                "INSERT INTO documents VALUES (?, ?, ?, ?, ?)",
                [
                    (key, id, text, metadata, record_checksum(key, id, text, metadata))
                    for key, id, text, metadata in zip(numbers, ids, texts, metadatas, strict=True)
                ],
            )
            insert_fields(self._db, numbers, [json.loads(metadata) for metadata in metadatas])
            hashes = np.array([id_hash(id) for id in ids], dtype=np.int64)
            self._added = DirectoryRows(keys, hashes, tokens.first, tokens.count, tokens.checksums)
            insert_directory(self._db, self._added)
        self._directory.tokens.sync()
        self._state["next_key"] = int(keys[-1]) + 1
        self._state["n_token_rows"] = len(self._directory.tokens)

    def delete(self, keys: IntArray) -> None:
        """Delete documents, which must exist."""
        for start in range(0, len(keys), _COPY_BATCH):
            with self._store.lock:
                documents = self._store.documents(self._directory, keys[start : start + _COPY_BATCH])
            numbers = [document.key for document in documents]
            with storage_errors(self._path):
                delete_fields(self._db, numbers, [document.metadata for document in documents])
                for table in ("documents", "directory"):
                    self._db.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in numbers])
        self.removed = np.concatenate([self.removed, keys])

    def move(self, tokens: TokenLog) -> None:
        """Refer to a copy of the token log that holds the documents' rows end to end, by ascending key."""
        count = self._directory.rows.count
        self._directory = self._directory.moved(self._directory.version, tokens, np.cumsum(count) - count)
        with storage_errors(self._path):
            insert_directory(self._db, self._directory.rows)
        self._state |= {"generation": tokens.generation, "n_token_rows": len(tokens)}

    def put_state(self, name: str, value: Any) -> None:
        """Set a named value."""
        self._state[name] = value

    def prepare(self) -> None:
        """Do what can be done before ``commit`` without making searches wait."""
        version = self._directory.version + 1
        self._after = self._directory.changed(version, self.removed, self._added)
        with self._store._using():
            write_state(self._db, self._state | {"version": version, "digest": self._after.digest})

    def commit(self) -> None:
        """Make it durable, and the state that the next search sees. ``prepare`` comes first."""
        assert self._after is not None
        with self._store._using():
            self._db.execute("COMMIT")
        self._store.directory = self._after


def _document(row: tuple[Any, ...]) -> StoredDocument:
    key, id, text, metadata, checksum = row
    try:
        if record_checksum(key, id, text, metadata) == checksum:
            return StoredDocument(key, id, text, json.loads(metadata))
    except (AttributeError, TypeError, ValueError, RecursionError):
        pass  # not the types that a document has
    raise _damaged_document(key)


def _damaged_document(key: int) -> CorruptIndexError:
    return CorruptIndexError(
        f"document number {key} in documents.sqlite is damaged or missing; the others are safe: "
        "run muvera_core.repair_index on the folder, or restore the file from a backup"
    )


def _check_directory(rows: DirectoryRows, hashes: IntArray, state: State) -> None:
    if not (_has_counters(state) and _fits(rows, hashes, state)):
        raise CorruptIndexError(
            "documents.sqlite is damaged (its directory doesn't fit its checksums): run muvera_core.repair_index on "
            "the folder, which keeps every document that is whole, or restore the file from a backup"
        )


def _has_counters(state: State) -> bool:
    limits = {"version": _MAX_KEY, "next_key": _MAX_KEY, "n_token_rows": _MAX_KEY, "generation": _MAX_GENERATION}
    return all(isinstance(state.get(name), int) and 0 <= state[name] <= limit for name, limit in limits.items())


def _fits(rows: DirectoryRows, hashes: IntArray, state: State) -> bool:
    """Whether the rows have their checksums and refer to what is there."""
    n_rows = state["n_token_rows"]
    return bool(
        (rows.hashes() == hashes).all()
        and signed_sum(hashes) == state.get("digest")
        and ((rows.keys > 0) & (rows.keys < state["next_key"])).all()
        and int(rows.count.sum()) <= n_rows  # no row belongs to two
        and ((rows.first >= 0) & (rows.count >= 1) & (rows.count <= n_rows) & (rows.first <= n_rows - rows.count)).all()
    )
