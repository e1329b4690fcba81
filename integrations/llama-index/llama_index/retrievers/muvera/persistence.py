"""Where LlamaIndex expects a persisted vector store, a small file that says which folder the index is in.

A muvera index is durable by itself: its folder is written at every change. ``StorageContext.persist`` hands every
vector store the path of a JSON file in the folder that it persists to. The file is written beside that path rather
than at it, because ``StorageContext.from_defaults(persist_dir=…)`` would load it as an empty ``SimpleVectorStore``.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from llama_index.core.vector_stores.simple import DEFAULT_VECTOR_STORE, NAMESPACE_SEP

from muvera_core import MuveraIndex, TokenEncoder
from muvera_core.errors import CorruptIndexError, NotAnIndexError
from muvera_core.files.plain import is_plain_file, read_small, write_json

_POINTER_NAME = "muvera.json"
_SIZE_LIMIT = 1 << 16


def write_pointer(index: MuveraIndex, persist_path: str | os.PathLike[str]) -> Path:
    """Note beside ``persist_path``, such as ``storage/default__vector_store.json``, where the index is.

    An index in memory is copied into a new folder there, once for each call; earlier copies stay.
    """
    given = Path(persist_path)
    namespace = given.name.partition(NAMESPACE_SEP)[0] if NAMESPACE_SEP in given.name else DEFAULT_VECTOR_STORE
    pointer = _pointer(given.parent, namespace)
    pointer.parent.mkdir(parents=True, exist_ok=True)
    where = index.path
    if where is None:
        where = pointer.parent.absolute() / f"{namespace}{NAMESPACE_SEP}muvera-{uuid.uuid4().hex[:8]}"
        index.copy_to(where)
    inside = where.is_relative_to(pointer.parent.absolute())
    # Relative where both move together.
    path = where.relative_to(pointer.parent.absolute()) if inside else where
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
    """Open the index that a persisted folder points to, or that is in the folder itself.

    A persisted folder may come from anywhere, so it can't lead out of itself: an index that is elsewhere is named in
    the error, to be opened by whoever knows it.

    Raises:
        IndexFolderError: as ``MuveraIndex.open``; ``NotAnIndexError`` where the index isn't in the folder,
            ``CorruptIndexError`` where the pointer can't be read.
    """
    folder = Path(persist_dir)
    pointer = _pointer(folder, namespace)
    if is_plain_file(pointer):
        try:
            index = folder / json.loads(read_small(pointer, _SIZE_LIMIT))["muvera_index"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CorruptIndexError(
                f"{pointer} doesn't say where the index is ({error!r}): persist again, or open the index's own folder"
            ) from error
        if not index.resolve().is_relative_to(folder.resolve()):
            raise NotAnIndexError(
                f"{pointer} says that the index is in {index}, which is not in the persisted folder. If that is where "
                f"you keep it, open it there: MuveraVectorStore(MuveraIndex.open({str(index)!r}))"
            )
        folder = index
    return MuveraIndex.open(folder, encoder, read_only=read_only, device=device)


def _pointer(folder: Path, namespace: str) -> Path:
    return folder / f"{namespace}{NAMESPACE_SEP}{_POINTER_NAME}"
