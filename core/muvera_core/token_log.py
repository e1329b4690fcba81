"""Append-only rows of fixed size: the token vectors of all documents, end to end, in a file or in memory.

A row becomes part of the index when the store commits a document that refers to it. What lies beyond the last
committed row is left over from an interrupted write; the next write starts there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from muvera_core.errors import CorruptIndexError
from muvera_core.token_codec import Rows


class TokenLog(Protocol):
    """Rows that can be appended and read."""

    def append(self, rows: Rows) -> None:
        """Add rows at the end."""

    def truncate(self, n_rows: int) -> None:
        """Forget all rows beyond the first ``n_rows``."""

    def sync(self) -> None:
        """Return once what was appended will survive a power cut."""

    def view(self) -> Rows:
        """All rows so far, without copying. Stays valid while more are appended."""

    def __len__(self) -> int: ...

    def close(self) -> None:
        """Release the file."""


class MemoryTokenLog:
    """Rows in memory."""

    def __init__(self, row_dtype: np.dtype[np.void]) -> None:
        self._rows: Rows = np.empty(0, dtype=row_dtype)
        self._size = 0

    def append(self, rows: Rows) -> None:
        end = self._size + len(rows)
        if end > len(self._rows):
            grown = np.empty(max(end, 2 * len(self._rows)), dtype=self._rows.dtype)
            grown[: self._size] = self._rows[: self._size]
            self._rows = grown
        self._rows[self._size : end] = rows
        self._size = end

    def truncate(self, n_rows: int) -> None:
        self._size = min(self._size, n_rows)

    def sync(self) -> None:
        pass

    def view(self) -> Rows:
        return self._rows[: self._size]

    def __len__(self) -> int:
        return self._size

    def close(self) -> None:
        self._rows = self._rows[:0]
        self._size = 0


class FileTokenLog:
    """Rows in a file that is mapped into memory for reading."""

    def __init__(self, path: Path, row_dtype: np.dtype[np.void], n_rows: int, *, read_only: bool) -> None:
        """Open ``path`` with its first ``n_rows`` rows, or make it where ``n_rows`` is 0.

        Raises:
            CorruptIndexError: the file is shorter than ``n_rows``.
        """
        self._path, self._dtype, self._size = path, row_dtype, n_rows
        if n_rows or read_only:
            there = path.stat().st_size // row_dtype.itemsize if path.exists() else 0
            if there < n_rows:
                raise CorruptIndexError(
                    f"{path} holds {there} token vectors, but the documents refer to {n_rows}: "
                    "restore the file from a backup, or index the documents again"
                )
        self._file = None if read_only else os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        self._map: Rows = np.empty(0, dtype=row_dtype)

    def append(self, rows: Rows) -> None:
        data = memoryview(rows.tobytes())
        os.lseek(self._fd(), self._size * self._dtype.itemsize, os.SEEK_SET)
        while data:
            data = data[os.write(self._fd(), data) :]
        self._size += len(rows)

    def truncate(self, n_rows: int) -> None:
        self._size = min(self._size, n_rows)

    def sync(self) -> None:
        os.fsync(self._fd())

    def view(self) -> Rows:
        if len(self._map) < self._size:
            self._map = cast(Rows, np.memmap(self._path, dtype=self._dtype, mode="r", shape=(self._size,)))
        return self._map[: self._size]

    def __len__(self) -> int:
        return self._size

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._map = self._map[:0]

    def _fd(self) -> int:
        if self._file is None:
            raise ValueError("the token file is closed or open for reading only")
        return self._file
