"""Joins the matches of tokens, which may be parts of words, to matches of words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from muvera_core import TokenMatch

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
# Similarities below this say nothing: unrelated words reach them. They are not shaded.
_LOWEST = 0.3


@dataclass(frozen=True)
class QuestionWord:
    """A word of the question.

    Attributes:
        text: the word.
        similarity: the highest similarity of one of its tokens with a token of the passage.
    """

    text: str
    similarity: float


@dataclass(frozen=True)
class Mark:
    """A word of a passage that is the best match of a word of the question.

    Attributes:
        start: place of its first character in the passage.
        end: place behind its last character.
        similarity: the highest similarity of one of its tokens with one of the question.
        matched: for each word of the question that it matches, by its number from 0 on, the similarity.
    """

    start: int
    end: int
    similarity: float
    matched: dict[int, float]

    @property
    def strength(self) -> float:
        """How strongly to shade it, from 0 to 1."""
        return min(1.0, max(0.0, (self.similarity - _LOWEST) / (1 - _LOWEST)))


def words_of(query: str, matches: Sequence[TokenMatch]) -> list[QuestionWord]:
    """The words of the query, in order, with the similarity of what matched them best.

    Args:
        query: what was searched for.
        matches: those of ``IndexCalls.explain`` for this query.
    """
    spans = [match.span() for match in _WORD.finditer(query)]
    best = [0.0] * len(spans)
    for match in matches:
        word = _owner(spans, match.query_span)
        if word is not None:
            best[word] = max(best[word], match.similarity)
    return [QuestionWord(query[start:end], best[i]) for i, (start, end) in enumerate(spans)]


def marks_of(query: str, matches: Sequence[TokenMatch], text: str, start: int = 0) -> list[Mark]:
    """The words of a passage that match words of the query, in the order of the passage. They do not overlap.

    Markers, punctuation, weak matches and matches outside the passage are left out.

    Args:
        query: what was searched for.
        matches: those of ``IndexCalls.explain`` for the query and the document.
        text: the passage.
        start: place of the passage's first character in the document's text.
    """
    asked = [match.span() for match in _WORD.finditer(query)]
    words = [match.span() for match in _WORD.finditer(text)]
    matched: dict[int, dict[int, float]] = {}
    for match in matches:
        asked_word = _owner(asked, match.query_span)
        if asked_word is None or match.document_span is None or match.similarity <= _LOWEST:
            continue
        first, last = match.document_span
        word = _owner(words, (first - start, last - start))
        if word is not None:
            of_word = matched.setdefault(word, {})
            of_word[asked_word] = max(of_word.get(asked_word, 0.0), match.similarity)
    return [Mark(*words[word], max(of_word.values()), of_word) for word, of_word in sorted(matched.items())]


def _owner(words: Sequence[tuple[int, int]], span: tuple[int, int]) -> int | None:
    """The number of the word that a token is a part of. None for a marker, and for punctuation."""
    start, end = span
    if start >= end:
        return None
    return next((i for i, (first, last) in enumerate(words) if first < end and start < last), None)
