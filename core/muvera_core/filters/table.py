"""The table of metadata fields that filters are answered from, and its checksums.

``field_sums`` holds the number of fields at each path and a digest of them (see ``checksums``). The first filter after
opening that uses a path reads all fields at the path and checks them.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from muvera_core.errors import RUN_REPAIR, CorruptIndexError
from muvera_core.files import field_hash, signed_sum
from muvera_core.filters.fields import Field, flatten

FIELDS_SCHEMA = """
CREATE TABLE fields (
    path TEXT NOT NULL,
    kind TEXT NOT NULL,   -- 'number', 'string', 'boolean', 'null'; 'list' and 'object' with their length as value;
                          -- 'items' with a whole list, as JSON
    value NOT NULL,
    key INTEGER NOT NULL,
    PRIMARY KEY (path, kind, value, key)
) WITHOUT ROWID;

CREATE TABLE field_sums (
    path TEXT PRIMARY KEY,
    n INTEGER NOT NULL,
    digest INTEGER NOT NULL
) WITHOUT ROWID;
"""


def insert_fields(db: sqlite3.Connection, keys: Sequence[int], metadatas: Sequence[Mapping[str, Any]]) -> None:
    """Add the metadata fields of documents."""
    db.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)", _rows(keys, metadatas))
    _add_to_sums(db, _rows(keys, metadatas), 1)


def delete_fields(db: sqlite3.Connection, keys: Sequence[int], metadatas: Sequence[Mapping[str, Any]]) -> None:
    """Remove the metadata fields of documents."""
    db.executemany("DELETE FROM fields WHERE path = ? AND kind = ? AND value = ? AND key = ?", _rows(keys, metadatas))
    _add_to_sums(db, _rows(keys, metadatas), -1)


def damaged_paths(db: sqlite3.Connection) -> list[str]:
    """The paths whose fields do not match their checksums."""
    paths = db.execute("SELECT DISTINCT path FROM fields UNION SELECT path FROM field_sums").fetchall()
    return sorted(str(path) for (path,) in paths if not _is_sound(db, path))


def verify_path(db: sqlite3.Connection, path: str) -> bool:
    """Return whether there are fields at a path. Raises CorruptIndexError if they do not match their checksums."""
    if not _is_sound(db, path):
        raise CorruptIndexError(
            f"the index over metadata field {path!r} in documents.sqlite is damaged. The documents themselves are "
            f"safe, and unfiltered searches work: {RUN_REPAIR} to rebuild the index"
        )
    return _expected(db, path)[0] > 0


def _is_sound(db: sqlite3.Connection, path: str) -> bool:
    found = db.execute("SELECT path, kind, value, key FROM fields WHERE path = ?", (path,)).fetchall()
    hashes = [field_hash(*row) for row in found]
    return (len(hashes), signed_sum(hashes)) == _expected(db, path)


def _expected(db: sqlite3.Connection, path: str) -> tuple[int, int]:
    found = db.execute("SELECT n, digest FROM field_sums WHERE path = ?", (path,)).fetchall()
    return found[0] if found else (0, 0)


def _rows(keys: Sequence[int], metadatas: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, Any, int]]:
    for key, metadata in zip(keys, metadatas, strict=True):
        for field in flatten(metadata):
            yield (*field, key)


def _add_to_sums(db: sqlite3.Connection, rows: Iterable[tuple[*Field, int]], sign: int) -> None:
    changes: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        changes[row[0]].append(sign * field_hash(*row))
    for path, hashes in changes.items():
        n, digest = _expected(db, path)
        n, digest = n + sign * len(hashes), signed_sum([digest, *hashes])
        db.execute("DELETE FROM field_sums WHERE path = ?", (path,))
        if n:
            db.execute("INSERT INTO field_sums VALUES (?, ?, ?)", (path, n, digest))
