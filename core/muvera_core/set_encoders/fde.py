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
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.errors import InvalidInputError
from muvera_core.native import vector_kernel
from muvera_core.set_encoders.fde_config import FDEConfig
from muvera_core.set_encoders.fde_matrices import FDEMatrices
from muvera_core.set_encoders.fde_numpy import NumpyFDE
from muvera_core.threads import kernel_calls
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings, require_dimension


class FixedDimensionalEncoder:
    """Encodes token sets with the settings of an ``FDEConfig``. Implements ``SetEncoder``.

    Compiled kernels do the work where they are installed, NumPy elsewhere. Each text is encoded by itself. The bits of
    an encoding therefore depend only on the text and the kernel, not on the batch, on the text's position in it, or on
    the number of threads. Kernels round differently, so a token that is within rounding of a hyperplane can be on
    another side; then a part of that repetition's encoding differs.

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
        # One matrix product gives the hyperplane sides and projected values of all rounds, in this order of columns.
        blocks = [self.matrices.simhash] + ([] if self.matrices.projection is None else [self.matrices.projection])
        self.transform = np.concatenate(
            [np.asarray(m, dtype=np.float32).transpose(1, 0, 2).reshape(config.dimension, -1) for m in blocks], axis=1
        )
        self._numpy = NumpyFDE(config, self.matrices, self.transform, self.mean)
        self._made: tuple[str, Any] | None = None  # the name of a kernel, and its encoder

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
        return self._encode(embeddings, are_documents=True)

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode queries: each partition has the sum of its tokens; empty partitions stay zero.

        Returns:
            float32, shape (queries, output_dimension). Not normalised: compare by inner product.

        Raises:
            DimensionMismatchError: the token vectors have another width than ``config.dimension``.
        """
        return self._encode(embeddings, are_documents=False)

    def _encode(self, embeddings: TokenEmbeddings, *, are_documents: bool) -> FloatArray:
        require_dimension(embeddings, self.config.dimension, "this encoder")
        encodings = np.empty((len(embeddings), self.output_dimension), dtype=np.float32)
        module, name = vector_kernel()
        if module is None:
            self._numpy.encode(embeddings, encodings, are_documents=are_documents)
        elif len(embeddings):
            share = kernel_calls.share()
            n_threads = share.n_threads if len(embeddings) > 1 else 1
            encoder = self._compiled(module, name)
            encoder.encode(embeddings.vectors, embeddings.offsets, encodings, are_documents, n_threads)
        return encodings

    def _compiled(self, module: Any, name: str) -> Any:
        """The encoder of a compiled kernel, which is made when it is first needed."""
        if self._made is None or self._made[0] != name:
            encoder = module.FdeEncoder(
                name,
                _contiguous(self.matrices.simhash, np.float32),
                _contiguous(self.matrices.projection, np.float32),
                _contiguous(self.matrices.sketch_index, np.int32),
                _contiguous(self.matrices.sketch_sign, np.float32),
                self.mean,
                self.output_dimension,
                self.config.fill_empty_partitions,
            )
            self._made = name, encoder
            return encoder
        return self._made[1]

    def __getstate__(self) -> dict[str, Any]:
        # The compiled encoder cannot be pickled. The copy makes its own.
        return {**self.__dict__, "_made": None}


def _contiguous(array: npt.NDArray[Any] | None, dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
    return None if array is None else np.ascontiguousarray(array, dtype=dtype)


def _mean_vector(mean: npt.ArrayLike) -> FloatArray:
    """Check a mean token in the same way as any token vector."""
    try:
        one_row: Any = [mean]
        rows = TokenEmbeddings.from_list([one_row])
    except InvalidInputError as error:
        raise InvalidInputError(f"mean must be one token vector: {error}") from None
    vector: FloatArray = rows.vectors[0]
    return vector
