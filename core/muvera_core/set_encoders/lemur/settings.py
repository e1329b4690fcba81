"""Settings of a learned encoder, and the matrices that fitting it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import shown

MAX_SEED = (1 << 64) - 1
# Limits of the settings, which are read from files.
MAX_SIZE = 1 << 16
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class LearnedSetEncoderConfig:
    """Settings of a ``LearnedSetEncoder``.

    Attributes:
        dimension: width of a token vector.
        output_dimension: width of an encoding. The last coordinate only makes documents' encodings equally long.
        num_features: number of hidden units. More units cost time at fitting and per query, none per document.
        feature_threshold: a hidden unit responds to the standardized tokens whose inner product with it is above this.
        num_anchors: tokens that each document is compared with. Encoding time is proportional to it. The configuration
            of a fitted encoder has fewer if the corpus has fewer tokens.
        num_query_tokens: query tokens that the encoder is fitted to, in addition to the anchors.
        num_sample_tokens: documents are drawn for the fit until they have this many tokens, and until there are twice
            as many documents as ``output_dimension``.
        seed: seed of all random draws.
    """

    dimension: int = 128
    output_dimension: int = 256
    num_features: int = 4096
    feature_threshold: float = 0.15
    num_anchors: int = 3072
    num_query_tokens: int = 8192
    num_sample_tokens: int = 700_000
    seed: int = 42

    def __post_init__(self) -> None:
        limits = {
            "dimension": (1, MAX_SIZE),
            "output_dimension": (2, MAX_SIZE),
            "num_features": (1, MAX_SIZE),
            "num_anchors": (1, MAX_SIZE),
            "num_query_tokens": (1, MAX_SIZE),
            "num_sample_tokens": (1, 1 << 40),
            "seed": (0, MAX_SEED),
        }
        for name, (minimum, maximum) in limits.items():
            value = getattr(self, name)
            # Exactly int: settings are written to JSON and hashed.
            if type(value) is not int or not minimum <= value <= maximum:
                raise InvalidInputError(
                    f"{name} must be a whole number from {minimum} to {maximum}, got {shown(value)}"
                )
        threshold = self.feature_threshold
        if type(threshold) is not float or not -1 <= threshold < 1:
            raise InvalidInputError(f"feature_threshold must be a float from -1 to below 1, got {shown(threshold)}")
        if self.output_dimension > self.num_features + 2:
            raise InvalidInputError(
                f"output_dimension must be at most num_features + 2, got {self.output_dimension} and "
                f"{self.num_features}: lower it or raise num_features"
            )
        if LearnedMatrices.n_bytes(self) > MAX_BYTES:
            raise InvalidInputError(
                f"the matrices would take {LearnedMatrices.n_bytes(self)} bytes, but the limit is {MAX_BYTES}: lower "
                "num_features, num_anchors or output_dimension"
            )


@dataclass(frozen=True, eq=False)
class LearnedMatrices:
    """The matrices of a fitted encoder, all float32.

    d is the width of a token, m the number of hidden units, n the number of anchors, and k = output_dimension - 1.

    Attributes:
        center: mean token, (d,).
        spread: root mean square distance of tokens from the mean, ().
        hidden: directions of the hidden units, of length 1, (d, m).
        query_map: maps a query's summed features to its encoding, (m + d + 1, k).
        anchors: the anchors, (d, n).
        anchor_means: each anchor's mean best match over the sample documents, (n,).
        document_map: maps a document's best matches minus ``anchor_means`` to its encoding, (k, n).
        length: the length of every document's encoding, ().
    """

    center: FloatArray
    spread: FloatArray
    hidden: FloatArray
    query_map: FloatArray
    anchors: FloatArray
    anchor_means: FloatArray
    document_map: FloatArray
    length: FloatArray

    @staticmethod
    def shapes(config: LearnedSetEncoderConfig) -> tuple[tuple[int, ...], ...]:
        """The shapes of all matrices, in order."""
        d, k, m, n = config.dimension, config.output_dimension - 1, config.num_features, config.num_anchors
        return (d,), (), (d, m), (m + d + 1, k), (d, n), (n,), (k, n), ()

    @classmethod
    def n_bytes(cls, config: LearnedSetEncoderConfig) -> int:
        """Size of all matrices in bytes."""
        return 4 * sum(map(math.prod, cls.shapes(config)))

    def check(self, config: LearnedSetEncoderConfig) -> None:
        """Raise InvalidInputError unless the matrices fit ``config``, are finite, and have a positive spread."""
        for field, expected in zip(fields(self), self.shapes(config), strict=True):
            matrix = getattr(self, field.name)
            if matrix.shape != expected or matrix.dtype != np.float32 or not np.isfinite(matrix).all():
                raise InvalidInputError(
                    f"{field.name} must be finite float32 of shape {expected}, got {matrix.dtype} of {matrix.shape}"
                )
        if not self.spread > 0:
            raise InvalidInputError(f"spread must be above 0, got {self.spread}")
