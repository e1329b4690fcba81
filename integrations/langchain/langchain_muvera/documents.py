"""Documents of the index as LangChain's documents."""

from __future__ import annotations

from langchain_core.documents import Document

from muvera_core import Document as IndexDocument
from muvera_core import Hit

RELEVANCE_SCORE = "relevance_score"
"""Metadata key of the mean similarity of a query's tokens to their best matches, in [0, 1]."""
MAXSIM_SCORE = "maxsim_score"
"""Metadata key of the sum of those similarities."""


def to_document(document: IndexDocument) -> Document:
    """The document with the metadata it was added with. One without text has an empty page."""
    return Document(id=document.id, page_content=document.text or "", metadata=dict(document.metadata))


def to_scored_document(hit: Hit) -> Document:
    """The document with its two scores in its metadata."""
    return with_scores(to_document(hit), hit.score, hit.normalized_score)


def with_scores(document: Document, maxsim_score: float, relevance_score: float) -> Document:
    """A copy of the document that carries its two scores in its metadata."""
    scores = {RELEVANCE_SCORE: relevance_score, MAXSIM_SCORE: maxsim_score}
    return document.model_copy(update={"metadata": {**document.metadata, **scores}})
