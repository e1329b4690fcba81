"""Converts indexes of older formats to the present one.

Format 1 had no checksums and no generation in the token file's name, and stored the places of tokens in the table
``documents``.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core.errors import CorruptIndexError, MuveraError
from muvera_core.files import storage_errors
from muvera_core.maintenance.rebuild import Rebuild, remove_unfinished_rebuild, work_folder
from muvera_core.set_encoders import FDEConfig
from muvera_core.storage import (
    DATABASE_NAME,
    FORMAT_VERSION,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    FileTokenLog,
    Manifest,
    connect,
    connect_to_any,
    read_manifest,
    read_state,
    schema_version,
)

_BATCH = 1024
_OLD_TOKENS = "tokens.bin"
_OLD_DOCUMENTS = (
    "SELECT key, id, text, metadata, first_token, n_tokens FROM documents WHERE key > ? ORDER BY key LIMIT ?"
)
_OLD_FILES = (_OLD_TOKENS, "stage_one.json", "stage_one_keys.npy", "stage_one_vectors.npy", "stage_one.hnsw")


def migrate_index(folder: Path) -> None:
    """Convert an index of an older format to the present one. The caller has locked the folder.

    An interruption leaves the old index, or a conversion that the next opening completes. The conversion needs room for
    a copy of the index.

    Raises:
        CorruptIndexError: the old index is damaged.
        StorageError: there is no room for the copy.
    """
    remove_unfinished_rebuild(folder)
    content = read_manifest(folder)
    if content.get("format_version") == 1:
        _from_1_to_2(folder, content)


def _from_1_to_2(folder: Path, content: dict[str, Any]) -> None:
    assert FORMAT_VERSION == SCHEMA_VERSION == 2
    database = folder / DATABASE_NAME
    if schema_version(database) == SCHEMA_VERSION:  # interrupted after the new database was in place
        db = connect(database, write=True)
        try:
            manifest = Manifest.from_text(read_state(db).get("manifest"), folder / MANIFEST_NAME)
        finally:
            db.close()
    else:
        try:
            manifest = Manifest(
                content["index_id"], content["encoder"], content["token_precision"], FDEConfig(**content["fde"])
            )
        except (KeyError, TypeError, MuveraError) as error:
            raise CorruptIndexError(
                f"{folder / MANIFEST_NAME} is incomplete or invalid ({error!r}): restore it from a backup"
            ) from error
        _copy_documents(folder, manifest)
    with storage_errors(folder):
        for name in _OLD_FILES:
            (folder / name).unlink(missing_ok=True)
    manifest.write(folder)  # last: until it is written, the next opening repeats the steps above


def _copy_documents(folder: Path, manifest: Manifest) -> None:
    database = folder / DATABASE_NAME
    with storage_errors(database), closing(connect_to_any(database)) as db:
        try:
            _require_tables(db, database)
            state = dict(db.execute("SELECT name, value FROM state").fetchall())
            n_rows = state.get("n_token_rows")
            (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()
            if not (isinstance(n_rows, int) and isinstance(last, int)):
                raise _damaged(database)
            tokens = FileTokenLog(folder / _OLD_TOKENS, manifest.codec.row_dtype, n_rows, writable=False)
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
                    rebuild.add_rows(np.array(keys, dtype=np.int64), ids, texts, metadatas, rows, offsets)
                    key = keys[-1]
                db.close()
                rebuild.finish()
        except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise _damaged(database) from error  # a column has a value that the format does not allow


def _require_tables(db: sqlite3.Connection, database: Path) -> None:
    """Refuse triggers, views, virtual tables and computed columns: they may run statements of an untrusted folder."""
    objects = db.execute("SELECT type, coalesce(sql, '') FROM sqlite_master").fetchall()
    columns = [row for table in ("documents", "state") for row in db.execute(f"PRAGMA table_xinfo({table})").fetchall()]
    plain = all(type in ("table", "index") and "VIRTUAL" not in sql.upper() for type, sql in objects)
    if not plain or not columns or any(column[-1] for column in columns):
        raise _damaged(database)


def _damaged(database: Path) -> CorruptIndexError:
    return CorruptIndexError(f"{database} is damaged: restore it from a backup, or index the documents again")
