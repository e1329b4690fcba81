"""Persists a vector store as a pointer: a small file that names the folder of the index.

The index itself is durable: every change is on disk when the call returns. ``StorageContext.persist`` passes every
vector store the path of a JSON file in the persisted folder. The pointer gets another name in that folder, because
``StorageContext.from_defaults(persist_dir=…)`` would load a file at that path as an empty ``SimpleVectorStore``.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from llama_index.core.vector_stores.simple import DEFAULT_VECTOR_STORE, NAMESPACE_SEP

from muvera_core import MuveraIndex, TokenEncoder
from muvera_core.errors import CorruptIndexError, NotAnIndexError
from muvera_core.files import is_plain_file, read_small, write_json

_POINTER_NAME = "muvera.json"
_SIZE_LIMIT = 1 << 16


def write_pointer(index: MuveraIndex, persist_path: str | os.PathLike[str]) -> Path:
    """Write a pointer to the index in the folder of ``persist_path``, such as ``storage/default__vector_store.json``.

    An index in memory is copied to a new folder there. Each call makes a new copy; earlier copies stay.

    Returns:
        Path of the pointer.
    """
    given = Path(persist_path)
    namespace = given.name.partition(NAMESPACE_SEP)[0] if NAMESPACE_SEP in given.name else DEFAULT_VECTOR_STORE
    pointer = _pointer(given.parent, namespace)
    pointer.parent.mkdir(parents=True, exist_ok=True)
    folder, index_path = pointer.parent.absolute(), index.path
    if index_path is None:
        index_path = folder / f"{namespace}{NAMESPACE_SEP}muvera-{uuid.uuid4().hex[:8]}"
        index.copy_to(index_path)
    # A relative path stays valid if the persisted folder is moved.
    path = index_path.relative_to(folder) if index_path.is_relative_to(folder) else index_path
    write_json(pointer, {"muvera_index": path.as_posix()})
    return pointer


def open_persisted(
    persist_dir: str | os.PathLike[str],
    *,
    namespace: str = DEFAULT_VECTOR_STORE,
    encoder: TokenEncoder | None = None,
    read_only: bool = False,
    device: str = "cpu",
) -> MuveraIndex:
    """Open the index that a persisted folder points to, or that is the folder itself.

    A persisted folder may come from an untrusted source, so only an index inside it is opened. The error for an index
    elsewhere names its path, so that the caller can open it.

    Raises:
        NotAnIndexError: the index is not in the persisted folder.
        CorruptIndexError: the pointer cannot be read.
        IndexFolderError: the same cases as for ``MuveraIndex.open``.
    """
    folder = Path(persist_dir)
    pointer = _pointer(folder, namespace)
    if is_plain_file(pointer):
        try:
            index = folder / json.loads(read_small(pointer, _SIZE_LIMIT))["muvera_index"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CorruptIndexError(
                f"{pointer} does not name the index's folder ({error!r}): persist again, or open that folder itself"
            ) from error
        if not index.resolve().is_relative_to(folder.resolve()):
            raise NotAnIndexError(
                f"{pointer} points to an index in {index}, which is not in the persisted folder. If you keep the index "
                f"there, open it by its path: MuveraVectorStore(MuveraIndex.open({str(index)!r}))"
            )
        folder = index
    return MuveraIndex.open(folder, encoder, read_only=read_only, device=device)


def _pointer(folder: Path, namespace: str) -> Path:
    return folder / f"{namespace}{NAMESPACE_SEP}{_POINTER_NAME}"
