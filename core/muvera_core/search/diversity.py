"""Hits that are relevant and unlike one another, by maximal marginal relevance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from muvera_core.collection import Collection
from muvera_core.hits import Hit
from muvera_core.set_encoders import LearnedSetEncoder
from muvera_core.storage import Snapshot
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, unit_length


@dataclass(frozen=True, eq=False)
class HitFeatures:
    """What a choice among hits looks at, of those whose documents are still there.

    Attributes:
        ids: ids of these documents.
        vectors: their encodings, of unit length, float32, shape (documents, FDE's dimension). They are those of the
            index's first encoding, whose cosines agree with late-interaction similarity better (correlation .9) than
            those of an encoding that was learned for finding documents (.75).
        matches: each query token's highest inner product with each document, float32, shape (query tokens, documents).
    """

    ids: list[str]
    vectors: FloatArray
    matches: FloatArray

    @property
    def similarities(self) -> FloatArray:
        """Cosines between the documents' encodings, float32, shape (documents, documents)."""
        similarities: FloatArray = self.vectors @ self.vectors.T
        return similarities


def features_of(collection: Collection, ids: Sequence[str], query: FloatArray) -> HitFeatures:
    """The features of documents for a query of these token vectors, float32, shape (query tokens, dimension)."""

    def read(snapshot: Snapshot) -> tuple[list[str], TokenEmbeddings]:
        keys = collection.store.keys_of(snapshot, ids)
        present = [id for id in ids if id in keys]
        return present, collection.store.embeddings(snapshot, [keys[id] for id in present])

    present, embeddings = collection.read_with_retry(read)
    encoder = collection.stage_one.encoder
    if isinstance(encoder, LearnedSetEncoder):
        encoder = collection.stage_one_source.first_encoder(collection.manifest.fde)
    if not present:
        nothing = np.empty((0, encoder.output_dimension), dtype=np.float32)
        return HitFeatures([], nothing, np.empty((len(query), 0), dtype=np.float32))
    vectors: FloatArray = unit_length(encoder.encode_documents(embeddings))
    return HitFeatures(present, vectors, best_matches(query, embeddings))


def best_matches(query: FloatArray, documents: TokenEmbeddings) -> FloatArray:
    """Each query token's highest inner product with each document, float32, shape (query tokens, documents)."""
    matches: FloatArray = np.maximum.reduceat(query @ documents.vectors.T, documents.offsets[:-1], axis=1)
    return matches


def diversify(hits: Sequence[Hit], features: HitFeatures, k: int, relevance_weight: float) -> list[Hit]:
    """Choose ``k`` hits by ``maximal_marginal_relevance``. Hits without features are left out."""
    present = with_features(hits, features)
    relevance = np.array([hit.normalized_score for hit in present], dtype=np.float32)
    chosen = maximal_marginal_relevance(relevance, features.similarities, k, relevance_weight)
    return [present[i] for i in chosen]


def with_features(hits: Sequence[Hit], features: HitFeatures) -> list[Hit]:
    """The hits that have features, in the order of these."""
    by_id = {hit.id: hit for hit in hits}
    return [by_id[id] for id in features.ids]


def maximal_marginal_relevance(
    relevance: FloatArray, similarity: FloatArray, k: int, relevance_weight: float
) -> IntArray:
    """Choose ``k`` items one by one (Carbonell and Goldstein, SIGIR 1998).

    Each step takes the item of highest ``relevance_weight * relevance - (1 - relevance_weight) * redundancy``.
    Redundancy is the largest similarity to an item that was taken before.

    Args:
        relevance: of each item, float32, shape (items,).
        similarity: of each pair, float32, shape (items, items), on about the same scale as relevance.
        k: number of items to choose, at most all.
        relevance_weight: 1 looks at relevance only, 0 at redundancy only.

    Returns:
        Places of the chosen items in the order of choice, int64, shape (min(k, items),).
    """
    chosen: list[int] = []
    redundancy = np.zeros(len(relevance), dtype=np.float32)
    left = np.ones(len(relevance), dtype=bool)
    for _ in range(min(k, len(relevance))):
        gain = relevance_weight * relevance - (1 - relevance_weight) * redundancy
        best = int(np.where(left, gain, -np.inf).argmax())
        redundancy = similarity[best] if not chosen else np.maximum(redundancy, similarity[best])
        chosen.append(best)
        left[best] = False
    return np.array(chosen, dtype=np.int64)
