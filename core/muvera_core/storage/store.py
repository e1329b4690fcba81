"""The durable part of an index: documents in SQLite, token vectors in an append-only file.

SQLite's commit is the commit of the index. ``append_tokens`` writes token rows. ``Change.add`` syncs them to disk and
writes the documents that refer to them. ``Change.commit`` makes these documents visible, all at once. An interruption
before the commit leaves the old state.

The store has two connections, so that searches can read while a change is written. They wait only for the commit.
A third one, which the first lexical search opens, reads the word index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from muvera_core.errors import CLOSED, RUN_REPAIR, CorruptIndexError, IndexClosedError, MuveraError
from muvera_core.files import DATABASE_ERRORS, storage_errors
from muvera_core.filters import Condition
from muvera_core.lexical import LexicalConfig, LexicalQuery
from muvera_core.maxsim import RowSource, row_checksums, score_documents
from muvera_core.storage.aftermath import follow_up
from muvera_core.storage.change import COPY_BATCH, AppendedTokens, Change
from muvera_core.storage.committed import read_committed
from muvera_core.storage.database import (
    DATABASE_NAME,
    State,
    connect,
    create_database,
    read_one_state,
    read_state,
    read_version,
    select_by_key,
)
from muvera_core.storage.documents import DocumentReader, StoredDocument
from muvera_core.storage.filter_reader import FilterReader
from muvera_core.storage.locks import IndexLocks
from muvera_core.storage.manifest import noted_lexical, noted_precision
from muvera_core.storage.shared_connection import SharedConnection
from muvera_core.storage.snapshot import Snapshot, SnapshotRows
from muvera_core.storage.token_codec import Rows, TokenCodec
from muvera_core.storage.token_log import FileTokenLog, MemoryTokenLog, TokenLog, token_generations, tokens_path
from muvera_core.storage.word_reader import WordReader, WordStatistics, top
from muvera_core.storage.words import merge_words
from muvera_core.threads import kernel_calls
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

# The token file is rewritten when deleted tokens take more bytes than this, and than half of what the others take.
_MIN_WASTE = 1 << 20
# Free pages of the database to release at a time: searches wait meanwhile.
_VACUUM_PAGES = 100
# Documents whose rows are rewritten in another format at a time.
_RECODED_TOGETHER = 256
_T = TypeVar("_T")


class Store:
    """Documents, metadata and token rows.

    Any number of threads may read. Only one thread may write: the caller holds ``IndexLocks.writing``. The store takes
    the other two locks itself.

    Attributes:
        locks: the locks of the index.
        snapshot: the state that the next search sees. It is replaced only while ``locks.state`` is held.
    """

    _connections: tuple[sqlite3.Connection, ...] = ()  # so that ``__del__`` works if ``__init__`` fails

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
        """Open the store in ``folder``, or make one in memory if it is None.

        Args:
            folder: the folder with the files.
            codec: the format of token rows, unless the database notes another one.
            locks: locks of the index. None makes new ones.
            read_only: allow no changes.
            create: make a new store, with these named values.
            generation: generation of a new store's token file.

        Raises:
            CorruptIndexError: files are missing or damaged.
            StorageError: files cannot be read or written.
        """
        self._given_codec, self.locks, self._folder = codec, locks or IndexLocks(), folder
        self._path = None if folder is None else folder / DATABASE_NAME
        self._writable = not read_only
        self._closed = False
        self._rewritten: TokenLog | None = None
        new = create is not None or folder is None
        self._db = connect(self._path, write=new, create=new)
        self._connections = (self._db,)
        self._shared = SharedConnection(self._db, self._path, self.locks.state)
        self._reader, self._filters = DocumentReader(self._shared), FilterReader(self._shared)
        self._words = WordReader(self._path, self._shared, self.locks.words)
        # A second connection, for changes and for loading new states, so that searches need not wait for these.
        self._write_db = self._db
        try:
            with storage_errors(self._path):
                if new:
                    first = {"version": 0, "next_key": 1, "n_token_rows": 0, "generation": generation, "digest": 0}
                    create_database(self._db, first | (create or {}))
            if folder is not None:
                self._write_db = connect(self._path, write=not read_only)
                self._connections = (self._db, self._write_db)
            self.snapshot = self._load(None)
            if not read_only:
                self.roll_back()
        except BaseException:
            self._closed = True
            self._db.close()
            self._write_db.close()
            raise

    # Reading

    @property
    def codec(self) -> TokenCodec:
        """The format of the present snapshot's token rows. A search takes that of its own snapshot."""
        return self.snapshot.tokens.codec

    def documents(self, snapshot: Snapshot, keys: Sequence[int] | IntArray) -> list[StoredDocument]:
        """The documents with these keys, which must be in ``snapshot``, in the order of the keys.

        Raises:
            StaleError: a document was deleted after this snapshot.
            CorruptIndexError: a document is damaged.
        """
        with self._using():
            return self._reader.documents(snapshot, keys)

    def documents_by_id(self, snapshot: Snapshot, ids: Sequence[str]) -> list[StoredDocument]:
        """The documents with these ids, in the order of the ids. Unknown ids are skipped. Raises like ``documents``."""
        with self._using():
            keys = self._reader.keys_of(snapshot, ids)
            return self._reader.documents(snapshot, [keys[id] for id in ids if id in keys])

    def keys_of(self, snapshot: Snapshot, ids: Sequence[str]) -> dict[str, int]:
        """The key of each id that is in ``snapshot``, by id. Raises the same errors as ``documents``."""
        with self._using():
            return self._reader.keys_of(snapshot, ids)

    def matching(self, snapshot: Snapshot, condition: Condition | None, ids: Sequence[str] | None = None) -> IntArray:
        """Keys of the documents that match a filter and have one of the ids, ascending, int64.

        Args:
            snapshot: the documents.
            condition: the filter. None admits every document.
            ids: the ids. Unknown ones are ignored. None admits every id.

        Raises:
            StaleError: something was committed after this snapshot.
            CorruptIndexError: the index over the fields is damaged.
        """
        named = None if ids is None else np.array(sorted(self.keys_of(snapshot, ids).values()), dtype=np.int64)
        if condition is None:
            return snapshot.keys if named is None else named
        with self._using():
            matches = self._filters.matching(snapshot, condition)
        return matches if named is None else np.intersect1d(named, matches, assume_unique=True)

    def lexical_search(
        self,
        snapshot: Snapshot,
        query: LexicalQuery,
        n: int,
        admitted: IntArray | None = None,
        whole: WordStatistics | None = None,
        *,
        of_common: bool | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """The ``n`` documents with the highest BM25, best first, ties by rising key.

        BM25 is that of SQLite's FTS5 (k1 = 1.2, b = 0.75) with Lucene's idf, and with ``snapshot.lexical.field_weight``
        for words in metadata fields. In an index of 1,000 documents or more, terms that more than half of them have
        count only if fewer than ``n`` documents are found without them.

        Args:
            snapshot: the documents.
            query: made by ``parse_query`` with ``snapshot.lexical``.
            n: the number of documents to return at most. Those in which nothing matches are never returned.
            admitted: keys of the only documents that may be returned, ascending. None admits all.
            whole: statistics of the collection that these documents are a part of. None if they are all.
            of_common: whether terms count that more than half of the documents have. None decides it as said above.

        Returns:
            Keys, int64, and BM25, float32, above 0.

        Raises:
            StaleError: something was committed after this snapshot.
            CorruptIndexError: the word index is damaged.
        """
        with self._using():
            found = top(snapshot, self._words.scores(snapshot, query, whole, of_common=bool(of_common)), n, admitted)
            if of_common is None and len(found[0]) < n:
                found = top(snapshot, self._words.scores(snapshot, query, whole, of_common=True), n, admitted)
            return found

    def lexical_scores(
        self, snapshot: Snapshot, query: LexicalQuery, keys: IntArray, whole: WordStatistics | None = None
    ) -> FloatArray:
        """BM25 of documents, float32, shape (keys,); 0 where nothing matches. See ``lexical_search``."""
        with self._using():
            return self._words.scores(snapshot, query, whole)[snapshot.places(keys)].astype(np.float32)

    def word_statistics(self, snapshot: Snapshot, query: LexicalQuery) -> WordStatistics:
        """What BM25 knows of the documents and of a query's terms. Raises like ``lexical_search``."""
        with self._using():
            return self._words.statistics(snapshot, query)

    def token_rows(self, snapshot: Snapshot, keys: Sequence[int] | IntArray) -> tuple[Rows, IntArray]:
        """Token rows of documents in ``snapshot``, end to end, and their offsets, int64, shape (documents + 1,).

        The first read of a document's rows since opening compares them with their checksum.

        Raises:
            CorruptIndexError: a document's rows are damaged.
        """
        places = snapshot.places(keys)
        count = snapshot.rows.count[places]
        offsets = np.zeros(len(places) + 1, dtype=np.int64)
        np.cumsum(count, out=offsets[1:])
        rows = snapshot.tokens.read(snapshot.rows.first[places], count)
        self._verify(snapshot, places, rows.view(np.uint8), offsets[:-1])
        return rows, offsets

    def score(
        self,
        snapshot: Snapshot,
        keys: IntArray,
        queries: Sequence[FloatArray],
        *,
        coarse: bool = False,
    ) -> FloatArray:
        """Exact MaxSim of queries with documents in ``snapshot``, from the bytes of their token rows.

        The first read of a document's rows since opening compares them with their checksum.

        Args:
            snapshot: the documents.
            keys: which of them.
            queries: float32, shape (query tokens, dimension) each, in the space of the snapshot's codec.
            coarse: read the leading bits of sliced rows only. The scores are then approximate.

        Returns:
            float32, shape (queries, keys).

        Raises:
            CorruptIndexError: a document's rows are damaged or missing.
            StorageError: the file cannot be read.
        """
        places = snapshot.places(keys)
        first, count = snapshot.rows.first[places], snapshot.rows.count[places]
        with snapshot.tokens.source() as source:
            self._verify(snapshot, places, source, first)
            layout, share = snapshot.tokens.codec.layout, kernel_calls.share()
            return score_documents(source, first, count, layout, queries, share.n_threads, coarse=coarse)

    def embeddings(self, snapshot: Snapshot, keys: Sequence[int] | IntArray) -> TokenEmbeddings:
        """Token embeddings of documents, which must be in ``snapshot``, decoded to float32."""
        rows, offsets = self.token_rows(snapshot, keys)
        return TokenEmbeddings(snapshot.tokens.codec.decode(rows, offsets), offsets)

    def mean_token(self) -> FloatArray:
        """Mean of all documents' token vectors, float32, shape (dimension,)."""
        snapshot, total = self.snapshot, np.zeros(self.codec.dimension)
        for start in range(0, len(snapshot), COPY_BATCH):
            embeddings = self.embeddings(snapshot, snapshot.keys[start : start + COPY_BATCH])
            total += embeddings.vectors.sum(axis=0, dtype=np.float64)
        return (total / max(1, snapshot.n_tokens)).astype(np.float32)

    def get_state(self, name: str) -> Any:
        """A named value that is committed with the documents, or None."""
        return self.get_states().get(name)

    def get_states(self) -> State:
        """All named values of one commit."""
        with self.locks.state, self._using():
            return read_one_state(self._db, lambda: read_state(self._db))

    def load(self) -> Snapshot:
        """The latest committed state: ``snapshot`` itself if nothing was committed after it. Needs no lock."""
        with self._using():
            if read_version(self._write_db) == self.snapshot.version:
                return self.snapshot
            return self._load(self.snapshot)

    def is_current(self) -> bool:
        """Whether nothing was committed after ``snapshot``. The caller holds ``IndexLocks.writing``."""
        with self._using():
            return read_version(self._write_db) == self.snapshot.version

    def read_exclusively(self, read: Callable[[], _T]) -> _T:
        """What ``read`` returns. Nothing can be committed meanwhile, but other threads can read.

        The caller holds ``IndexLocks.writing`` if the store is read-only: then other processes are kept from commits.
        """
        if self._writable:  # no other process can commit
            with self.locks.change:
                return read()
        try:
            with self.locks.state, self._using():
                self._db.execute("BEGIN")
                read_version(self._db)  # the first read takes the lock; BEGIN alone does not
            return read()
        finally:
            with self.locks.state:
                if not self._closed and self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    # Writing

    def append_tokens(self, embeddings: TokenEmbeddings) -> tuple[AppendedTokens, TokenEmbeddings]:
        """Write token rows that no document refers to yet. A ``Change`` or ``roll_back`` must follow.

        Returns:
            The places of the rows, and the token embeddings as they will be read from there. Their ``on_gpu`` is kept
            if a GPU can round the vectors as the rows do.
        """
        offsets, rounding = embeddings.offsets, self.codec.rounding
        rows = self.codec.encode(embeddings.vectors, offsets)
        stored = TokenEmbeddings(self.codec.decode(rows, offsets), offsets)
        if embeddings.on_gpu is not None and rounding is not None:
            stored = stored.with_gpu(embeddings.on_gpu.rounded(rounding))
        return self.append_rows(rows, offsets), stored

    def append_rows(self, rows: Rows, offsets: IntArray) -> AppendedTokens:
        """Like ``append_tokens``, for encoded rows. Document ``i`` owns ``rows[offsets[i]:offsets[i + 1]]``."""
        tokens = self.snapshot.tokens
        first = len(tokens) + offsets[:-1]
        tokens.append(rows)
        return AppendedTokens(first, np.diff(offsets), _checksums_of(rows, offsets))

    def apply(self, fill: Callable[[Change], None], then: Callable[[IntArray], None] = lambda removed: None) -> None:
        """Make a change in one transaction.

        Args:
            fill: called with the change, to fill it.
            then: called with the removed keys when the change becomes visible, while searches wait.
        """
        # A store in memory has one connection, through which readers would see uncommitted changes.
        without_readers = self.locks.state if self._folder is None else nullcontext()
        with (
            self.locks.change,
            without_readers,
            self._using(),
            Change(self._write_db, self._path, self.snapshot) as change,
        ):
            fill(change)
            change.prepare()
            with self.locks.state:
                self.snapshot = change.commit()
                then(change.removed)

    def roll_back(self) -> None:
        """Return to the committed state after a write that failed or was interrupted."""
        with self.locks.state, self._using():
            if self._write_db.in_transaction:
                self._write_db.execute("ROLLBACK")
            state = read_state(self._db)
            if state.get("version") != self.snapshot.version:
                self.snapshot = self._load(self.snapshot)
            self.snapshot.tokens.reset(state["n_token_rows"])
            self._rewritten = None
        self._remove_leftovers()

    @property
    def is_wasteful(self) -> bool:
        """Whether deleted documents take so much of the token file that ``compact`` is worthwhile."""
        size, live = self.codec.row_dtype.itemsize, self.snapshot.n_tokens
        return (len(self.snapshot.tokens) - live) * size > max(_MIN_WASTE, live * size // 2)

    def size_on_disk(self) -> int:
        """Bytes of the database and the token file; 0 for a store in memory."""
        if self._folder is None or self._path is None:
            return 0
        with storage_errors(self._folder):
            tokens = tokens_path(self._folder, self.snapshot.tokens.generation)
            return self._path.stat().st_size + tokens.stat().st_size

    def compact(self) -> None:
        """Rewrite the token file without deleted documents' rows, and release free pages of the database.

        If it fails, ``roll_back`` must follow.

        Raises:
            CorruptIndexError: a document's tokens are damaged. Nothing was changed.
            StorageError: there is no room for the copy. Nothing was changed.
        """
        snapshot = self.snapshot
        if len(snapshot.tokens) > snapshot.n_tokens:
            tokens = self._rewritten = self._new_log(self.codec)
            for start in range(0, len(snapshot), COPY_BATCH):
                tokens.append(self.token_rows(snapshot, snapshot.keys[start : start + COPY_BATCH])[0])
            self._move(tokens, snapshot.rows.token_checksums)
        follow_up(self._merge_words, f"the word index of {self._path} could not be compacted")
        follow_up(self._vacuum, f"free pages of {self._path} could not be given back")

    def recode(self, codec: TokenCodec, manifest: str) -> None:
        """Rewrite the token file with rows of another format. If it fails, ``roll_back`` must follow.

        Args:
            codec: the new format.
            manifest: the index's manifest with this format, as text, to commit with it.

        Raises:
            CorruptIndexError: a document's tokens are damaged. Nothing was changed.
            InvalidInputError: the new format cannot hold a vector. Nothing was changed.
            StorageError: there is no room for the copy. Nothing was changed.
        """
        snapshot = self.snapshot
        tokens = self._rewritten = self._new_log(codec)
        checksums = [np.empty(0, dtype=np.int64)]
        for start in range(0, len(snapshot), _RECODED_TOGETHER):
            embeddings = self.embeddings(snapshot, snapshot.keys[start : start + _RECODED_TOGETHER])
            rows = codec.encode(embeddings.vectors, embeddings.offsets)
            checksums.append(_checksums_of(rows, embeddings.offsets))
            tokens.append(rows)
        self._move(tokens, np.concatenate(checksums), lambda change: change.put_state("manifest", manifest))

    def index_words(self, lexical: LexicalConfig | None, manifest: str) -> None:
        """Make the word index anew, by other settings. If it fails, ``roll_back`` must follow.

        Args:
            lexical: the new settings. None for no word index.
            manifest: the index's manifest with these settings, as text, to commit with it.
        """

        def fill(change: Change) -> None:
            change.index_words(lexical)
            change.put_state("manifest", manifest)

        self.apply(fill)

    def _move(
        self, tokens: TokenLog, checksums: IntArray, also: Callable[[Change], None] = lambda change: None
    ) -> None:
        """Commit that the documents' rows are in another log, with what else ``also`` changes."""

        def fill(change: Change) -> None:
            change.move(tokens, checksums)
            also(change)

        tokens.sync()
        self.apply(fill)
        self._rewritten = None
        follow_up(self._remove_leftovers, f"earlier token files of {self._folder} could not be removed")

    def close(self) -> None:
        """Close the database. The token file is closed when the last search that reads it ends."""
        with self.locks.state:
            self._closed = True
            self._shared.close()
            self._write_db.close()
            self._words.close()
            no_tokens = MemoryTokenLog(self.codec, 0)
            self.snapshot = Snapshot.of(self.snapshot.version, SnapshotRows.empty(), no_tokens)

    def __del__(self) -> None:
        # Python closes a forgotten connection only when the garbage collector runs, and warns since 3.13. In a forked
        # child ``ForkGuard`` keeps the store alive.
        for db in self._connections:
            db.close()
        if self._connections:
            self._words.close_forgotten()

    # Private methods

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Raise IndexClosedError if the store is closed. Turn errors of the system and of SQLite into MuveraErrors."""
        if self._closed:
            raise IndexClosedError(CLOSED)
        with storage_errors(self._path):
            yield

    def _load(self, earlier: Snapshot | None) -> Snapshot:
        """The committed state, checked. Token rows are checked when they are read."""
        db = self._write_db
        while True:
            with storage_errors(self._path):
                state, rows = read_committed(db)
            lexical = noted_lexical(state.get("manifest"))
            if earlier is not None and earlier.tokens.generation == state["generation"]:
                if not self._writable:
                    earlier.tokens.reset(state["n_token_rows"])
                return Snapshot.of(state["version"], rows, earlier.tokens, lexical).with_verified_of(earlier)
            if self._rewritten is not None and self._rewritten.generation == state["generation"]:
                return Snapshot.of(state["version"], rows, self._rewritten, lexical)
            try:
                precision = noted_precision(state.get("manifest"), self._given_codec.precision)
                codec = TokenCodec(precision, self._given_codec.dimension)
                tokens = self._open_log(codec, state["generation"], state["n_token_rows"])
            except CorruptIndexError:
                with storage_errors(self._path):
                    if read_version(db) == state["version"]:
                        raise
                continue  # the writer has compacted the index meanwhile
            return Snapshot.of(state["version"], rows, tokens, lexical)

    def _open_log(self, codec: TokenCodec, generation: int, n_rows: int) -> TokenLog:
        if self._folder is None:
            return MemoryTokenLog(codec, generation)
        path = tokens_path(self._folder, generation)
        return FileTokenLog(path, codec, n_rows, writable=self._writable, generation=generation)

    def _new_log(self, codec: TokenCodec) -> TokenLog:
        generation = self.snapshot.tokens.generation + 1
        if self._folder is not None:
            with storage_errors(self._folder):
                tokens_path(self._folder, generation).unlink(missing_ok=True)
        return self._open_log(codec, generation, 0)

    def _remove_leftovers(self) -> None:
        """Remove the token files of earlier generations, which compactions leave, also interrupted ones."""
        if self._folder is None:
            return
        with storage_errors(self._folder):
            for generation in token_generations(self._folder):
                if generation != self.snapshot.tokens.generation:
                    with suppress(OSError):  # Windows cannot remove open files; the next opening does
                        tokens_path(self._folder, generation).unlink()

    def _merge_words(self) -> None:
        """Rewrite the word index without the words of deleted documents, some at a time."""
        if self.snapshot.lexical is None:
            return
        with self._using():
            is_first, is_done = True, False
            while not is_done:
                with self.locks.change, self.locks.state:  # for some milliseconds
                    is_done = not merge_words(self._write_db, is_first=is_first)
                is_first = False

    def _vacuum(self) -> None:
        with self._using():
            free, before = self._free_pages(), -1
            while free and free != before:
                with self.locks.change, self.locks.state:  # for a few milliseconds
                    self._write_db.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
                free, before = self._free_pages(), free

    def _free_pages(self) -> int:
        return int(self._write_db.execute("PRAGMA freelist_count").fetchone()[0])

    def _verify(self, snapshot: Snapshot, places: IntArray, source: RowSource, first: IntArray) -> None:
        """Compare rows with their checksums, those of the documents for which nobody has done it since opening.

        Args:
            snapshot: the documents.
            places: their positions among the snapshot's rows, int64.
            source: holds their token rows.
            first: number of each document's first row there, int64.
        """
        unverified = np.flatnonzero(~snapshot.verified[places])
        if not len(unverified):
            return
        count, expected = (
            column[places[unverified]] for column in (snapshot.rows.count, snapshot.rows.token_checksums)
        )
        found = row_checksums(source, first[unverified], count, snapshot.tokens.codec.row_dtype.itemsize)
        for i in unverified[found != expected].tolist():
            raise CorruptIndexError(
                f"the tokens of {self._describe(snapshot.keys[places[i]])} are damaged, but its text and the "
                f"other documents are safe: {RUN_REPAIR}, or delete the document"
            )
        snapshot.verified[places] = True

    def _describe(self, key: int) -> str:
        with suppress(MuveraError, *DATABASE_ERRORS), self.locks.state:
            for (id,) in select_by_key(self._db, "id", [int(key)]):
                return f"document {id!r}"
        return f"document number {key}"


def _checksums_of(rows: Rows, offsets: IntArray) -> IntArray:
    """CRC-32 of each document's rows, int64."""
    found = row_checksums(rows.view(np.uint8), offsets[:-1], np.diff(offsets), rows.dtype.itemsize)
    return found.astype(np.int64)
