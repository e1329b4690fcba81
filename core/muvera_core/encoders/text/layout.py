"""Lays out a model's input: special tokens, prefixes, windows of long texts, expansion of short queries.

A model sees a text as ``[special tokens] [prefix] [wordpieces] [special tokens] [expansion]``. A long text is seen in
several pieces, one per window, each with its own special tokens and prefix.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from muvera_core.encoders.text.tokenizing import Span, Wordpieces
from muvera_core.encoders.text.unknown_words import UnknownWord
from muvera_core.encoders.text.windows import Window, split_into_windows
from muvera_core.token_embeddings import FloatArray, IntArray

# Whose special tokens and prefix have vectors: those of each window, or those at the two ends of the text.
KeptSpecials = Literal["windows", "ends"]
# What the vector of a word that the vocabulary lacks is: the model's own; one made from the word's characters; one
# for each of its characters.
UnknownVectors = Literal["model", "word", "characters"]


@dataclass(frozen=True)
class Piece:
    """One input of the model: a text, or a window of it.

    Attributes:
        ids: token ids, special tokens, prefix and expansion included.
        attended: number of leading ids that attention may use.
        keep: positions whose vectors are kept.
        spans: start and end character of each vector.
        unknown: words that have a vector, or vectors, of their own, by their place in ``keep``.
        splits_unknown: whether an unknown word has one vector per character.
    """

    ids: list[int]
    attended: int
    keep: list[int]
    spans: list[Span]
    unknown: Mapping[int, UnknownWord]
    splits_unknown: bool

    @property
    def needs_the_model(self) -> bool:
        """Whether any vector is the model's."""
        return len(self.unknown) < len(self.keep)

    def vectors(self, states: FloatArray | None, dimension: int) -> FloatArray:
        """The vectors that are kept, shape (spans, dimension).

        Args:
            states: the model's vectors of ``ids``, shape (at least ids, dimension); None without ``needs_the_model``.
            dimension: width of a vector.
        """
        if states is not None and not self.unknown:
            kept: FloatArray = states[self.keep]
            return kept
        rows = [np.empty((0, dimension), dtype=np.float32)]
        for row, place in enumerate(self.keep):
            word = self.unknown.get(row)
            if word is not None:
                rows.append(word.vectors(dimension) if self.splits_unknown else word.vector(dimension)[None])
            elif states is not None:
                rows.append(states[place][None])
        return np.concatenate(rows)


@dataclass(frozen=True)
class Expansion:
    """Tokens that fill up a short query, each with a vector: ColBERT's masks.

    Attributes:
        token: id of the token.
        length: number of tokens, all others included, up to which a query is filled.
        attended: whether attention may use these tokens.
    """

    token: int
    length: int
    attended: bool


@dataclass(frozen=True)
class TextFormat:
    """How the texts of one kind, documents or queries, become inputs of a model.

    Attributes:
        before: ids of the special tokens before the prefix.
        after: ids of the special tokens after the text.
        whole: largest number of tokens, all included, of a text that is encoded in one piece.
        window: tokens of a window of a longer text, all included.
        overlap: tokens that neighbouring windows share at least.
        kept_specials: whose special tokens and prefix have vectors.
        keeps_prefix: whether a prefix has vectors at all.
        skipped: ids that have no vectors.
        replaced: ids that the model sees instead of others.
        expansion: what fills up short texts.
        unknown: what the vectors of unknown words are. Unless they are the model's, a window in which nothing is known
            has vectors for its words only: the others would match those of every other such window.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    whole: int
    window: int
    overlap: int
    kept_specials: KeptSpecials
    keeps_prefix: bool = True
    skipped: Collection[int] = frozenset()
    replaced: Mapping[int, int] = field(default_factory=dict)
    expansion: Expansion | None = None
    unknown: UnknownVectors = "model"

    def pieces(self, wordpieces: Wordpieces, prefix: Sequence[int] = ()) -> list[Piece]:
        """The text in one piece, or in windows.

        Args:
            wordpieces: of the text.
            prefix: ids of the tokens before it.
        """
        n = len(wordpieces.ids)
        around = len(self.before) + len(prefix) + len(self.after)
        windows = [Window(0, n, 0, n)]
        if n + around > self.whole:
            windows = split_into_windows(n, self.window - around, self.overlap)
        return [self._piece(wordpieces, window, prefix) for window in windows]

    def _piece(self, wordpieces: Wordpieces, window: Window, prefix: Sequence[int]) -> Piece:
        tokens: Sequence[int] = wordpieces.ids[window.start : window.stop]
        if self.replaced:
            tokens = [self.replaced.get(token, token) for token in tokens]
        first = len(self.before) + len(prefix)
        ids = [*self.before, *prefix, *tokens, *self.after]
        attended = after = len(ids)
        if self.expansion and len(ids) < self.expansion.length:
            ids += [self.expansion.token] * (self.expansion.length - len(ids))
            attended = len(ids) if self.expansion.attended else attended
        shift = first - window.start
        keep: Sequence[int] = range(window.keep_start + shift, window.keep_stop + shift)
        if self._keeps_specials(wordpieces, window, is_last=False):
            keep = [*range(first if self.keeps_prefix else len(self.before)), *keep]
        if self._keeps_specials(wordpieces, window, is_last=True):
            keep = [*keep, *range(after - len(self.after), len(ids))]
        if self.skipped:
            keep = [i for i in keep if ids[i] not in self.skipped]
        places = [i - shift for i in keep]
        unknown = {}
        if wordpieces.unknown and self.unknown != "model":
            kept = range(window.keep_start, window.keep_stop)
            unknown = {
                row: wordpieces.unknown[place]
                for row, place in enumerate(places)
                if place in kept and place in wordpieces.unknown
            }
        spans = self._spans(wordpieces, window, places, unknown)
        return Piece(ids, attended, list(keep), spans, unknown, self.unknown == "characters")

    def _keeps_specials(self, wordpieces: Wordpieces, window: Window, *, is_last: bool) -> bool:
        if self.unknown != "model" and not wordpieces.have_words(window.start, window.stop):
            return False
        is_end = window.keep_stop == len(wordpieces.ids) if is_last else window.keep_start == 0
        return self.kept_specials == "windows" or is_end

    def _spans(
        self, wordpieces: Wordpieces, window: Window, places: Sequence[int], unknown: Mapping[int, UnknownWord]
    ) -> list[Span]:
        """The spans of the wordpieces at ``places``. What is no wordpiece has an empty span at the window's edge."""
        kept = range(window.keep_start, window.keep_stop)
        start = end = 0
        if kept:
            ends = [kept[0], kept[-1]]
            first, last = (self._word_spans(wordpieces, place)[0 if i == 0 else -1] for i, place in enumerate(ends))
            start, end = first[0], last[1]
        spans: list[Span] = []
        for row, place in enumerate(places):
            if row in unknown and self.unknown == "characters":
                spans += unknown[row].spans
            elif place in kept:
                spans.append(wordpieces.spans[place])
            else:
                edge = start if place < window.keep_start else end
                spans.append((edge, edge))
        return spans

    def _word_spans(self, wordpieces: Wordpieces, place: int) -> Sequence[Span]:
        if self.unknown == "characters" and place in wordpieces.unknown:
            return wordpieces.unknown[place].spans
        return [wordpieces.spans[place]]


def span_array(pieces: Sequence[Piece]) -> IntArray:
    """The spans of the vectors of a text, int64, shape (vectors, 2)."""
    return np.array([span for piece in pieces for span in piece.spans], dtype=np.int64).reshape(-1, 2)
