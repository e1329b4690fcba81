"""Fixed Dimensional Encodings in NumPy: the reference for the compiled kernels, and their stand-in."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from muvera_core.set_encoders.fde_config import FDEConfig
from muvera_core.set_encoders.fde_matrices import FDEMatrices
from muvera_core.token_embeddings import FloatArray, IntArray

# Most elements of a document's one-hot membership (float32) that are built at once, to bound memory.
_MEMBERSHIP_ELEMENTS = 1 << 22


class NumpyFDE:
    """Encodes token sets one after the other, each with its own matrix product."""

    def __init__(
        self, config: FDEConfig, matrices: FDEMatrices, transform: FloatArray, mean: FloatArray | None
    ) -> None:
        """See the attributes of ``FixedDimensionalEncoder``."""
        self._config, self._matrices, self._transform, self._mean = config, matrices, transform, mean
        cells = np.arange(1 << config.num_simhash_projections)
        self._cells = cells
        # Partition p of the encoding holds the tokens whose bits are the Gray code of p.
        self._bits_of_partition = cells ^ (cells >> 1)
        self._bit_weights = 1 << np.arange(config.num_simhash_projections - 1, -1, -1)

    def encode(self, token_sets: Iterable[FloatArray], encodings: FloatArray, *, are_documents: bool) -> None:
        """Write the encoding of each set of tokens to a row of ``encodings``."""
        for encoding, tokens in zip(encodings, token_sets, strict=True):
            encoding[:] = self._sketch(self._encode_set(tokens, are_documents).reshape(-1))

    def _encode_set(self, tokens: FloatArray, is_document: bool) -> FloatArray:
        """Encode one token set, shape (repetitions, partitions, value width), before the final projection."""
        config = self._config
        if self._mean is not None:
            tokens = tokens - self._mean
        rounds, n = config.num_repetitions, len(tokens)
        product = tokens @ self._transform
        n_hash_columns = rounds * config.num_simhash_projections
        sides = product[:, :n_hash_columns].reshape(n, rounds, config.num_simhash_projections) > 0
        # Contiguous: the memory layout decides which kernel multiplies, and with it the last bits.
        cell_of_token = np.ascontiguousarray((sides @ self._bit_weights).T)
        if config.projection_dimension is None:
            values = np.broadcast_to(tokens, (rounds, n, config.dimension))
        else:
            values = product[:, n_hash_columns:].reshape(n, rounds, -1).transpose(1, 0, 2)

        encoding = np.empty((rounds, len(self._cells), config.value_dimension), dtype=np.float32)
        aggregate = self._means if is_document else _sums
        step = max(1, _MEMBERSHIP_ELEMENTS // (len(self._cells) * n))
        for start in range(0, rounds, step):
            batch = slice(start, start + step)
            membership = cell_of_token[batch, None, :] == self._cells[None, :, None]
            encoding[batch] = aggregate(membership, values[batch])[:, self._bits_of_partition]
        return encoding

    def _means(self, membership: npt.NDArray[np.bool_], values: FloatArray) -> FloatArray:
        """Mean of values per cell; an empty cell takes the value of the token nearest in Hamming distance."""
        counts = membership.sum(axis=2)
        means = _sums(membership, values)
        means /= np.maximum(counts, 1)[:, :, None]
        if self._config.fill_empty_partitions:
            rounds, cells = np.nonzero(counts == 0)
            means[rounds, cells] = values[rounds, self._nearest_token(membership, counts)[rounds, cells]]
        return means

    def _nearest_token(self, membership: npt.NDArray[np.bool_], counts: npt.NDArray[np.int_]) -> IntArray:
        """The token nearest to each cell in Hamming distance, the first of equals, shape (rounds, cells).

        Hamming distance is a sum over bits, so it can be relaxed one bit at a time. The relaxed number is
        ``distance * tokens + token index``, which orders by distance, then by index.
        """
        n, n_bits = membership.shape[2], self._config.num_simhash_projections
        unreached = n * (n_bits + 1)
        nearest = np.where(counts > 0, membership.argmax(axis=2), unreached)
        for bit in range(n_bits):
            nearest = np.minimum(nearest, nearest[:, self._cells ^ (1 << bit)] + n)
        first: IntArray = nearest % n
        return first

    def _sketch(self, encoding: FloatArray) -> FloatArray:
        index, sign = self._matrices.sketch_index, self._matrices.sketch_sign
        if index is None or sign is None:
            return encoding
        return np.bincount(index, weights=encoding * sign, minlength=self._config.output_dimension).astype(np.float32)


def _sums(membership: npt.NDArray[np.bool_], values: FloatArray) -> FloatArray:
    """Sum of values per cell: membership (rounds, cells, tokens), values (rounds, tokens, width)."""
    sums: FloatArray = np.matmul(membership.astype(np.float32), values)
    return sums
