"""Fixed Dimensional Encodings (MUVERA): one vector per token set whose inner product approximates MaxSim.

The construction is that of arXiv 2405.19504, section 2.1, with the details of the authors' published C++ code.
Each of ``num_repetitions`` rounds draws random hyperplanes that cut space into 2**num_simhash_projections
partitions. Tokens in the same partition are likely to be near each other. Therefore

- a query's encoding holds, for each partition, the sum of its tokens there;
- a document's encoding holds the mean; an empty partition stays zero or takes the token nearest in Hamming distance;

and the inner product of the two encodings is close to the sum of the query tokens' best matches.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from muvera_core.errors import InvalidInputError
from muvera_core.set_encoders.fde_config import FDEConfig
from muvera_core.set_encoders.fde_matrices import FDEMatrices
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, require_dimension

# Most elements of a document's one-hot membership (float32) that are built at once, to bound memory.
_MEMBERSHIP_ELEMENTS = 1 << 22


class FixedDimensionalEncoder:
    """Encodes token sets with the settings of an ``FDEConfig``. Implements ``SetEncoder``.

    Texts are encoded one after the other, each with its own matrix product. The bits of an encoding therefore depend
    only on the text, not on the batch or on the text's position in it.

    Attributes:
        config: the settings.
        matrices: the random draws.
        mean: vector that is subtracted from all tokens, float32, shape (d,); None if nothing is subtracted.
        transform: all hyperplanes, then all projections, as columns, float32, shape (d, R * k + R * p).
    """

    def __init__(
        self, config: FDEConfig, *, matrices: FDEMatrices | None = None, mean: npt.ArrayLike | None = None
    ) -> None:
        """Draw the random matrices, or use the given ones.

        Args:
            config: the settings.
            matrices: draws to use instead of those from ``config.seed``, to reproduce another implementation.
            mean: the corpus's mean token vector, shape (dimension,); required if ``config.center`` is set, else None.

        Raises:
            InvalidInputError: matrices or mean do not fit the configuration.
        """
        if not isinstance(config, FDEConfig):
            raise InvalidInputError(f"config must be an FDEConfig, got {type(config).__name__}")
        if matrices is not None and not isinstance(matrices, FDEMatrices):
            raise InvalidInputError(f"matrices must be FDEMatrices, got {type(matrices).__name__}")
        self.config = config
        self.matrices = matrices or FDEMatrices.draw(config)
        self.matrices.check(config)
        self.mean = None if mean is None else _mean_vector(mean)
        got, expected = None if self.mean is None else self.mean.shape, (config.dimension,) if config.center else None
        if got != expected:
            needed = f"a vector of shape {expected}" if expected else "None"
            raise InvalidInputError(
                f"with center={config.center} mean must be {needed}, got {f'shape {got}' if got else got}"
            )
        cells = np.arange(1 << config.num_simhash_projections)
        self._cells = cells
        # Partition p of the encoding holds the tokens whose bits are the Gray code of p.
        self._bits_of_partition = cells ^ (cells >> 1)
        self._bit_weights = 1 << np.arange(config.num_simhash_projections - 1, -1, -1)
        # One matrix product gives the hyperplane sides and projected values of all rounds, in this order of columns.
        blocks = [self.matrices.simhash] + ([] if self.matrices.projection is None else [self.matrices.projection])
        self.transform = np.concatenate(
            [np.asarray(m, dtype=np.float32).transpose(1, 0, 2).reshape(config.dimension, -1) for m in blocks], axis=1
        )

    @property
    def output_dimension(self) -> int:
        """Width of an encoding."""
        return self.config.output_dimension

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the configuration and the matrices. The seed is not enough, since NumPy may change what it draws."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for array in (self.transform, self.matrices.sketch_index, self.matrices.sketch_sign, self.mean):
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
        return f"fde-{digest.hexdigest()[:32]}"

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode documents: each partition has the mean of its tokens.

        Returns:
            float32, shape (documents, output_dimension). Not normalised: compare by inner product.

        Raises:
            DimensionMismatchError: the token vectors have another width than ``config.dimension``.
        """
        return self._encode(embeddings, self._document_values)

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode queries: each partition has the sum of its tokens; empty partitions stay zero.

        Returns:
            float32, shape (queries, output_dimension). Not normalised: compare by inner product.

        Raises:
            DimensionMismatchError: the token vectors have another width than ``config.dimension``.
        """
        return self._encode(embeddings, self._query_values)

    def _encode(self, embeddings: TokenEmbeddings, aggregate: _Aggregate) -> FloatArray:
        require_dimension(embeddings, self.config.dimension, "this encoder")
        encodings = np.empty((len(embeddings), self.output_dimension), dtype=np.float32)
        for i, tokens in enumerate(embeddings):
            encodings[i] = self._sketch(self._encode_set(tokens, aggregate).reshape(-1))
        return encodings

    def _encode_set(self, tokens: FloatArray, aggregate: _Aggregate) -> FloatArray:
        """Encode one token set, shape (repetitions, partitions, value width), before the final projection."""
        config = self.config
        if self.mean is not None:
            tokens = tokens - self.mean
        rounds, n = config.num_repetitions, len(tokens)
        product = tokens @ self.transform
        n_hash_columns = rounds * config.num_simhash_projections
        sides = product[:, :n_hash_columns].reshape(n, rounds, config.num_simhash_projections) > 0
        # Contiguous: the memory layout decides which kernel multiplies, and with it the last bits.
        cell_of_token = np.ascontiguousarray((sides @ self._bit_weights).T)
        if config.projection_dimension is None:
            values = np.broadcast_to(tokens, (rounds, n, config.dimension))
        else:
            values = product[:, n_hash_columns:].reshape(n, rounds, -1).transpose(1, 0, 2)

        encoding = np.empty((rounds, len(self._cells), config.value_dimension), dtype=np.float32)
        step = max(1, _MEMBERSHIP_ELEMENTS // (len(self._cells) * n))
        for start in range(0, rounds, step):
            batch = slice(start, start + step)
            membership = cell_of_token[batch, None, :] == self._cells[None, :, None]
            encoding[batch] = aggregate(membership, values[batch])[:, self._bits_of_partition]
        return encoding

    def _query_values(self, membership: npt.NDArray[np.bool_], values: FloatArray) -> FloatArray:
        """Sum of values per cell: membership (rounds, cells, tokens), values (rounds, tokens, width)."""
        sums: FloatArray = np.matmul(membership.astype(np.float32), values)
        return sums

    def _document_values(self, membership: npt.NDArray[np.bool_], values: FloatArray) -> FloatArray:
        """Mean of values per cell; an empty cell takes the value of the token nearest in Hamming distance."""
        counts = membership.sum(axis=2)
        means = self._query_values(membership, values)
        means /= np.maximum(counts, 1)[:, :, None]
        if self.config.fill_empty_partitions:
            rounds, cells = np.nonzero(counts == 0)
            means[rounds, cells] = values[rounds, self._nearest_token(membership, counts)[rounds, cells]]
        return means

    def _nearest_token(self, membership: npt.NDArray[np.bool_], counts: npt.NDArray[np.int_]) -> IntArray:
        """The token nearest to each cell in Hamming distance, the first of equals, shape (rounds, cells).

        Hamming distance is a sum over bits, so it can be relaxed one bit at a time. The relaxed number is
        ``distance * tokens + token index``, which orders by distance, then by index.
        """
        n, n_bits = membership.shape[2], self.config.num_simhash_projections
        unreached = n * (n_bits + 1)
        nearest = np.where(counts > 0, membership.argmax(axis=2), unreached)
        for bit in range(n_bits):
            nearest = np.minimum(nearest, nearest[:, self._cells ^ (1 << bit)] + n)
        first: IntArray = nearest % n
        return first

    def _sketch(self, encoding: FloatArray) -> FloatArray:
        index, sign = self.matrices.sketch_index, self.matrices.sketch_sign
        if index is None or sign is None:
            return encoding
        return np.bincount(index, weights=encoding * sign, minlength=self.output_dimension).astype(np.float32)


class _Aggregate(Protocol):
    def __call__(self, membership: npt.NDArray[np.bool_], values: FloatArray) -> FloatArray: ...


def _mean_vector(mean: npt.ArrayLike) -> FloatArray:
    """Check a mean token in the same way as any token vector."""
    try:
        one_row: Any = [mean]
        rows = TokenEmbeddings.from_list([one_row])
    except InvalidInputError as error:
        raise InvalidInputError(f"mean must be one token vector: {error}") from None
    vector: FloatArray = rows.vectors[0]
    return vector
