"""Reads Jupyter notebooks: text and code of the cells, and what the code printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from muvera_core.corpus.files import SourceFile
from muvera_core.corpus.readers.contract import Extracted, of_parts
from muvera_core.corpus.readers.decoding import read_text
from muvera_core.corpus.readers.problems import UnreadableFileError
from muvera_core.corpus.reading import Reading

# Long outputs are logs and dumps: their beginning says what they are.
_MAX_OUTPUT = 2_000
_FENCE = "```"


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The cells as Markdown. Images and other binary outputs are left out."""
    text = read_text(file, reading)
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError("damaged", f"it is no notebook: it is not JSON ({error})") from None
    if not isinstance(notebook, dict):
        raise UnreadableFileError("damaged", "it is no notebook: it holds no JSON object")
    language = _language(notebook)
    cells = enumerate(_cells(notebook), start=1)
    parts = (({"cell": number}, "\n\n".join(_blocks(cell, language))) for number, cell in cells)
    extracted = of_parts(parts, {"language": language} if language else {})
    if extracted.text:
        yield extracted


def _cells(notebook: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The cells. Before format 4 they were in worksheets."""
    sheets = [notebook, *_dicts(notebook.get("worksheets"))]
    return [cell for sheet in sheets for cell in _dicts(sheet.get("cells"))]


def _blocks(cell: Mapping[str, Any], language: str) -> Iterator[str]:
    source = _joined(cell.get("source", cell.get("input"))).strip()
    if cell.get("cell_type") != "code":
        level = cell.get("level")
        if source:
            yield f"{'#' * level} {source}" if cell.get("cell_type") == "heading" and isinstance(level, int) else source
        return
    if source:
        yield f"{_FENCE}{language}\n{source}\n{_FENCE}"
    for output in _dicts(cell.get("outputs")):
        text = _printed(output).strip()
        if text:
            yield f"{_FENCE}\n{text[:_MAX_OUTPUT]}{'…' * (len(text) > _MAX_OUTPUT)}\n{_FENCE}"


def _printed(output: Mapping[str, Any]) -> str:
    """What an output says in words. The words beside a picture only name its class."""
    data = output.get("data")
    if not isinstance(data, dict):
        return _joined(output.get("text"))
    return "" if any(str(kind).startswith("image/") for kind in data) else _joined(data.get("text/plain"))


def _language(notebook: Mapping[str, Any]) -> str:
    metadata = notebook.get("metadata")
    for name in ("language_info", "kernelspec"):
        info = metadata.get(name) if isinstance(metadata, dict) else None
        language = (info.get("name") if name == "language_info" else info.get("language")) if info else None
        if isinstance(language, str):
            return language
    return ""


def _dicts(values: Any) -> list[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _joined(source: Any) -> str:
    """A text that may be stored as a list of lines."""
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""
