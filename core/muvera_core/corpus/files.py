"""Finds the files of a corpus, and names them."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from muvera_core.errors import InvalidInputError

LINES_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
# The metadata field that names the file that a document came from.
ORIGIN = "indexed_from"
# Files that a folder has if it is an index itself. Its JSON files are no documents.
_INDEX_FILES = ("manifest.json", "documents.sqlite")
# Folders that programs fill with what is not the user's: by their names, or by a file in them. The second one is a
# convention for folders of caches (https://bford.info/cachedir/).
_FOREIGN_FOLDERS = ("node_modules", "__pycache__")
_FOREIGN_MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")


@dataclass(frozen=True)
class SourceFile:
    """A file, or a folder that cannot be read.

    Attributes:
        home: absolute path of the folder that holds the index. Files below it are named by their place below it, so
            that index and files can be moved together. None names every file by its absolute path.
        path: absolute path of the file.
    """

    home: Path | None
    path: Path

    @cached_property
    def name(self) -> str:
        """Its name in the index, whichever path led to it; see ``name_of``."""
        return name_of(self.path, self.home)

    @property
    def origin(self) -> dict[str, str]:
        """The value of the metadata field ``ORIGIN`` in the file's documents."""
        return {"file": self.name}


@dataclass(frozen=True)
class Unusable:
    """A file, or a line of one, that cannot be used.

    Attributes:
        file: the file.
        line: number of the line; None for the whole file.
        reason: why it cannot be used.
        is_blank: whether it has no visible text, which happens in good files, too, and only needs to be told.
        kind: what is wrong in few words, by which such files can be counted, such as "damaged" or "encrypted".
    """

    file: SourceFile
    line: int | None
    reason: str
    is_blank: bool = False
    kind: str = "unusable"

    def __str__(self) -> str:
        return f"{place(self.file, self.line)}: {self.reason}"


def place(file: SourceFile, line: int | None) -> str:
    """A file, and a line in it, in the form "file:line"."""
    return as_unicode(str(file.path)) + ("" if line is None else f":{line}")


def as_unicode(name: str) -> str:
    r"""A file name as Unicode text. Bytes that are not UTF-8 are written as ``\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def home_of(index_folder: Path | None) -> Path | None:
    """The folder below which the files of an index are named. None if the index is in memory."""
    return None if index_folder is None else index_folder.absolute().parent


def name_of(path: Path, home: Path | None) -> str:
    """The name of a file or folder in an index: its path below ``home``, or else its absolute path.

    It is Unicode text in the composed form (NFC), because file systems differ in the form that they keep, with slashes
    on every system. ``home`` itself is ".".
    """
    below = path.relative_to(home) if home is not None and path.is_relative_to(home) else path
    return unicodedata.normalize("NFC", as_unicode(below.as_posix()))


def exists(name: str, home: Path | None) -> bool:
    """Whether there is a file of this name now. True if that cannot be told."""
    path = Path(name) if home is None else home / name
    if not path.is_absolute() or "\\x" in name:
        return True
    return any(_may_be_there(form) for form in {path, Path(unicodedata.normalize("NFD", str(path)))})


def _may_be_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # a folder that may not be opened, or a disk that does not answer
    return True


def file_of(metadata: Mapping[str, Any]) -> str | None:
    """The name of the file that a document came from. None if it did not come from one."""
    origin = metadata.get(ORIGIN)
    file = origin.get("file") if isinstance(origin, dict) else None
    return file if isinstance(file, str) else None


def as_root(path: Path, home: Path | None = None) -> Path:
    """The absolute path of what a user names, below ``home`` if there is a way to say it so.

    Links in it are kept, unless it contains ``..`` or leads to ``home`` in a roundabout way.
    """
    root = path.resolve() if ".." in path.parts else path.absolute()
    if home is None or root.is_relative_to(home):
        return root
    real, real_home = Path(os.path.realpath(root)), Path(os.path.realpath(home))
    return home / real.relative_to(real_home) if real.is_relative_to(real_home) else root


def find_files(
    paths: Sequence[Path],
    suffixes: tuple[str, ...] | None,
    leave_out: Path | None = None,
    *,
    home: Path | None = None,
) -> Iterator[SourceFile | Unusable]:
    """The files to read, each once, path by path, and those in a folder in the order of their names.

    In folders, files of other types, hidden files and folders, and links are skipped, and folders that are indexes, or
    hold installed packages or caches (node_modules, virtual environments of Python, folders with a CACHEDIR.TAG).

    Args:
        paths: files, and folders to search for files.
        suffixes: the endings of the names of files that can be read, in lower case. None takes files of every type.
        leave_out: a folder to skip.
        home: see ``SourceFile``.

    Raises:
        InvalidInputError: a path is neither a folder nor a file of a type that can be read.
    """
    seen: set[Path] = set()
    for path in paths:
        root = as_root(path, home)
        if root.is_dir():
            found = _files_below(root, leave_out, suffixes, home)
        elif _has_suffix(root, suffixes) and root.is_file():
            found = iter([SourceFile(home, root)])
        else:
            ending = "" if suffixes is None else f" that ends in {', '.join(suffixes)}"
            raise InvalidInputError(f"{as_unicode(str(path))} is not a folder and not a file{ending}")
        real_root = Path(os.path.realpath(root))  # links lead to the same file by several paths
        for entry in found:
            if isinstance(entry, Unusable):
                yield entry
            elif (real := real_root / entry.path.relative_to(root)) not in seen:
                seen.add(real)
                yield entry


def _has_suffix(path: Path, suffixes: tuple[str, ...] | None) -> bool:
    return suffixes is None or path.name.lower().endswith(suffixes)


def _files_below(
    root: Path, leave_out: Path | None, suffixes: tuple[str, ...] | None, home: Path | None
) -> Iterator[SourceFile | Unusable]:
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            if path.is_symlink() and path != root:
                continue
            # Path.is_dir says False of what cannot be looked at, since Python 3.14. That would make files gone.
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                if path == root or (path != leave_out and not _is_foreign(path)):
                    visible = (entry for entry in path.iterdir() if not entry.name.startswith("."))
                    waiting += sorted(visible, key=lambda entry: entry.name, reverse=True)
            elif _has_suffix(path, suffixes) and stat.S_ISREG(mode):
                yield SourceFile(home, path)
        except FileNotFoundError:
            continue  # it went away meanwhile
        except OSError as error:
            yield Unusable(SourceFile(home, path), None, f"it cannot be read ({reason_of(error)})", kind="unreadable")


def _is_foreign(folder: Path) -> bool:
    """Whether a folder holds no documents of the user: an index, installed packages, or a cache."""
    if folder.name in _FOREIGN_FOLDERS or any((folder / name).is_file() for name in _FOREIGN_MARKS):
        return True
    return all((folder / name).is_file() for name in _INDEX_FILES)


def reason_of(error: Exception) -> str:
    """What an error says about a file, in a few words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
