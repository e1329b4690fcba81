"""Where exact MaxSim's best documents stand in the order in which a stage one finds candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from muvera_core import FDEConfig, FixedDimensionalEncoder, TokenEmbeddings
from muvera_core.token_embeddings import FloatArray, IntArray

# Of a document that is never found.
NOWHERE = 1 << 62
# Nearest document tokens that the single-vector heuristic looks up for each query token.
_DEPTH = 4096


def places_by_score(scores: FloatArray, best: IntArray) -> IntArray:
    """Places of ``best`` (queries, k) in the order by ``scores`` (queries, documents), int64; 0 is the first."""
    return np.array([(row > row[some][:, None]).sum(axis=1) for row, some in zip(scores, best, strict=True)])


def places_by_repetitions(
    config: FDEConfig,
    repetitions: Sequence[int],
    queries: TokenEmbeddings,
    documents: TokenEmbeddings,
    best: IntArray,
) -> tuple[IntArray, IntArray]:
    """Places of ``best`` (queries, k) with the first of an encoding's repetitions, which are an encoding themselves.

    Args:
        config: the encoding.
        repetitions: how many of its repetitions to take, ascending.
        queries: of which ``best`` tells the best documents.
        documents: all of them.
        best: numbers of documents.

    Returns:
        int64, (len(repetitions), queries, k): with the document encodings of unit length, and as they are.
    """
    encoder = FixedDimensionalEncoder(config)
    vectors, query_vectors = encoder.encode_documents(documents), encoder.encode_queries(queries)
    width = config.output_dimension // config.num_repetitions
    scores = np.zeros((len(queries), len(documents)), dtype=np.float32)
    squares = np.zeros(len(documents), dtype=np.float32)
    of_unit_length, plain = [], []
    for start, end in zip([0, *repetitions], repetitions, strict=False):
        part = slice(start * width, end * width)
        scores += query_vectors[:, part] @ vectors[:, part].T
        squares += np.einsum("nd,nd->n", vectors[:, part], vectors[:, part])
        scaled: FloatArray = (scores / np.sqrt(squares)).astype(np.float32, copy=False)
        of_unit_length.append(places_by_score(scaled, best))
        plain.append(places_by_score(scores, best))
    return np.stack(of_unit_length), np.stack(plain)


def places_by_tokens(queries: TokenEmbeddings, documents: TokenEmbeddings, best: IntArray) -> tuple[IntArray, IntArray]:
    """Places of ``best`` (queries, k) where query tokens look for document tokens: the single-vector heuristic.

    Each query token's nearest document tokens are found exactly. Their documents are taken in the order of their rank,
    and in each rank in the order of the query's tokens (arXiv 2405.19504, section 3.1).

    Returns:
        int64, (queries, k): as a document that comes again counts again, and as it doesn't.
    """
    depth = min(_DEPTH, len(documents.vectors))
    document_of_token = np.repeat(np.arange(len(documents)), documents.lengths)
    transposed = np.ascontiguousarray(documents.vectors.T)
    all_places = np.full((2, *best.shape), NOWHERE)
    for i, (query, some) in enumerate(zip(queries, best, strict=True)):
        ranked = []
        for similarities in query @ transposed:
            nearest = np.argpartition(-similarities, depth - 1)[:depth]
            ranked.append(document_of_token[nearest[np.argsort(-similarities[nearest])]])
        found, first = np.unique(np.stack(ranked, axis=1), return_index=True)
        has = np.isin(some, found)
        all_places[0, i, has] = first[np.searchsorted(found, some[has])]
        all_places[1, i, has] = np.searchsorted(np.sort(first), all_places[0, i, has])
    return all_places[0], all_places[1]


def share_found(places: IntArray, n: int) -> float:
    """Share of the documents that are among the first ``n`` candidates."""
    return float((places < n).mean())


def candidates_needed(places: IntArray, share: float) -> int:
    """How many candidates it takes until they hold this share of the documents."""
    return int(np.sort(places, axis=None)[math.ceil(share * places.size) - 1]) + 1
