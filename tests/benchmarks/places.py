"""Places of exact MaxSim's best documents in the ranking of a stage one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from muvera_core import FDEConfig, FixedDimensionalEncoder, TokenEmbeddings
from muvera_core.token_embeddings import FloatArray, IntArray

# Place of a document that is never found.
NOWHERE = 1 << 62
# Number of nearest document tokens that the single-vector heuristic looks up for each query token.
_DEPTH = 4096


def places_by_score(scores: FloatArray, best: IntArray) -> IntArray:
    """Places of ``best`` (queries, k) in the ranking by ``scores`` (queries, documents), int64, from 0."""
    return np.array([(row > row[some][:, None]).sum(axis=1) for row, some in zip(scores, best, strict=True)])


def places_by_repetitions(
    config: FDEConfig,
    repetitions: Sequence[int],
    queries: TokenEmbeddings,
    documents: TokenEmbeddings,
    best: IntArray,
) -> tuple[IntArray, IntArray]:
    """Places of ``best`` with the first repetitions of an encoding, which are an encoding themselves.

    Args:
        config: the encoding.
        repetitions: numbers of repetitions to measure, ascending.
        queries: the queries.
        documents: all documents.
        best: numbers of the best documents of each query, shape (queries, k).

    Returns:
        Places with document encodings of unit length, and with plain ones, int64, shape (len(repetitions), queries, k)
        each.
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
    """Places of ``best`` (queries, k) with the single-vector heuristic: query tokens look up document tokens.

    The nearest document tokens of each query token are found exactly. Their documents are ordered by the token's rank,
    and within a rank by the query token (arXiv 2405.19504, section 3.1).

    Returns:
        Places if a repeated document counts again, and if it does not, int64, shape (queries, k) each.
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
    """Number of candidates that contain this share of the documents."""
    return int(np.sort(places, axis=None)[math.ceil(share * places.size) - 1]) + 1
