"""Makes documents of records: of lines of JSON, and of rows of tables."""

from __future__ import annotations

from typing import Any

from muvera_core.corpus.files import ORIGIN, SourceFile, Unusable
from muvera_core.corpus.source_document import SourceDocument
from muvera_core.errors import InvalidInputError
from muvera_core.metadata import normalize_metadata
from muvera_core.validation import has_visible_text, repaired, require_string, require_text, shown


def document_of(file: SourceFile, number: int, content: dict[str, Any]) -> SourceDocument | Unusable:
    """The document of a line of JSON, or of another record with the same fields; see ``read_documents``.

    Args:
        file: the file.
        number: the record's number in it, from 1.
        content: the record's fields, which are changed.

    Raises:
        InvalidInputError: a field cannot be used.
    """
    text = repaired(require_string("text", content.pop("text", None)))
    title = "" if content.get("title") is None else repaired(require_string("title", content["title"]))
    text = f"{title} {text}" if title else text
    if not has_visible_text(text):
        return Unusable(file, number, "text is empty", is_blank=True, kind="empty")
    own_id = _own_id(content)
    metadata = content.pop("metadata", None)
    if not isinstance(metadata, dict | None):
        raise InvalidInputError(f"metadata must be a JSON object, got {shown(metadata)}")
    metadata = normalize_metadata({"path": file.name, **content, **(metadata or {}), ORIGIN: file.origin})
    return SourceDocument(file, number, own_id or f"{file.name}#{number}", text, metadata, own_id is not None)


def _own_id(content: dict[str, Any]) -> str | None:
    name = "id" if content.get("id") is not None else "_id"
    id = content.pop(name, None)
    if id is None:
        return None
    if isinstance(id, bool) or not isinstance(id, (str, int)):
        raise InvalidInputError(f"{name} must be a string or a whole number, got {shown(id)}")
    return require_text(name, str(id))
