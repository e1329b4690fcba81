"""A learned set encoder: one short vector per token set, fitted to a corpus, whose inner product approximates MaxSim.

After LEMUR (arXiv 2601.21853). What one query token x adds to a document's MaxSim, ``max_i <x, d_i>``, is a function of
x. Functions like these lie close to a space of a few hundred dimensions, so

- a document becomes its coordinates in that space, found by how well its tokens match some fixed tokens, the *anchors*;
- a query becomes the sum of its tokens' coordinates in the dual space, which a hidden layer approximates;

and the inner product of the two is close to MaxSim. ``fit.py`` has the fit and says where it departs from the
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

# Documents whose matches with the anchors are mapped together: the map is far larger than the caches.
_DOCUMENTS_AT_ONCE = 64


class LearnedSetEncoder:
    """Encodes token sets with what ``fit`` learned from a corpus. Implements ``SetEncoder``."""

    def __init__(self, config: LearnedSetEncoderConfig, matrices: LearnedMatrices) -> None:
        """Take fitted matrices; see ``fit``.

        Raises:
            InvalidInputError: the matrices don't fit the configuration.
        """
        matrices.check(config)
        # The layout decides which kernel multiplies, and so the last bits.
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
            embeddings: documents of the corpus, or a sample of at least ``num_sample_tokens`` tokens, which is as good.
                All of it is held in memory.
            config: the settings; where None, the defaults for these documents' width. A corpus with fewer tokens than
                they ask for is used whole.
            queries: encoded as queries, the more the better: questions such as will be asked or, where there are none,
                short parts of the documents' texts. Where None or few, runs of the documents' tokens stand in.

        Raises:
            InvalidInputError: fewer than two documents, or fewer tokens than ``output_dimension``.
            DimensionMismatchError: token vectors have another width than the configuration.
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
        """Hash of the configuration and of the matrices."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for field in fields(self.matrices):
            digest.update(np.ascontiguousarray(getattr(self.matrices, field.name)).tobytes())
        return f"learned-{digest.hexdigest()[:32]}"

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode documents, also ones that weren't there at ``fit``.

        Returns:
            float32, shape (documents, output_dimension), all of (nearly) the same length.

        Raises:
            DimensionMismatchError: the token vectors have another width than the configuration.
        """
        require_dimension(embeddings, self.config.dimension, "this encoder")
        learned = self.matrices
        encodings = np.empty((len(embeddings), self.output_dimension), dtype=np.float32)
        for start in range(0, len(embeddings), _DOCUMENTS_AT_ONCE):
            some = encodings[start : start + _DOCUMENTS_AT_ONCE]
            documents = islice(embeddings, start, start + len(some))
            matches = np.stack(list(best_matches(documents, learned.anchors)))
            matches -= learned.anchor_means
            np.matmul(matches, learned.document_map.T, out=some[:, :-1])
            # A document added later can be longer than any in the sample; it then stays a little too long.
            missing = float(learned.length) ** 2 - np.einsum("nd,nd->n", some[:, :-1], some[:, :-1])
            some[:, -1] = np.sqrt(np.maximum(0, missing))
        return encodings

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode queries.

        Returns:
            float32, shape (queries, output_dimension). Not normalised: compare by inner product.

        Raises:
            DimensionMismatchError: the token vectors have another width than the configuration.
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
        """The same encoder with fewer dimensions: of the principal components the first ones.

        Raises:
            InvalidInputError: more dimensions than there are, or fewer than 2.
        """
        if require_count("output_dimension", output_dimension, 2) > self.output_dimension:
            raise InvalidInputError(f"output_dimension must be at most {self.output_dimension}, got {output_dimension}")
        k = output_dimension - 1
        learned = self.matrices
        matrices = replace(learned, query_map=learned.query_map[:, :k], document_map=learned.document_map[:k])
        return LearnedSetEncoder(replace(self.config, output_dimension=output_dimension), matrices)

    def save(self, path: Path) -> None:
        """Write the matrices to ``path``, one after the other; ``config`` says how large they are."""
        matrices = (getattr(self.matrices, field.name) for field in fields(self.matrices))
        content = np.concatenate([matrix.ravel() for matrix in matrices]).astype("<f4")
        write_new(path, content.view(np.uint8).data)

    @classmethod
    def load(cls, path: Path, config: LearnedSetEncoderConfig) -> LearnedSetEncoder:
        """Read what ``save`` wrote.

        Raises:
            EncoderError: the file doesn't fit the configuration.
            OSError: it can't be read.
        """
        shapes = LearnedMatrices.shapes(config)
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        size, expected = path.stat().st_size, LearnedMatrices.n_bytes(config)
        if size != expected:
            raise EncoderError(f"{path} has {size} bytes, expected {expected}: fit and save the encoder anew")
        parts = np.split(np.fromfile(path, dtype="<f4"), ends[:-1])
        try:
            return cls(config, LearnedMatrices(*(part.reshape(s) for part, s in zip(parts, shapes, strict=True))))
        except InvalidInputError as error:
            raise EncoderError(f"{path} is damaged, fit and save the encoder anew: {error}") from error
