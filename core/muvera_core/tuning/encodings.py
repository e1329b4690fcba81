"""The encodings that ``optimize`` compares: the index's first one, and learned ones of several widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from muvera_core.set_encoders import LearnedMatrices, LearnedSetEncoder, LearnedSetEncoderConfig, SetEncoder
from muvera_core.stage_one import FlatCandidates
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, unit_length
from muvera_core.tuning.corpus import Corpus

# Widths of the learned encodings to try: 0.5 and 1 kB a document.
WIDTHS = (128, 256)
# The tokens that the fit looks at: a share of all, so that optimizing takes a fraction of the time of encoding texts.
_SAMPLE_SHARE = 0.125
_MIN_SAMPLE_TOKENS = 150_000
# Smaller than the defaults of a learned encoder, which takes two thirds of the time to fit and to encode with.
_SETTINGS = {"num_anchors": 2048, "num_features": 3072, "num_query_tokens": 6144}


@dataclass(frozen=True, eq=False)
class Encoding:
    """An encoder, and the vectors that it makes of all documents.

    Attributes:
        encoder: makes the vectors.
        keys: the documents' keys, int64, ascending.
        vectors: their vectors, float32, shape (documents, output dimension), of unit length.
        scanned: the same vectors, to be scanned.
    """

    encoder: SetEncoder
    keys: IntArray
    vectors: FloatArray
    scanned: FlatCandidates

    @classmethod
    def of(cls, encoder: SetEncoder, keys: IntArray, vectors: FloatArray) -> Encoding:
        """Of an encoder's vectors of the documents."""
        return cls(encoder, keys, vectors, FlatCandidates.from_vectors(keys, vectors))

    def nearest(self, queries: Sequence[FloatArray], n: int) -> list[IntArray]:
        """The keys of the ``n`` documents of highest inner product with each query, best first."""
        return self.scanned.search_many(self.encoder.encode_queries(TokenEmbeddings.from_list(list(queries))), n)


def first_encoding(corpus: Corpus, encoder: SetEncoder, show_progress: bool) -> Encoding:
    """The encoding that the index was made with."""
    return Encoding.of(encoder, corpus.keys, corpus.encode_all(encoder, show_progress))


def learned_encodings(corpus: Corpus, examples: Sequence[FloatArray], show_progress: bool) -> list[Encoding]:
    """Learned encodings by rising width. None if there are too few tokens to fit one.

    Args:
        corpus: the documents.
        examples: token vectors of queries to fit to.
        show_progress: show a bar on standard error.
    """
    n_tokens = max(_MIN_SAMPLE_TOKENS, int(_SAMPLE_SHARE * corpus.snapshot.n_tokens))
    sample = corpus.sample(min(n_tokens, LearnedSetEncoderConfig.num_sample_tokens))
    widths = [width for width in WIDTHS if width < len(sample.vectors) // 2]
    if not widths or len(sample) < 2:
        return []
    config = LearnedSetEncoderConfig(dimension=corpus.dimension, output_dimension=widths[-1], **_SETTINGS)
    widest = LearnedSetEncoder.fit(sample, config, TokenEmbeddings.from_list(list(examples)))
    components = corpus.encode_all(widest, show_progress, scale=False)
    encodings = []
    for width in widths:
        encoder = widest.truncated(width)
        vectors = _truncated(components, width, float(encoder.matrices.length))
        encodings.append(Encoding.of(encoder, corpus.keys, unit_length(vectors)))
    return encodings


def untrained(dimension: int) -> LearnedSetEncoder:
    """A learned encoder with random matrices. It encodes queries in the same time as one that was fitted."""
    config = LearnedSetEncoderConfig(dimension=dimension, **(_SETTINGS | {"num_anchors": 1}))
    rng = np.random.default_rng(0)
    drawn = (
        np.abs(np.asarray(rng.standard_normal(shape, dtype=np.float32))) for shape in LearnedMatrices.shapes(config)
    )
    return LearnedSetEncoder(config, LearnedMatrices(*drawn))


def _truncated(vectors: FloatArray, width: int, length: float) -> FloatArray:
    """Narrower encodings made of wider ones. The last coordinate gives all of them the same length."""
    short = np.empty((len(vectors), width), dtype=np.float32)
    short[:, :-1] = vectors[:, : width - 1]
    short[:, -1] = np.sqrt(np.maximum(0, length**2 - np.einsum("nd,nd->n", short[:, :-1], short[:, :-1])))
    return short
