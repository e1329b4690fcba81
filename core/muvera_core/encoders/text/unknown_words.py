"""Vectors for words that a model's vocabulary lacks.

A tokenizer turns every such word into the same token, [UNK]. With the model's own vectors, any two unknown words would
match. Here their vectors come from their characters instead: equal characters have equal vectors, and different
characters have nearly orthogonal ones.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np

from muvera_core.token_embeddings import FloatArray, IntArray, unit_length

# Part of the fingerprint of every encoder that takes its vectors of unknown words from here.
UNKNOWN_WORDS_VERSION = "u1"
# Vectors that are kept for the next use: 8 MB if they have 128 dimensions.
_CACHED_VECTORS = 16_384
# Vowel signs and final consonants of Hangul that are written as characters of their own.
_HANGUL_PARTS = ("\u1160", "\u11ff")


@dataclass(frozen=True)
class UnknownWord:
    """The parts of an unknown word that get one vector each.

    Attributes:
        parts: characters with their marks; the whole word if all its characters are ASCII.
        spans: start and end of each part in the text.
        before: the letter or digit, with its marks, that touches the word on the left; otherwise empty.
        is_whole: whether the only part is the whole word.
    """

    parts: Sequence[str]
    spans: Sequence[tuple[int, int]]
    before: str
    is_whole: bool

    @classmethod
    def read(cls, text: str, start: int, end: int, at_most: int) -> UnknownWord:
        """The word at ``text[start:end]``, its first ``at_most`` parts. Marks that follow it belong to it."""
        if text[start:end].isascii():
            return cls([text[start:end].casefold()], [(start, end)], "", True)
        spans = list(islice(_characters(text, start, end), at_most))
        return cls([_folded(text[first:last]) for first, last in spans], spans, _before(text, start), False)

    def first(self, n_parts: int) -> UnknownWord:
        """The word without the parts after the first ``n_parts``."""
        return UnknownWord(self.parts[:n_parts], self.spans[:n_parts], self.before, self.is_whole)

    def vectors(self, dimension: int) -> FloatArray:
        """One vector of unit length per part, shape (parts, dimension).

        The vector of a character is made of itself and of the pair with the character before it, so that it is nearest
        to the same character in the same word. The character before can be of another word, because a tokenizer takes
        each ideograph for a word.
        """
        if self.is_whole:
            return _hashed("word", self.parts[0], dimension)[None]
        pairs = zip([self.before, *self.parts], self.parts, strict=False)
        return np.stack([_character(before, part, dimension) for before, part in pairs])

    def vector(self, dimension: int) -> FloatArray:
        """One vector of unit length for the whole word: the direction of the sum of its parts' vectors."""
        return _unit(self.vectors(dimension).sum(axis=0))


def _characters(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of each character with its marks."""
    while start < end:
        stop = start + 1
        while stop < len(text) and _joins_the_one_before(text[stop]):
            stop += 1
        yield start, stop
        start = stop


def _before(text: str, start: int) -> str:
    first = start - 1
    while first > 0 and _joins_the_one_before(text[first]):
        first -= 1
    return _folded(text[first:start]) if start > 0 and text[first].isalnum() else ""


def with_marks(text: str, spans: IntArray) -> IntArray:
    """Spans that reach over the marks that follow them: accents, vowel signs, parts of Hangul.

    A tokenizer that composes characters gives only the first part of one.

    Args:
        text: the text.
        spans: start and end characters, int64, shape (tokens, 2), in order.
    """
    if unicodedata.is_normalized("NFC", text):
        return spans
    longer = spans.copy()
    stop = len(text)
    for i, (start, end) in reversed(list(enumerate(spans.tolist()))):
        if start == end:  # a marker
            continue
        while end < stop and _joins_the_one_before(text[end]):
            end += 1
        longer[i, 1] = end
        stop = start
    return longer


def _joins_the_one_before(character: str) -> bool:
    is_hangul_part = _HANGUL_PARTS[0] <= character <= _HANGUL_PARTS[1]
    return is_hangul_part or unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")


def _folded(part: str) -> str:
    """The part without what readers do not see: case, format characters, and how a mark is attached."""
    visible = "".join(c for c in part if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", visible).casefold())


@lru_cache(maxsize=_CACHED_VECTORS)
def _character(before: str, character: str, dimension: int) -> FloatArray:
    return _unit(_hashed("character", character, dimension) + _hashed("pair", f"{before}\0{character}", dimension))


def _hashed(kind: str, characters: str, dimension: int) -> FloatArray:
    """A vector of unit length whose signs are a hash of the characters, the same on every machine."""
    digest = hashlib.shake_256(f"{kind}\0{characters}".encode()).digest(-(-dimension // 8))
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[:dimension]
    return _unit(bits.astype(np.float32) * 2 - 1)


def _unit(vector: FloatArray) -> FloatArray:
    scaled: FloatArray = unit_length(vector[None])[0]
    return scaled
