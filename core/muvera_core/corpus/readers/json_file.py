"""Reads JSON: a list of objects is one document per object, anything else is one document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from muvera_core.corpus.files import SourceFile, Unusable
from muvera_core.corpus.readers.contract import Extracted, ExtractedText
from muvera_core.corpus.readers.decoding import read_text
from muvera_core.corpus.readers.problems import UnreadableFileError
from muvera_core.corpus.readers.rows import document_of_row
from muvera_core.corpus.reading import Reading
from muvera_core.corpus.records import document_of
from muvera_core.errors import InvalidInputError


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The records of a file, or its text."""
    text = read_text(file, reading)
    if not text.strip():
        return
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError("damaged", f"it is not JSON ({error})") from None
    records = _records(content)
    if records is None:
        yield ExtractedText(json.dumps(content, indent=1, ensure_ascii=False), "code")
        return
    for number, record in enumerate(records, start=1):
        try:
            yield document_of_record(file, number, record)
        except InvalidInputError as error:
            yield Unusable(file, number, str(error), kind="bad record")


def document_of_record(file: SourceFile, number: int, record: dict[str, Any]) -> Extracted:
    """The document of an object: as of a line of JSON lines, or if it has no ``text``, of a row of a table."""
    if isinstance(record.get("text"), str):
        return document_of(file, number, dict(record))
    return document_of_row(file, number, list(record), list(record.values()))


def _records(content: Any) -> list[dict[str, Any]] | None:
    """The objects of a list, or of the only list of objects in an object; None if there is no such list."""
    if isinstance(content, dict):
        lists = [value for value in content.values() if _is_table(value)]
        content = lists[0] if len(lists) == 1 and len(content) == 1 else None
    return content if _is_table(content) else None


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
