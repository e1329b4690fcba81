"""The table of metadata fields that filters are answered from, and its checksums.

``field_sums`` holds the number of fields at each path and a digest of them (see ``checksums``). The first filter after
opening that uses a path reads all fields at the path and checks them. They are read in pages, since a long read of the
database would make commits and searches wait.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

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

# Fields that are read at a time. That takes a few milliseconds, also if SQLite calls Python for each.
FIELDS_AT_ONCE = 2048
# Kind, value and key that sort before, and after, those of all fields. SQLite sorts numbers, then texts, then blobs.
FIRST: tuple[Any, Any, Any] = (float("-inf"), float("-inf"), -1)
LAST: tuple[Any, Any, Any] = (b"", b"", -1)


def insert_fields(db: sqlite3.Connection, keys: Sequence[int], metadatas: Sequence[Mapping[str, Any]]) -> None:
    """Add the metadata fields of documents."""
    db.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)", field_rows(keys, metadatas))
    _add_to_sums(db, field_rows(keys, metadatas), 1)


def delete_fields(db: sqlite3.Connection, keys: Sequence[int], metadatas: Sequence[Mapping[str, Any]]) -> None:
    """Remove the metadata fields of documents."""
    db.executemany(
        "DELETE FROM fields WHERE path = ? AND kind = ? AND value = ? AND key = ?", field_rows(keys, metadatas)
    )
    _add_to_sums(db, field_rows(keys, metadatas), -1)


class Fetch(Protocol):
    """Runs one short statement on one state of the database."""

    def __call__(self, sql: str, parameters: Sequence[Any], *, limited: bool = False) -> list[Any] | None:
        """All rows. None if the statement is ``limited`` and was stopped, because it takes long."""


def fetch_from(db: sqlite3.Connection) -> Fetch:
    """Read from a connection that nothing else uses, with no limit."""
    return lambda sql, parameters, *, limited=False: db.execute(sql, parameters).fetchall()


def damaged_paths(db: sqlite3.Connection) -> list[str]:
    """The paths whose fields do not match their checksums."""
    paths = db.execute("SELECT DISTINCT path FROM fields UNION SELECT path FROM field_sums").fetchall()
    return sorted(str(path) for (path,) in paths if not _is_sound(fetch_from(db), path))


def verify_path(fetch: Fetch, path: str) -> bool:
    """Return whether there are fields at a path. Raises CorruptIndexError if they do not match their checksums."""
    if not _is_sound(fetch, path):
        raise damaged_fields(path)
    return n_fields(fetch, path) > 0


def damaged_fields(path: str) -> CorruptIndexError:
    """The error about damaged fields at a path."""
    return CorruptIndexError(
        f"the index over metadata field {path!r} in documents.sqlite is damaged. The documents themselves are "
        f"safe, and unfiltered searches work: {RUN_REPAIR} to rebuild the index"
    )


def n_fields(fetch: Fetch, path: str) -> int:
    """The number of fields that there should be at a path."""
    return _expected(fetch, path)[0]


def _is_sound(fetch: Fetch, path: str) -> bool:
    n, digest = _expected(fetch, path)
    n_found, total, last = 0, 0, FIRST
    while n_found <= n:  # in a damaged table, the pages could go round in a circle
        sql = (
            "SELECT kind, value, key FROM fields WHERE path = ? AND (kind, value, key) > (?, ?, ?) "
            f"ORDER BY kind, value, key LIMIT {FIELDS_AT_ONCE}"
        )
        rows = fetch(sql, (path, *last)) or []
        n_found += len(rows)
        total = signed_sum([total, *(field_hash(path, *row) for row in rows)])
        if len(rows) < FIELDS_AT_ONCE:
            break
        last = rows[-1]
    return (n_found, total) == (n, digest)


def _expected(fetch: Fetch, path: str) -> tuple[int, int]:
    found = fetch("SELECT n, digest FROM field_sums WHERE path = ?", (path,))
    return found[0] if found else (0, 0)


def field_rows(keys: Sequence[int], metadatas: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, Any, int]]:
    """Path, kind, value and key of each metadata field of documents."""
    for key, metadata in zip(keys, metadatas, strict=True):
        for field in flatten(metadata):
            yield (*field, key)


def _add_to_sums(db: sqlite3.Connection, rows: Iterable[tuple[*Field, int]], sign: int) -> None:
    changes: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        changes[row[0]].append(sign * field_hash(*row))
    for path, hashes in changes.items():
        n, digest = _expected(fetch_from(db), path)
        n, digest = n + sign * len(hashes), signed_sum([digest, *hashes])
        db.execute("DELETE FROM field_sums WHERE path = ?", (path,))
        if n:
            db.execute("INSERT INTO field_sums VALUES (?, ?, ?)", (path, n, digest))
