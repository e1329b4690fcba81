"""Cutting a text into passages: at blank lines, at the ends of sentences, and where nothing else helps, at words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_BLANK_LINES = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]\s*")
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Splitting:
    """How texts become passages. By default a text is one passage.

    Attributes:
        paragraphs: end a passage at every blank line.
        max_words: hold at most so many words, separated by white space, in a passage. A passage is filled with whole
            paragraphs, or, where they are longer, with whole sentences.
    """

    paragraphs: bool = False
    max_words: int | None = None


def split_into_passages(text: str, splitting: Splitting) -> list[str]:
    r"""The passages of a text, in order and without white space around them; none of them is empty.

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
    """Join neighbours as long as they have no more than ``max_words`` together."""
    held: list[str] = []
    n_held = 0
    for piece in pieces:
        n = len(piece.split())
        if held and n_held + n > max_words:
            yield glue.join(held).strip()
            held, n_held = [], 0
        held.append(piece)
        n_held += n
    if held:
        yield glue.join(held).strip()


def _pieces(block: str, max_words: int) -> Iterator[str]:
    """The sentences of a paragraph, those that are too long in parts; joined they are the paragraph."""
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(block)), len(block)]:
        words = list(_WORD.finditer(block, start, end))
        cuts = [word.start() for word in words[max_words::max_words]]
        for cut in [*cuts, end]:
            yield block[start:cut]
            start = cut
