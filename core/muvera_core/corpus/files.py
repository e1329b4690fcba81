"""Finds the files of a corpus, and names them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from muvera_core.errors import InvalidInputError

TEXT_SUFFIXES = (".txt", ".md")
LINES_SUFFIXES = (".jsonl", ".jsonl.gz")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
# The metadata field that names the file that a document came from.
ORIGIN = "indexed_from"


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


def find_files(
    paths: Sequence[Path], suffixes: tuple[str, ...], leave_out: Path | None = None, *, image_advice: str = ""
) -> Iterator[SourceFile | Unusable]:
    """The files to read, each once, path by path, and those in a folder in the order of their names.

    In folders, files of other types, hidden files and folders, and links are skipped.

    Args:
        paths: files, and folders to search for files.
        suffixes: the endings of the names of files that can be read, in lower case.
        leave_out: a folder to skip.
        image_advice: what the error says to do about an image, if images cannot be read.

    Raises:
        InvalidInputError: a path is neither a folder nor a file of a type that can be read.
    """
    seen: set[Path] = set()
    for path in paths:
        root = as_root(path)
        if root.is_dir():
            found = _files_below(root, leave_out, suffixes)
        elif root.name.lower().endswith(suffixes) and root.is_file():
            found = iter([SourceFile(root, root)])
        else:
            is_image = root.name.lower().endswith(IMAGE_SUFFIXES)
            advice = f": {image_advice}" if is_image and image_advice else ""
            raise InvalidInputError(
                f"{as_unicode(str(path))} is not a folder and not a file that ends in {', '.join(suffixes)}{advice}"
            )
        for entry in found:
            if isinstance(entry, Unusable):
                yield entry
            elif entry.path not in seen:
                seen.add(entry.path)
                yield entry


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
            yield Unusable(SourceFile(root, path), None, f"it cannot be read ({reason_of(error)})")


def reason_of(error: Exception) -> str:
    """What an error says about a file, in a few words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
