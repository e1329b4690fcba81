"""Reads the texts of a RAGatouille index. Its token vectors are not used, so no ColBERT model is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.imports.records import Imported, as_document, read_json, with_defaults
from muvera_core.validation import counted, require_path, shown

# The files that RAGatouille writes beside ColBERT's own: the texts, the id of the document of each text by its number,
# and, if there are any, the metadata of each document by its id.
TEXTS, IDS, METADATAS = "collection.json", "pid_docid_map.json", "docid_metadata_map.json"


def read_ragatouille(path: str | PathLike[str]) -> Iterator[Imported]:
    """The texts of a RAGatouille index, in order.

    RAGatouille splits documents. A document of one text keeps its id. The texts of another one have the ids ``id#1``,
    ``id#2``, … and in their metadata ``document``, its id, and ``position``, from 1.

    Args:
        path: the index's folder, such as ``.ragatouille/colbert/indexes/notes``.

    Raises:
        InvalidInputError: files are missing or damaged, or do not belong together.
    """
    folder = require_path("path", path)
    texts = read_json(folder / TEXTS, list, "a JSON list of texts, as RAGatouille writes it")
    ids = _ids(folder, len(texts))
    metadatas = {}
    if (folder / METADATAS).exists():
        metadatas = read_json(folder / METADATAS, dict, "metadata by document, as RAGatouille writes it")
    return _documents(texts, ids, metadatas)


def _ids(folder: Path, n_texts: int) -> list[Any]:
    """The id of the document of each text."""
    by_number = read_json(folder / IDS, dict, "the ids of documents, as RAGatouille writes them")
    try:
        numbers = sorted(by_number, key=int)
    except ValueError:
        bad = next(key for key in by_number if not key.isdecimal())
        raise InvalidInputError(f"{folder / IDS} must have the numbers of texts as keys, got {shown(bad)}") from None
    if len(numbers) != n_texts:
        raise InvalidInputError(
            f"{folder / TEXTS} has {counted(n_texts, 'text')}, but {IDS} has {counted(len(numbers), 'id')}: they do "
            "not belong together. Index the texts again with RAGatouille, or from their files with `muvera index`"
        )
    # RAGatouille's delete_from_index closes the gaps in its list of texts and leaves those in the numbers. So the
    # order of the numbers tells which id belongs to which text, and not the numbers themselves.
    return [by_number[number] for number in numbers]


def _documents(texts: list[Any], ids: list[Any], metadatas: dict[str, Any]) -> Iterator[Imported]:
    n_texts = Counter(str(id) for id in ids)
    positions: Counter[str] = Counter()
    for number, (text, id) in enumerate(zip(texts, ids, strict=True)):
        metadata = metadatas.get(str(id))
        positions[str(id)] += 1
        own_id = id
        if n_texts[str(id)] > 1:
            position = positions[str(id)]
            own_id = f"{id}#{position}"
            metadata = with_defaults(metadata, document=str(id), position=position)
        yield as_document(f"text {number}", own_id, text, metadata)
