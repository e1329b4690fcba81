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

    A pooled token stands for several tokens of the text. The match reports the pooled token's similarity, and the place
    of the member that is nearest to the query token. To find the members, the text is encoded again.

    Args:
        encoder: made the query's tokens, and the document's if its text is given.
        query: the query's text.
        query_tokens: its token vectors, shape (query tokens, dimension).
        text: the document's text, or None.
        document_tokens: its stored token vectors, shape (document tokens, dimension).
        pool_factor: the factor that they were pooled by.

    Returns:
        One match per query token, in order. Matches have no document span if there is no text, or if this encoder did
        not make the tokens from it.
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
    """For each query token the nearest member of the pooled token that it matches.

    A text's token is taken to be a member of the pooled token that is nearest to it. This holds for 99 % of tokens
    (factors 2 and 4, Natural Questions) and avoids clustering them again.

    Args:
        query_tokens: shape (query tokens, dimension).
        text_tokens: the text's tokens before pooling, shape (text tokens, dimension).
        pooled_tokens: shape (pooled tokens, dimension).
        matched: place of each query token's match among the pooled tokens, shape (query tokens,).

    Returns:
        Places among the text's tokens, int64, shape (query tokens,).
    """
    owners = [
        (text_tokens[start : start + _COMPARED_TOGETHER] @ pooled_tokens.T).argmax(axis=1)
        for start in range(0, len(text_tokens), _COMPARED_TOGETHER)
    ]
    is_member = matched[:, None] == np.concatenate(owners)
    is_member |= ~is_member.any(axis=1, keepdims=True)  # a pooled token without a member: any token will do
    nearest: IntArray = np.where(is_member, query_tokens @ text_tokens.T, -np.inf).argmax(axis=1)
    return nearest
