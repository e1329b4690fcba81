"""Reading and writing at a place of an open file, from any number of threads."""

from __future__ import annotations

import os
import threading

if hasattr(os, "preadv"):

    def read_at(file: int, target: memoryview, place: int) -> int:
        """Read into ``target`` from byte ``place`` on. Returns the number of bytes read, 0 at the end of the file."""
        return os.preadv(file, [target], place)

    def write_at(file: int, data: memoryview, place: int) -> int:
        """Write ``data`` from byte ``place`` on. Returns the number of bytes written."""
        return os.pwrite(file, data, place)

else:  # Windows
    _seeking = threading.Lock()

    def read_at(file: int, target: memoryview, place: int) -> int:
        """Read into ``target`` from byte ``place`` on. Returns the number of bytes read, 0 at the end of the file."""
        with _seeking:
            os.lseek(file, place, os.SEEK_SET)
            data = os.read(file, len(target))
        target[: len(data)] = data
        return len(data)

    def write_at(file: int, data: memoryview, place: int) -> int:
        """Write ``data`` from byte ``place`` on. Returns the number of bytes written."""
        with _seeking:
            os.lseek(file, place, os.SEEK_SET)
            return os.write(file, data)


def read_fully(file: int, target: memoryview, place: int) -> None:
    """Fill ``target`` from byte ``place`` on.

    Raises:
        EOFError: the file is shorter.
        OSError: the file cannot be read.
    """
    while target:
        n = read_at(file, target, place)
        if n == 0:
            raise EOFError(f"the file ends before byte {place + len(target)}")
        target, place = target[n:], place + n
