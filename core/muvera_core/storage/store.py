"""The durable part of an index: documents in SQLite, token vectors in an append-only file.

SQLite's commit is the commit of the index. ``append_tokens`` writes token rows; ``Change.add`` syncs them to disk and
writes the documents that refer to them; ``Change.commit`` makes those visible, all at once. Whatever happens before
that leaves the old state. Two connections, so that searches read on while a change is written:
only the commit itself makes them wait.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from muvera_core.errors import CLOSED, CorruptIndexError, IndexClosedError, MuveraError
from muvera_core.files import DATABASE_ERRORS, signed_sum, storage_errors
from muvera_core.filters import Condition, FieldIndex, verify_path
from muvera_core.storage.change import COPY_BATCH, AppendedTokens, Change
from muvera_core.storage.database import (
    DATABASE_NAME,
    State,
    connect,
    create_database,
    read_one_state,
    read_snapshot_rows,
    read_state,
    read_version,
    select_by_key,
)
from muvera_core.storage.documents import DocumentReader, StaleError, StoredDocument
from muvera_core.storage.locks import IndexLocks
from muvera_core.storage.snapshot import Snapshot, SnapshotRows
from muvera_core.storage.token_codec import Rows, TokenCodec
from muvera_core.storage.token_log import FileTokenLog, MemoryTokenLog, TokenLog, token_generations, tokens_path
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

# Applications ask under few filters at a time (a tenant, a language), and a wide one takes long to answer.
_KEPT_ANSWERS = 16
# Deleted tokens may take this much, or half of what the others take, before they are worth rewriting the file.
_MIN_WASTE = 1 << 20
_VACUUM_PAGES = 500
_MAX_KEY = 1 << 62
_T = TypeVar("_T")
_MAX_GENERATION = 10**12 - 1


class Store:
    """Documents, metadata and token rows.

    Any number of threads may read. One thread writes at a time: the caller holds ``IndexLocks.writing``. The store
    takes the other two locks itself.

    Attributes:
        codec: how token vectors are stored.
        locks: see there.
        snapshot: the state that the next search sees. Replace it only while ``locks.state`` is held.
    """

    def __init__(
        self,
        folder: Path | None,
        codec: TokenCodec,
        locks: IndexLocks | None = None,
        *,
        read_only: bool = False,
        create: State | None = None,
        generation: int = 0,
    ) -> None:
        """Open the store in ``folder``, or make one in memory where it is None.

        Args:
            folder: where the files are.
            codec: how token vectors are stored.
            locks: of the index; None makes new ones.
            read_only: allow no changes.
            create: make a new store, with these named values.
            generation: of the token file of a new store.

        Raises:
            CorruptIndexError: files are missing or damaged.
            StorageError: they can't be read or written.
        """
        self.codec, self.locks, self._folder = codec, locks or IndexLocks(), folder
        self._path = None if folder is None else folder / DATABASE_NAME
        self._writable = not read_only
        self._closed = False
        self._compacted: TokenLog | None = None
        self._verified_paths: set[str] = set()
        new = create is not None or folder is None
        self._db = connect(self._path, write=new, create=new)
        self._reader = DocumentReader(self._db)
        # Changes, and the reading of all that is new, go through a connection of their own: searches don't wait for it.
        self._write_db = self._db
        try:
            with storage_errors(self._path):
                if new:
                    first = {"version": 0, "next_key": 1, "n_token_rows": 0, "generation": generation, "digest": 0}
                    create_database(self._db, first | (create or {}))
            if folder is not None:
                self._write_db = connect(self._path, write=not read_only)
            self.snapshot = self._load(None)
            if not read_only:
                self.roll_back()
        except BaseException:
            self._closed = True
            self._db.close()
            self._write_db.close()
            raise

    # Reading

    def documents(self, snapshot: Snapshot, keys: Sequence[int] | IntArray) -> list[StoredDocument]:
        """The documents with these keys, which must be in ``snapshot``, in the order of the keys.

        Raises:
            StaleError: some were deleted since.
            CorruptIndexError: some are damaged.
        """
        with self.locks.state, self._using():
            return self._reader.documents(snapshot, keys)

    def documents_by_id(self, snapshot: Snapshot, ids: Sequence[str]) -> list[StoredDocument]:
        """The documents with these ids, in the order of the ids; unknown ids are skipped. Raises as ``documents``."""
        with self.locks.state, self._using():
            keys = self._reader.keys_of(snapshot, ids)
            return self._reader.documents(snapshot, [keys[id] for id in ids if id in keys])

    def keys_of(self, snapshot: Snapshot, ids: Sequence[str]) -> dict[str, int]:
        """Keys of those ids that are in ``snapshot``. Raises as ``documents`` does."""
        with self.locks.state, self._using():
            return self._reader.keys_of(snapshot, ids)

    def matching(self, snapshot: Snapshot, condition: Condition | None) -> IntArray:
        """Keys of the documents that a filter admits, ascending; all of them where there is none.

        Raises:
            StaleError: another process has committed something since.
            CorruptIndexError: the index over the fields is damaged.
        """
        if condition is None:
            return snapshot.keys
        with self.locks.state, self._using():
            answers = snapshot.answers
            if condition not in answers:
                answer = read_one_state(self._db, lambda: self._answer(snapshot, condition))
                if len(answers) >= _KEPT_ANSWERS:
                    del answers[next(iter(answers))]
                answers[condition] = answer
            return answers[condition]

    def token_rows(self, snapshot: Snapshot, keys: Sequence[int] | IntArray) -> tuple[Rows, IntArray]:
        """Token rows of documents, which must be in ``snapshot``, end to end, with their offsets (documents + 1,).

        The first read of a document's rows since opening compares them with their checksum.

        Raises:
            CorruptIndexError: some are damaged.
        """
        places = snapshot.places(keys)
        count = snapshot.rows.count[places]
        offsets = np.zeros(len(places) + 1, dtype=np.int64)
        np.cumsum(count, out=offsets[1:])
        rows = snapshot.tokens.read(snapshot.rows.first[places], count)
        unverified = np.flatnonzero(~snapshot.verified[places])
        if len(unverified):
            content = rows.view(np.uint8).data
            size = rows.dtype.itemsize
            for i in unverified.tolist():
                checksum = zlib.crc32(content[offsets[i] * size : offsets[i + 1] * size])
                if checksum != snapshot.rows.token_checksums[places[i]]:
                    raise CorruptIndexError(
                        f"the tokens of {self._name(snapshot.keys[places[i]])} are damaged: its text is safe, and so "
                        "are the other documents; run muvera_core.repair_index on the folder, or delete the document"
                    )
            snapshot.verified[places] = True
        return rows, offsets

    def embeddings(self, snapshot: Snapshot, keys: Sequence[int] | IntArray) -> TokenEmbeddings:
        """Token embeddings of documents, which must be in ``snapshot``, decoded to float32."""
        rows, offsets = self.token_rows(snapshot, keys)
        return TokenEmbeddings(self.codec.decode(rows), offsets)

    def mean_token(self) -> FloatArray:
        """Mean of all documents' token vectors, float32, shape (dimension,)."""
        snapshot, total = self.snapshot, np.zeros(self.codec.dimension)
        for start in range(0, len(snapshot), COPY_BATCH):
            embeddings = self.embeddings(snapshot, snapshot.keys[start : start + COPY_BATCH])
            total += embeddings.vectors.sum(axis=0, dtype=np.float64)
        return (total / max(1, snapshot.n_tokens)).astype(np.float32)

    def get_state(self, name: str) -> Any:
        """A named value that is committed with the documents, or None."""
        with self.locks.state, self._using():
            return read_one_state(self._db, lambda: read_state(self._db)).get(name)

    def load(self) -> Snapshot:
        """What is committed now; ``snapshot`` itself where that is it. Needs no lock."""
        with self._using():
            if read_version(self._write_db) == self.snapshot.version:
                return self.snapshot
            return self._load(self.snapshot)

    def frozen(self, read: Callable[[], _T]) -> _T:
        """What ``read`` gives while no other process can commit."""

        def with_lock() -> _T:
            read_version(self._db)  # takes the lock that BEGIN only promises
            return read()

        with self.locks.state, self._using():
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
        tokens = self.snapshot.tokens
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
        unseen = self.locks.state if self._folder is None else nullcontext()
        with self.locks.change, unseen, self._using(), Change(self._write_db, self._path, self.snapshot) as change:
            fill(change)
            change.prepare()
            with self.locks.state:
                self.snapshot = change.commit()
                then(change.removed)

    def roll_back(self) -> None:
        """Return to what is committed, after a write that failed or was interrupted."""
        with self.locks.state, self._using():
            if self._write_db.in_transaction:
                self._write_db.execute("ROLLBACK")
            state = read_state(self._db)
            if state.get("version") != self.snapshot.version:
                self.snapshot = self._load(self.snapshot)
            self.snapshot.tokens.reset(state["n_token_rows"])
            self._compacted = None
        self._remove_leftovers()

    @property
    def is_wasteful(self) -> bool:
        """Whether enough of the token file is deleted documents' to be worth rewriting it."""
        size, live = self.codec.row_dtype.itemsize, self.snapshot.n_tokens
        return (len(self.snapshot.tokens) - live) * size > max(_MIN_WASTE, live * size // 2)

    def size_on_disk(self) -> int:
        """Bytes of the documents and their tokens; 0 for a store in memory."""
        if self._folder is None or self._path is None:
            return 0
        with storage_errors(self._folder):
            tokens = tokens_path(self._folder, self.snapshot.tokens.generation)
            return self._path.stat().st_size + tokens.stat().st_size

    def compact(self) -> None:
        """Rewrite the token file without deleted documents' rows, and give free pages of the database back.

        Where it fails, ``roll_back`` must follow.

        Raises:
            CorruptIndexError: a document's tokens are damaged; nothing was changed.
            StorageError: no room for the copy; nothing was changed.
        """
        snapshot = self.snapshot
        if len(snapshot.tokens) > snapshot.n_tokens:
            generation = snapshot.tokens.generation + 1
            tokens = self._compacted = self._new_log(generation)
            for start in range(0, len(snapshot), COPY_BATCH):
                tokens.append(self.token_rows(snapshot, snapshot.keys[start : start + COPY_BATCH])[0])
            tokens.sync()
            self.apply(lambda change: change.move(tokens))
            self._compacted = None
            self._remove_leftovers()
        self._vacuum()

    def close(self) -> None:
        """Close the database. The token file is closed when the last search that reads it ends."""
        with self.locks.state:
            self._closed = True
            self._db.close()
            self._write_db.close()
            no_tokens = MemoryTokenLog(self.codec.row_dtype, 0)
            self.snapshot = Snapshot.of(self.snapshot.version, SnapshotRows.empty(), no_tokens)

    # Inner workings

    @contextmanager
    def _using(self) -> Iterator[None]:
        if self._closed:
            raise IndexClosedError(CLOSED)
        with storage_errors(self._path):
            yield

    def _load(self, earlier: Snapshot | None) -> Snapshot:
        """The committed state, checked. Token rows are checked when they are read."""
        db = self._write_db
        while True:
            with storage_errors(self._path):
                state, (rows, hashes) = read_one_state(db, lambda: (read_state(db), read_snapshot_rows(db)))
            _check_directory(rows, hashes, state)
            if earlier is not None and earlier.tokens.generation == state["generation"]:
                if not self._writable:
                    earlier.tokens.reset(state["n_token_rows"])
                return Snapshot.of(state["version"], rows, earlier.tokens).trusting(earlier)
            if self._compacted is not None and self._compacted.generation == state["generation"]:
                return Snapshot.of(state["version"], rows, self._compacted)
            try:
                tokens = self._open_log(state["generation"], state["n_token_rows"])
            except CorruptIndexError:
                with storage_errors(self._path):
                    if read_version(db) == state["version"]:
                        raise
                continue  # the writer has compacted the index meanwhile
            return Snapshot.of(state["version"], rows, tokens)

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
                if generation != self.snapshot.tokens.generation:
                    with suppress(OSError):  # Windows keeps files that are open; the next opening removes them
                        tokens_path(self._folder, generation).unlink()

    def _vacuum(self) -> None:
        with self._using():
            free, before = self._free_pages(), -1
            while free and free != before:
                with self.locks.change, self.locks.state:  # a few milliseconds at a time
                    self._write_db.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
                free, before = self._free_pages(), free

    def _free_pages(self) -> int:
        return int(self._write_db.execute("PRAGMA freelist_count").fetchone()[0])

    def _answer(self, snapshot: Snapshot, condition: Condition) -> IntArray:
        if read_version(self._db) != snapshot.version:
            raise StaleError
        answer = condition.keys(FieldIndex(self._db, snapshot.keys, self._verify_path))
        if not snapshot.has(answer).all():
            raise CorruptIndexError(
                f"the index over metadata fields in {self._path} names documents that aren't there: "
                "run muvera_core.repair_index on the folder"
            )
        return answer

    def _verify_path(self, path: str) -> None:
        if path not in self._verified_paths and verify_path(self._db, path):
            self._verified_paths.add(path)

    def _name(self, key: int) -> str:
        with suppress(MuveraError, *DATABASE_ERRORS), self.locks.state:
            for (id,) in select_by_key(self._db, "id", [int(key)]):
                return f"document {id!r}"
        return f"document number {key}"


def _check_directory(rows: SnapshotRows, hashes: IntArray, state: State) -> None:
    if not (_has_counters(state) and _fits(rows, hashes, state)):
        raise CorruptIndexError(
            "documents.sqlite is damaged (its snapshot doesn't fit its checksums): run muvera_core.repair_index on "
            "the folder, which keeps every document that is whole, or restore the file from a backup"
        )


def _has_counters(state: State) -> bool:
    limits = {"version": _MAX_KEY, "next_key": _MAX_KEY, "n_token_rows": _MAX_KEY, "generation": _MAX_GENERATION}
    return all(isinstance(state.get(name), int) and 0 <= state[name] <= limit for name, limit in limits.items())


def _fits(rows: SnapshotRows, hashes: IntArray, state: State) -> bool:
    """Whether the rows have their checksums and refer to what is there."""
    n_rows = state["n_token_rows"]
    return bool(
        (rows.hashes() == hashes).all()
        and signed_sum(hashes) == state.get("digest")
        and ((rows.keys > 0) & (rows.keys < state["next_key"])).all()
        and int(rows.count.sum()) <= n_rows  # no row belongs to two
        and ((rows.first >= 0) & (rows.count >= 1) & (rows.count <= n_rows) & (rows.first <= n_rows - rows.count)).all()
    )
