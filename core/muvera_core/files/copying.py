"""Copies files without writing their holes: a small file can claim to be a terabyte long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from muvera_core.files.plain import open_plain

_BLOCK = 1 << 20


def copy_plain(source: Path, target: Path, size: int | None = None) -> None:
    """Copy a plain file. Holes in it stay holes, so the copy takes no more room than the file does.

    Args:
        source: the file to copy.
        target: the copy, which is written anew.
        size: bytes to copy, at most all. None copies all.
    """
    with os.fdopen(open_plain(source, os.O_RDONLY), "rb") as file, target.open("wb") as copy:
        end = os.fstat(file.fileno()).st_size if size is None else size
        for start, stop in _data(file, end):
            file.seek(start)
            copy.seek(start)
            while start < stop and (block := file.read(min(_BLOCK, stop - start))):
                copy.write(block)
                start += len(block)
        copy.truncate(end)


def end_of_data(path: Path) -> int:
    """The place in a plain file behind which there is only a hole; its size, if the system does not tell."""
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
        return max((stop for _, stop in _data(file, os.fstat(file.fileno()).st_size)), default=0)


def _data(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of each part of a file that is not a hole, up to the place ``end``."""
    if not hasattr(os, "SEEK_DATA"):  # Windows
        yield 0, end
        return
    stop = 0
    while stop < end:
        try:
            start = os.lseek(file.fileno(), stop, os.SEEK_DATA)
        except OSError:  # there are no more data
            return
        stop = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        if start < end:
            yield start, min(stop, end)
