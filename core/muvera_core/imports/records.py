"""What every reader of a foreign format gives, and what the readers share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.hits import Document
from muvera_core.metadata import normalize_metadata
from muvera_core.validation import has_visible_text, repaired, require_text, shown


@dataclass(frozen=True)
class BadRecord:
    """A record of a source that cannot be imported.

    Attributes:
        record: which one, such as "text 12" or its id.
        reason: why.
    """

    record: str
    reason: str

    def __str__(self) -> str:
        return f"{self.record}: {self.reason}"


# What a reader gives for each record of a source.
Imported = Document | BadRecord


def as_document(record: str, id: object, text: object, metadata: object) -> Imported:
    """The document of a record, or why there is none.

    Args:
        record: which record it is, for the reason.
        id: its id: a string that is not blank, or a whole number.
        text: its text, with a visible character.
        metadata: a mapping, or None.
    """
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(text, str):
        return BadRecord(record, f"its text must be a string, got {shown(text)}")
    if not has_visible_text(text):
        return BadRecord(record, "its text is empty")
    if metadata is not None and not isinstance(metadata, Mapping):
        return BadRecord(record, f"its metadata must be a JSON object, got {shown(metadata)}")
    try:
        return Document(require_text("its id", id), repaired(text), normalize_metadata(metadata or {}, "its metadata"))
    except InvalidInputError as error:
        return BadRecord(record, str(error))


def with_defaults(metadata: Any, **defaults: Any) -> Any:
    """Metadata with further fields. What the source says under the same name stays."""
    if metadata is None or isinstance(metadata, Mapping):
        return {**defaults, **(metadata or {})}
    return metadata


def read_json(path: Path, kind: type | tuple[type, ...], what: str) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        kind: the types that its content may have.
        what: what it should hold, for the error message.

    Raises:
        InvalidInputError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} cannot be read ({error}): expected {what}") from error
    if not isinstance(content, kind):
        raise InvalidInputError(f"{path} must hold {what}, got {shown(content)}")
    return content
