"""The SQLite database of an index: its schema, how it is opened, and the table of named values.

SQLite's rollback journal makes each commit all or nothing, and ``synchronous = EXTRA`` makes it survive a power cut,
including the removal of the journal. A folder may come from an untrusted source. So the database must have exactly the
tables of an index (no triggers or views that would run with our statements), and no journal that names other files.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from muvera_core.errors import REPAIR_ADVICE, CorruptIndexError, UnsupportedFormatError
from muvera_core.files import DATABASE_ERRORS, is_plain_file, open_plain, storage_errors
from muvera_core.filters import FIELDS_SCHEMA, moment
from muvera_core.storage.snapshot import SnapshotRows
from muvera_core.storage.words import WORDS_SCHEMA, has_fts5
from muvera_core.token_embeddings import IntArray

DATABASE_NAME = "documents.sqlite"
SCHEMA_VERSION = 4
# How long to wait for another process to finish its commit or its reads, in seconds.
_BUSY_TIMEOUT = 60.0
PAGE_SIZE = 4096
# Older versions of SQLite allow 999 bound parameters.
_SQL_BATCH = 900
_INCREMENTAL = 2  # the value of PRAGMA auto_vacuum
# Longest named value, in bytes. A mean token of 2**16 dimensions takes a quarter of that.
_STATE_LIMIT = 1 << 20
_SUPER_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")

_SCHEMA = (
    """
