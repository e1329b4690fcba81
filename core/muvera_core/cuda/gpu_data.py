"""What kernels work on: rows of documents, and queries, with their places in the GPU's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.token_embeddings import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Documents:
    """Where documents' rows are on the GPU. The three columns are arrays of the host or of the GPU.

    Attributes:
        rows_at: address of each document's first row, uint64, shape (documents,).
        scales_at: address of each document's first scale, uint64; 0 if rows have no scales.
        n_tokens: number of tokens of each document, at least 1, int32.
    """

    rows_at: npt.NDArray[np.uint64]
    scales_at: npt.NDArray[np.uint64]
    n_tokens: npt.NDArray[np.int32]

    @property
    def columns(self) -> tuple[Any, ...]:
        """The three columns, in order."""
        return self.rows_at, self.scales_at, self.n_tokens

    def __len__(self) -> int:
        return len(self.rows_at)

    def __getitem__(self, places: npt.NDArray[np.integer]) -> Documents:
        return Documents(*(column[places] for column in self.columns))

    @classmethod
    def nowhere(cls) -> Documents:
        """No documents."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int32))

    @classmethod
    def joined(cls, parts: Sequence[Documents]) -> Documents:
        """The documents of all parts, in order, with columns of the host."""
        return cls(*(np.concatenate(columns) for columns in zip(*(part.columns for part in parts), strict=True)))


@dataclass(frozen=True, eq=False)
class GpuRows:
    """Token rows on the GPU, for as long as this object lives.

    Attributes:
        rows_at: address of the first row.
        scales_at: address of the first scale; 0 if rows have no scales.
        arrays: the memory itself.
    """

    rows_at: int
    scales_at: int
    arrays: tuple[Any, ...]


@dataclass(eq=False)
class PreparedQueries:
    """Queries. They are sent to the GPU with the first documents that they are scored against.

    Attributes:
        vectors: each query's token vectors, float32, shape (tokens, dimension).
        offsets: number of each query's first token, int64, shape (queries + 1,).
        n_chunks: chunks per query.
        n_rows: rows on the GPU, including the rows of zeros that fill up the last chunks.
        at: address on the GPU of the coarse rows, followed by the fine rows and the scales.
        are_on_gpu: whether they have been sent.
    """

    vectors: Sequence[FloatArray]
    offsets: IntArray
    n_chunks: int
    n_rows: int
    at: int
    are_on_gpu: bool = False
