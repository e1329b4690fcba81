"""How an index that was opened for reading takes in what the writer has done."""

from __future__ import annotations

from muvera_core.collection.collection import Collection


def refresh(collection: Collection) -> bool:
    """Take in new documents, and how they are encoded for stage one. Returns whether anything was committed."""
    collection.require_open()
    with collection.locks.writing:
        collection.require_open()
        return collection.read_only and collection.catch_up()
