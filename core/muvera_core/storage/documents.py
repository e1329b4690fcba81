"""Documents in the database: read through one connection, and checked against their checksums."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muvera_core.errors import REPAIR_ADVICE, CorruptIndexError, MuveraError
from muvera_core.files import id_hash, record_checksum
from muvera_core.storage.database import DATABASE_NAME, read_version, select_by_key
from muvera_core.storage.snapshot import Snapshot
from muvera_core.token_embeddings import IntArray


class StaleError(MuveraError):
    """A later snapshot has replaced the one that was read from: read again from the later one. Never reaches users."""


@dataclass(frozen=True)
class StoredDocument:
    """One document as the store keeps it.

    Attributes:
        key: internal number. A replaced document gets a new one.
        id: the user's id.
        text: the passage. None if only token embeddings were added.
        metadata: the user's metadata.
    """

    key: int
    id: str
    text: str | None
    metadata: dict[str, Any]


class DocumentReader:
    """Reads documents of a snapshot through one connection. The caller guards the connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def documents(self, snapshot: Snapshot, keys: Sequence[int] | IntArray) -> list[StoredDocument]:
        """The documents with these keys, which must be in ``snapshot``, in the order of the keys.

        Raises:
            StaleError: a document was deleted after this snapshot.
            CorruptIndexError: a document is damaged.
        """
        wanted = [int(key) for key in keys]
        found = {row[0]: row for row in select_by_key(self._db, "key, id, text, metadata, checksum", wanted)}
        if len(found) < len(set(wanted)):
            self._raise_missing(snapshot, [key for key in wanted if key not in found])
        return [_document(found[key]) for key in wanted]

    def keys_of(self, snapshot: Snapshot, ids: Sequence[str]) -> dict[str, int]:
        """The key of each id that is in ``snapshot``, by id. Raises the same errors as ``documents``."""
        possible, wanted = snapshot.possible_keys(ids), set(ids)
        rows = list(select_by_key(self._db, "key, id", possible.tolist()))
        if len(rows) < len(possible):
            self._raise_missing(snapshot, sorted(set(possible.tolist()) - {key for key, _ in rows}))
        id_hashes = snapshot.rows.id_hashes[snapshot.places(possible)]
        hashes = dict(zip(possible.tolist(), id_hashes.tolist(), strict=True))
        for key, id in rows:
            if not isinstance(id, str) or id_hash(id) != hashes[key]:
                raise _damaged_document(key)
        return {id: key for key, id in rows if id in wanted}

    def _raise_missing(self, snapshot: Snapshot, keys: Sequence[int]) -> None:
        if snapshot.version != read_version(self._db):
            raise StaleError
        raise _damaged_document(keys[0])


def _document(row: tuple[Any, ...]) -> StoredDocument:
    key, id, text, metadata, checksum = row
    try:
        if record_checksum(key, id, text, metadata) == checksum:
            return StoredDocument(key, id, text, json.loads(metadata))
    except (AttributeError, TypeError, ValueError, RecursionError):
        pass  # a column has a type that a document never has
    raise _damaged_document(key)


def _damaged_document(key: int) -> CorruptIndexError:
    return CorruptIndexError(
        f"document number {key} in {DATABASE_NAME} is damaged or missing, but the others are safe: {REPAIR_ADVICE}"
    )
