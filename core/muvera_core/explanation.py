"""Why a document was found: the best match of each query token."""

from __future__ import annotations

from muvera_core.encoders.protocol import TokenEncoder
from muvera_core.hits import TokenMatch
from muvera_core.token_embeddings import FloatArray


def match_tokens(
    encoder: TokenEncoder, query: str, query_tokens: FloatArray, text: str | None, document_tokens: FloatArray
) -> list[TokenMatch]:
    """Match each query token with the document token of highest inner product.

    Args:
        encoder: made the query's tokens, and the document's if its text is given.
        query: the question.
        query_tokens: its token vectors, shape (query tokens, dimension).
        text: the document's text, or None.
        document_tokens: its token vectors, shape (document tokens, dimension).

    Returns:
        One match per query token, in order. Without spans of the document where there is no text, or where the
        tokens weren't made from it by this encoder.
    """
    similarities = query_tokens @ document_tokens.T
    best = similarities.argmax(axis=1).tolist()
    spans = None if text is None else encoder.document_spans(text).tolist()
    if spans is not None and len(spans) != len(document_tokens):
        spans = None
    matches = []
    for i, (start, end) in enumerate(encoder.query_spans(query).tolist()):
        span = None if spans is None else (spans[best[i]][0], spans[best[i]][1])
        token = None if span is None or text is None else text[slice(*span)]
        matches.append(TokenMatch(query[start:end], (start, end), token, span, float(similarities[i, best[i]])))
    return matches
