"""Reads the documents of a Chroma database from its SQLite file, without chromadb."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.imports.records import BadRecord, Imported, as_document
from muvera_core.validation import counted, require_path, shown

DATABASE = "chroma.sqlite3"
_TABLES = ("collections", "databases", "embedding_metadata", "embeddings", "embeddings_queue", "max_seq_id", "segments")
# A table of lists, since version 1.5.
_LISTS = "embedding_metadata_array"
# Chroma keeps a record's text, and the place of what it stands for, among its metadata.
_TEXT, _PLACE = "chroma:document", "chroma:uri"
# A copy of the node that LlamaIndex's ChromaVectorStore puts there.
_LLAMA_INDEX = ("_node_content", "_node_type")
_READ_TOGETHER = 500


@dataclass(frozen=True)
class _Collection:
    id: str
    name: str
    segment: str


def read_chroma(path: str | PathLike[str], collection: str | None = None) -> Iterator[Imported]:
    """The documents of a collection, in the order in which they were added, with their ids and metadata.

    Records without a text, which Chroma allows, come back as ``BadRecord``. The database is only read, and may be in
    use. Written for the files of chromadb 0.5 to 1.5.

    Args:
        path: the folder of a ``PersistentClient`` or of ``chroma run``, or its ``chroma.sqlite3``.
        collection: the collection's name. None takes the only one. If databases or tenants have collections of the same
            name, ``tenant/database/name``.

    Raises:
        InvalidInputError: the file is missing or damaged, or has no such collection.
    """
    file = require_path("path", path)
    if file.is_dir():
        file /= DATABASE
    with _opened(file) as db:
        chosen = _choose(file, _collections(db), collection)
    return _documents(file, chosen)


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection for reading one state of the database. Raises InvalidInputError for whatever SQLite raises."""
    if not file.is_file():
        raise InvalidInputError(f"{file} does not exist: give the folder of a Chroma database")
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
            # The file may come from anywhere: nothing in its schema may run.
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("BEGIN")
            found = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if missing := sorted(set(_TABLES) - found):
                raise InvalidInputError(f"{file} is not a Chroma database of a known version: it has no {missing[0]}")
            yield db
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read as a Chroma database ({error})") from error


def _collections(db: sqlite3.Connection) -> dict[str, _Collection]:
    """All collections by their shortest unique name."""
    rows = db.execute(
        "SELECT c.id, c.name, d.tenant_id || '/' || d.name || '/' || c.name, s.id FROM collections c "
        "JOIN databases d ON d.id = c.database_id JOIN segments s ON s.collection = c.id AND s.scope = 'METADATA' "
        "ORDER BY c.name"
    ).fetchall()
    names = [name for _, name, _, _ in rows]
    return {
        name if names.count(name) == 1 else full: _Collection(id, name, segment) for id, name, full, segment in rows
    }


def _choose(file: Path, collections: dict[str, _Collection], name: str | None) -> _Collection:
    listed = ", ".join(map(repr, collections))
    if not collections:
        raise InvalidInputError(f"{file} has no collections")
    if name is None:
        if len(collections) > 1:
            raise InvalidInputError(f"{file} has several collections: choose one of {listed} (--collection NAME)")
        return next(iter(collections.values()))
    if name not in collections:
        raise InvalidInputError(f"{file} has no collection {shown(name)}: it has {listed}")
    return collections[name]


def _documents(file: Path, collection: _Collection) -> Iterator[Imported]:
    with _opened(file) as db:
        if n_waiting := _count_waiting(db, collection):
            yield BadRecord(
                f"collection {collection.name!r}",
                f"{counted(n_waiting, 'change')} of it are only in Chroma's log: open it with chromadb, call count() "
                "of the collection, and import again",
            )
        last = -1
        while rows := db.execute(
            "SELECT id, embedding_id FROM embeddings WHERE segment_id = ? AND id > ? ORDER BY id LIMIT ?",
            (collection.segment, last, _READ_TOGETHER),
        ).fetchall():
            last = rows[-1][0]
            metadatas = _metadatas(db, [key for key, _ in rows])
            yield from (_document(id, metadatas[key]) for key, id in rows)


def _document(id: Any, metadata: dict[str, Any]) -> Imported:
    text, place = metadata.pop(_TEXT, None), metadata.pop(_PLACE, None)
    for name in _LLAMA_INDEX:
        metadata.pop(name, None)
    if place is not None:
        metadata.setdefault("uri", place)
    if text is None:
        return BadRecord(str(id), "it has no text, only a vector")
    return as_document(str(id), id, text, metadata)


def _metadatas(db: sqlite3.Connection, keys: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The metadata of records. A value is in the column of its type."""
    found: dict[int, dict[str, Any]] = {key: {} for key in keys}
    for key, name, value in _values(db, "embedding_metadata", keys):
        found[key][name] = value
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (_LISTS,)).fetchone():
        for key, name, value in _values(db, _LISTS, keys):
            found[key].setdefault(name, []).append(value)
    return found


def _values(db: sqlite3.Connection, table: str, keys: Sequence[int]) -> Iterator[tuple[int, str, Any]]:
    cursor = db.execute(f"SELECT * FROM {table} WHERE id IN ({','.join('?' * len(keys))}) ORDER BY rowid", keys)
    columns = [description[0] for description in cursor.description]
    for row in cursor.fetchall():
        fields = dict(zip(columns, row, strict=True))
        key, name = fields.pop("id"), fields.pop("key")
        if fields.get("bool_value") is not None:
            yield key, name, bool(fields["bool_value"])
        else:
            yield key, name, next((value for value in fields.values() if value is not None), None)


def _count_waiting(db: sqlite3.Connection, collection: _Collection) -> int:
    """The number of changes that are in the log and not in the tables yet."""
    done = db.execute("SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (collection.segment,)).fetchone()
    # Earlier versions store the number as bytes.
    last = 0 if done is None else int.from_bytes(done[0], "big") if isinstance(done[0], bytes) else int(done[0])
    (n,) = db.execute(
        "SELECT count(*) FROM embeddings_queue WHERE topic LIKE ? AND seq_id > ?", (f"%/{collection.id}", last)
    ).fetchone()
    return int(n)
