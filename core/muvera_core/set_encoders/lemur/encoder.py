"""A learned set encoder: fitted to a corpus, it gives short vectors whose inner products approximate MaxSim.

Based on LEMUR (arXiv 2601.21853). A query token x adds ``max_i <x, d_i>`` to a document's MaxSim, a function of x. All
documents' functions lie close to a space of a few hundred dimensions. Therefore

- a document's encoding is its coordinates in that space, computed from its best matches with fixed tokens, the
  *anchors*;
- a query's encoding is the sum of its tokens' coordinates in the dual space, which a hidden layer approximates;

and the inner product of the two is close to MaxSim. ``fit.py`` fits the encoder and lists the differences from the
paper.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from muvera_core.errors import EncoderError, InvalidInputError
from muvera_core.files import write_new
from muvera_core.set_encoders.lemur.features import best_matches, features, standardized
from muvera_core.set_encoders.lemur.fit import fit_matrices
from muvera_core.set_encoders.lemur.settings import LearnedMatrices, LearnedSetEncoderConfig
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings, require_dimension
from muvera_core.validation import require_count

# Documents whose matches are multiplied with the document map together, because the map does not fit in the caches.
_DOCUMENTS_AT_ONCE = 64


class LearnedSetEncoder:
    """Encodes token sets with matrices that ``fit`` learned from a corpus. Implements ``SetEncoder``."""

    def __init__(self, config: LearnedSetEncoderConfig, matrices: LearnedMatrices) -> None:
        """Use fitted matrices; ``fit`` makes them.

        Raises:
            InvalidInputError: the matrices do not fit the configuration.
        """
        matrices.check(config)
        # The memory layout decides which kernel multiplies, and with it the last bits.
        matrices = LearnedMatrices(*(np.asarray(getattr(matrices, f.name), order="C") for f in fields(matrices)))
        self.config = config
        self.matrices = matrices

    @classmethod
    def fit(
        cls,
        embeddings: TokenEmbeddings | Iterable[TokenEmbeddings],
        config: LearnedSetEncoderConfig | None = None,
        queries: TokenEmbeddings | None = None,
    ) -> LearnedSetEncoder:
        """Fit an encoder to documents.

        Args:
            embeddings: documents of the corpus, all of which are held in memory. A sample with at least
                ``num_sample_tokens`` tokens is enough.
            config: the settings; by default those for token vectors of the documents' width. If the corpus has fewer
                tokens than the settings ask for, all of them are used.
            queries: example queries, like those that users ask, encoded as queries; the more the better. Short parts
                of the documents' texts can replace them. If there are none or few, runs of the documents' tokens are
                added.

        Raises:
            InvalidInputError: there are fewer than two documents, or fewer tokens than ``output_dimension``.
            DimensionMismatchError: token vectors have another width than ``config.dimension``.
        """
        parts = [embeddings] if isinstance(embeddings, TokenEmbeddings) else list(embeddings)
        documents = parts[0] if len(parts) == 1 else TokenEmbeddings.concatenate(parts)
        config = config or LearnedSetEncoderConfig(dimension=documents.dimension)
        require_dimension(documents, config.dimension, "this encoder")
        if len(documents) < 2 or len(documents.vectors) < config.output_dimension:
            raise InvalidInputError(
                f"fitting needs at least 2 documents and output_dimension = {config.output_dimension} tokens, got "
                f"{len(documents)} and {len(documents.vectors)}: add documents or lower output_dimension"
            )
        if queries is not None:
            require_dimension(queries, config.dimension, "this encoder")
        matrices = fit_matrices(documents, queries, config)
        return cls(replace(config, num_anchors=matrices.anchor_means.size), matrices)

    @property
    def output_dimension(self) -> int:
        """Width of an encoding."""
        return self.config.output_dimension

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the configuration and the matrices."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for field in fields(self.matrices):
            digest.update(np.ascontiguousarray(getattr(self.matrices, field.name)).tobytes())
        return f"learned-{digest.hexdigest()[:32]}"

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode documents, also documents that ``fit`` did not see.

        Returns:
            float32, shape (documents, output_dimension), all of nearly the same length.

        Raises:
            DimensionMismatchError: the token vectors have another width than ``config.dimension``.
        """
        require_dimension(embeddings, self.config.dimension, "this encoder")
        learned = self.matrices
        encodings = np.empty((len(embeddings), self.output_dimension), dtype=np.float32)
        for start in range(0, len(embeddings), _DOCUMENTS_AT_ONCE):
            batch = encodings[start : start + _DOCUMENTS_AT_ONCE]
            documents = islice(embeddings, start, start + len(batch))
            matches = np.stack(list(best_matches(documents, learned.anchors)))
            matches -= learned.anchor_means
            np.matmul(matches, learned.document_map.T, out=batch[:, :-1])
            # The encoding of a new document can be longer than any in the sample; it then stays a little too long.
            missing = float(learned.length) ** 2 - np.einsum("nd,nd->n", batch[:, :-1], batch[:, :-1])
            batch[:, -1] = np.sqrt(np.maximum(0, missing))
        return encodings

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode queries.

        Returns:
            float32, shape (queries, output_dimension). Not normalised: compare by inner product.

        Raises:
            DimensionMismatchError: the token vectors have another width than ``config.dimension``.
        """
        require_dimension(embeddings, self.config.dimension, "this encoder")
        learned = self.matrices
        encodings = np.zeros((len(embeddings), self.output_dimension), dtype=np.float32)
        for encoding, tokens in zip(encodings, embeddings, strict=True):
            standard = standardized(tokens, learned.center, learned.spread)
            psi = features(standard, learned.hidden, self.config.feature_threshold)
            encoding[:-1] = psi.sum(axis=0) @ learned.query_map
        return encodings

    def truncated(self, output_dimension: int) -> LearnedSetEncoder:
        """The same encoder with fewer dimensions: only the first principal components.

        Raises:
            InvalidInputError: ``output_dimension`` is below 2, or above the encoder's own.
        """
        if require_count("output_dimension", output_dimension, 2) > self.output_dimension:
            raise InvalidInputError(f"output_dimension must be at most {self.output_dimension}, got {output_dimension}")
        k = output_dimension - 1
        learned = self.matrices
        matrices = replace(learned, query_map=learned.query_map[:, :k], document_map=learned.document_map[:k])
        return LearnedSetEncoder(replace(self.config, output_dimension=output_dimension), matrices)

    def save(self, path: Path) -> None:
        """Write the matrices to ``path``, one after the other. ``load`` needs ``config`` for their shapes."""
        matrices = (getattr(self.matrices, field.name) for field in fields(self.matrices))
        content = np.concatenate([matrix.ravel() for matrix in matrices]).astype("<f4")
        write_new(path, content.view(np.uint8).data)

    @classmethod
    def load(cls, path: Path, config: LearnedSetEncoderConfig) -> LearnedSetEncoder:
        """Read what ``save`` wrote.

        Raises:
            EncoderError: the file does not fit the configuration, or is damaged.
            OSError: the file cannot be read.
        """
        shapes = LearnedMatrices.shapes(config)
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        size, expected = path.stat().st_size, LearnedMatrices.n_bytes(config)
        if size != expected:
            raise EncoderError(f"{path} has {size} bytes, expected {expected}: fit and save the encoder again")
        parts = np.split(np.fromfile(path, dtype="<f4"), ends[:-1])
        try:
            return cls(config, LearnedMatrices(*(part.reshape(s) for part, s in zip(parts, shapes, strict=True))))
        except InvalidInputError as error:
            raise EncoderError(f"{path} is damaged ({error}): fit and save the encoder again") from error
