"""Divides files into units of work: parts that are read one after the other, each by one worker."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from muvera_core.corpus import (
    LINES_SUFFIXES,
    PARQUET_SUFFIX,
    READABLE,
    Reading,
    SourceDocument,
    SourceFile,
    Unusable,
    read_documents,
    read_lines,
    read_rows,
    reason_of,
    row_ranges,
    until_unreadable,
)

SUFFIXES = READABLE
# Size of the parts that a large file is divided into. It bounds how much one worker has to read, not its memory.
UNIT_BYTES = 32 << 20
_WHOLE = Reading(max_tokens=None)
_TEXT_FILES_TOGETHER = 256
_SCANNED_TOGETHER = 1 << 20


@dataclass(frozen=True)
class Unit:
    """Some files that are read whole, or a file of records, or a part of one.

    Attributes:
        files: the files. A part has one.
        start: where a part starts: a byte of a file of JSON lines, or a row group of a Parquet file.
        end: where it ends. None stands for the file's end.
        first: number of the part's first line or row.
        duplicates: places of documents, counted from 0, whose id an earlier document has.
    """

    files: tuple[SourceFile, ...]
    start: int = 0
    end: int | None = None
    first: int = 1
    duplicates: tuple[int, ...] = ()

    def to_json(self) -> str:
        """The unit as text that ``from_json`` reads."""
        files = [(None if file.home is None else str(file.home), str(file.path)) for file in self.files]
        return json.dumps([files, self.start, self.end, self.first, self.duplicates])

    @classmethod
    def from_json(cls, text: str) -> Unit:
        """The unit that ``to_json`` wrote."""
        files, start, end, first, duplicates = json.loads(text)
        sources = tuple(SourceFile(None if home is None else Path(home), Path(path)) for home, path in files)
        return cls(sources, start, end, first, tuple(duplicates))


def plan_texts(files: Sequence[SourceFile]) -> list[Unit]:
    """The units of files that are read whole, some files each."""
    starts = range(0, len(files), _TEXT_FILES_TOGETHER)
    return [Unit(tuple(files[start : start + _TEXT_FILES_TOGETHER])) for start in starts]


def is_text(file: SourceFile) -> bool:
    """Whether a file is read whole by one worker."""
    return not file.path.name.lower().endswith((*LINES_SUFFIXES, PARQUET_SUFFIX))


def plan_file(file: SourceFile, unit_bytes: int = UNIT_BYTES) -> list[Unit] | Unusable:
    """The units of a file with many documents.

    A large file of JSON lines is read once to find where lines start, and how many there are. A gzipped file is one
    unit, because it can only be read from its start.
    """
    try:
        name = file.path.name.lower()
        if name.endswith(PARQUET_SUFFIX):
            return [Unit((file,), start, end, first) for start, end, first in row_ranges(file, unit_bytes)]
        if name.endswith(".gz") or file.path.stat().st_size <= unit_bytes:
            return [Unit((file,))]
        return [Unit((file,), start, end, first) for start, end, first in _line_ranges(file.path, unit_bytes)]
    except (OSError, ValueError) as error:  # PyArrow's errors about a file are ValueErrors
        return Unusable(file, None, f"it cannot be read ({reason_of(error)})")


def read_unit(unit: Unit) -> Iterator[SourceDocument | Unusable]:
    """The documents of a unit, and what cannot be used of it."""
    if is_text(unit.files[0]):
        return chain.from_iterable(read_documents(file, _WHOLE, None) for file in unit.files)
    (file,) = unit.files
    if file.path.name.lower().endswith(PARQUET_SUFFIX):
        return until_unreadable(file, read_rows(file, unit.start, unit.end, unit.first))
    return until_unreadable(file, read_lines(file, unit.start, unit.end, unit.first))


def _line_ranges(path: Path, unit_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Start, end and number of the first line of each part of a file. Parts start where lines start."""
    start, first, n_lines, offset = 0, 1, 0, 0
    with path.open("rb") as stream:
        while chunk := stream.read(min(_SCANNED_TOGETHER, unit_bytes)):
            cut = chunk.find(b"\n") + 1 if offset - start >= unit_bytes else 0
            if cut:
                yield start, offset + cut, first
                start, first, n_lines = offset + cut, first + n_lines + 1, 0
            n_lines += chunk.count(b"\n", cut)
            offset += len(chunk)
    if offset > start:
        yield start, offset, first
