"""What the benchmark asks of a system, and what it gives to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Documents:
    """Token embeddings of all documents.

    Attributes:
        vectors: of unit length, float32, shape (tokens, dimension).
        offsets: document i has the tokens from offsets[i] to offsets[i + 1]; int64, shape (documents + 1,).
        token_ids: a number for each token, equal for equal words, int64, shape (tokens,). None if unknown.
    """

    vectors: FloatArray
    offsets: IntArray
    token_ids: IntArray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> FloatArray:
        return self.vectors[self.offsets[i] : self.offsets[i + 1]]

    def __iter__(self) -> Iterator[FloatArray]:
        return (self[i] for i in range(len(self)))

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return int(self.vectors.shape[1])


class System(Protocol):
    """A system as one of its users would set it up. The docstring of its class says which settings it has and why.

    ``build`` and ``open`` run in different processes, so ``open`` finds only what ``build`` has left in the folder.
    """

    def build(self, documents: Documents, folder: Path) -> None:
        """Index the documents and leave the index in an empty folder."""

    def open(self, folder: Path) -> None:
        """Make the index in the folder ready to be searched."""

    def search(self, query: FloatArray, k: int) -> list[int]:
        """Numbers of the ``k`` best documents, best first, for a query's tokens, shape (tokens, dimension)."""


class SkippedError(Exception):
    """A system cannot take part. The message says why; it becomes the system's row in the table."""


def size_on_disk(folder: Path) -> int:
    """Bytes of all files in a folder and the folders in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
