"""Tokenizes texts with a prefix, such as "query: ", in front of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from muvera_core.encoders.tokenizing import LimitedTokenizer, Wordpieces
from muvera_core.encoders.unknown_words import UnknownWord


@dataclass(frozen=True)
class PrefixedText:
    """A text's wordpieces, and the ids of the tokens that come before them."""

    wordpieces: Wordpieces
    prefix: Sequence[int] = field(default=())


class PrefixTokenizer(Protocol):
    """Gives the first ``limit`` wordpieces of texts, and the ids of the prefix."""

    def __call__(self, texts: Sequence[str], limit: int) -> list[PrefixedText]:
        """The first ``limit`` wordpieces of each text."""


class InsertedPrefix:
    """A prefix of fixed ids, such as the one of [Q]. The text is tokenized without it."""

    def __init__(self, tokenizer: LimitedTokenizer, ids: Sequence[int] = ()) -> None:
        self._tokenizer, self._ids = tokenizer, tuple(ids)

    def __call__(self, texts: Sequence[str], limit: int) -> list[PrefixedText]:
        """The first ``limit`` wordpieces of each text."""
        return [PrefixedText(wordpieces, self._ids) for wordpieces in self._tokenizer(texts, limit)]


class WrittenPrefix:
    """A prefix that is written in front of a text, and tokenized with it.

    A tokenizer can treat the first word after a prefix otherwise than the first of a text, so both are tokenized
    together, as the model's own library does. A token that holds the end of the prefix and the start of the text
    belongs to the text.
    """

    def __init__(self, tokenizer: LimitedTokenizer, prefix: str) -> None:
        self._tokenizer, self._prefix = tokenizer, prefix
        self._n_tokens = self._n_in_prefix(tokenizer([f"{prefix}a"], len(prefix) + 1)[0])

    def __call__(self, texts: Sequence[str], limit: int) -> list[PrefixedText]:
        """The first ``limit`` wordpieces of each text."""
        written = self._tokenizer([self._prefix + text for text in texts], limit + self._n_tokens)
        return [self._split(text, wordpieces) for text, wordpieces in zip(texts, written, strict=True)]

    def _n_in_prefix(self, wordpieces: Wordpieces) -> int:
        inside = (i for i, (_, end) in enumerate(wordpieces.spans) if end > len(self._prefix))
        return next(inside, len(wordpieces.ids))

    def _split(self, text: str, written: Wordpieces) -> PrefixedText:
        n, shift = self._n_in_prefix(written), len(self._prefix)
        spans = [(max(0, start - shift), end - shift) for start, end in written.spans[n:]]
        unknown = {place - n: _moved(word, shift) for place, word in written.unknown.items() if place >= n}
        wordpieces = Wordpieces(text, written.ids[n:], spans, unknown, max(0, written.end - shift))
        return PrefixedText(wordpieces, written.ids[:n])


def _moved(word: UnknownWord, shift: int) -> UnknownWord:
    spans = [(max(0, start - shift), max(0, end - shift)) for start, end in word.spans]
    return UnknownWord(word.parts, spans, word.before, word.is_whole)
