"""Documents in the database: read through one connection, and checked against their checksums."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muvera_core.batches import batched
from muvera_core.errors import REPAIR_ADVICE, CorruptIndexError, MuveraError
from muvera_core.files import id_hash, record_checksum
from muvera_core.images import ImageRecord
from muvera_core.storage.database import DATABASE_NAME, read_version, select_by_key
from muvera_core.storage.shared_connection import SharedConnection
from muvera_core.storage.snapshot import Snapshot
from muvera_core.token_embeddings import IntArray

# Documents that are read at a time: others who need the connection wait for a millisecond.
_READ_TOGETHER = 256


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
        image: what is noted about the document's image. None if it was not added as an image.
    """

    key: int
    id: str
    text: str | None
    metadata: dict[str, Any]
    image: ImageRecord | None = None

    @property
    def image_fields(self) -> dict[str, Any]:
        """What ``muvera_core.hits.Document`` says about its image."""
        if self.image is None:
            return {}
        return {"image": self.image.path, "image_size": self.image.size, "image_digest": self.image.digest}


class DocumentReader:
    """Reads documents of a snapshot through one connection, some at a time, so that others can use it in between."""

    def __init__(self, connection: SharedConnection) -> None:
        """Read through this connection."""
        self._connection = connection

    def documents(self, snapshot: Snapshot, keys: Sequence[int] | IntArray) -> list[StoredDocument]:
        """The documents with these keys, which must be in ``snapshot``, in the order of the keys.

        Raises:
            StaleError: a document was deleted after this snapshot.
            CorruptIndexError: a document is damaged.
        """
        found: list[StoredDocument] = []
        for batch in batched(keys, _READ_TOGETHER):
            wanted = [int(key) for key in batch]
            rows = self._select(snapshot, "key, id, text, metadata, image, checksum", wanted)
            found += [_document(rows[key]) for key in wanted]
        return found

    def keys_of(self, snapshot: Snapshot, ids: Sequence[str]) -> dict[str, int]:
        """The key of each id that is in ``snapshot``, by id. Raises the same errors as ``documents``."""
        possible, wanted, found = snapshot.possible_keys(ids), set(ids), dict[str, int]()
        hashes = snapshot.rows.id_hashes[snapshot.places(possible)]
        for batch in batched(zip(possible.tolist(), hashes.tolist(), strict=True), _READ_TOGETHER):
            rows = self._select(snapshot, "key, id", [key for key, _ in batch])
            for key, hash in batch:
                id = rows[key][1]
                if not isinstance(id, str) or id_hash(id) != hash:
                    raise _damaged_document(key)
                if id in wanted:
                    found[id] = key
        return found

    def _select(self, snapshot: Snapshot, columns: str, keys: Sequence[int]) -> dict[int, tuple[Any, ...]]:
        """Columns of documents, the key first, by key."""
        with self._connection.lock, self._connection.checked() as db:
            rows = {row[0]: row for row in select_by_key(db, columns, keys)}
            missing = [key for key in keys if key not in rows]
            if missing and snapshot.version != read_version(db):
                raise StaleError
        if missing:
            raise _damaged_document(missing[0])
        return rows


def _document(row: tuple[Any, ...]) -> StoredDocument:
    key, id, text, metadata, image, checksum = row
    try:
        if record_checksum(key, id, text, metadata, image) == checksum:
            record = None if image is None else ImageRecord.from_text(image)
            return StoredDocument(key, id, text, json.loads(metadata), record)
    except (AttributeError, TypeError, ValueError, RecursionError):
        pass  # a column has a type that a document never has
    raise _damaged_document(key)


def _damaged_document(key: int) -> CorruptIndexError:
    return CorruptIndexError(
        f"document number {key} in {DATABASE_NAME} is damaged or missing, but the others are safe: {REPAIR_ADVICE}"
    )
