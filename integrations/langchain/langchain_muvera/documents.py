"""The documents that searches return: LangChain documents that carry their scores."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from pydantic import PrivateAttr

from muvera_core import Document as IndexDocument
from muvera_core import Hit

# The metadata field that says where a document's image is. It is not stored, so no filter finds it.
IMAGE_KEY = "image"


class ScoredDocument(Document):
    """A document that a search found, with its two scores.

    It equals a plain ``Document`` with the same id, text and metadata, whatever its scores are. So retrievers that join
    the results of several questions recognize a document that they have seen. Serialized, it is a plain ``Document``
    without scores. Pickling and copying keep them.

    Args:
        page_content: the text.
        score: see the property.
        normalized_score: see the property.
        **kwargs: ``id`` and ``metadata``, as for ``Document``.
    """

    _score: float = PrivateAttr()
    _normalized_score: float = PrivateAttr()

    def __init__(self, page_content: str, *, score: float, normalized_score: float, **kwargs: Any) -> None:
        super().__init__(page_content, **kwargs)
        self._score, self._normalized_score = score, normalized_score

    @property
    def score(self) -> float:
        """The raw MaxSim sum. Comparable only within one query."""
        return self._score

    @property
    def normalized_score(self) -> float:
        """The mean per query token, clipped to [0, 1]. Comparable between queries."""
        return self._normalized_score

    @classmethod
    def lc_id(cls) -> list[str]:
        """The id of ``Document``, as which LangChain serializes a scored document."""
        return Document.lc_id()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ScoredDocument) or type(other) is Document:
            return _content(self) == _content(other)
        return NotImplemented

    # pydantic leaves private attributes out of a model's text. These are worth seeing.
    def __repr_args__(self) -> Any:
        return [*super().__repr_args__(), ("score", self._score), ("normalized_score", self._normalized_score)]


def _content(document: Document) -> tuple[Any, ...]:
    return document.id, document.page_content, document.metadata


def to_document(document: IndexDocument) -> Document:
    """The document with its metadata. The page is empty if the document has no text.

    The metadata of a document that was added as an image file has the file's path under ``IMAGE_KEY``, unless it has
    that key already.
    """
    image = {} if document.image is None else {IMAGE_KEY: document.image}
    return Document(id=document.id, page_content=document.text or "", metadata={**image, **document.metadata})


def to_scored_document(hit: Hit) -> ScoredDocument:
    """The document of a hit, with its scores."""
    return with_scores(to_document(hit), hit.score, hit.normalized_score)


def with_scores(document: Document, score: float, normalized_score: float) -> ScoredDocument:
    """A copy of the document with these scores."""
    return ScoredDocument(
        document.page_content,
        id=document.id,
        metadata=dict(document.metadata),
        score=score,
        normalized_score=normalized_score,
    )
