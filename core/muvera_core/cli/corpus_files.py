"""Documents from files: text, Markdown and JSON lines, alone or in folders."""

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
from muvera_core.validation import require_json, require_text, require_unicode, shown

TEXT_SUFFIXES = (".txt", ".md")
LINES_SUFFIXES = (".jsonl", ".jsonl.gz")
# The metadata field that says which file a document came from.
ORIGIN = "indexed_from"
# Of one document. A hundred times the tokens that an encoder takes, so that nobody gains by more, and a file that isn't
# what its name says can't fill the memory.
MAX_TEXT_BYTES = 1 << 24
_MAX_FILE_BYTES = 1 << 28


@dataclass(frozen=True)
class SourceFile:
    """A file, or a folder that can't be read.

    Attributes:
        root: the absolute path that was asked for: the file itself or a folder above it.
        path: its own absolute path.
    """

    root: Path
    path: Path

    @property
    def name(self) -> str:
        """Its path below the root, with slashes on every system and nothing that isn't Unicode text."""
        below = self.path.relative_to(self.root)
        return as_unicode(below.as_posix() if below.name else self.path.name)

    @property
    def origin(self) -> dict[str, str]:
        """What a document's metadata say about where it came from."""
        return {"root": as_unicode(str(self.root)), "file": self.name}


@dataclass(frozen=True)
class SourceDocument:
    """A document as a file holds it.

    Attributes:
        file: the file.
        line: the line that holds it; None where it is a text file's.
        id: its id.
        text: its text.
        metadata: its metadata, of JSON's own types.
        id_is_own: whether the file gives the id. Otherwise it is made of the file's name.
    """

    file: SourceFile
    line: int | None
    id: str
    text: str
    metadata: dict[str, Any]
    id_is_own: bool = False


@dataclass(frozen=True)
class Unusable:
    """A file, or a line of one, that can't be used.

    Attributes:
        file: the file.
        line: the line; None where it is the whole file.
        reason: why.
    """

    file: SourceFile
    line: int | None
    reason: str

    def __str__(self) -> str:
        return f"{place(self.file, self.line)}: {self.reason}"


def place(file: SourceFile, line: int | None) -> str:
    """A file and a line in it, as compilers write it."""
    return as_unicode(str(file.path)) + ("" if line is None else f":{line}")


def as_unicode(name: str) -> str:
    r"""A file's name, in which bytes that aren't UTF-8 are written as ``\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def as_root(path: Path) -> Path:
    """The absolute path by which documents remember where they came from; links in it stay."""
    return path.resolve() if ".." in path.parts else path.absolute()


def find_files(paths: Sequence[Path], leave_out: Path | None = None) -> Iterator[SourceFile | Unusable]:
    """The files to read: those named, and those in folders named, each once, in the order of their names.

    In folders, files of other kinds, hidden files and folders, and links are passed over.

    Args:
        paths: files and folders.
        leave_out: a folder that isn't looked into.

    Raises:
        InvalidInputError: a file that is named is of no kind that can be read.
    """
    met: set[Path] = set()
    for path in paths:
        root = as_root(path)
        if root.is_dir():
            found = _files_below(root, leave_out)
        elif root.name.lower().endswith(TEXT_SUFFIXES + LINES_SUFFIXES) and root.is_file():
            found = iter([SourceFile(root, root)])
        else:
            raise InvalidInputError(
                f"{as_unicode(str(path))} is not a folder and not a file that ends in "
                f"{', '.join(TEXT_SUFFIXES + LINES_SUFFIXES)}"
            )
        for entry in found:
            if isinstance(entry, Unusable):
                yield entry
            elif entry.path not in met:
                met.add(entry.path)
                yield entry


def read_documents(file: SourceFile, splitting: Splitting) -> Iterator[SourceDocument | Unusable]:
    """The documents of a file, and what of it can't be used.

    A text file gives its passages. Their ids are the file's name, with ``#1``, ``#2``, … where texts are split; their
    metadata say ``path`` and, where texts are split, ``position``. A line of JSON gives one document: its ``text``,
    after its ``title`` if it has one, and as metadata what else it has and what is in ``metadata``. Its id is ``id`` or
    ``_id``, or else the file's name with the number of the line.
    """
    try:
        if file.path.name.lower().endswith(LINES_SUFFIXES):
            yield from _from_lines(file)
        else:
            yield from _from_text(file, splitting)
    except (OSError, EOFError, zlib.error) as error:
        yield Unusable(file, None, f"it can't be read ({_reason(error)})")


def _files_below(root: Path, leave_out: Path | None) -> Iterator[SourceFile | Unusable]:
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
            elif path.is_file() and path.name.lower().endswith(TEXT_SUFFIXES + LINES_SUFFIXES):
                yield SourceFile(root, path)
        except OSError as error:
            yield Unusable(SourceFile(root, path), None, f"it can't be read ({_reason(error)})")


def _from_text(file: SourceFile, splitting: Splitting) -> Iterator[SourceDocument | Unusable]:
    with file.path.open("rb") as stream:
        content = stream.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        yield Unusable(file, None, f"it has more than {_MAX_FILE_BYTES >> 20} MiB: cut it into several files")
        return
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        yield Unusable(file, line, f"it isn't UTF-8 text ({_not_utf8(error)}): convert the file")
        return
    passages = split_into_passages(text, splitting)
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
    """The lines of a file; None for each that is too long."""
    while line := stream.readline(MAX_TEXT_BYTES + 1):
        if len(line) <= MAX_TEXT_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_TEXT_BYTES)
        yield None


def _from_json(file: SourceFile, number: int, line: bytes) -> SourceDocument:
    try:
        content = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"it isn't UTF-8 text ({_not_utf8(error)})") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"it is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise InvalidInputError(f"it must hold a JSON object, got {shown(content)}")
    text = require_unicode("text", content.pop("text", None))
    title = "" if content.get("title") is None else require_unicode("title", content["title"])
    text = require_text("text", f"{title} {text}" if title else text)
    own_id = _own_id(content)
    metadata = content.pop("metadata", None)
    if not isinstance(metadata, dict | None):
        raise InvalidInputError(f"metadata must be a JSON object, got {shown(metadata)}")
    metadata = require_json("metadata", {**content, **(metadata or {}), ORIGIN: file.origin})
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
