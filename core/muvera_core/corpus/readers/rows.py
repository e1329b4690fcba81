"""Makes documents of the rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from muvera_core.corpus.files import SourceFile, Unusable
from muvera_core.corpus.records import document_of
from muvera_core.corpus.source_document import SourceDocument

_ID = ("id", "_id")


def column_names(head: Sequence[str]) -> list[str]:
    """Names of columns, none of which is empty or there twice.

    >>> column_names(["text", "", "text"])
    ['text', 'column 2', 'text 2']
    """
    names: dict[str, None] = {}
    last: dict[str, int] = {}
    for i, given in enumerate(head, start=1):
        name = base = " ".join(given.split()) or f"column {i}"
        n = last.get(base, 1)
        while name in names:
            n += 1
            name = f"{base} {n}"
        last[base] = n
        names[name] = None
    return list(names)


def document_of_row(
    file: SourceFile, number: int, names: Sequence[str], row: Sequence[Any]
) -> SourceDocument | Unusable:
    """The document of a row.

    If there is a column ``text``, the row is what a line of JSON lines is. Otherwise its text is a line "column: value"
    for each cell that is not empty, and all cells are metadata, too.

    Args:
        file: the file.
        number: the row's number in it.
        names: of the columns.
        row: the cells. Cells beyond the last column have its number as name.

    Raises:
        InvalidInputError: a cell cannot be used.
    """
    names = [*names, *(f"column {i}" for i in range(len(names) + 1, len(row) + 1))]
    cells = {name: cell for name, cell in zip(names, row, strict=False) if cell is not None and cell != ""}
    if "text" not in names:
        lines = [f"{name}: {cell}" for name, cell in cells.items() if str(cell).strip()]
        # A title is among the lines.
        cells = {"metadata": cells, "text": "\n".join(lines), **{key: cells.pop(key) for key in _ID if key in cells}}
    return document_of(file, number, {"row": number, **cells, "text": cells.get("text", "")})
