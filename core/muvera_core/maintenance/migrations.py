"""Converts indexes of older formats to the present one.

Format 4 had no word index, which is made from the documents' texts. Format 3 had no tokens in slices of bits either;
its database was the same. Format 2 noted nothing about images. Format 1 had no checksums and no generation in the token
file's name either, and stored the places of tokens in the table ``documents``.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core.errors import CorruptIndexError, MuveraError
from muvera_core.files import DATABASE_ERRORS, storage_errors
from muvera_core.maintenance.rebuild import Rebuild, remove_unfinished_rebuild, replace_database, work_folder
from muvera_core.set_encoders import FDEConfig
from muvera_core.storage import (
    DATABASE_NAME,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    WORD_RULES,
    WORDS_SCHEMA,
    FileTokenLog,
    Manifest,
    connect,
    connect_to_any,
    create_database,
    default_lexical,
    has_fts5,
    insert_words,
    read_manifest,
    read_state,
    require_checksum,
    rules_after,
    schema_version,
    write_state,
)

_log = logging.getLogger(__name__)
_BATCH = 1024
_OLD_TOKENS = "tokens.bin"
_OLD_DOCUMENTS = (
    "SELECT key, id, text, metadata, first_token, n_tokens FROM documents WHERE key > ? ORDER BY key LIMIT ?"
)
# The tables of format 2, and what is copied of them. The database's checksums are copied, too, and checked later.
_COPIED = {
    "documents": "key, id, text, metadata, NULL, checksum",
    "directory": "key, id_hash, first_token, n_tokens, token_checksum, hash",
    "fields": "path, kind, value, key",
    "field_sums": "path, n, digest",
}
_TABLES = (*_COPIED, "state")
_OLD_FILES = (_OLD_TOKENS, "stage_one.json", "stage_one_keys.npy", "stage_one_vectors.npy", "stage_one.hnsw")


def migrate_index(folder: Path) -> None:
    """Convert an index of an older format to the present one. The caller has locked the folder.

    An interruption leaves the old index, or a conversion that the next opening completes. The conversion needs room for
    a copy of the database and, from format 1, of the tokens.

    Raises:
        CorruptIndexError: the old index is damaged.
        StorageError: there is no room for the copy.
    """
    remove_unfinished_rebuild(folder)
    content = read_manifest(folder)
    version = content.get("format_version")
    if version not in (1, 2, 3, 4):
        return
    require_checksum(content, folder / MANIFEST_NAME)  # the number of the version may be damaged
    database = folder / DATABASE_NAME
    schema = schema_version(database)
    if schema == SCHEMA_VERSION:  # a conversion that was interrupted after the new database was in place
        with storage_errors(database), closing(connect(database, write=True)) as db:
            manifest = Manifest.from_copy(read_state(db).get("manifest"), database)
    elif schema == 3:
        manifest = _add_words(folder, content, version)
    elif version == 2 or schema == 2:  # the latter: an earlier version was interrupted as above
        if version == 1:
            with storage_errors(database), closing(connect_to_any(database)) as db:
                _require_tables(db, database, _TABLES)
                content = _copied_manifest(db, database)
        manifest = Manifest.from_earlier_format(content, folder / MANIFEST_NAME)
        _convert_database(folder, manifest)
    else:
        manifest = _manifest_of_format_1(content, folder)
        _copy_documents(folder, manifest)
    if version == 1:
        with storage_errors(folder):
            for name in _OLD_FILES:
                (folder / name).unlink(missing_ok=True)
    manifest.write(folder)  # last: until it is written, the next opening repeats the steps above


def _add_words(folder: Path, content: dict[str, Any], version: int) -> Manifest:
    """Give a database of format 3 or 4 the table of words, in one transaction. Returns the manifest.

    Not through a store, which refuses a damaged index: repair converts it first.
    """
    database = folder / DATABASE_NAME
    with storage_errors(database), closing(connect_to_any(database)) as db:
        _require_tables(db, database, _TABLES)
        copy = read_state(db).get("manifest")
        if version in (1, 2):  # an earlier version was interrupted before it wrote the manifest
            content = _copied_manifest(db, database)
        manifest = Manifest.from_earlier_format(content, folder / MANIFEST_NAME)
        manifest.require_copy(copy, folder)
        if copy is not None:  # it is committed with the tokens, before the manifest is written
            manifest = Manifest.from_copy(copy, database)
        db.execute("PRAGMA cache_spill = ON")  # nobody reads an index of an older format meanwhile
        db.execute("BEGIN IMMEDIATE")
        if has_fts5():
            db.execute(WORDS_SCHEMA)
        _fill_words(db, manifest, database)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        write_state(db, {"manifest": manifest.as_text(), WORD_RULES: rules_after(None)})
        db.execute("COMMIT")
    return manifest


def _fill_words(db: sqlite3.Connection, manifest: Manifest, database: Path) -> None:
    """Index the words of all documents that can be read. A check finds the others."""
    if manifest.lexical is None:
        return
    for documents in _texts_in_batches(db, database):
        insert_words(db, manifest.lexical, documents)


def _texts_in_batches(db: sqlite3.Connection, database: Path) -> Iterator[list[tuple[int, str | None, dict[str, Any]]]]:
    keys = [key for (key,) in db.execute("SELECT key FROM directory ORDER BY key").fetchall()]
    n_damaged = 0
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH]
        found: list[tuple[int, str | None, dict[str, Any]]] = []
        for key in batch:
            try:  # one by one: an unreadable page hides its own documents only
                ((text, metadata),) = db.execute(
                    "SELECT text, metadata FROM documents WHERE key = ?", (key,)
                ).fetchall()
                found.append((key, text if isinstance(text, str) else None, dict(json.loads(metadata))))
            except (*DATABASE_ERRORS, TypeError, ValueError, RecursionError):
                n_damaged += 1
        yield found
    if n_damaged:
        _log.warning("%s: %d documents cannot be read, so lexical search will not find them", database, n_damaged)


def _copied_manifest(db: sqlite3.Connection, database: Path) -> dict[str, Any]:
    """The copy of the manifest in a database."""
    try:
        return dict(json.loads(read_state(db)["manifest"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(database) from error


def _manifest_of_format_1(content: dict[str, Any], folder: Path) -> Manifest:
    try:
        return Manifest(
            content["index_id"],
            content["encoder"],
            content["token_precision"],
            FDEConfig(**content["fde"]),
            lexical=default_lexical(),
        )
    except (KeyError, TypeError, MuveraError) as error:
        raise CorruptIndexError(
            f"{folder / MANIFEST_NAME} is incomplete or invalid ({error!r}): restore it from a backup"
        ) from error


def _convert_database(folder: Path, manifest: Manifest) -> None:
    """Replace a database of format 2 by one with the same rows. The token file and stage one stay as they are."""
    database = folder / DATABASE_NAME
    with work_folder(folder) as work, storage_errors(database):
        with (
            closing(connect_to_any(database)) as old,
            closing(connect(work / DATABASE_NAME, write=True, create=True)) as new,
        ):
            _require_tables(old, database, _TABLES)
            state = read_state(old) | {"manifest": manifest.as_text(), WORD_RULES: rules_after(None)}
            create_database(new, state)
            for table, columns in _COPIED.items():
                rows = old.execute(f"SELECT {columns} FROM {table}")
                placeholders = ", ".join("?" * len(rows.description))
                while batch := rows.fetchmany(_BATCH):
                    new.execute("BEGIN")
                    new.executemany(f"INSERT INTO {table} VALUES ({placeholders})", batch)
                    new.execute("COMMIT")
            new.execute("BEGIN")
            _fill_words(new, manifest, database)
            new.execute("COMMIT")
        replace_database(folder, work)


def _copy_documents(folder: Path, manifest: Manifest) -> None:
    database = folder / DATABASE_NAME
    with storage_errors(database), closing(connect_to_any(database)) as db:
        try:
            _require_tables(db, database, ("documents", "state"))
            state = dict(db.execute("SELECT name, value FROM state").fetchall())
            n_rows = state.get("n_token_rows")
            (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()
            if not (isinstance(n_rows, int) and isinstance(last, int)):
                raise _damaged(database)
            tokens = FileTokenLog(folder / _OLD_TOKENS, manifest.codec, n_rows, writable=False)
            kept = {"next_key": last + 1} | {name: state[name] for name in ("mean_token",) if name in state}
            with (
                work_folder(folder) as work,
                closing(Rebuild(folder, work, manifest, generation=0, state=kept)) as rebuild,
            ):
                key = 0
                while found := db.execute(_OLD_DOCUMENTS, (key, _BATCH)).fetchall():
                    keys, ids, texts, metadatas, starts, counts = zip(*found, strict=True)
                    first, count = np.array(starts, dtype=np.int64), np.array(counts, dtype=np.int64)
                    if ((first < 0) | (count < 1) | (count > n_rows) | (first > n_rows - count)).any():
                        raise _damaged(database)
                    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(count)])
                    rows = tokens.read(first, count)
                    no_images = [None] * len(keys)
                    rebuild.add_rows(np.array(keys, dtype=np.int64), ids, texts, metadatas, no_images, rows, offsets)
                    key = keys[-1]
                db.close()
                rebuild.finish()
        except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise _damaged(database) from error  # a column has a value that the format does not allow


def _require_tables(db: sqlite3.Connection, database: Path, tables: Sequence[str]) -> None:
    """Refuse triggers, views, virtual tables and computed columns: they may run statements of an untrusted folder."""
    objects = db.execute("SELECT type, coalesce(sql, '') FROM sqlite_master").fetchall()
    columns = [row for table in tables for row in db.execute(f"PRAGMA table_xinfo({table})").fetchall()]
    plain = all(type in ("table", "index") and "VIRTUAL" not in sql.upper() for type, sql in objects)
    if not plain or not columns or any(column[-1] for column in columns):
        raise _damaged(database)


def _damaged(database: Path) -> CorruptIndexError:
    return CorruptIndexError(f"{database} is damaged: restore it from a backup, or index the documents again")
