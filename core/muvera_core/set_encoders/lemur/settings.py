"""Settings of a learned encoder, and the matrices that a fit finds."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import shown

MAX_SEED = (1 << 64) - 1
# What settings may ask for, since they are read from files.
MAX_SIZE = 1 << 16
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class LearnedSetEncoderConfig:
    """Settings of a ``LearnedSetEncoder``.

    Attributes:
        dimension: width of a token vector.
        output_dimension: width of an encoding; the last coordinate only evens out the documents' lengths.
        num_features: hidden units. More cost at fitting and per query, nothing per document.
        feature_threshold: cosine with a unit, of tokens less the mean token, above which a token concerns it.
        num_anchors: tokens that each document is compared with; encoding time is proportional to it. A fitted encoder's
            configuration has fewer where the corpus has fewer tokens.
        num_query_tokens: tokens of queries that the fit is for, besides the anchors.
        num_sample_tokens: documents are drawn for the fit until they have this many tokens, and are twice as many as
            ``output_dimension``.
        seed: of all draws.
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
                f"the matrices would take {LearnedMatrices.n_bytes(self)} bytes, the limit is {MAX_BYTES}: lower "
                "num_features, num_anchors or output_dimension"
            )


@dataclass(frozen=True, eq=False)
class LearnedMatrices:
    """What a fit found. d token width, m hidden units, n anchors, k = output_dimension - 1. All float32.

    Attributes:
        center: mean token, (d,).
        spread: root mean square distance of tokens from it, ().
        hidden: directions of the hidden units, of length 1, (d, m).
        query_map: from a query's summed features to its encoding, (m + d + 1, k).
        anchors: (d, n).
        anchor_means: each anchor's mean best match over documents, (n,).
        document_map: from a document's best matches, less those means, to its encoding, (k, n).
        length: that every document's encoding is brought to, ().
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
        """Of all matrices, in order."""
        d, k, m, n = config.dimension, config.output_dimension - 1, config.num_features, config.num_anchors
        return (d,), (), (d, m), (m + d + 1, k), (d, n), (n,), (k, n), ()

    @classmethod
    def n_bytes(cls, config: LearnedSetEncoderConfig) -> int:
        """Size of all matrices."""
        return 4 * sum(map(math.prod, cls.shapes(config)))

    def check(self, config: LearnedSetEncoderConfig) -> None:
        """Raise InvalidInputError unless the matrices fit ``config``, are finite and can be computed with."""
        for field, expected in zip(fields(self), self.shapes(config), strict=True):
            matrix = getattr(self, field.name)
            if matrix.shape != expected or matrix.dtype != np.float32 or not np.isfinite(matrix).all():
                raise InvalidInputError(
                    f"{field.name} must be finite float32 of shape {expected}, got {matrix.dtype} of {matrix.shape}"
                )
        if not self.spread > 0:
            raise InvalidInputError(f"spread must be above 0, got {self.spread}")
