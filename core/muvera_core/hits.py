"""What the index gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Document:
    """A document as it was added.

    Attributes:
        id: its id.
        text: the passage; None where only token embeddings were added.
        metadata: what was attached to it.
    """

    id: str
    text: str | None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit(Document):
    """A document that was found.

    Attributes:
        score: MaxSim, the sum over query tokens of the best inner product. Comparable within one query only.
        normalized_score: the mean over query tokens, clipped to [0, 1]. Comparable between queries.
    """

    score: float = 0.0
    normalized_score: float = 0.0


@dataclass(frozen=True)
class TokenMatch:
    """Why a document was found: one query token and the document token that matched it best.

    Attributes:
        query_token: the query's characters; empty for a marker such as [CLS] or [MASK].
        query_span: their start and end in the query.
        document_token: the document's characters; empty for a marker, None where its text isn't known.
        document_span: their start and end in the document's text; None where that isn't known.
        similarity: inner product of the two token vectors.
    """

    query_token: str
    query_span: tuple[int, int]
    document_token: str | None
    document_span: tuple[int, int] | None
    similarity: float
