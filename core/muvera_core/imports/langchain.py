"""Reads LangChain documents from JSON: a dump of its ``InMemoryVectorStore``, or a list of documents."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

from muvera_core.imports.records import BadRecord, Imported, as_document, read_json
from muvera_core.validation import require_path, shown


def read_langchain(path: str | PathLike[str]) -> Iterator[Imported]:
    """The documents of a JSON file, in its order.

    The file is what ``InMemoryVectorStore.dump`` writes, or a list of documents, each as ``model_dump`` or ``dumpd``
    gives it. A document without an id gets the file's name and its number, such as ``documents.json#3``.

    Args:
        path: the file.

    Raises:
        InvalidInputError: the file is missing or damaged.
    """
    file = require_path("path", path)
    content = read_json(file, (dict, list), "documents, as LangChain writes them")
    records = content.items() if isinstance(content, dict) else ((f"{file.name}#{n}", r) for n, r in _numbered(content))
    return (_document(id, record) for id, record in records)


def _numbered(records: list[Any]) -> Iterator[tuple[int, Any]]:
    return enumerate(records, start=1)


def _document(key: str, record: Any) -> Imported:
    # ``dumpd`` wraps what it writes: {"lc": 1, "type": "constructor", "id": [...], "kwargs": {...}}.
    fields = record.get("kwargs", record) if isinstance(record, dict) else None
    if not isinstance(fields, dict) or not {"page_content", "text"} & fields.keys():
        return BadRecord(key, f"it is no document of LangChain, got {shown(record)}")
    id = key if fields.get("id") is None else fields["id"]
    text = fields["page_content"] if "page_content" in fields else fields["text"]
    return as_document(key, id, text, fields.get("metadata"))
