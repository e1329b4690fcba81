"""Reads what can be read of a damaged store, document by document.

It works on a copy of the database. An unreadable page hides only its own documents: if a batch cannot be read, its
documents are read one by one. The first pages of a database are the same in every index, except for a few counters. So
if they are damaged or missing, those of an empty database replace them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core.errors import InvalidInputError, MuveraError
from muvera_core.files import (
    DATABASE_ERRORS,
    copy_plain,
    end_of_data,
    id_hash,
    is_plain_file,
    open_plain,
    record_checksum,
    row_hashes,
    storage_errors,
)
from muvera_core.filters import damaged_paths
from muvera_core.images import ImageRecord
from muvera_core.lexical import LexicalConfig, document_words
from muvera_core.maintenance.reports import Problem
from muvera_core.storage import (
    DATABASE_NAME,
    LEARNED_NAME,
    PAGE_SIZE,
    WORD_RULES,
    FileTokenLog,
    LearnedSettings,
    Rows,
    TokenCodec,
    check_journal,
    connect_to_any,
    empty_database,
    has_index_schema,
    read_state,
    rules_after,
    tokens_path,
)

_BATCH = 512
_RECORD_COLUMNS = "key, id, text, metadata, image, checksum"
_PLACE_COLUMNS = "key, id_hash, first_token, n_tokens, token_checksum, hash"
_TABLES = ("documents", "directory")
# Give up after this many batches without a readable key: a damaged counter may be far too high.
_MAX_UNREADABLE_BATCHES = 100_000
# Bytes of the database's header (SQLite's file format, section 1.3): the number of pages; the first free page and the
# number of free ones; and version-valid-for, which, if it differs from the change counter, makes SQLite ignore the size
# in the header.
_N_PAGES = slice(28, 32)
_FREELIST = slice(32, 40)
_VALID_FOR = slice(92, 96)


@dataclass(frozen=True, eq=False)
class SalvagedDocument:
    """What is left of a document.

    Attributes:
        key: its internal number.
        id: its id. None if its record is damaged.
        text: its text. None if its record is damaged, or if it never had a text.
        metadata: its metadata, as JSON. None if its record is damaged.
        image: its ``ImageRecord``, as JSON. None if its record is damaged, or if it has no image.
        rows: its token rows. None if they are damaged, or if their place is unknown.
    """

    key: int
    id: str | None
    text: str | None
    metadata: str | None
    image: str | None
    rows: Rows | None


class Salvage:
    """A copy of a damaged store's database. Close it after use."""

    def __init__(self, folder: Path, work: Path) -> None:
        """Copy the database of ``folder`` into ``work`` and open the copy.

        Raises:
            StorageError: there is no room for the copy.
            CorruptIndexError: the database or its journal is not a plain file, or the journal names another one.
        """
        self._folder = folder
        self._n_bytes_behind = 0
        with storage_errors(folder / DATABASE_NAME):
            if is_plain_file(folder / DATABASE_NAME):
                self._n_bytes_behind = _n_bytes_behind(folder / DATABASE_NAME)
        self._db = _open_copy(folder / DATABASE_NAME, work / "salvaged.sqlite")
        self.state: dict[str, Any] = {}
        with suppress(MuveraError, *DATABASE_ERRORS):
            self.state = read_state(self._db)

    def close(self) -> None:
        """Close the copy."""
        self._db.close()

    def documents(self, codec: TokenCodec, generation: int) -> Iterator[SalvagedDocument]:
        """All documents of which anything is left, by ascending key."""
        tokens = None
        with suppress(MuveraError):
            path = tokens_path(self._folder, generation)
            n_rows = path.stat().st_size // codec.row_dtype.itemsize if is_plain_file(path) else 0
            tokens = FileTokenLog(path, codec, n_rows, writable=False)
        for low in self._batch_starts():
            records = self._select("documents", _RECORD_COLUMNS, low)
            places = self._select("directory", _PLACE_COLUMNS, low)
            # A damaged page can end a range early without an error.
            records |= self._select_each("documents", _RECORD_COLUMNS, places.keys() - records.keys())
            places |= self._select_each("directory", _PLACE_COLUMNS, records.keys() - places.keys())
            for key in sorted(records.keys() | places.keys()):
                yield _salvaged(key, records.get(key), places.get(key), tokens)

    @property
    def learned_damage(self) -> str | None:
        """The damage of what was learned about scores. None if it is intact, or if there is nothing."""
        try:
            LearnedSettings.from_text(self.state.get(LEARNED_NAME))
        except InvalidInputError as error:
            return str(error)
        return None

    def problems(self) -> Iterator[Problem]:
        """Problems of the database apart from its documents."""
        if self._n_bytes_behind:
            yield Problem(
                DATABASE_NAME, f"{self._n_bytes_behind} bytes behind its end are not part of it", derived=True
            )
        try:
            for (finding,) in self._db.execute("PRAGMA integrity_check(10)").fetchall():
                if finding != "ok":
                    message = str(finding).replace("*** in database main ***\n", "")
                    # Newer versions of SQLite also look into FTS5's index here.
                    yield Problem(DATABASE_NAME, message, derived="FTS5" in message)
            if damage := self.learned_damage:
                yield Problem(DATABASE_NAME, f"{damage}, so the index has to be calibrated again", derived=True)
            for path in damaged_paths(self._db):
                yield Problem(DATABASE_NAME, f"the index over metadata field {path!r} is damaged", derived=True)
        except DATABASE_ERRORS as error:
            yield Problem(DATABASE_NAME, str(error))

    def word_problems(self, lexical: LexicalConfig | None) -> Iterator[Problem]:
        """Problems of the word index. All of them are derived: it is made from the documents.

        Words are compared with the documents' texts if all of them were made by the present rules: other versions of
        Python or Snowball make other words of some texts.
        """
        if lexical is None:
            return
        try:
            self._db.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 0)")
            comparable = self.state.get(WORD_RULES) == rules_after(None)
            wrong = list(self._wrong_words(lexical, compare_words=comparable))
        except DATABASE_ERRORS as error:
            yield Problem(DATABASE_NAME, f"the word index is damaged ({error})", derived=True)
            return
        if wrong:
            yield Problem(DATABASE_NAME, "the word index differs from documents", tuple(wrong), derived=True)

    def _wrong_words(self, lexical: LexicalConfig, *, compare_words: bool) -> Iterator[str]:
        """Names of the intact documents whose words are not those of their text, and of words without a document."""
        for low in self._batch_starts():
            found = self._select("words", "rowid, fields, text", low, key="rowid")
            for key, record in self._select("documents", _RECORD_COLUMNS, low).items():
                stored = found.pop(key, None)
                document = _salvaged(key, record, None, None)
                if document.id is None or document.metadata is None:
                    continue
                words = document_words(lexical, document.text, json.loads(document.metadata))
                same = (None if stored is None else stored[1:]) == words
                if not same and (compare_words or (words is None) != (stored is None)):
                    yield document.id
            yield from (f"document number {key}" for key in found)

    @property
    def next_key(self) -> int:
        """A key that is higher than those of all documents so far."""
        noted = self.state.get("next_key")
        if isinstance(noted, int):
            return noted
        known = [0]
        for table in _TABLES:
            with suppress(*DATABASE_ERRORS):
                (highest,) = self._db.execute(f"SELECT max(key) FROM {table}").fetchone()
                known += [highest] if isinstance(highest, int) else []
        return max(known) + 1

    def _batch_starts(self) -> Iterator[int]:
        """The lowest keys of batches that cover all documents. Ranges without documents are skipped if possible."""
        low, n_tries = 1, _MAX_UNREADABLE_BATCHES
        while low < self.next_key and n_tries:
            yield low
            low += _BATCH
            try:
                found = [
                    self._db.execute(f"SELECT min(key) FROM {t} WHERE key >= ?", (low,)).fetchone() for t in _TABLES
                ]
                low = min((key for (key,) in found if isinstance(key, int)), default=self.next_key)
            except DATABASE_ERRORS:
                n_tries -= 1

    def _select(self, table: str, columns: str, low: int, *, key: str = "key") -> dict[int, tuple[Any, ...]]:
        """Rows by key, for ``_BATCH`` keys from ``low`` on."""
        sql = f"SELECT {columns} FROM {table} WHERE {key} BETWEEN ? AND ?"
        with suppress(*DATABASE_ERRORS):
            return {row[0]: row for row in self._db.execute(sql, (low, low + _BATCH - 1)).fetchall()}
        return self._select_each(table, columns, range(low, low + _BATCH), key=key)

    def _select_each(
        self, table: str, columns: str, keys: Iterable[int], *, key: str = "key"
    ) -> dict[int, tuple[Any, ...]]:
        """Rows by key, each read by itself: reading a range goes on to the next row, which may be damaged."""
        sql = f"SELECT {columns} FROM {table} WHERE {key} = ?"
        found: dict[int, tuple[Any, ...]] = {}
        for number in keys:
            with suppress(*DATABASE_ERRORS):
                found |= {row[0]: row for row in self._db.execute(sql, (number,)).fetchall()}
        return found


