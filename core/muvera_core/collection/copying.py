"""Copying an index to another folder, while it is searched and, by another process, written to."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from muvera_core.collection.collection import Collection
from muvera_core.collection.opening import new_index_id, remove_new_index
from muvera_core.metadata import metadata_as_text
from muvera_core.storage import LEARNED_NAME, Change, Snapshot, StaleError, Store, claim_new_folder
from muvera_core.token_embeddings import IntArray

# Documents that are copied in one transaction. They are in memory together.
_COPIED_TOGETHER = 1024
# Named values that belong to the documents.
_COPIED_VALUES = ("mean_token", LEARNED_NAME)
# Attempts to copy one snapshot before the writer, which is another process, is made to wait.
_ATTEMPTS = 4


def copy_collection(collection: Collection, folder: Path) -> None:
    """Write an index with the same documents and settings to another folder. Raises like ``MuveraIndex.copy_to``."""
    manifest = replace(collection.manifest, index_id=new_index_id(), tuning=None)
    with collection.locks.writing, ExitStack() as undo:
        collection.require_open()
        existed = os.path.lexists(folder)  # Path.exists raises an error for a path that is too long
        lock = claim_new_folder(folder)
        undo.callback(remove_new_index, folder, with_folder=not existed)
        undo.callback(lock.release)
        store = Store(folder, manifest.codec, create={"manifest": manifest.as_text()})
        undo.callback(store.close)
        _copy_documents(collection, store)
        copy = Collection(manifest, store, folder=folder, folder_lock=lock)
        manifest.write(folder)  # now it is an index
        undo.pop_all()
    copy.close()


def _copy_documents(collection: Collection, copy: Store) -> None:
    """Bring a store in step with the documents. They keep their keys, so keys show what is still missing."""

    def copy_latest() -> None:
        snapshot = collection.snapshot()
        gone = np.setdiff1d(copy.snapshot.keys, snapshot.keys, assume_unique=True)
        if len(gone):
            copy.apply(lambda change: change.delete(gone))
        missing = np.setdiff1d(snapshot.keys, copy.snapshot.keys, assume_unique=True)
        for start in range(0, len(missing), _COPIED_TOGETHER):
            _copy_page(collection.store, snapshot, missing[start : start + _COPIED_TOGETHER], copy)
        committed, copied = collection.store.get_states(), copy.get_states()
        new = {name: committed[name] for name in _COPIED_VALUES if committed.get(name) != copied.get(name)}

        def copy_values(change: Change) -> None:
            for name, value in new.items():
                change.put_state(name, value)

        if new:
            copy.apply(copy_values)

    def catch_up_and_copy() -> None:
        collection.catch_up()
        copy_latest()

    for _ in range(_ATTEMPTS):
        try:
            copy_latest()
            break
        except StaleError:  # only if another process writes
            collection.catch_up()
    else:
        collection.store.read_exclusively(catch_up_and_copy)


def _copy_page(source: Store, snapshot: Snapshot, keys: IntArray, copy: Store) -> None:
    documents = source.documents(snapshot, keys)
    if snapshot.tokens.codec == copy.codec:
        places = copy.append_rows(*source.token_rows(snapshot, keys))
    else:  # the writer has rewritten the token file in another format meanwhile
        places, _ = copy.append_tokens(source.embeddings(snapshot, keys))
    copy.apply(
        lambda change: change.add(
            keys,
            [document.id for document in documents],
            [document.text for document in documents],
            [metadata_as_text(document.metadata) for document in documents],
            [None if document.image is None else document.image.as_text() for document in documents],
            places,
        )
    )
