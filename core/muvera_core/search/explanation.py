"""Why a document was found: the best match of each query token."""

from __future__ import annotations

import numpy as np

from muvera_core.collection import Collection
from muvera_core.encoders import TokenEncoder, pooled_length
from muvera_core.errors import InvalidInputError
from muvera_core.hits import TokenMatch
from muvera_core.storage import Snapshot, StoredDocument
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.validation import require_encoded

_COMPARED_TOGETHER = 1024


def explain(collection: Collection, encoder: TokenEncoder, query: str, id: str) -> list[TokenMatch]:
    """See ``MuveraIndex.explain``."""
    encoded = require_encoded(encoder.encode_queries([query]), 1, encoder.dimension)

    def read(snapshot: Snapshot) -> tuple[StoredDocument, TokenEmbeddings]:
        found = collection.store.documents_by_id(snapshot, [id])
        if not found:
            raise InvalidInputError(f"there is no document with id {id!r}")
        return found[0], collection.store.embeddings(snapshot, [found[0].key])

    document, tokens = collection.read_with_retry(read)
    pool_factor = collection.manifest.pool_factor
    return match_tokens(encoder, query, encoded.vectors, document.text, tokens.vectors, pool_factor)


def match_tokens(
    encoder: TokenEncoder,
    query: str,
    query_tokens: FloatArray,
    text: str | None,
    document_tokens: FloatArray,
    pool_factor: int,
) -> list[TokenMatch]:
    """Match each query token with the document token of highest inner product.

    A pooled token stands for several of the text's: what is reported is its similarity, and the place of the one among
    them that is nearest to the query token. To know them the text is encoded again.

    Args:
        encoder: made the query's tokens, and the document's if its text is given.
        query: the question.
        query_tokens: its token vectors, shape (query tokens, dimension).
        text: the document's text, or None.
        document_tokens: its token vectors as they are stored, shape (document tokens, dimension).
        pool_factor: by which they were pooled.

    Returns:
        One match per query token, in order. Without spans of the document where there is no text, or where the
        tokens weren't made from it by this encoder.
    """
    similarities = query_tokens @ document_tokens.T
    best = similarities.argmax(axis=1)
    spans, places = None, best
    if text is not None:
        spans = encoder.document_spans(text).tolist()
        if pooled_length(len(spans), pool_factor) != len(document_tokens):
            spans = None
        elif pool_factor > 1:
            encoded = require_encoded(encoder.encode_documents([text]), 1, encoder.dimension)
            places = _nearest_members(query_tokens, encoded.vectors, document_tokens, best)
    matches = []
    for i, (start, end) in enumerate(encoder.query_spans(query).tolist()):
        span = None if spans is None else (spans[places[i]][0], spans[places[i]][1])
        token = None if span is None or text is None else text[slice(*span)]
        matches.append(TokenMatch(query[start:end], (start, end), token, span, float(similarities[i, best[i]])))
    return matches


def _nearest_members(
    query_tokens: FloatArray, text_tokens: FloatArray, pooled_tokens: FloatArray, matched: IntArray
) -> IntArray:
    """For each query token the text's token nearest to it, among those that its matched pooled token stands for.

    Those are taken to be the ones to which no other pooled token is nearer. That is so for 99 % of tokens (factors 2
    and 4, Natural Questions) and spares clustering them again.

    Args:
        query_tokens: shape (query tokens, dimension).
        text_tokens: before pooling, shape (text tokens, dimension).
        pooled_tokens: shape (pooled tokens, dimension).
        matched: place of each query token's match among the pooled tokens, shape (query tokens,).

    Returns:
        Places among the text's tokens, shape (query tokens,).
    """
    owners = [
        (text_tokens[start : start + _COMPARED_TOGETHER] @ pooled_tokens.T).argmax(axis=1)
        for start in range(0, len(text_tokens), _COMPARED_TOGETHER)
    ]
    is_member = matched[:, None] == np.concatenate(owners)
    is_member |= ~is_member.any(axis=1, keepdims=True)  # where there is none, all will do
    nearest: IntArray = np.where(is_member, query_tokens @ text_tokens.T, -np.inf).argmax(axis=1)
    return nearest
