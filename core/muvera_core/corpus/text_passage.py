"""A part of a text, and the headings that it stands under."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from muvera_core.corpus.blocks import Block, Markup


@dataclass(frozen=True)
class TextPassage:
    """A part of a text.

    Attributes:
        text: the part, without white space around it.
        start: its first character in the text.
        end: the character after its last one.
        heading: the headings that all of it stands under, from the highest to the lowest, as "Birds > Owls". If there
            are none, those of its beginning.
    """

    text: str
    start: int
    end: int
    heading: str = ""


def passage_of(text: str, start: int, end: int, headings: Sequence[str], markup: Markup) -> TextPassage:
    """A part of a text without the white space around it. Code keeps the indent of its first line."""
    part = text[start:end]
    start += len(part) - len(part.lstrip("\r\n" if markup == "code" else None))
    end -= len(part) - len(part.rstrip())
    return TextPassage(text[start:end], start, end, " > ".join(headings))


def shared_headings(headings: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What all parts of a passage stand under, or if there is nothing like that, what the first one stands under."""
    lowest, highest = min(headings), max(headings)  # what these share, all between them share
    n = next((n for n, pair in enumerate(zip(lowest, highest, strict=False)) if pair[0] != pair[1]), len(lowest))
    return lowest[:n] or headings[0]


def with_headings(blocks: Sequence[Block]) -> Iterator[tuple[Block, tuple[str, ...]]]:
    """Each block, with the headings that it stands under, its own included."""
    above: list[tuple[int, str]] = []
    for block in blocks:
        if block.kind == "heading":
            above = [*((level, title) for level, title in above if level < block.level), (block.level, block.title)]
        yield block, tuple(title for _, title in above if title)
