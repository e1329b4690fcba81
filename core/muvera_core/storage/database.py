"""The SQLite database of an index: its schema, how it is opened, and the small table of named values.

SQLite's rollback journal makes each commit all or nothing, and ``synchronous = EXTRA`` makes it survive a power cut,
the removal of the journal included. A database is opened warily, since a folder may come from anywhere: it must have
exactly our tables (no triggers or views that would run with our statements) and no journal that names other files.
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

from muvera_core.errors import CorruptIndexError
from muvera_core.files import DATABASE_ERRORS, is_plain_file, open_plain, storage_errors
from muvera_core.filters import FIELDS_SCHEMA
from muvera_core.storage.snapshot import SnapshotRows
from muvera_core.token_embeddings import IntArray

DATABASE_NAME = "documents.sqlite"
SCHEMA_VERSION = 2
# How long to wait for another process's commit, or its reads to end, in seconds.
_PATIENCE = 60.0
PAGE_SIZE = 4096
# SQLite's limit on bound parameters was 999 for a long time.
_SQL_BATCH = 900
_FETCH_BATCH = 65_536
_INCREMENTAL = 2
# A mean token of 2**16 dimensions takes a quarter of it.
_STATE_LIMIT = 1 << 20
_SUPER_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")

_SCHEMA = (
    """
CREATE TABLE documents (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    text TEXT,
    metadata TEXT NOT NULL,
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


def create_database(db: sqlite3.Connection, state: State) -> None:
    """Make the tables in an empty database, with the named values, in one transaction."""
    db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION};")
    write_state(db, state)
    db.execute("COMMIT")


