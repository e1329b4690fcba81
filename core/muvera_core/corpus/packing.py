"""Fills passages with the blocks of a text, or with parts of those that are too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from muvera_core.corpus.blocks import Block, Markup
from muvera_core.corpus.sentences import item_starts, line_starts, sentence_starts
from muvera_core.corpus.text_passage import TextPassage, passage_of, shared_headings, with_headings
from muvera_core.corpus.token_places import TokenPlaces
from muvera_core.validation import has_visible_text

# A heading starts a new passage if the one before it has at least this share of ``max_tokens``.
_FULL_ENOUGH = 0.25


@dataclass(frozen=True)
class _Unit:
    """A part of a text that is not cut.

    Attributes:
        start: its first character.
        end: the character after its last one.
        headings: those it stands under.
        is_heading: whether it is the last of them.
    """

    start: int
    end: int
    headings: tuple[str, ...]
    is_heading: bool


@dataclass
class Packer:
    """Fills passages with units, in order."""

    text: str
    places: TokenPlaces
    max_tokens: int
    overlap: int
    markup: Markup
    passages: list[TextPassage] = field(default_factory=list)
    waiting: list[_Unit] = field(default_factory=list)
    start: int = 0  # of the passage that is being filled; what it repeats included

    def pack(self, blocks: Sequence[Block]) -> list[TextPassage]:
        """The passages of a text."""
        for block, headings in with_headings(blocks):
            for start, end in self._pieces(block):
                self._append(_Unit(start, end, headings, block.kind == "heading"))
        self._close(len(self.waiting))
        return self.passages

    def _append(self, unit: _Unit) -> None:
        if self.waiting and (self.places.count(self.start, unit.end) > self.max_tokens or self._starts_passage(unit)):
            n = len(self.waiting)
            while n and self.waiting[n - 1].is_heading:
                n -= 1
            fits = 0 < n < len(self.waiting) and self.places.count(self.waiting[n].start, unit.end) <= self.max_tokens
            self._close(n if fits else len(self.waiting))
            first = self.waiting[0] if self.waiting else unit
            self.start = self._start_of(first, unit.end)
        elif not self.waiting:
            self.start = unit.start
        self.waiting.append(unit)

    def _starts_passage(self, unit: _Unit) -> bool:
        """Whether a heading starts a new passage, because the one before it is full enough."""
        if not unit.is_heading or all(other.is_heading for other in self.waiting):
            return False
        return self.places.count(self.start, self.waiting[-1].end) >= _FULL_ENOUGH * self.max_tokens

    def _start_of(self, first: _Unit, end: int) -> int:
        """Where a passage starts whose first new unit is ``first``: at a sentence before it, if there is room."""
        if not self.overlap or first.is_heading or not self.passages:
            return first.start
        room = min(self.overlap, self.max_tokens - self.places.count(first.start, end))
        earliest = self.places.before(first.start, room) if room > 0 else first.start
        earliest = max(earliest, self.passages[-1].start + 1)
        return next(sentence_starts(self.text, earliest, first.start + 1), first.start)

    def _close(self, n: int) -> None:
        """End the passage after ``n`` of the units that wait."""
        units, self.waiting = self.waiting[:n], self.waiting[n:]
        if units:
            headings = shared_headings([unit.headings for unit in units if not unit.is_heading] or [units[-1].headings])
            passage = passage_of(self.text, self.start, units[-1].end, headings, self.markup)
            if has_visible_text(passage.text):
                self.passages.append(passage)

    def _pieces(self, block: Block) -> Iterator[tuple[int, int]]:
        """A block, or parts of it, none of which has more than ``max_tokens``."""
        if self._fits(block.start, block.end):
            yield block.start, block.end
            return
        starts = line_starts if block.kind == "lines" else item_starts
        for start, end in _between(starts(self.text, block.start, block.end), block.start, block.end):
            if self._fits(start, end):
                yield start, end
            else:
                for first, last in _between(sentence_starts(self.text, start, end), start, end):
                    yield from self._words(first, last)

    def _words(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Parts of a sentence that end between words, or within a word that is too long."""
        while (limit := self.places.after(start, self.max_tokens)) is not None and limit < end:
            limit = max(limit, start + 1)  # one character can be several tokens
            cut = next((place for place in range(limit, start, -1) if self.text[place - 1].isspace()), limit)
            if self.text[start:cut].isspace():
                cut = limit
            yield start, cut
            start = cut
        yield start, end

    def _fits(self, start: int, end: int) -> bool:
        return self.places.count(start, end) <= self.max_tokens


def _between(starts: Iterator[int], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a text from one start to the next."""
    for place in starts:
        yield start, place
        start = place
    if start < end:
        yield start, end
