"""Turns texts into wordpieces, up to a limit, and reports what is left out and what the vocabulary lacks.

A text is tokenized only as far as the limit needs: time depends on the limit, not on the length of the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from muvera_core.encoders.text.unknown_words import UnknownWord
from muvera_core.validation import has_visible_text

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# Characters that are read for each token of the limit: at first, then, and at most. Text has about 5 per token, and
# rarely above 8. Tokenizers take about a second for a million characters, so reading must end somewhere.
_CHARACTERS_PER_TOKEN = (8, 32, 128)
_EXTRA_CHARACTERS = 1024
# Tokens that end this close to where reading stopped could be others in the whole text.
_UNCERTAIN_CHARACTERS = 64
# The same for a word that goes on there, if the tokenizer chooses the likeliest pieces of a word (Unigram). Text
# without spaces is one long word. Pieces are short, so the choice of one depends on a few others only.
_UNCERTAIN_IN_LONG_WORD = 1024
# Parts of an unknown word that count if it is one token. Some languages write no spaces, so a "word" can be a sentence.
_PARTS_OF_ONE_TOKEN = 256

Span = tuple[int, int]


@dataclass(frozen=True)
class Wordpieces:
    """The wordpieces of one text that are encoded.

    Attributes:
        text: the text.
        ids: ids of the wordpieces.
        spans: start and end character of each wordpiece.
        unknown: the words that the vocabulary lacks, by their place among the wordpieces.
        end: number of leading characters that are encoded; the text's length if nothing visible is left out.
    """

    text: str
    ids: list[int]
    spans: list[Span]
    unknown: Mapping[int, UnknownWord]
    end: int

    def have_words(self, start: int, stop: int) -> bool:
        """Whether the model can know what wordpieces ``start:stop`` are about.

        It cannot if words of theirs are unknown, and the others are only punctuation and symbols.
        """
        places = range(start, stop)
        if not any(place in places for place in self.unknown):
            return True
        known = (self.spans[place] for place in places if place not in self.unknown)
        return any(character.isalnum() for first, last in known for character in self.text[first:last])

    def token_spans(self, start: int, stop: int) -> list[Span]:
        """The spans of wordpieces ``start:stop``, with those of its parts in place of an unknown word."""
        if not self.unknown:
            return self.spans[start:stop]
        return [
            span
            for place in range(start, stop)
            for span in (self.unknown[place].spans if place in self.unknown else [self.spans[place]])
        ]

    def unknown_characters(self) -> tuple[int, int]:
        """The number of characters in unknown words, and of all that are encoded, both without whitespace.

        Words of ASCII characters do not count: they are codes of more than 100 characters, not words of a language.
        """
        others = (word for word in self.unknown.values() if not word.is_whole)
        words = (self.text[word.spans[0][0] : word.spans[-1][1]] for word in others)
        return sum(map(len, words)), len("".join(self.text[: self.end].split()))


class LimitedTokenizer:
    """A tokenizer that stops at a number of tokens.

    Args:
        tokenizer: of the tokenizers library, without truncation and padding.
        unknown_id: the id of [UNK]; None if there is none.
        splits_unknown: whether an unknown word counts as one token per part, or as one token.
    """

    def __init__(self, tokenizer: Tokenizer, unknown_id: int | None, *, splits_unknown: bool) -> None:
        self._tokenizer, self._unknown_id, self._splits_unknown = tokenizer, unknown_id, splits_unknown
        self._chooses_likeliest = type(tokenizer.model).__name__ == "Unigram"

    def __call__(self, texts: Sequence[str], limit: int) -> list[Wordpieces]:
        """The first ``limit`` tokens of each text, which are those of the whole text.

        Of a text with more than 128 characters per token only that many are read. The last word of these can differ.
        """
        found: dict[int, Wordpieces] = {}
        missing = list(range(len(texts)))
        for n_characters in _reading_steps(limit):
            prefixes = [texts[i][:n_characters] for i in missing]
            encodings = self._tokenizer.encode_batch(prefixes, add_special_tokens=False)
            for i, prefix, encoding in zip(missing, prefixes, encodings, strict=True):
                is_last = len(prefix) == len(texts[i]) or n_characters == longest_reading(limit)
                pieces, has_more = self._first(texts[i], len(prefix), encoding, limit, is_last)
                if is_last or has_more:
                    found[i] = pieces
            missing = [i for i in missing if i not in found]
        return [found[i] for i in range(len(texts))]

    def _first(self, text: str, n_read: int, encoding: Encoding, limit: int, is_last: bool) -> tuple[Wordpieces, bool]:
        """The wordpieces of the first ``limit`` tokens, and whether more tokens follow for certain."""
        ids, spans = encoding.ids, _apart(encoding.offsets)
        n_certain = len(ids) if is_last else self._n_certain(encoding, n_read)
        unknown: dict[int, UnknownWord] = {}
        n_pieces, has_more = min(limit, n_certain), limit < n_certain
        if self._unknown_id in ids:
            n_pieces, has_more = self._find_unknown(text, ids[:n_certain], spans, limit, unknown)
        last = n_pieces - 1
        if has_more:
            end = unknown[last].spans[-1][1] if last in unknown else spans[last][1]
        else:
            end = n_read if has_visible_text(text[n_read:]) else len(text)
        return Wordpieces(text, ids[:n_pieces], spans[:n_pieces], unknown, end), has_more

    def _n_certain(self, encoding: Encoding, n_read: int) -> int:
        """The number of leading tokens that do not depend on what follows the ``n_read`` characters."""
        words, spans = encoding.word_ids, encoding.offsets
        certain_in_last_word = n_read - _UNCERTAIN_IN_LONG_WORD if self._chooses_likeliest else 0
        n = len(words)
        while n and (
            spans[n - 1][1] > n_read - _UNCERTAIN_CHARACTERS
            or (words[n - 1] == words[-1] and spans[n - 1][1] > certain_in_last_word)
        ):
            n -= 1
        return n

    def _find_unknown(
        self, text: str, ids: list[int], spans: list[Span], limit: int, unknown: dict[int, UnknownWord]
    ) -> tuple[int, bool]:
        """Fill ``unknown``. Return the number of wordpieces within the limit, and whether there are more."""
        room = limit
        for place, id in enumerate(ids):
            if room == 0:
                return place, True
            if id != self._unknown_id:
                room -= 1
                continue
            at_most = room + 1 if self._splits_unknown else _PARTS_OF_ONE_TOKEN
            word = UnknownWord.read(text, *spans[place], at_most)
            n_tokens = len(word.spans) if self._splits_unknown else 1
            unknown[place] = word.first(room) if n_tokens > room else word
            if n_tokens > room:
                return place + 1, True
            room -= n_tokens
        return len(ids), False


def _apart(spans: list[Span]) -> list[Span]:
    """The spans, where a token that begins at the same character as the next one has an empty span.

    Such a token is a mark of a word's start, or a part of a character.
    """
    return [
        (start, start if start == next_start else end)
        for (start, end), (next_start, _) in zip_longest(spans, spans[1:], fillvalue=(-1, -1))
    ]


def longest_reading(limit: int) -> int:
    """The number of characters that are read of a text to find its first ``limit`` tokens."""
    return _reading_steps(limit)[-1]


def _reading_steps(limit: int) -> list[int]:
    return [per_token * limit + _EXTRA_CHARACTERS for per_token in _CHARACTERS_PER_TOKEN]
