"""Persists a vector store as a pointer: a small file that names the folder of the index.

The index itself is durable: every change is on disk when the call returns. ``StorageContext.persist`` passes every
vector store the path of a JSON file in the persisted folder. The pointer gets another name in that folder, because
``StorageContext.from_defaults(persist_dir=…)`` takes every file of that kind for a ``SimpleVectorStore``, LlamaIndex's
default. Without a file it would make a context that has no vector store, which fails later, in another place. So the
file is written, too, in such a way that loading it fails, with a message that says what to do.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from llama_index.core.vector_stores.simple import DEFAULT_VECTOR_STORE, NAMESPACE_SEP
from llama_index.core.vector_stores.types import DEFAULT_PERSIST_FNAME

from muvera_core import IndexCalls, MuveraIndex, TokenEncoder
from muvera_core.errors import CorruptIndexError, NotAnIndexError
from muvera_core.files import is_plain_file, read_small, storage_errors, write_json
from muvera_core.validation import require_path

_POINTER_NAME = "muvera.json"
_SIZE_LIMIT = 1 << 16
_HOW_TO_LOAD = (
    "this folder was persisted with a MuveraVectorStore, so load it with StorageContext.from_defaults("
    "vector_store=MuveraVectorStore.from_persist_dir(persist_dir), persist_dir=persist_dir)"
)
# ``SimpleVectorStore`` expects numbers in an embedding. Its error shows the text that is not one.
_NOT_A_SIMPLE_VECTOR_STORE = {"embedding_dict": {"muvera": [_HOW_TO_LOAD]}, "text_id_to_ref_doc_id": _HOW_TO_LOAD}


def write_pointer(index: IndexCalls, persist_path: str | os.PathLike[str]) -> Path:
    """Write a pointer to the index in the folder of ``persist_path``, such as ``storage/default__vector_store.json``.

    An index in memory is copied to a new folder there. Each call makes a new copy; earlier copies stay.

    Returns:
        Path of the pointer.

    Raises:
        StorageError: the files cannot be written. No copy is left.
    """
    given = require_path("persist_path", persist_path)
    namespace = given.name.partition(NAMESPACE_SEP)[0] if NAMESPACE_SEP in given.name else DEFAULT_VECTOR_STORE
    pointer = _pointer(given.parent, namespace)
    with storage_errors(given.parent):
        given.parent.mkdir(parents=True, exist_ok=True)
        if index.path is not None:
            _point(pointer, index.path)
        else:
            _copy_to_folder_of(pointer, index, f"{namespace}{NAMESPACE_SEP}muvera-{uuid.uuid4().hex[:8]}")
        # A file of this kind for another namespace would make LlamaIndex forget about the stores beside it.
        if given.name == f"{DEFAULT_VECTOR_STORE}{NAMESPACE_SEP}{DEFAULT_PERSIST_FNAME}":
            write_json(given, _NOT_A_SIMPLE_VECTOR_STORE)
    return pointer


def open_persisted(
    persist_dir: str | os.PathLike[str],
    *,
    namespace: str = DEFAULT_VECTOR_STORE,
    encoder: TokenEncoder | None = None,
    **options: Any,
) -> MuveraIndex:
    """Open the index that a persisted folder points to, or that is the folder itself.

    Args:
        persist_dir: the folder.
        namespace: the store's name in the storage context.
        encoder: the encoder that the index was made with.
        **options: see ``MuveraIndex.open``.

    Raises:
        NotAnIndexError: the index is not in the persisted folder.
        CorruptIndexError: the pointer cannot be read.
        IndexFolderError: the same cases as for ``MuveraIndex.open``.
    """
    return MuveraIndex.open(_folder_of_index(persist_dir, namespace), encoder, **options)


def open_or_create_persisted(
    persist_dir: str | os.PathLike[str],
    *,
    namespace: str = DEFAULT_VECTOR_STORE,
    encoder: TokenEncoder | None = None,
    **options: Any,
) -> MuveraIndex:
    """Open the index of a folder for writing. Make it if there is none.

    See ``open_persisted``; the options are those of ``MuveraIndex.open_or_create``.
    """
    return MuveraIndex.open_or_create(_folder_of_index(persist_dir, namespace), encoder, **options)


def _folder_of_index(persist_dir: str | os.PathLike[str], namespace: str) -> Path:
    """The folder of the index that a persisted folder points to, or else the folder itself.

    A persisted folder may come from an untrusted source, so only an index inside it is opened. The error for an index
    elsewhere names its path, so that the caller can open it.
    """
    folder = require_path("persist_dir", persist_dir)
    pointer = _pointer(folder, namespace)
    if not is_plain_file(pointer):
        return folder
    try:
        index: Path = folder / json.loads(read_small(pointer, _SIZE_LIMIT))["muvera_index"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptIndexError(
            f"{pointer} does not name the index's folder ({error!r}): persist again, or open that folder itself"
        ) from error
    if not index.resolve().is_relative_to(folder.resolve()):
        raise NotAnIndexError(
            f"{pointer} points to an index in {index}, which is not in the persisted folder. If you keep the index "
            f"there, open it by its path: MuveraVectorStore(MuveraIndex.open({str(index)!r}))"
        )
    return index


def _copy_to_folder_of(pointer: Path, index: IndexCalls, name: str) -> None:
    copy = pointer.parent / name
    try:
        index.copy_to(copy)
        _point(pointer, copy)
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise


def _point(pointer: Path, index: Path) -> None:
    # A relative path stays valid if the persisted folder is moved.
    path = index.relative_to(pointer.parent) if index.is_relative_to(pointer.parent) else index
    write_json(pointer, {"muvera_index": path.as_posix()})


def _pointer(folder: Path, namespace: str) -> Path:
    return folder / f"{namespace}{NAMESPACE_SEP}{_POINTER_NAME}"
