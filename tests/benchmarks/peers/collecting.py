"""Makes the inputs from a collection in BEIR's format or from token embeddings in a file."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import numpy as np
from embedded import encoded_documents, exact_top, judged_and_others

from muvera_core import TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.collections import BeirCollection, read_beir
from peers.inputs import About, Inputs
from peers.protocol import Documents, IntArray


def collect(source: Path, cache: Path, n_documents: int | None, n_queries: int, k: int) -> Inputs:
    """Inputs from a folder in BEIR's format, or from an .npz file.

    Args:
        source: a collection, which the bundled encoder encodes; or a file with the arrays ``documents`` (tokens,
            dimension), ``document_offsets``, ``queries`` and ``query_offsets``, and, if known, ``token_ids``.
        cache: folder that keeps the token embeddings of a collection.
        n_documents: number of documents; None takes all. In a collection, those that are relevant to a query come
            first.
        n_queries: number of queries. From a collection they are drawn at random among those with a relevant document.
        k: number of documents that a query asks for.
    """
    if source.is_dir():
        return _from_collection(source, cache, n_documents, n_queries, k)
    return _from_file(source, n_documents, n_queries, k)


def _from_collection(folder: Path, cache: Path, n_documents: int | None, n_queries: int, k: int) -> Inputs:
    collection, encoder = read_beir(folder), BundledEncoder()
    chosen = judged_and_others(collection, n_documents)[:n_documents]
    texts = [collection.texts[i] for i in chosen]
    grades = _grades_by_number(collection, chosen)
    asked = random.Random(1).sample(sorted(grades), min(n_queries, len(grades)))
    tokens = encoded_documents(texts, cache / folder.name)
    documents = Documents(tokens.vectors, tokens.offsets, _token_ids(encoder, texts, tokens))
    queries = encoder.encode_queries([collection.queries[id] for id in asked])
    return _inputs(folder.name, documents, Documents(queries.vectors, queries.offsets), k, [grades[id] for id in asked])


def _from_file(file: Path, n_documents: int | None, n_queries: int, k: int) -> Inputs:
    with np.load(file) as arrays:
        offsets = arrays["document_offsets"][: None if n_documents is None else n_documents + 1].astype(np.int64)
        query_offsets = arrays["query_offsets"][: n_queries + 1].astype(np.int64)
        documents = Documents(
            arrays["documents"][: offsets[-1]].astype(np.float32),
            offsets,
            arrays["token_ids"][: offsets[-1]].astype(np.int64) if "token_ids" in arrays else None,
        )
        queries = Documents(arrays["queries"][: query_offsets[-1]].astype(np.float32), query_offsets)
    return _inputs(file.stem, documents, queries, k, [])


def _inputs(name: str, documents: Documents, queries: Documents, k: int, relevance: list[dict[int, float]]) -> Inputs:
    k = min(k, len(documents))
    checksum = zlib.crc32(queries.vectors.data, zlib.crc32(documents.vectors.data))
    about = About(name, len(documents), len(documents.vectors), documents.dimension, len(queries), k, checksum)
    exact = exact_top(
        TokenEmbeddings(queries.vectors, queries.offsets), TokenEmbeddings(documents.vectors, documents.offsets), k
    )
    return Inputs(about, documents, queries, np.stack(exact), relevance)


def _grades_by_number(collection: BeirCollection, chosen: list[int]) -> dict[str, dict[int, float]]:
    """For each query with a relevant document among the chosen: their grades, by their place among the chosen."""
    number = {collection.ids[i]: place for place, i in enumerate(chosen)}
    grades = {
        id: {number[document]: grade for document, grade in relevant.items() if document in number}
        for id, relevant in collection.relevance.items()
    }
    return {id: some for id, some in grades.items() if id in collection.queries and any(some.values())}


def _token_ids(encoder: BundledEncoder, texts: list[str], tokens: TokenEmbeddings) -> IntArray:
    """A number for each token: equal word pieces have equal numbers, and so have equal markers.

    A piece that continues a word is another one than the same letters at a word's beginning, as in the vocabulary.
    """
    numbers: dict[tuple[str, bool], int] = {}
    ids = np.empty(len(tokens.vectors), dtype=np.int64)
    for text, first, length in zip(texts, tokens.offsets, tokens.lengths, strict=False):
        end_before = -1
        for place, (start, end) in enumerate(encoder.document_spans(text)):
            is_continued = start == end_before if start < end else place + 1 == length
            piece = (text[start:end].lower(), bool(is_continued))
            ids[first + place] = numbers.setdefault(piece, len(numbers))
            end_before = end
    return ids