def connect(path: Path | None, *, write: bool, create: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode; to a database in memory where ``path`` is None.

    A connection for reading may still write where it is allowed to, namely to undo what a writer that died left half
    done, without which nothing can be read.

    Raises:
        CorruptIndexError: the file is missing, damaged, or not a database of an index.
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
    """A connection as ``connect`` gives, whatever is in the database. Raises what SQLite raises."""
    uri = "file::memory:" if path is None else f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        for setting in (
            "synchronous = EXTRA",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "temp_store = MEMORY",
            # Else a large change is written to the file before its commit, which locks out every reader.
            "cache_spill = OFF",
        ):
            db.execute(f"PRAGMA {setting}")
        db.create_function("casefold", 1, str.casefold, deterministic=True)
    except BaseException:
        db.close()
        raise
    return db


def read_one_state(db: sqlite3.Connection, read: Callable[[], _T]) -> _T:
    """What ``read`` gives for one state of the database, whoever else commits meanwhile.

    Not a context manager: an interruption between its generator and its block would leave the transaction open, which
    keeps writers out.
    """
    within = db.in_transaction
    try:
        if not within:
            db.execute("BEGIN")
        return read()
    finally:
        if not within and db.in_transaction:
            db.execute("ROLLBACK")


def write_state(db: sqlite3.Connection, changes: State) -> None:
    """Set named values, within a transaction."""
    db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", changes.items())
    db.execute("INSERT OR REPLACE INTO state VALUES ('checksum', ?)", (_state_checksum(db),))


def read_state(db: sqlite3.Connection) -> State:
    """All named values. Raises CorruptIndexError where they are damaged."""
    state = dict(db.execute("SELECT name, value FROM state").fetchall())
    if state.pop("checksum", None) != _state_checksum(db):
        raise CorruptIndexError(
            "documents.sqlite is damaged (its table 'state' doesn't fit its checksum): "
            "run muvera_core.repair_index on the folder, or restore the file from a backup"
        )
    return state


def read_version(db: sqlite3.Connection) -> int:
    """The number of the latest commit."""
    found = db.execute("SELECT value FROM state WHERE name = 'version'").fetchall()
    return found[0][0] if found and isinstance(found[0][0], int) else -1


def read_snapshot_rows(db: sqlite3.Connection) -> tuple[SnapshotRows, IntArray]:
    """The directory of all documents by ascending key, and the hash that is noted for each row."""
    sql = "SELECT key, id_hash, first_token, n_tokens, token_checksum, hash FROM directory ORDER BY key"
    parts = [np.empty((0, 6), dtype=np.int64)]
    cursor = db.execute(sql)
    try:
        while some := cursor.fetchmany(_FETCH_BATCH):
            try:
                parts.append(np.array(some, dtype=np.int64))
            except (TypeError, ValueError, OverflowError) as error:
                raise CorruptIndexError(f"documents.sqlite is damaged (its directory isn't numbers: {error})") from None
    finally:
        cursor.close()  # a statement that is left half read keeps the writer out
    columns = np.concatenate(parts).T.copy()
    return SnapshotRows(*columns[:5]), columns[5]


def insert_snapshot_rows(db: sqlite3.Connection, rows: SnapshotRows) -> None:
    """Add documents to the directory, or replace those with the same keys."""
    columns = [column.tolist() for column in (*rows.columns, rows.hashes())]
    db.executemany("INSERT OR REPLACE INTO directory VALUES (?, ?, ?, ?, ?, ?)", zip(*columns, strict=True))


def select_by_key(db: sqlite3.Connection, columns: str, keys: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Rows of ``documents`` in any order; unknown keys are passed over."""
    for start in range(0, len(keys), _SQL_BATCH):
        some = keys[start : start + _SQL_BATCH]
        question_marks = ",".join("?" * len(some))
        # All at once: a statement that is left half read keeps the writer out.
        yield from db.execute(f"SELECT {columns} FROM documents WHERE key IN ({question_marks})", some).fetchall()


def schema_version(path: Path) -> int:
    """The version of the schema that a database has. Raises as ``connect`` does."""
    check_files(path)
    with storage_errors(path):
        db = connect_to_any(path)
        try:
            return int(db.execute("PRAGMA user_version").fetchone()[0])
        finally:
            db.close()


def undo_interrupted_commit(path: Path) -> None:
    """Let SQLite undo what a writer that died left half done, where the database can be read at all.

    Raises:
        CorruptIndexError: the journal names others, or something else than a file is in a file's place.
    """
    if is_plain_file(path):
        check_files(path)
        with suppress(*DATABASE_ERRORS), closing(connect_to_any(path)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchall()


def empty_database() -> bytes:
    """A database without documents, in which the tables begin on the pages on which they do in every other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DATABASE_NAME
        db = connect(path, write=True, create=True)
        create_database(db, {})
        db.close()
        return path.read_bytes()


def _state_checksum(db: sqlite3.Connection) -> int:
    (size,) = db.execute("SELECT coalesce(max(length(CAST(value AS BLOB))), 0) FROM state").fetchone()
    if size > _STATE_LIMIT:
        return -1  # which no CRC-32 is
    rows = db.execute("SELECT name, value FROM state WHERE name != 'checksum' ORDER BY name").fetchall()
    return zlib.crc32(repr(rows).encode())


def check_files(path: Path) -> None:
    """Refuse what SQLite would follow out of the folder, or open in a way that a writer of ours never made.

    The database itself isn't opened: to close a file again takes away all locks that this process has on it, also those
    of another index object.
    """
    if not is_plain_file(path):
        raise CorruptIndexError(f"{path} is missing: restore it from a backup")
    for suffix in ("-wal", "-shm"):
        if os.path.lexists(f"{path}{suffix}"):
            raise CorruptIndexError(f"{path}{suffix} is no file of an index: SQLite would follow it; remove it")
    check_journal(path)


def check_journal(path: Path) -> None:
    """Refuse a journal that names others: SQLite would read those, and delete the one that names them.

    Raises:
        CorruptIndexError: there is such a journal, or something else than a file in its place.
    """
    journal = path.with_name(path.name + "-journal")
    with storage_errors(journal):
        if not is_plain_file(journal):
            return
        with os.fdopen(open_plain(journal, os.O_RDONLY), "rb") as file:
            file.seek(max(0, journal.stat().st_size - len(_SUPER_JOURNAL_MAGIC)))
            if file.read() == _SUPER_JOURNAL_MAGIC:
                raise CorruptIndexError(
                    f"{journal} names another journal, which those of an index never do: don't open this folder"
                )


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    expected = {"user_version": SCHEMA_VERSION, "journal_mode": "delete", "auto_vacuum": _INCREMENTAL}
    found = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in expected}
    if found != expected or not has_only_our_tables(db):
        raise CorruptIndexError(
            f"{path} doesn't have the tables of an index: run muvera_core.repair_index on the folder, "
            "or restore the file from a backup"
        )


def has_only_our_tables(db: sqlite3.Connection) -> bool:
    """Whether the schema is exactly ours. Raises what SQLite raises where it can't be read."""
    return _objects(db) == _expected_objects()


def _objects(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


@cache
def _expected_objects() -> list[tuple[Any, ...]]:
    db = connect(None, write=True)
    try:
        create_database(db, {})
        return _objects(db)
    finally:
        db.close()
