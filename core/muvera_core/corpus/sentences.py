"""Finds where sentences, items of lists and lines start."""

from __future__ import annotations

import re
from collections.abc import Iterator

# The end of a sentence, or the line before an item of a list. Before a small letter, a full stop is that of an
# abbreviation. Numbers and addresses have no space after their full stops. Nothing is read twice (``++``, ``*+``), so
# that no text takes long.
_END = re.compile(
    r"(?<![.!?…؟۔।])[.!?…؟۔।]++[\"'”’»)\]]*+\s++(?![a-z])|[。！？｡]++[」』”’）]*+\s*+"
    r"|\n(?=[ \t]*+(?:[-*+•‣–]|\d{1,3}[.)])[ \t])|\n\s*\n"
)
_ITEM = re.compile(r"\n(?=[ \t]*(?:[-*+•‣–]|\d{1,3}[.)])[ \t])")
_LAST_WORD = re.compile(r"(?:^|[\s(\[\"'“‘])((?:[^\W\d_]\.)*[^\W\d_]+)\.$")
_LONGEST_ABBREVIATION = 12
# Abbreviations that stand before names and numbers, so that a capital or a digit after them starts no sentence.
_ABBREVIATIONS = frozenset(
    word
    for words in (
        "al approx art bd bzw ca cap cf ch col corp dept dr ed eds eq eqs etc fig figs gen gov hon inc jr lt ltd max",
        "min mr mrs ms mt nos nr op p par pp prof ref refs rep rev sec sen sr st str tab vgl viz vol vols vs",
        "a.m d.h e.g i.e p.m ph.d u.a u.k u.s z.b",
    )
    for word in words.split()
)


def sentence_starts(text: str, start: int, end: int) -> Iterator[int]:
    """Where sentences of a part of a text start, apart from the first one, in order.

    >>> text = "See Fig. 3, e.g. for Dr. Owl. It shows 2.5 km."
    >>> [text[start:] for start in sentence_starts(text, 0, len(text))]
    ['It shows 2.5 km.']
    """
    for match in _END.finditer(text, start, end):
        if match.end() < end and not (match[0].startswith(".") and _ends_in_abbreviation(text, start, match.start())):
            yield match.end()


def item_starts(text: str, start: int, end: int) -> Iterator[int]:
    """Where items of a list in a part of a text start, apart from the first one."""
    return (match.end() for match in _ITEM.finditer(text, start, end))


def line_starts(text: str, start: int, end: int) -> Iterator[int]:
    """Where lines of a part of a text start, apart from the first one."""
    place = text.find("\n", start, end - 1)
    while place >= 0:
        yield place + 1
        place = text.find("\n", place + 1, end - 1)


def _ends_in_abbreviation(text: str, start: int, stop: int) -> bool:
    """Whether the full stop at ``stop`` is the end of an abbreviation or of the initial of a name."""
    match = _LAST_WORD.search(text[max(start, stop - _LONGEST_ABBREVIATION) : stop + 1])
    if match is None:
        return False
    word = match[1]
    # "I" and "A" end sentences more often than they are initials; "vitamin C." is rarer than "J. Smith".
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    return is_initial or word.lower() in _ABBREVIATIONS
