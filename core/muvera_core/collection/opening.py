"""Creating and opening an index: its folder is claimed, its files are opened, its stage one is loaded."""

from __future__ import annotations

import uuid
from contextlib import ExitStack, suppress
from pathlib import Path

from muvera_core.collection.accelerator import Accelerator
from muvera_core.collection.collection import Collection
from muvera_core.encoders import describe_mismatch
from muvera_core.errors import EncoderMismatchError
from muvera_core.maintenance import migrate_index
from muvera_core.storage import (
    Manifest,
    Store,
    claim_folder,
    claim_new_folder,
    read_manifest,
    remove_unfinished,
)


def create_collection(folder: Path | None, manifest: Manifest, accelerator: Accelerator | None = None) -> Collection:
    """An empty index with these settings; in memory if ``folder`` is None. Raises like ``MuveraIndex.create``."""
    if folder is None:
        store = Store(None, manifest.codec, create={"manifest": manifest.as_text()})
        return Collection(manifest, store, accelerator=accelerator)
    with ExitStack() as undo:
        lock = claim_new_folder(folder)
        undo.callback(lock.release)
        undo.callback(remove_unfinished, folder)
        store = Store(folder, manifest.codec, create={"manifest": manifest.as_text()})
        undo.callback(store.close)
        collection = Collection(manifest, store, folder=folder, folder_lock=lock, accelerator=accelerator)
        manifest.write(folder)
        undo.pop_all()
    return collection


def open_collection(
    folder: Path,
    *,
    encoder: str | None = None,
    read_only: bool = False,
    show_progress: bool = False,
    accelerator: Accelerator | None = None,
) -> Collection:
    """Open an index.

    Args:
        folder: the index's folder.
        encoder: the fingerprint that its encoder must have. None accepts any, because maintenance needs no encoder.
        read_only: allow no changes.
        show_progress: show bars.
        accelerator: the GPU to use, if any.

    Raises:
        Everything that ``MuveraIndex.open`` raises.
    """
    read_manifest(folder)  # before a lock file is made in a folder that holds no index
    with ExitStack() as undo:
        lock = None if read_only else claim_folder(folder)
        if lock is not None:
            undo.callback(lock.release)
            migrate_index(folder)
        manifest = Manifest.read(folder)
        if encoder is not None and encoder != manifest.encoder:
            raise EncoderMismatchError(f"{folder} {describe_mismatch(manifest.encoder, encoder)}")
        store = Store(folder, manifest.codec, read_only=read_only)
        undo.callback(store.close)
        collection = Collection(
            manifest,
            store,
            folder=folder,
            folder_lock=lock,
            read_only=read_only,
            show_progress=show_progress,
            accelerator=accelerator,
        )
        undo.pop_all()
    return collection


def remove_new_index(folder: Path, *, with_folder: bool) -> None:
    """Remove the files of an index whose creation has failed, and their folder if ``with_folder``.

    The folder was empty before, so all files in it are this index's. What cannot be removed stays.
    """
    with suppress(OSError):
        for file in list(folder.iterdir()):
            file.unlink(missing_ok=True)
        if with_folder:
            folder.rmdir()


def new_index_id() -> str:
    """A random name for a new index."""
    return uuid.uuid4().hex
