"""The documents that searches return: LangChain documents that carry their scores."""

from __future__ import annotations

from typing import Any, Literal, get_args

from langchain_core.documents import Document
from pydantic import PrivateAttr

from muvera_core import Document as IndexDocument
from muvera_core import Hit
from muvera_core.validation import require_choice

# The metadata field that says where a document's image is. It is not stored, so no filter finds it.
IMAGE_KEY = "image"

# What becomes of the part of a text that matched best.
PassageUse = Literal["metadata", "text"]


class ScoredDocument(Document):
    """A document that a search found, with its scores.

    It equals a plain ``Document`` with the same id, text and metadata, whatever its scores are. So retrievers that join
    the results of several questions recognize a document that they have seen. Serialized, it is a plain ``Document``
    without scores. Pickling and copying keep them.

    Args:
        page_content: the text.
        score: see the property.
        normalized_score: see the property.
        relevance: see the property. None takes the normalized score.
        lexical_score: see the property.
        judged_score: see the property.
        **kwargs: ``id`` and ``metadata``, as for ``Document``.
    """

    _score: float = PrivateAttr()
    _normalized_score: float = PrivateAttr()
    _relevance: float = PrivateAttr()
    _lexical_score: float | None = PrivateAttr()
    _judged_score: float | None = PrivateAttr()

    def __init__(
        self,
        page_content: str,
        *,
        score: float,
        normalized_score: float,
        relevance: float | None = None,
        lexical_score: float | None = None,
        judged_score: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(page_content, **kwargs)
        self._score, self._normalized_score = score, normalized_score
        self._relevance = normalized_score if relevance is None else relevance
        self._lexical_score, self._judged_score = lexical_score, judged_score

    @property
    def score(self) -> float:
        """The raw MaxSim sum, with BM25's share in mode "hybrid"; BM25 in mode "lexical".

        Comparable only within one query.
        """
        return self._score

    @property
    def normalized_score(self) -> float:
        """The mean per query token, clipped to [0, 1]. Comparable between queries."""
        return self._normalized_score

    @property
    def relevance(self) -> float:
        """What ``min_score`` is compared with.

        The probability that the document is relevant, if the index was calibrated for this mode of search, or else the
        normalized score.
        """
        return self._relevance

    @property
    def lexical_score(self) -> float | None:
        """BM25. None if words did not count."""
        return self._lexical_score

    @property
    def judged_score(self) -> float | None:
        """The cross-encoder's score, on its own scale. None if no cross-encoder judged the document."""
        return self._judged_score

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
        shown = {"score": self._score, "normalized_score": self._normalized_score}
        if self._relevance != self._normalized_score:
            shown["relevance"] = self._relevance
        if self._lexical_score is not None:
            shown["lexical_score"] = self._lexical_score
        if self._judged_score is not None:
            shown["judged_score"] = self._judged_score
        return [*super().__repr_args__(), *shown.items()]


def _content(document: Document) -> tuple[Any, ...]:
    return document.id, document.page_content, document.metadata


def to_document(document: IndexDocument) -> Document:
    """The document with its metadata. The page is empty if the document has no text.

    The metadata of a document that was added as an image file has the file's path under ``IMAGE_KEY``, unless it has
    that key already.
    """
    image = {} if document.image is None else {IMAGE_KEY: document.image}
    return Document(id=document.id, page_content=document.text or "", metadata={**image, **document.metadata})


def require_passage(passage: PassageUse | None) -> PassageUse | None:
    """A use of passages. Raises InvalidInputError for anything else."""
    return None if passage is None else require_choice("passage", passage, get_args(PassageUse))


def to_scored_document(hit: Hit, passage: PassageUse | None = None) -> ScoredDocument:
    """The document of a hit, with its scores.

    Args:
        hit: the hit.
        passage: "metadata" puts the hit's passage into the metadata, in place of what is stored under these keys.
            "text" also makes it the ``page_content``. A hit whose passage is not known stays as it is.
    """
    document = to_document(hit)
    if passage is not None and hit.passage is not None:
        found = {
            "passage": hit.passage.text,
            "passage_start": hit.passage.start,
            "passage_end": hit.passage.end,
        }
        text = hit.passage.text if passage == "text" else document.page_content
        document = Document(id=document.id, page_content=text, metadata={**document.metadata, **found})
    return with_scores(
        document,
        hit.score,
        hit.normalized_score,
        relevance=hit.relevance,
        lexical_score=hit.lexical_score,
        judged_score=hit.judged_score,
    )


def with_scores(document: Document, score: float, normalized_score: float, **others: float | None) -> ScoredDocument:
    """A copy of the document with these scores. ``others`` are further scores of a ``ScoredDocument``, by name."""
    return ScoredDocument(
        document.page_content,
        id=document.id,
        metadata=dict(document.metadata),
        score=score,
        normalized_score=normalized_score,
        **others,
    )
