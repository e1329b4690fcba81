"""The folder of uploaded files: their names are made harmless, and their size and number are limited."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from muvera_core.errors import InvalidInputError, StorageError

_MIB = 1 << 20
# What no system allows in a name, or reads as a folder, a drive or a wildcard; and characters that do not show.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
# Most file systems take names of 255 bytes.
_MAX_NAME_BYTES = 180
# A file that tells a folder of uploads from one with files of somebody else.
_MARK = ".muvera-uploads"


@dataclass(frozen=True)
class UploadLimits:
    """How much users may upload.

    Attributes:
        max_file_bytes: size of a file.
        max_total_bytes: size of all files together.
        max_files: number of files.
    """

    max_file_bytes: int = 50 * _MIB
    max_total_bytes: int = 2048 * _MIB
    max_files: int = 1000

    def __post_init__(self) -> None:
        for name in ("max_file_bytes", "max_total_bytes", "max_files"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"{name} must be a whole number above 0, got {value!r}")


class Uploads:
    """A folder of uploaded files, none of which lies in a folder below it."""

    def __init__(self, folder: Path, suffixes: Collection[str], limits: UploadLimits | None = None) -> None:
        """Use a folder, which is made when the first file comes.

        Args:
            folder: the folder. If it has files of somebody else, nothing can be uploaded.
            suffixes: endings of the names of files that are accepted, in lower case, such as ".txt".
            limits: how much is accepted.
        """
        self.folder, self.suffixes, self.limits = folder, tuple(suffixes), limits or UploadLimits()

    @contextmanager
    def keeping(self, path: Path, name: str) -> Iterator[Path]:
        """Copy a file into the folder, durably, over one of the same name. If the block fails, that one is restored.

        Args:
            path: where the file is now.
            name: the name that the user's browser gave it. It may be anything.

        Yields:
            Where the file is.

        Raises:
            InvalidInputError: the file's type, size or name is not accepted, or there is no room for it.
            StorageError: it cannot be written.
        """
        target = self.folder / safe_name(name)
        self._require_own_folder()
        self._require_room(path.stat().st_size, target)
        new, old = self.folder / _hidden(), self.folder / _hidden()
        existed = target.exists()
        try:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / _MARK).touch()
                shutil.copyfile(path, new)
                with new.open("rb+") as stream:
                    os.fsync(stream.fileno())
                if existed:
                    target.replace(old)
                new.replace(target)
            except OSError as error:
                advice = "make room, or check its rights"
                raise StorageError(f"{target} cannot be written ({error.strerror}): {advice}") from None
            yield target
        except BaseException:
            if old.exists():
                old.replace(target)
            elif not existed:
                target.unlink(missing_ok=True)
            raise
        finally:
            for leftover in (new, old):
                leftover.unlink(missing_ok=True)

    def find(self, name: str) -> Path | None:
        """The file of this name in the folder, whatever the name is; None if there is none."""
        return next((path for path in self.files() if path.name == name), None)

    def files(self) -> list[Path]:
        """The files, by name."""
        if not (self.folder / _MARK).is_file():
            return []  # whatever is there, nobody has uploaded it
        return sorted(
            path
            for path in self.folder.iterdir()
            if not path.name.startswith(".") and path.is_file() and not path.is_symlink()
        )

    def _require_own_folder(self) -> None:
        """Raise StorageError if the folder has files that are not uploads, which must not be replaced or removed."""
        if (self.folder / _MARK).is_file() or not self.folder.exists():
            return
        if not self.folder.is_dir() or any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise StorageError(f"{self.folder} holds other files than uploads: rename it, or the index")

    def _require_room(self, size: int, target: Path) -> None:
        limits = self.limits
        if not target.name.lower().endswith(self.suffixes):
            raise InvalidInputError(f"files of this type cannot be read; these can: {', '.join(self.suffixes)}")
        if size > limits.max_file_bytes:
            raise InvalidInputError(
                f"it has {size / _MIB:.1f} MiB; at most {limits.max_file_bytes / _MIB:g} are accepted"
            )
        others = [path for path in self.files() if path != target]
        if len(others) >= limits.max_files:
            raise InvalidInputError(f"there are {len(others)} files already, which is the limit: remove some")
        if sum(path.stat().st_size for path in others) + size > limits.max_total_bytes:
            raise InvalidInputError(f"all files together may have {limits.max_total_bytes / _MIB:g} MiB: remove some")


def _hidden() -> str:
    return f".{uuid.uuid4().hex}.part"


def safe_name(name: str) -> str:
    r"""A name that can be used on every system and stays in its folder, as near to the given one as possible.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\notes\\a<b>.txt"), safe_name(".env")
    ('passwd', 'a_b_.txt', '_.env')

    Raises:
        InvalidInputError: nothing of it can be used.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode()))[-1]
    clean = _UNSAFE.sub("_", last).strip().rstrip(". ")
    stem, dot, suffix = clean.rpartition(".")
    room = _MAX_NAME_BYTES - len(f"{dot}{suffix}".encode())
    if len(clean.encode()) > _MAX_NAME_BYTES and room > 0:
        clean = stem.encode()[:room].decode("utf-8", "ignore").rstrip() + dot + suffix
    if not clean.strip("._ ") or len(clean.encode()) > _MAX_NAME_BYTES:
        raise InvalidInputError(f"{name[:80]!r} cannot be used as the name of a file: rename it")
    return f"_{clean}" if clean.startswith(".") or _RESERVED.fullmatch(clean) else clean
