"""The token log: append-only rows of fixed size with the token vectors of all documents, in a file or in memory.

A row becomes part of the index when the store commits a document that refers to it. Rows beyond the last committed one
are left over from an interrupted write, and are cut off.

The file is read with plain reads, not through a memory map. If the disk fails or the file was cut short, a read raises
an error, while a memory map crashes the process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from muvera_core.errors import REPAIR_ADVICE, CorruptIndexError
from muvera_core.files import is_plain_file, open_plain, read_fully, storage_errors, sync_folder, write_at
from muvera_core.maxsim import RowSource
from muvera_core.storage.token_codec import Rows, TokenCodec
from muvera_core.token_embeddings import IntArray
from muvera_core.validation import counted

_NAME = re.compile(r"tokens-(\d{1,12})\.bin")
MAX_GENERATION = 10**12 - 1


class TokenLog(Protocol):
    """A log of rows. Reading is safe while another thread appends.

    Attributes:
        codec: the format of its rows.
        generation: number of the log. Each compaction, and each change of the format, writes a log with a new number.
    """

    codec: TokenCodec
    generation: int

    def append(self, rows: Rows) -> None:
        """Add rows at the end."""

    def reset(self, n_rows: int) -> None:
        """Set the number of rows: drop rows beyond ``n_rows``, or take over those that another process appended."""

    def sync(self) -> None:
        """Make the appended rows durable: return when they will survive a power cut."""

    def read(self, first: IntArray, count: IntArray) -> Rows:
        """Read ``count[i]`` rows from row ``first[i]`` on, for each ``i``, and return them end to end."""

    def source(self) -> AbstractContextManager[RowSource]:
        """Where the rows are, to read them without a copy. What is wrong with them is raised as ``read`` does."""

    def __len__(self) -> int: ...


class MemoryTokenLog:
    """Rows in memory."""

    def __init__(self, codec: TokenCodec, generation: int) -> None:
        self.codec, self.generation = codec, generation
        self._rows: Rows = np.empty(0, dtype=codec.row_dtype)
        self._size = 0

    def append(self, rows: Rows) -> None:
        end = self._size + len(rows)
        if end > len(self._rows):
            grown = np.empty(max(end, 2 * len(self._rows)), dtype=self._rows.dtype)
            grown[: self._size] = self._rows[: self._size]
            self._rows = grown
        self._rows[self._size : end] = rows
        self._size = end

    def reset(self, n_rows: int) -> None:
        self._size = min(self._size, n_rows)

    def sync(self) -> None:
        pass

    def read(self, first: IntArray, count: IntArray) -> Rows:
        # NumPy copies rows of bytes four times faster than rows of a structured type.
        rows = self._rows
        as_bytes = rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
        ends = np.cumsum(count)
        row_numbers = np.repeat(first - (ends - count), count) + np.arange(ends[-1] if len(ends) else 0)
        return as_bytes.take(row_numbers, axis=0).reshape(-1).view(rows.dtype)

    def source(self) -> AbstractContextManager[RowSource]:
        return nullcontext(self._rows.view(np.uint8))

    def __len__(self) -> int:
        return self._size


class FileTokenLog:
    """Rows in a file. It is closed when nothing refers to the log any more, so a running search can go on reading."""

    _file = -1  # so that ``__del__`` works if ``__init__`` was interrupted

    def __init__(self, path: Path, codec: TokenCodec, n_rows: int, *, writable: bool, generation: int = 0) -> None:
        """Open ``path`` with its first ``n_rows`` rows. Create it if ``n_rows`` is 0 and it is ``writable``.

        Raises:
            CorruptIndexError: the file is missing, shorter than ``n_rows``, or not a plain file.
        """
        self.path, self.codec, self.generation = path, codec, generation
        self._dtype, self._size, self._writable = codec.row_dtype, n_rows, writable
        create = writable and n_rows == 0
        with storage_errors(path):
            if not create and not is_plain_file(path):
                raise CorruptIndexError(f"{path} is missing, but the documents' texts are safe: {REPAIR_ADVICE}")
            flags = (os.O_RDWR if writable else os.O_RDONLY) | (os.O_CREAT if create else 0)
            self._file = open_plain(path, flags)
            if create:
                sync_folder(path.parent)
            n_found = os.fstat(self._file).st_size // self._dtype.itemsize
        if n_found < n_rows:
            raise CorruptIndexError(
                f"{path} holds {counted(n_found, 'token vector')}, but the documents refer to {n_rows}. "
                f"Their texts are safe: {REPAIR_ADVICE}"
            )

    def append(self, rows: Rows) -> None:
        data = memoryview(rows.tobytes())
        place = self._size * self._dtype.itemsize
        with storage_errors(self.path):
            while data:
                written = write_at(self._file, data, place)
                data, place = data[written:], place + written
        self._size += len(rows)

    def reset(self, n_rows: int) -> None:
        self._size = n_rows
        if self._writable:
            with suppress(OSError):  # later appends overwrite the rest anyway
                os.ftruncate(self._file, n_rows * self._dtype.itemsize)

    def sync(self) -> None:
        with storage_errors(self.path):
            os.fsync(self._file)

    def read(self, first: IntArray, count: IntArray) -> Rows:
        rows: Rows = np.empty(int(count.sum()), dtype=self._dtype)
        target = rows.view(np.uint8).data
        starts = np.flatnonzero(np.r_[True, first[1:] != first[:-1] + count[:-1]]) if len(first) else count
        lengths = np.add.reduceat(count, starts) if len(first) else count
        place = 0
        with self.source() as file:
            for row, length in zip(first[starts].tolist(), lengths.tolist(), strict=True):
                end = place + length * self._dtype.itemsize
                read_fully(file, target[place:end], row * self._dtype.itemsize)
                place = end
        return rows

    @contextmanager
    def source(self) -> Iterator[int]:
        with storage_errors(self.path):
            try:
                yield self._file
            except EOFError as error:
                raise CorruptIndexError(
                    f"{self.path} ends before the rows that the documents refer to ({error}). Their texts are safe: "
                    f"{REPAIR_ADVICE}"
                ) from error

    def __len__(self) -> int:
        return self._size

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def tokens_path(folder: Path, generation: int) -> Path:
    """Path of the token file of a generation."""
    return folder / f"tokens-{generation}.bin"


def token_generations(folder: Path) -> list[int]:
    """The generations of all token files in a folder."""
    matches = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return [int(match[1]) for match in matches if match]
