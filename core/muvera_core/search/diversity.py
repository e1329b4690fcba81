"""Hits that are relevant and unlike one another, by maximal marginal relevance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvera_core.collection import Collection
from muvera_core.hits import Hit
from muvera_core.set_encoders import LearnedSetEncoder
from muvera_core.storage import Snapshot
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, unit_length


def diversify(collection: Collection, hits: Sequence[Hit], k: int, relevance_weight: float) -> list[Hit]:
    """Choose ``k`` hits by ``maximal_marginal_relevance``. Hits whose documents were deleted meanwhile are left out."""
    present, embeddings = tokens_of_hits(collection, hits)
    relevance = np.array([hit.normalized_score for hit in present], dtype=np.float32)
    chosen = maximal_marginal_relevance(relevance, similarities(collection, embeddings), k, relevance_weight)
    return [present[i] for i in chosen]


def tokens_of_hits(collection: Collection, hits: Sequence[Hit]) -> tuple[list[Hit], TokenEmbeddings]:
    """The hits whose documents are still there, and these documents' token embeddings."""

    def read(snapshot: Snapshot) -> tuple[list[Hit], TokenEmbeddings]:
        keys = collection.store.keys_of(snapshot, [hit.id for hit in hits])
        present = [hit for hit in hits if hit.id in keys]
        return present, collection.store.embeddings(snapshot, [keys[hit.id] for hit in present])

    return collection.read_with_retry(read)


def similarities(collection: Collection, embeddings: TokenEmbeddings) -> FloatArray:
    """Cosines between documents' encodings, float32, shape (documents, documents).

    They are those of the index's first encoding, which agrees with late-interaction similarity better (correlation .9)
    than an encoding that was learned for finding documents (.75).
    """
    encoder = collection.stage_one.encoder
    if isinstance(encoder, LearnedSetEncoder):
        encoder = collection.stage_one_source.first_encoder(collection.manifest.fde)
    vectors = unit_length(encoder.encode_documents(embeddings))
    return vectors @ vectors.T


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
