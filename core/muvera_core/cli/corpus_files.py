"""Reads documents from files and folders: text, Markdown, JSON lines and images."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_core.cli.passages import Splitting, split_into_passages
from muvera_core.errors import InvalidInputError
from muvera_core.images import ImageSource, UnreadableImageError
from muvera_core.metadata import normalize_metadata
from muvera_core.validation import has_visible_text, repaired, require_string, require_text, shown

TEXT_SUFFIXES = (".txt", ".md")
LINES_SUFFIXES = (".jsonl", ".jsonl.gz")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
# The metadata field that names the file that a document came from.
ORIGIN = "indexed_from"
# Size limit of one document. It is a hundred times what an encoder reads, so a higher limit would help nobody, and it
# keeps a file that is not what its name says from filling the memory.
MAX_TEXT_BYTES = 1 << 24
_MAX_FILE_BYTES = 1 << 28


@dataclass(frozen=True)
class SourceFile:
    """A file, or a folder that cannot be read.

    Attributes:
        root: absolute path that the user named: the file itself, or a folder above it.
        path: absolute path of the file.
    """

    root: Path
    path: Path

    @property
    def name(self) -> str:
        """Its path below the root, as Unicode text, with slashes on every system."""
        below = self.path.relative_to(self.root)
        return as_unicode(below.as_posix() if below.name else self.path.name)

    @property
    def origin(self) -> dict[str, str]:
        """The value of the metadata field ``ORIGIN`` in the file's documents."""
        return {"root": as_unicode(str(self.root)), "file": self.name}


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


@dataclass(frozen=True)
class Unusable:
    """A file, or a line of one, that cannot be used.

    Attributes:
        file: the file.
        line: number of the line; None for the whole file.
        reason: why it cannot be used.
        is_blank: whether it has no visible text, which happens in good files, too, and only needs to be told.
    """

    file: SourceFile
    line: int | None
    reason: str
    is_blank: bool = False

    def __str__(self) -> str:
        return f"{place(self.file, self.line)}: {self.reason}"


def place(file: SourceFile, line: int | None) -> str:
    """A file, and a line in it, in the form "file:line"."""
    return as_unicode(str(file.path)) + ("" if line is None else f":{line}")


def as_unicode(name: str) -> str:
    r"""A file name as Unicode text. Bytes that are not UTF-8 are written as ``\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def as_root(path: Path) -> Path:
    """The absolute path that documents store as their root. Links in it are kept, unless it contains ``..``."""
    return path.resolve() if ".." in path.parts else path.absolute()


def read_suffixes(*, with_images: bool) -> tuple[str, ...]:
    """The endings of the names of files that can be read."""
    return TEXT_SUFFIXES + LINES_SUFFIXES + (IMAGE_SUFFIXES if with_images else ())


def find_files(
    paths: Sequence[Path], leave_out: Path | None = None, *, with_images: bool = False
) -> Iterator[SourceFile | Unusable]:
    """The files to read, each once, path by path, and those in a folder in the order of their names.

    In folders, files of other types, hidden files and folders, and links are skipped.

    Args:
        paths: files, and folders to search for files.
        leave_out: a folder to skip.
        with_images: find images, too.

    Raises:
        InvalidInputError: a path is neither a folder nor a file of a type that can be read.
    """
    seen: set[Path] = set()
    suffixes = read_suffixes(with_images=with_images)
    for path in paths:
        root = as_root(path)
        if root.is_dir():
            found = _files_below(root, leave_out, suffixes)
        elif root.name.lower().endswith(suffixes) and root.is_file():
            found = iter([SourceFile(root, root)])
        else:
            is_image = root.name.lower().endswith(IMAGE_SUFFIXES)
            advice = ": to index images, give the model that embeds them with --encoder" if is_image else ""
            raise InvalidInputError(
                f"{as_unicode(str(path))} is not a folder and not a file that ends in {', '.join(suffixes)}{advice}"
            )
        for entry in found:
            if isinstance(entry, Unusable):
                yield entry
            elif entry.path not in seen:
                seen.add(entry.path)
                yield entry


def read_documents(file: SourceFile, splitting: Splitting) -> Iterator[SourceDocument | Unusable]:
    """The documents of a file, and the parts of it that cannot be used.

    A text file gives one document per passage. Its id is the file's name, followed by ``#1``, ``#2``, … if texts are
    split. Its metadata have ``path`` and, if texts are split, ``position``.

    An image gives one document without text. Its id is the file's name, and its metadata have ``path``.

    A line of JSON gives one document. Its text is ``text``, after ``title`` if there is one. Its metadata are the other
    fields, and the fields of ``metadata``. Its id is ``id`` or ``_id``, or else the file's name with the line number.
    """
    try:
        if file.path.name.lower().endswith(LINES_SUFFIXES):
            yield from _from_lines(file)
        elif file.path.name.lower().endswith(IMAGE_SUFFIXES):
            yield _from_image(file)
        else:
            yield from _from_text(file, splitting)
    except (OSError, EOFError, zlib.error) as error:
        yield Unusable(file, None, f"it cannot be read ({_reason(error)})")


def _from_image(file: SourceFile) -> SourceDocument | Unusable:
    try:
        digest = ImageSource.of(file.path).record.digest
    except UnreadableImageError as error:
        return Unusable(file, None, str(error))
    metadata = {"path": file.name, ORIGIN: file.origin}
    return SourceDocument(file, None, file.name, None, metadata, image_digest=digest)


def _files_below(root: Path, leave_out: Path | None, suffixes: tuple[str, ...]) -> Iterator[SourceFile | Unusable]:
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            if path.is_symlink() and path != root:
                continue
            if path.is_dir():
                if path != leave_out or path == root:
                    visible = (entry for entry in path.iterdir() if not entry.name.startswith("."))
                    waiting += sorted(visible, key=lambda entry: entry.name, reverse=True)
            elif path.is_file() and path.name.lower().endswith(suffixes):
                yield SourceFile(root, path)
        except OSError as error:
            yield Unusable(SourceFile(root, path), None, f"it cannot be read ({_reason(error)})")


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


def _from_lines(file: SourceFile) -> Iterator[SourceDocument | Unusable]:
    with _opened(file.path) as stream:
        for number, line in enumerate(_lines(stream), start=1):
            try:
                if line is None:
                    raise InvalidInputError(f"the line has more than {MAX_TEXT_BYTES >> 20} MiB")
                if line.strip():
                    yield _from_json(file, number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
            except InvalidInputError as error:
                yield Unusable(file, number, str(error))


def _opened(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(stream: io.BufferedIOBase) -> Iterator[bytes | None]:
    """The lines of a file; None for each line that is too long."""
    while line := stream.readline(MAX_TEXT_BYTES + 1):
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


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
