"""Reads tables of comma-separated values: one document per row."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count

from muvera_core.corpus.files import SourceFile, Unusable
from muvera_core.corpus.limits import MAX_TEXT_BYTES
from muvera_core.corpus.readers.contract import Extracted
from muvera_core.corpus.readers.decoding import read_text
from muvera_core.corpus.readers.rows import column_names, document_of_row
from muvera_core.corpus.reading import Reading
from muvera_core.errors import InvalidInputError

_DELIMITERS = ",;\t|"
# Rows that the delimiter is chosen by.
_SAMPLE = 50


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The document of each row. The first row names the columns."""
    text = read_text(file, reading)
    delimiter = "\t" if file.path.name.lower().endswith((".tsv", ".tab")) else find_delimiter(text)
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT_BYTES))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = column_names(next(rows, []))
    for number in count(2):  # as programs for tables number them
        try:
            row = next(rows, None)
            if row is None:
                return
            if any(cell.strip() for cell in row):
                yield document_of_row(file, number, names, row)
        except (csv.Error, InvalidInputError) as error:
            yield Unusable(file, number, f"the row cannot be used ({error})", kind="bad row")


def find_delimiter(text: str) -> str:
    r"""The character that divides the most rows of the beginning into the same number of cells, more than one.

    >>> find_delimiter("name;price\nowl;1,50\nant;2,75")
    ';'
    """
    sample = text[: _SAMPLE * 2_000]

    def evenness(delimiter: str) -> tuple[float, int]:
        lengths = [len(row) for row in _first_rows(sample, delimiter)]
        if not lengths or lengths[0] < 2:
            return 0.0, 0
        length, n = Counter(lengths).most_common(1)[0]
        return (n / len(lengths), length) if length > 1 else (0.0, 0)

    return max(_DELIMITERS, key=evenness)


def _first_rows(sample: str, delimiter: str) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    try:
        for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
            if row:
                rows.append(row)
            if len(rows) == _SAMPLE:
                break
    except csv.Error:
        pass
    return rows