def _salvaged(
    key: int, record: tuple[Any, ...] | None, place: tuple[Any, ...] | None, tokens: FileTokenLog | None
) -> SalvagedDocument:
    id = text = metadata = image = rows = None
    # Raised if a column has a type that a document never has.
    with suppress(AttributeError, TypeError, ValueError, RecursionError):
        if record is not None and record_checksum(*record[:5]) == record[5]:
            json.loads(record[3])
            if record[4] is not None:
                ImageRecord.from_text(record[4])
            id, text, metadata, image = record[1:5]
    with suppress(TypeError, ValueError, OverflowError, MuveraError, MemoryError):
        if place is not None and tokens is not None:
            columns = [np.array([number], dtype=np.int64) for number in place]
            is_valid = row_hashes(columns[:5])[0] == place[5] and place[2] >= 0 and 1 <= place[3] <= len(tokens)
            if is_valid and (id is None or id_hash(id) == place[1]):
                found = tokens.read(columns[2], columns[3])
                rows = found if zlib.crc32(found.view(np.uint8).data) == place[4] else None
    return SalvagedDocument(key, id, text, metadata, image, rows)


def _open_copy(database: Path, copy: Path) -> sqlite3.Connection:
    check_journal(database)
    journal = database.with_name(database.name + "-journal")
    with storage_errors(database):
        if is_plain_file(database):
            copy_plain(database, copy, database.stat().st_size - _n_bytes_behind(database))
            if is_plain_file(journal):
                copy_plain(journal, copy.with_name(copy.name + "-journal"), end_of_data(journal))
                check_journal(copy)  # without a hole, it may end with a name that the hole hid
        else:
            copy.write_bytes(b"")
    with suppress(*DATABASE_ERRORS):
        return _open_readable(copy)
    copy.with_name(copy.name + "-journal").unlink(missing_ok=True)
    with storage_errors(database):
        empty = bytearray(empty_database())
        empty[_FREELIST] = bytes(8)
        empty[_VALID_FOR] = b"\xff" * 4
        size = copy.stat().st_size // PAGE_SIZE * PAGE_SIZE
        with copy.open("r+b") as file:
            file.write(empty[:PAGE_SIZE])
            file.truncate(max(PAGE_SIZE, size))
            file.seek(0, os.SEEK_END)
            file.write(empty[file.tell() :])
        return connect_to_any(copy)


def _n_bytes_behind(database: Path) -> int:
    """The length of a hole at the end of the file that does not belong to the database."""
    with os.fdopen(open_plain(database, os.O_RDONLY), "rb") as file:
        n_pages = int.from_bytes(file.read(_N_PAGES.stop)[_N_PAGES], "big")
        size = os.fstat(file.fileno()).st_size
    return max(0, size - max(end_of_data(database), n_pages * PAGE_SIZE))


def _open_readable(copy: Path) -> sqlite3.Connection:
    db = connect_to_any(copy)
    try:
        if not has_index_schema(db):
            raise sqlite3.DatabaseError("it does not have the tables of an index")
    except BaseException:
        db.close()
        raise
    return db


def document_name(document: SalvagedDocument) -> str:
    """The document's id, or its number if the id is lost."""
    return f"document number {document.key}" if document.id is None else document.id
