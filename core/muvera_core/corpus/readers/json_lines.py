"""Reads JSON lines, gzipped or not: one document per line."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

from muvera_core.corpus.files import SourceFile, Unusable
from muvera_core.corpus.limits import MAX_TEXT_BYTES
from muvera_core.corpus.readers.contract import Extracted
from muvera_core.corpus.readers.decoding import bad_byte
from muvera_core.corpus.reading import Reading
from muvera_core.corpus.records import document_of
from muvera_core.corpus.source_document import SourceDocument
from muvera_core.errors import InvalidInputError
from muvera_core.validation import shown


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The document of each line."""
    return read_lines(file)


def read_lines(
    file: SourceFile, start: int = 0, end: int | None = None, first: int = 1
) -> Iterator[SourceDocument | Unusable]:
    """The documents of a file of JSON lines, or of a part of it.

    Args:
        file: the file, gzipped (``.gz``) or not.
        start: the byte where the part starts, which is the start of a line. 0 for a gzipped file.
        end: the byte before which the last line of the part starts. None reads to the end of the file.
        first: number of the part's first line.
    """
    with _opened(file.path) as stream:
        stream.seek(start)
        for number, line in enumerate(_lines(stream, end), start=first):
            try:
                if line is None:
                    raise InvalidInputError(f"the line has more than {MAX_TEXT_BYTES >> 20} MiB")
                if line.strip():
                    yield _from_json(file, number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
            except InvalidInputError as error:
                yield Unusable(file, number, str(error), kind="bad line")


def _opened(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(stream: io.BufferedIOBase, end: int | None) -> Iterator[bytes | None]:
    """The lines of a file that start before ``end``; None for each line that is too long."""
    while (end is None or stream.tell() < end) and (line := stream.readline(MAX_TEXT_BYTES + 1)):
        if len(line) <= MAX_TEXT_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_TEXT_BYTES)
        yield None


def _from_json(file: SourceFile, number: int, line: bytes) -> SourceDocument | Unusable:
    try:
        content = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"it is not UTF-8 text ({bad_byte(error)})") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"it is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise InvalidInputError(f"it must hold a JSON object, got {shown(content)}")
    return document_of(file, number, content)
