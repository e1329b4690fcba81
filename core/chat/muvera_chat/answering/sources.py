"""The passages that an answer is made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from muvera_chat.answering.settings import AnsweringSettings
from muvera_core import Hit, IndexCalls, TokenMatch
from muvera_core.corpus import file_of
from muvera_core.errors import MuveraError
from muvera_core.search import SearchMode

# A longer text is shown by the part of it that matched best.
_MAX_CHARACTERS = 1500


@dataclass(frozen=True)
class Source:
    """A passage that was found, with the number that an answer cites it by.

    Attributes:
        number: from 1 on, the best match first.
        id: id of the document in the index.
        text: the passage; empty for an image without a text.
        start: place of its first character in the document's text.
        relevance: see ``Hit.relevance``.
        path: name of the file that it comes from. The document's id if the index does not know the file.
        page: the page of the file, from 1 on. None if there are none.
        heading: headings above the passage, such as "Owls > Food", or the title of a record. None if there are none.
        is_image: whether the document is an image.
        matches: for each token of the question, what matched it best in the document. Empty until it is explained.
    """

    number: int
    id: str
    text: str
    start: int
    relevance: float
    path: str
    page: int | None = None
    heading: str | None = None
    is_image: bool = False
    matches: tuple[TokenMatch, ...] = ()

    @property
    def place(self) -> str:
        """File, page and heading in one line."""
        page = None if self.page is None else f"page {self.page}"
        return " · ".join(part for part in (self.path, page, self.heading) if part)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        sources: the passages, best first.
        is_answer: whether the best of them seems relevant to the question.
    """

    sources: tuple[Source, ...]
    is_answer: bool


def find_sources(index: IndexCalls, query: str, settings: AnsweringSettings) -> Found:
    """The passages that match a query best, by words and meaning together if the index knows words.

    Whether they answer the query is a guess. A calibrated index gives probabilities. Without a calibration, which needs
    ten documents, the mean similarity of the query's tokens decides.

    Args:
        index: the documents.
        query: a question that can be understood on its own.
        settings: how many passages to find, and how relevant the best one has to be.
    """
    mode: SearchMode = "late" if index.lexical is None else "hybrid"
    hits = index.search(query, k=settings.n_sources, mode=mode, with_passages=True)
    if not hits:
        return Found((), False)
    is_answer = hits[0].relevance >= (settings.min_relevance if index.calibration else settings.min_score)
    distinct = {(hit.text, hit.image): hit for hit in reversed(hits)}
    kept = sorted(distinct.values(), key=hits.index)
    return Found(tuple(_source(number, hit) for number, hit in enumerate(kept, start=1)), is_answer)


def explained(index: IndexCalls, query: str, source: Source) -> Source:
    """The source with its ``matches``. Without, if they cannot be known: the document may have been deleted since."""
    try:
        return replace(source, matches=tuple(index.explain(query, source.id)))
    except MuveraError:
        return source


def _source(number: int, hit: Hit) -> Source:
    text, start = hit.text or "", 0
    if len(text) > _MAX_CHARACTERS:
        part = hit.passage
        text, start = (part.text, part.start) if part is not None else (text[:_MAX_CHARACTERS], 0)
    return Source(
        number=number,
        id=hit.id,
        text=text,
        start=start,
        relevance=hit.relevance,
        path=file_of(hit.metadata) or _text(hit.metadata.get("path")) or hit.id,
        page=_page(hit.metadata.get("page")),
        heading=_text(hit.metadata.get("heading")) or _text(hit.metadata.get("title")),
        is_image=hit.image_size is not None,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _page(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
