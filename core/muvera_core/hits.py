"""The documents, hits and token matches that an index returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Document:
    """A document of an index.

    Attributes:
        id: the document's id.
        text: the passage; None if only token embeddings were added.
        metadata: the metadata that was added with the document.
    """

    id: str
    text: str | None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit(Document):
    """A document that a search found.

    Attributes:
        score: raw MaxSim: each query token's highest inner product with a token of the document, summed over the
            query's tokens. Comparable only within one query.
        normalized_score: the mean per query token, clipped to [0, 1]. Comparable between queries.
    """

    score: float = 0.0
    normalized_score: float = 0.0


@dataclass(frozen=True)
class TokenMatch:
    """A query token and the document token that matches it best: one part of why a document was found.

    Attributes:
        query_token: the token's characters in the query; empty for a marker such as [CLS] or [MASK].
        query_span: start and end of these characters in the query.
        document_token: the token's characters in the document; empty for a marker, None if they are unknown.
        document_span: start and end of these characters in the document's text; None if they are unknown.
        similarity: inner product of the two token vectors.
    """

    query_token: str
    query_span: tuple[int, int]
    document_token: str | None
    document_span: tuple[int, int] | None
    similarity: float
