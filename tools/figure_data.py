"""What the figures of the documentation show: measured on the quickstart's passages with the bundled encoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from muvera_core import (
    FDEConfig,
    FixedDimensionalEncoder,
    LearnedSetEncoder,
    LearnedSetEncoderConfig,
    TokenEmbeddings,
    maxsim,
)
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation import read_beir
from muvera_core.set_encoders.pseudo_queries import part_of_text
from muvera_core.token_embeddings import FloatArray, IntArray, unit_length

FOLDER = Path(__file__).parents[1] / "examples" / "data" / "nq-gold"
N_QUESTIONS, K = 300, 10
N_PARTS = 1500
WIDTHS = (512, 256, 128, 64)
# The setting of the paper's experiments: 20 repetitions, 5 hyperplanes, 16 numbers a partition.
PUBLISHED = FDEConfig(
    num_repetitions=20, num_simhash_projections=5, projection_dimension=16, fill_empty_partitions=True
)


@dataclass(frozen=True)
class Encoding:
    """Stage-one vectors of all documents and questions: name, float32 (documents, width) and (questions, width)."""

    name: str
    documents: FloatArray
    queries: FloatArray

    @property
    def n_bytes(self) -> int:
        """Bytes of a document's vector."""
        return int(self.documents[0].nbytes)


class Measured:
    """Passages and questions, encoded once.

    Args:
        cache: a file that keeps the passages' tokens from one run to the next.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self.collection = read_beir(FOLDER)
        self.encoder = BundledEncoder()
        judged = [query for query in self.collection.queries if self.collection.relevance.get(query)]
        self.questions = [self.collection.queries[query] for query in judged[:N_QUESTIONS]]
        self.documents = self._documents(cache)
        self.queries = self.encoder.encode_queries(self.questions)

    def _documents(self, cache: Path | None) -> TokenEmbeddings:
        if cache is not None and cache.exists():
            with np.load(cache) as saved:
                return TokenEmbeddings(saved["vectors"], saved["offsets"])
        texts = self.collection.texts
        parts = [self.encoder.encode_documents(texts[start : start + 32]) for start in range(0, len(texts), 32)]
        encoded = TokenEmbeddings.concatenate(parts)
        if cache is not None:
            np.savez(cache, vectors=encoded.vectors, offsets=encoded.offsets)
        return encoded

    @cached_property
    def best(self) -> list[IntArray]:
        """For each question the documents of its exact top 10."""
        return [np.argsort(-maxsim(query, self.documents), kind="stable")[:K] for query in self.queries]

    @cached_property
    def learned(self) -> LearnedSetEncoder:
        """The widest encoding that ``optimize`` would fit: to parts of passages that are encoded as questions."""
        rng = np.random.default_rng(2)
        chosen = rng.integers(len(self.documents), size=N_PARTS)
        parts = [part_of_text(self.collection.texts[i], rng.uniform(0.05, 0.3), rng) for i in chosen]
        config = LearnedSetEncoderConfig(output_dimension=max(WIDTHS))
        return LearnedSetEncoder.fit(self.documents, config, self.encoder.encode_queries(parts))

    def learned_encoding(self, width: int) -> Encoding:
        """The learned encoding, cut to ``width`` numbers, of unit length."""
        encoder = self.learned.truncated(width)
        documents = unit_length(encoder.encode_documents(self.documents))
        return Encoding(f"learned, {width} numbers", documents, encoder.encode_queries(self.queries))

    def fde_encoding(self, name: str, config: FDEConfig, *, at_unit_length: bool) -> Encoding:
        """An FDE of these settings."""
        encoder = FixedDimensionalEncoder(config)
        documents = encoder.encode_documents(self.documents)
        return Encoding(
            name, unit_length(documents) if at_unit_length else documents, encoder.encode_queries(self.queries)
        )

    def recall(self, encoding: Encoding, n_candidates: int) -> float:
        """Share of the exact top 10 among the documents of highest inner product."""
        scores = encoding.queries @ encoding.documents.T
        found = np.argsort(-scores, axis=1, kind="stable")[:, :n_candidates]
        return float(np.mean([np.isin(best, keys).mean() for best, keys in zip(self.best, found, strict=True)]))
