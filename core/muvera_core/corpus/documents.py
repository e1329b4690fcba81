"""Reads the documents of a file: text, Markdown, JSON lines and images."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_core.corpus.files import IMAGE_SUFFIXES, LINES_SUFFIXES, ORIGIN, SourceFile, Unusable, reason_of
from muvera_core.corpus.passages import Splitting, split_into_passages
from muvera_core.errors import InvalidInputError
from muvera_core.images import ImageSource, UnreadableImageError
from muvera_core.metadata import normalize_metadata
from muvera_core.validation import has_visible_text, repaired, require_string, require_text, shown

# Size limit of one document. It is a hundred times what an encoder reads, so a higher limit would help nobody, and it
# keeps a file that is not what its name says from filling the memory.
MAX_TEXT_BYTES = 1 << 24
_MAX_FILE_BYTES = 1 << 28


@dataclass(frozen=True)
class SourceDocument:
    """A document that was read from a file.

    Attributes:
        file: the file.
        line: number of its line; None for a text file or an image.
        id: its id.
        text: its text; None for an image.
        metadata: its metadata, of JSON's types.
        id_is_own: whether the file gives the id. Otherwise the id is made from the file's name.
        image_digest: of an image; see ``Document``. None for a text.
    """

    file: SourceFile
    line: int | None
    id: str
    text: str | None
    metadata: dict[str, Any]
    id_is_own: bool = False
    image_digest: str | None = None


def read_documents(file: SourceFile, splitting: Splitting) -> Iterator[SourceDocument | Unusable]:
    """The documents of a file, and the parts of it that cannot be used.

    A text file gives one document per passage. Its id is the file's name, followed by ``#1``, ``#2``, … if texts are
    split. Its metadata have ``path`` and, if texts are split, ``position``.

    An image gives one document without text. Its id is the file's name, and its metadata have ``path``.

    A line of JSON gives one document. Its text is ``text``, after ``title`` if there is one. Its metadata are the other
    fields, and the fields of ``metadata``. Its id is ``id`` or ``_id``, or else the file's name with the line number.
    """
    if file.path.name.lower().endswith(LINES_SUFFIXES):
        return read_lines(file)
    if file.path.name.lower().endswith(IMAGE_SUFFIXES):
        return until_unreadable(file, _from_image(file))
    return until_unreadable(file, _from_text(file, splitting))


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
    return until_unreadable(file, _from_lines(file, start, end, first))


def other_file(document: SourceDocument, stored: Mapping[str, Any]) -> str | None:
    """The file below another root that gave the stored document with the same id, if it exists.

    None if the document's file names the id itself.

    Args:
        document: the document.
        stored: metadata of the document that an index has under the same id.
    """
    origin = stored.get(ORIGIN)
    if document.id_is_own or not isinstance(origin, dict) or origin.get("root") == document.file.origin["root"]:
        return None
    root = Path(str(origin.get("root")))
    path = root if root.is_file() else root / str(origin.get("file"))
    return str(path) if path.is_file() and not path.samefile(document.file.path) else None


def until_unreadable(
    file: SourceFile, documents: Iterator[SourceDocument | Unusable]
) -> Iterator[SourceDocument | Unusable]:
    """The documents of a file, and an ``Unusable`` in place of the rest if the file cannot be read to its end."""
    try:
        yield from documents
    except (OSError, EOFError, zlib.error) as error:
        yield Unusable(file, None, f"it cannot be read ({reason_of(error)})")


def _from_image(file: SourceFile) -> Iterator[SourceDocument | Unusable]:
    try:
        digest = ImageSource.of(file.path).record.digest
    except UnreadableImageError as error:
        yield Unusable(file, None, str(error))
        return
    metadata = {"path": file.name, ORIGIN: file.origin}
    yield SourceDocument(file, None, file.name, None, metadata, image_digest=digest)


def _from_text(file: SourceFile, splitting: Splitting) -> Iterator[SourceDocument | Unusable]:
    with file.path.open("rb") as stream:
        content = stream.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        yield Unusable(file, None, f"it has more than {_MAX_FILE_BYTES >> 20} MiB: split it into several files")
        return
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        yield Unusable(file, line, f"it is not UTF-8 text ({_not_utf8(error)}): convert the file")
        return
    passages = [passage for passage in split_into_passages(text, splitting) if has_visible_text(passage)]
    if any(len(passage.encode()) > MAX_TEXT_BYTES for passage in passages):
        advice = "split the text, for example with --max-words"
        yield Unusable(file, None, f"a passage has more than {MAX_TEXT_BYTES >> 20} MiB: {advice}")
        return
    split = splitting != Splitting()
    for i, passage in enumerate(passages, start=1):
        metadata = {"path": file.name, **({"position": i} if split else {}), ORIGIN: file.origin}
        yield SourceDocument(file, None, f"{file.name}#{i}" if split else file.name, passage, metadata)


def _from_lines(file: SourceFile, start: int, end: int | None, first: int) -> Iterator[SourceDocument | Unusable]:
    with _opened(file.path) as stream:
        stream.seek(start)
        for number, line in enumerate(_lines(stream, end), start=first):
            try:
                if line is None:
                    raise InvalidInputError(f"the line has more than {MAX_TEXT_BYTES >> 20} MiB")
                if line.strip():
                    yield _from_json(file, number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
            except InvalidInputError as error:
                yield Unusable(file, number, str(error))


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
        raise InvalidInputError(f"it is not UTF-8 text ({_not_utf8(error)})") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"it is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise InvalidInputError(f"it must hold a JSON object, got {shown(content)}")
    return document_of(file, number, content)


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
        return Unusable(file, number, "text is empty", is_blank=True)
    own_id = _own_id(content)
    metadata = content.pop("metadata", None)
    if not isinstance(metadata, dict | None):
        raise InvalidInputError(f"metadata must be a JSON object, got {shown(metadata)}")
    metadata = normalize_metadata({**content, **(metadata or {}), ORIGIN: file.origin})
    return SourceDocument(file, number, own_id or f"{file.name}#{number}", text, metadata, own_id is not None)


def _own_id(content: dict[str, Any]) -> str | None:
    name = "id" if content.get("id") is not None else "_id"
    id = content.pop(name, None)
    if id is None:
        return None
    if isinstance(id, bool) or not isinstance(id, (str, int)):
        raise InvalidInputError(f"{name} must be a string or a whole number, got {shown(id)}")
    return require_text(name, str(id))


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"byte 0x{error.object[error.start]:02x} at {error.start}"
