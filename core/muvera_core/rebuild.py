"""A store made anew from an old one's documents, beside it, and put in its place at once."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from muvera_core.database import DATABASE_NAME
from muvera_core.files import storage_errors, sync_folder
from muvera_core.manifest import Manifest
from muvera_core.store import AppendedTokens, Store, tokens_path
from muvera_core.token_codec import Rows
from muvera_core.token_embeddings import IntArray, TokenEmbeddings

_WORK_NAME = "rebuild.tmp"


class Rebuild:
    """Within a ``with`` block: add documents, then ``finish``. Without that nothing is changed."""

    def __init__(self, folder: Path, manifest: Manifest, *, generation: int, state: dict[str, Any]) -> None:
        """Begin.

        Args:
            folder: the index, which the caller has claimed.
            manifest: its settings.
            generation: of the token file; no file in the folder has it.
            state: named values of the new store.
        """
        self._folder, self._manifest, self._generation, self._state = folder, manifest, generation, state
        self.work = folder / _WORK_NAME
        self.n_documents = 0

    def __enter__(self) -> Self:
        with storage_errors(self.work):
            _remove_tree(self.work)
            self.work.mkdir()
            state = {**self._state, "manifest": self._manifest.as_text()}
            try:
                self._store = Store(
                    self.work, self._manifest.codec, threading.RLock(), create=state, generation=self._generation
                )
            except BaseException:
                _remove_tree(self.work)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()
        _remove_tree(self.work)

    def add_rows(
        self,
        keys: IntArray,
        ids: Sequence[str],
        texts: Sequence[str | None],
        metadatas: Sequence[str],
        rows: Rows,
        offsets: IntArray,
    ) -> None:
        """Add documents with their token rows as they are; keys rise from call to call."""
        self._add(keys, ids, texts, metadatas, self._store.append_rows(rows, offsets))

    def add_embeddings(
        self, ids: Sequence[str], texts: Sequence[str | None], metadatas: Sequence[str], embeddings: TokenEmbeddings
    ) -> None:
        """Add documents under new keys."""
        with self._store.lock:
            first = self._store.get_state("next_key")
        keys = np.arange(first, first + len(ids), dtype=np.int64)
        self._add(keys, ids, texts, metadatas, self._store.append_tokens(embeddings)[0])

    def finish(self) -> None:
        """Put the new store in the old one's place."""
        self.n_documents = len(self._store.directory)
        self._store.close()
        with storage_errors(self._folder):
            tokens = tokens_path(self._folder, self._generation)
            tokens_path(self.work, self._generation).replace(tokens)
            sync_folder(self._folder)
            # From here on what the old database was in the midst of would be undone in the new one.
            (self._folder / f"{DATABASE_NAME}-journal").unlink(missing_ok=True)
            sync_folder(self._folder)
            (self.work / DATABASE_NAME).replace(self._folder / DATABASE_NAME)
            sync_folder(self._folder)
        self._manifest.write(self._folder)

    def _add(
        self,
        keys: IntArray,
        ids: Sequence[str],
        texts: Sequence[str | None],
        metadatas: Sequence[str],
        tokens: AppendedTokens,
    ) -> None:
        with self._store.change() as change:
            change.add(keys, ids, texts, metadatas, tokens)
            with self._store.lock:
                next_key = max(self._store.get_state("next_key"), int(keys[-1]) + 1)
                change.put_state("next_key", next_key)
                change.commit()


def remove_unfinished_rebuild(folder: Path) -> None:
    """Remove what an interrupted one left."""
    with storage_errors(folder):
        _remove_tree(folder / _WORK_NAME)


def _remove_tree(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