CREATE TABLE documents (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    text TEXT,
    metadata TEXT NOT NULL,
    image TEXT,                     -- see ``ImageRecord``
    checksum INTEGER NOT NULL       -- of this row
);
CREATE TABLE directory (
    key INTEGER PRIMARY KEY,
    id_hash INTEGER NOT NULL,
    first_token INTEGER NOT NULL,
    n_tokens INTEGER NOT NULL,
    token_checksum INTEGER NOT NULL,
    hash INTEGER NOT NULL           -- of this row; state has the sum of all
);
CREATE TABLE state (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
"""
    + FIELDS_SCHEMA
)

State = dict[str, Any]
_T = TypeVar("_T")


def create_database(db: sqlite3.Connection, state: State, *, with_words: bool | None = None) -> None:
    """Create the tables in an empty database and set the named values, in one transaction.

    Args:
        db: a connection to the database.
        state: the named values.
        with_words: whether to create the table of words. None does if Python's SQLite can.
    """
    words = WORDS_SCHEMA if (has_fts5() if with_words is None else with_words) else ""
    db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.executescript(f"BEGIN; {_SCHEMA} {words} PRAGMA user_version = {SCHEMA_VERSION};")
    write_state(db, state)
    db.execute("COMMIT")


def connect(path: Path | None, *, write: bool, create: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode, to a database in memory if ``path`` is None.

    If the file may be written, SQLite may write to it even through a connection for reading: before anything can be
    read, it has to undo a commit that a crashed writer left unfinished.

    Raises:
        CorruptIndexError: the file is missing, damaged, or not a database of an index.
        UnsupportedFormatError: the database has a word index, and Python's SQLite lacks FTS5.
    """
    if path is None:
        return connect_to_any(None)
    with storage_errors(path):
        if not create:
            check_files(path)
        may_write = write or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
        mode = "rwc" if create else "rw" if may_write else "ro"
        db = connect_to_any(path, mode)
        try:
            if not create:
                _check_schema(db, path)
            if not write:
                db.execute("PRAGMA query_only = ON")
        except BaseException:
            db.close()
            raise
    return db


def connect_to_any(path: Path | None, mode: str = "rw") -> sqlite3.Connection:
    """A connection like that of ``connect``, without checks of the database. Raises what SQLite raises."""
    uri = "file::memory:" if path is None else f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        for setting in (
            "synchronous = EXTRA",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "temp_store = MEMORY",
            # Otherwise SQLite writes a large change to the file before its commit, which locks out all readers.
            "cache_spill = OFF",
        ):
            db.execute(f"PRAGMA {setting}")
        db.create_function("casefold", 1, str.casefold, deterministic=True)
        db.create_function("moment", 1, moment, deterministic=True)
    except BaseException:
        db.close()
        raise
    return db


def read_one_state(db: sqlite3.Connection, read: Callable[[], _T]) -> _T:
    """What ``read`` returns for one state of the database, even if others commit meanwhile.

    This is not a context manager: an interruption between its generator and its block would leave the transaction open,
    which keeps writers out.
    """
    nested = db.in_transaction
    try:
        if not nested:
            db.execute("BEGIN")
        return read()
    finally:
        if not nested and db.in_transaction:
            db.execute("ROLLBACK")


def write_state(db: sqlite3.Connection, changes: State) -> None:
    """Set named values. The caller has begun a transaction."""
    db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", changes.items())
    db.execute("INSERT OR REPLACE INTO state VALUES ('checksum', ?)", (_state_checksum(db),))


def read_state(db: sqlite3.Connection) -> State:
    """All named values. Raises CorruptIndexError if they are damaged."""
    state = dict(db.execute("SELECT name, value FROM state").fetchall())
    if state.pop("checksum", None) != _state_checksum(db):
        raise CorruptIndexError(
            f"{DATABASE_NAME} is damaged (the table 'state' does not match its checksum): {REPAIR_ADVICE}"
        )
    return state


def read_version(db: sqlite3.Connection) -> int:
    """The number of the latest commit; -1 if it is damaged."""
    found = db.execute("SELECT value FROM state WHERE name = 'version'").fetchall()
    return found[0][0] if found and isinstance(found[0][0], int) else -1


def read_snapshot_rows(db: sqlite3.Connection, after: int = -1, limit: int = -1) -> tuple[SnapshotRows, IntArray]:
    """Rows of the table ``directory`` by ascending key, and the hash that is stored with each row.

    Args:
        db: the database.
        after: the key below those that are read.
        limit: the largest number of rows. All if it is negative.
    """
    sql = (
        "SELECT key, id_hash, first_token, n_tokens, token_checksum, hash FROM directory WHERE key > ? "
        "ORDER BY key LIMIT ?"
    )
    found = db.execute(sql, (after, limit)).fetchall()
    try:
        columns = np.array(found, dtype=np.int64).reshape(-1, 6).T.copy()
    except (TypeError, ValueError, OverflowError) as error:
        raise CorruptIndexError(
            f"{DATABASE_NAME} is damaged (the table 'directory' has values that are not integers: {error}): "
            f"{REPAIR_ADVICE}"
        ) from None
    return SnapshotRows(*columns[:5]), columns[5]


def insert_snapshot_rows(db: sqlite3.Connection, rows: SnapshotRows) -> None:
    """Add documents to the table ``directory``, replacing rows of the same keys."""
    columns = [column.tolist() for column in (*rows.columns, rows.hashes())]
    db.executemany("INSERT OR REPLACE INTO directory VALUES (?, ?, ?, ?, ?, ?)", zip(*columns, strict=True))


def select_by_key(db: sqlite3.Connection, columns: str, keys: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Rows of the table ``documents`` with these keys, in any order. Unknown keys are skipped."""
    for start in range(0, len(keys), _SQL_BATCH):
        batch = keys[start : start + _SQL_BATCH]
        placeholders = ",".join("?" * len(batch))
        # All at once: a statement that is not read to its end keeps the writer out.
        yield from db.execute(f"SELECT {columns} FROM documents WHERE key IN ({placeholders})", batch).fetchall()


def schema_version(path: Path) -> int:
    """The version of a database's schema. Raises the same errors as ``connect``."""
    check_files(path)
    with storage_errors(path):
        db = connect_to_any(path)
        try:
            return int(db.execute("PRAGMA user_version").fetchone()[0])
        finally:
            db.close()


def undo_interrupted_commit(path: Path) -> None:
    """Let SQLite undo a commit that a crashed writer left unfinished, if the database can be read at all.

    Raises:
        CorruptIndexError: the journal names another journal, or the database or its journal is not a plain file.
    """
    if is_plain_file(path):
        check_files(path)
        with suppress(*DATABASE_ERRORS), closing(connect_to_any(path)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchall()


def empty_database() -> bytes:
    """The file of a database without documents. Its tables begin on the same pages as in every index."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DATABASE_NAME
        db = connect(path, write=True, create=True)
        create_database(db, {})
        db.close()
        return path.read_bytes()


def _state_checksum(db: sqlite3.Connection) -> int:
    (size,) = db.execute("SELECT coalesce(max(length(CAST(value AS BLOB))), 0) FROM state").fetchone()
    if size > _STATE_LIMIT:
        return -1  # no CRC-32 is negative
    rows = db.execute("SELECT name, value FROM state WHERE name != 'checksum' ORDER BY name").fetchall()
    return zlib.crc32(repr(rows).encode())


def check_files(path: Path) -> None:
    """Check that the database and its journal are plain files, and that SQLite's other files do not exist.

    The database itself is not opened: closing a file releases all locks that this process has on it, including those of
    another index object.

    Raises:
        CorruptIndexError: the database is missing, or one of the files is not allowed in an index.
    """
    if not is_plain_file(path):
        raise CorruptIndexError(f"{path} is missing: restore it from a backup")
    for suffix in ("-wal", "-shm"):
        if os.path.lexists(f"{path}{suffix}"):
            raise CorruptIndexError(f"{path}{suffix} does not belong to an index, and SQLite would use it: remove it")
    check_journal(path)


def check_journal(path: Path) -> None:
    """Refuse a journal that names another one, a super-journal: SQLite would read that file, and may delete it.

    A writer in another process removes its journal at every commit, so it may vanish at any moment.

    Raises:
        CorruptIndexError: the journal names another one, or is not a plain file.
    """
    journal = path.with_name(path.name + "-journal")
    with storage_errors(journal):
        try:
            descriptor = open_plain(journal, os.O_RDONLY)
        except FileNotFoundError:
            return
        with os.fdopen(descriptor, "rb") as file:
            file.seek(max(0, os.fstat(descriptor).st_size - len(_SUPER_JOURNAL_MAGIC)))
            if file.read() == _SUPER_JOURNAL_MAGIC:
                raise CorruptIndexError(
                    f"{journal} names another journal, which an index's journal never does: do not use this folder"
                )


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    expected = {"user_version": SCHEMA_VERSION, "journal_mode": "delete", "auto_vacuum": _INCREMENTAL}
    found = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in expected}
    if found == expected and not has_fts5() and has_words(db):
        raise UnsupportedFormatError(
            f"{path} has a word index, which needs SQLite with FTS5, and this Python's SQLite lacks it: use another "
            "build of Python"
        )
    if found != expected or not has_index_schema(db):
        raise CorruptIndexError(f"{path} does not have the tables of an index: {REPAIR_ADVICE}")


def has_index_schema(db: sqlite3.Connection) -> bool:
    """Whether the schema is exactly that of an index, with the table of words or without. Raises what SQLite raises."""
    found = _objects(db)
    with_words = has_words(db)
    return (has_fts5() or not with_words) and found == _expected_objects(with_words=with_words)


def has_words(db: sqlite3.Connection) -> bool:
    """Whether there is a table of words. Raises what SQLite raises."""
    return bool(db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'words'").fetchone()[0])


def _objects(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


@cache
def _expected_objects(*, with_words: bool) -> list[tuple[Any, ...]]:
    db = connect(None, write=True)
    try:
        create_database(db, {}, with_words=with_words)
        return _objects(db)
    finally:
        db.close()
