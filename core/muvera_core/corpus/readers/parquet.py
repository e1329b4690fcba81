"""Reads Parquet files, some rows at a time: one document per row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from muvera_core.corpus.files import SourceFile, Unusable, reason_of
from muvera_core.corpus.readers.contract import Extracted
from muvera_core.corpus.readers.problems import UnreadableFileError
from muvera_core.corpus.readers.rows import document_of_row
from muvera_core.corpus.reading import Reading
from muvera_core.corpus.records import document_of
from muvera_core.corpus.source_document import SourceDocument
from muvera_core.errors import InvalidInputError
from muvera_core.validation import shown

PARQUET_SUFFIX = ".parquet"
_ROWS_TOGETHER = 64
_BUFFER_BYTES = 1 << 20


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The document of each row."""
    return read_rows(file)


def row_ranges(file: SourceFile, part_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Parts of a file: the first row group, the one after the last, and the number of the first row.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    with _opened(file) as table:
        footer = table.metadata
        start, first, n_rows, n_bytes = 0, 1, 0, 0
        for group in range(footer.num_row_groups):
            n_rows += footer.row_group(group).num_rows
            n_bytes += footer.row_group(group).total_byte_size
            if n_bytes >= part_bytes or group == footer.num_row_groups - 1:
                yield start, group + 1, first
                start, first, n_rows, n_bytes = group + 1, first + n_rows, 0, 0


def read_rows(
    file: SourceFile, start: int = 0, end: int | None = None, first: int = 1
) -> Iterator[SourceDocument | Unusable]:
    """The documents of some row groups. A row is what a line of JSON is, or if no column is ``text``, a row of a table.

    The column ``metadata`` holds structs, maps, or JSON objects as strings. A null stands for a missing field, because
    all rows of a file have the same columns.

    Args:
        file: the file.
        start: the first row group.
        end: the one after the last. None stands for the end of the file.
        first: number of the first row.

    Raises:
        OSError: the file cannot be read.
        UnreadableFileError: it is damaged.
    """
    number = first
    try:
        with _opened(file) as table:
            has_text = "text" in table.schema_arrow.names
            groups = list(range(start, table.num_row_groups if end is None else end))
            for batch in table.iter_batches(_ROWS_TOGETHER, row_groups=groups):
                for row in batch.to_pylist():
                    yield _from_row(file, number, row, has_text=has_text)
                    number += 1
    except ValueError as error:  # PyArrow's errors about a file are ValueErrors
        raise UnreadableFileError("damaged", f"it cannot be read ({reason_of(error)})") from error


def _from_row(file: SourceFile, number: int, row: dict[str, Any], *, has_text: bool) -> SourceDocument | Unusable:
    try:
        content = _without_nulls(row)
        if not has_text:
            return document_of_row(file, number, list(content), list(content.values()))
        content["metadata"] = _as_object(content.get("metadata"))
        return document_of(file, number, content)
    except InvalidInputError as error:
        return Unusable(file, number, str(error), kind="bad row")


def _as_object(metadata: Any) -> Any:
    if isinstance(metadata, str):
        try:
            return json.loads(metadata)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"metadata must be a JSON object, got {shown(metadata)} ({error})") from None
    if isinstance(metadata, list) and all(isinstance(item, tuple) for item in metadata):  # a map
        return _without_nulls(dict(metadata))
    return metadata


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


def _opened(file: SourceFile) -> Any:
    """The file, open for reading without reading ahead, so that a large row group is not in memory at once."""
    from pyarrow.parquet import ParquetFile

    return ParquetFile(file.path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
