"""Reads the nodes of a folder that LlamaIndex has persisted, also one of ``ColbertIndex``."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.imports.records import BadRecord, Imported, as_document, read_json, with_defaults
from muvera_core.validation import require_path, shown

DOCSTORE = "docstore.json"
# LlamaIndex's name of the table of nodes, and its numbers of types and relationships.
TABLE = "docstore/data"
_WHOLE_DOCUMENT, _IMAGE = "4", "2"
_SOURCE = "1"


def read_llama_index(path: str | PathLike[str]) -> Iterator[Imported]:
    """The nodes of a docstore, in its order, with their ids and metadata.

    A node that was made of a document has the document's id as ``document`` in its metadata, unless it has a field of
    that name. Documents whose nodes are there are left out, because their nodes hold their text.

    Args:
        path: the folder that ``persist`` wrote, or its ``docstore.json``.

    Raises:
        InvalidInputError: the file is missing or damaged, or holds no nodes.
    """
    file = require_path("path", path)
    if file.is_dir():
        file /= DOCSTORE
    content = read_json(file, dict, "a docstore, as LlamaIndex writes it")
    table = content.get(TABLE)
    if not isinstance(table, dict) or not table:
        raise InvalidInputError(
            f"{file} holds no nodes under {TABLE!r}. LlamaIndex leaves them out if its vector store keeps texts "
            "itself, as Chroma's and Qdrant's do: import from there"
        )
    return _documents(table)


def _documents(table: dict[str, Any]) -> Iterator[Imported]:
    data = {id: _data(entry) for id, entry in table.items()}
    split = {_source_of(node) for node in data.values()}
    for id, node in data.items():
        if node is None:
            yield BadRecord(id, f"it is no node of LlamaIndex, got {shown(table[id])}")
        elif table[id].get("__type__") != _WHOLE_DOCUMENT or id not in split:
            source = _source_of(node)
            metadata = node.get("metadata", node.get("extra_info"))
            if source is not None and source != id:
                metadata = with_defaults(metadata, document=source)
            if not _text(node) and table[id].get("__type__") == _IMAGE:
                yield BadRecord(id, "it is an image without a text: add images with MuveraIndex.add_images")
            else:
                yield as_document(id, id, _text(node), metadata)


def _data(entry: Any) -> dict[str, Any] | None:
    data = entry.get("__data__") if isinstance(entry, dict) else None
    return data if isinstance(data, dict) else None


def _text(node: dict[str, Any]) -> Any:
    """A node's text. Since version 0.12, that of documents is in a resource of its own."""
    resource = node.get("text_resource")
    text = node.get("text")
    return resource.get("text") if not text and isinstance(resource, dict) else text


def _source_of(node: dict[str, Any] | None) -> str | None:
    """The id of the document that a node was made of."""
    relationships = (node or {}).get("relationships")
    source = relationships.get(_SOURCE) if isinstance(relationships, dict) else None
    id = source.get("node_id") if isinstance(source, dict) else None
    return id if isinstance(id, str) else None
