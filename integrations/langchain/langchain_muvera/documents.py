"""Converts documents of the index to LangChain documents."""

from __future__ import annotations

from langchain_core.documents import Document

from muvera_core import Document as IndexDocument
from muvera_core import Hit

RELEVANCE_SCORE = "relevance_score"
"""Metadata key of the normalized score: the mean per query token, clipped to [0, 1]."""
MAXSIM_SCORE = "maxsim_score"
"""Metadata key of the score: the raw MaxSim sum."""


def to_document(document: IndexDocument) -> Document:
    """The document with its metadata. The page is empty if the document has no text."""
    return Document(id=document.id, page_content=document.text or "", metadata=dict(document.metadata))


def to_scored_document(hit: Hit) -> Document:
    """The document with its two scores in its metadata."""
    return with_scores(to_document(hit), hit.score, hit.normalized_score)


def with_scores(document: Document, score: float, normalized_score: float) -> Document:
    """A copy of the document with its two scores in its metadata."""
    scores = {RELEVANCE_SCORE: normalized_score, MAXSIM_SCORE: score}
    return document.model_copy(update={"metadata": {**document.metadata, **scores}})
