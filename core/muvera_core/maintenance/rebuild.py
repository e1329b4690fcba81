"""Writes a new store from an old one's documents, beside it, and then replaces the old one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core.files import storage_errors, sync_folder
from muvera_core.storage import DATABASE_NAME, AppendedTokens, Change, Manifest, Rows, Store, tokens_path
from muvera_core.token_embeddings import IntArray, TokenEmbeddings

_WORK_NAME = "rebuild.tmp"


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """An empty folder inside ``folder`` during a block. One that an interrupted process left is removed first."""
    work = folder / _WORK_NAME
    remove_unfinished_rebuild(folder)
    with storage_errors(work):
        work.mkdir()
    try:
        yield work
    finally:
        remove_unfinished_rebuild(folder)


class Rebuild:
    """A new store in ``work``: add documents, call ``finish``, close it. Before ``finish`` the index is unchanged."""

    def __init__(self, folder: Path, work: Path, manifest: Manifest, *, generation: int, state: dict[str, Any]) -> None:
        """Make an empty store.

        Args:
            folder: the index's folder, which the caller has locked.
            work: an empty folder in it.
            manifest: the index's settings.
            generation: generation of the new token file. No token file in ``folder`` may have it.
            state: named values of the new store.
        """
        self._folder, self._work, self._generation = folder, work, generation
        state = {**state, "manifest": manifest.as_text()}
        self._store = Store(work, manifest.codec, create=state, generation=generation)

    def add_rows(
        self,
        keys: IntArray,
        ids: Sequence[str],
        texts: Sequence[str | None],
        metadatas: Sequence[str],
        images: Sequence[str | None],
        rows: Rows,
        offsets: IntArray,
    ) -> None:
        """Add documents with encoded token rows. Keys must ascend, also from call to call."""
        self._add(keys, ids, texts, metadatas, images, self._store.append_rows(rows, offsets))

    def add_embeddings(
        self,
        ids: Sequence[str],
        texts: Sequence[str | None],
        metadatas: Sequence[str],
        images: Sequence[str | None],
        embeddings: TokenEmbeddings,
    ) -> None:
        """Add documents with token embeddings, under new keys."""
        first = self._store.get_state("next_key")
        keys = np.arange(first, first + len(ids), dtype=np.int64)
        self._add(keys, ids, texts, metadatas, images, self._store.append_tokens(embeddings)[0])

    @property
    def n_documents(self) -> int:
        """Number of documents added."""
        return len(self._store.snapshot)

    def close(self) -> None:
        """Close the new store."""
        self._store.close()

    def finish(self) -> None:
        """Replace the old store by the new one. The caller then writes the manifest."""
        self._store.close()
        with storage_errors(self._folder):
            tokens_path(self._work, self._generation).replace(tokens_path(self._folder, self._generation))
            sync_folder(self._folder)
        replace_database(self._folder, self._work)

    def _add(
        self,
        keys: IntArray,
        ids: Sequence[str],
        texts: Sequence[str | None],
        metadatas: Sequence[str],
        images: Sequence[str | None],
        tokens: AppendedTokens,
    ) -> None:
        next_key = max(self._store.get_state("next_key"), int(keys[-1]) + 1)

        def fill(change: Change) -> None:
            change.add(keys, ids, texts, metadatas, images, tokens)
            change.put_state("next_key", next_key)

        self._store.apply(fill)


def replace_database(folder: Path, work: Path) -> None:
    """Replace the database of an index by the one in ``work``, which is closed."""
    with storage_errors(folder):
        # A journal of the old database, left by an unfinished commit, would be applied to the new one.
        (folder / f"{DATABASE_NAME}-journal").unlink(missing_ok=True)
        sync_folder(folder)
        (work / DATABASE_NAME).replace(folder / DATABASE_NAME)
        sync_folder(folder)


def remove_unfinished_rebuild(folder: Path) -> None:
    """Remove the folder that an interrupted rebuild left."""
    work = folder / _WORK_NAME
    with storage_errors(work):
        if work.is_symlink():
            work.unlink()
        elif work.exists():
            shutil.rmtree(work)
