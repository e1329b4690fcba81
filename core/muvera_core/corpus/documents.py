"""Reads the documents of a file, of whatever format, and splits their texts into passages."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from muvera_core.corpus.files import IMAGE_SUFFIXES, ORIGIN, SourceFile, Unusable, reason_of
from muvera_core.corpus.limits import MAX_TEXT_BYTES
from muvera_core.corpus.readers import Extracted, ExtractedText, Reader, format_of
from muvera_core.corpus.readers.problems import UnreadableFileError
from muvera_core.corpus.reading import Reading
from muvera_core.corpus.source_document import SourceDocument
from muvera_core.corpus.splitting import split_text
from muvera_core.corpus.text_passage import TextPassage
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import MissingExtraError
from muvera_core.images import ImageSource, UnreadableImageError
from muvera_core.metadata import normalize_metadata
from muvera_core.validation import repaired


def read_documents(
    file: SourceFile, reading: Reading, encoder: TokenEncoder | None
) -> Iterator[SourceDocument | Unusable]:
    """The documents of a file, and the parts of it that cannot be used.

    A file has a text, or records, such as the lines of JSON lines. Each text that fits into a passage gives a document,
    whose id is the file's name, or the record's own ``id``. A longer text gives a document per passage, with ids that
    end in ``#1``, ``#2``, …. Metadata are those of the record; ``path``; ``page`` and ``heading``, where there are any;
    and if there is more than one passage, ``document``, which is the id without its end, ``position`` from 1, and
    ``start`` and ``end``, the passage's characters in the text.

    A record's text is ``text``, after ``title`` if there is one. Its metadata are the other fields, and the fields of
    ``metadata``. Its id is ``id`` or ``_id``, or else the file's name with the record's number.

    An image gives one document without text.

    Args:
        file: the file.
        reading: how it is read.
        encoder: counts the tokens of passages. None takes the bundled encoder.

    Returns:
        The documents in order. A file that cannot be read gives an ``Unusable`` that says why; this raises nothing.
    """
    if file.path.name.lower().endswith(IMAGE_SUFFIXES):
        return until_unreadable(file, _from_image(file))
    format = format_of(file.path)
    if format is None:
        kind = f"unknown type {file.path.suffix}".rstrip()
        return iter([Unusable(file, None, "nothing reads files of its type", kind=kind)])
    try:
        read = format.load()
    except MissingExtraError as error:
        return iter([Unusable(file, None, str(error), kind=f"needs muvera-core[{format.extra}]")])
    return until_unreadable(file, _read(file, read, reading, encoder))


def until_unreadable(
    file: SourceFile, documents: Iterator[SourceDocument | Unusable]
) -> Iterator[SourceDocument | Unusable]:
    """The documents of a file, and an ``Unusable`` in place of the rest if the file cannot be read to its end."""
    try:
        yield from documents
    except UnreadableFileError as error:
        yield Unusable(file, None, str(error), kind=error.kind)
    except (OSError, EOFError, zlib.error) as error:
        yield Unusable(file, None, f"it cannot be read ({reason_of(error)})", kind="damaged")


def _read(
    file: SourceFile, read: Reader, reading: Reading, encoder: TokenEncoder | None
) -> Iterator[SourceDocument | Unusable]:
    is_empty = True
    for item in _extracted(file, read, reading):
        is_empty = False
        if isinstance(item, Unusable):
            yield item
        elif isinstance(item, ExtractedText):
            metadata = normalize_metadata({**item.metadata, "path": file.name, ORIGIN: file.origin})
            whole = SourceDocument(file, None, file.name, repaired(item.text), metadata)
            yield from _passages(whole, item, reading, encoder)
        else:
            yield from _of_record(item, reading, encoder)
    if is_empty:
        yield Unusable(file, None, "it is empty", is_blank=True, kind="empty")


def _of_record(
    record: SourceDocument, reading: Reading, encoder: TokenEncoder | None
) -> Iterator[SourceDocument | Unusable]:
    """The documents of a record. One that is not split stays as it is, white space included."""
    found = list(_passages(record, ExtractedText(record.text or ""), reading, encoder))
    return iter([record] if len(found) == 1 and isinstance(found[0], SourceDocument) else found)


def _extracted(file: SourceFile, read: Reader, reading: Reading) -> Iterator[Extracted]:
    """What a reader gives. Whatever it raises about the file, such as an error of a library, is told in one way."""
    try:
        yield from read(file, reading)
    except (UnreadableFileError, OSError):
        raise
    except Exception as error:
        raise UnreadableFileError("damaged", f"it cannot be read ({reason_of(error)})") from error


def _passages(
    whole: SourceDocument, extracted: ExtractedText, reading: Reading, encoder: TokenEncoder | None
) -> Iterator[SourceDocument | Unusable]:
    """The documents of a text: one, or one per passage."""
    found = split_text(
        whole.text or "",
        max_tokens=reading.max_tokens,
        overlap=reading.overlap,
        encoder=encoder,
        markup=extracted.markup,
    )
    if not found:
        yield Unusable(whole.file, whole.line, "text is empty", is_blank=True, kind="empty")
    for position, passage in enumerate(found, start=1):
        if len(passage.text) > MAX_TEXT_BYTES or len(passage.text.encode()) > MAX_TEXT_BYTES:
            reason = f"a passage has more than {MAX_TEXT_BYTES >> 20} MiB: split the text into passages"
            yield Unusable(whole.file, whole.line, reason, kind="too large")
            return
        fields = _fields_at(passage, extracted)
        id = whole.id
        if len(found) > 1:
            id = f"{id}#{position}"
            fields |= {"position": position, "start": passage.start, "end": passage.end, "document": whole.id}
        yield replace(whole, id=id, text=passage.text, metadata={**fields, **whole.metadata})


def _fields_at(passage: TextPassage, extracted: ExtractedText) -> dict[str, Any]:
    """Metadata that say where a passage is: its page, its heading."""
    fields: dict[str, Any] = {"heading": passage.heading} if passage.heading else {}
    place = bisect_right(extracted.marks, passage.start, key=lambda mark: mark.start)
    return {**fields, **extracted.marks[place - 1].fields} if place else fields


def _from_image(file: SourceFile) -> Iterator[SourceDocument | Unusable]:
    try:
        digest = ImageSource.of(file.path).record.digest
    except UnreadableImageError as error:
        yield Unusable(file, None, str(error), kind="damaged")
        return
    metadata = {"path": file.name, ORIGIN: file.origin}
    yield SourceDocument(file, None, file.name, None, metadata, image_digest=digest)
