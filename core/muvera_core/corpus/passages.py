"""Splits a text into passages: at blank lines, at the ends of sentences, and if nothing else helps, between words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_BLANK_LINES = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]\s*")
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Splitting:
    """How texts are split into passages. By default, a text is one passage.

    Attributes:
        paragraphs: end a passage at every blank line.
        max_words: most words, separated by white space, in a passage. A passage is filled with whole paragraphs, or
            with whole sentences of paragraphs that are longer than that.
    """

    paragraphs: bool = False
    max_words: int | None = None


def split_into_passages(text: str, splitting: Splitting) -> list[str]:
    r"""The passages of a text, in order, without white space around them. None of them is empty.

    >>> split_into_passages("# Owls\n\nThey hunt at night. They hear well.", Splitting(max_words=6))
    ['# Owls\n\nThey hunt at night.', 'They hear well.']
    """
    if not splitting.paragraphs and splitting.max_words is None:
        blocks = [text.strip()]
    else:
        blocks = [block.strip() for block in _BLANK_LINES.split(text)]
        if splitting.max_words is not None:
            n = splitting.max_words
            pieces = [piece for block in blocks for piece in _fill(_pieces(block, n), n, "")]
            blocks = pieces if splitting.paragraphs else list(_fill(pieces, n, "\n\n"))
    return [block for block in blocks if block]


def _fill(pieces: Iterable[str], max_words: int, glue: str) -> Iterator[str]:
    """Join consecutive pieces as long as they have at most ``max_words`` together."""
    joined: list[str] = []
    n_words = 0
    for piece in pieces:
        n = len(piece.split())
        if joined and n_words + n > max_words:
            yield glue.join(joined).strip()
            joined, n_words = [], 0
        joined.append(piece)
        n_words += n
    if joined:
        yield glue.join(joined).strip()


def _pieces(block: str, max_words: int) -> Iterator[str]:
    """The sentences of a paragraph, with long ones in several pieces. Joined, the pieces are the paragraph."""
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(block)), len(block)]:
        words = list(_WORD.finditer(block, start, end))
        cuts = [word.start() for word in words[max_words::max_words]]
        for cut in [*cuts, end]:
            yield block[start:cut]
            start = cut
