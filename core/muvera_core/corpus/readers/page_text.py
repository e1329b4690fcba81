"""Tidies the text of printed pages: leaves out headers and footers, and finds paragraphs again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

# How many lines at the top and at the bottom of a page may be a header or a footer.
_EDGE = 2
# A header is repeated on at least this many of the pages around, apart from the page itself.
_REPEATED = 2
_AROUND = 4
_DIGITS = re.compile(r"\d+|\b[ivxlc]+\b")
# The dots that lead to the page numbers of a table of contents.
_DOTS = re.compile(r"(?: ?\.){5,}")
_ENDS = (".", "!", "?", ":", "。", "！", "？", "…", ".”", '."')
# A line that is shorter than this share of the usual line ends its paragraph, if it ends a sentence.
_SHORT = 0.85


def tidy_pages(pages: Sequence[str]) -> list[str]:
    """The text of pages, paragraphs apart, without headers, footers and hyphens at line ends.

    Args:
        pages: the text of each page, as PDFium gives it: a line break at the end of each printed line, and U+0002 in
            place of a hyphen and the line break after it.
    """
    lines = [[line.strip() for line in _clean(page).split("\n") if line.strip()] for page in pages]
    kept = _without_repeated_edges(lines)
    lengths = [len(line) for page in kept for line in page]
    usual = median(sorted(lengths)[len(lengths) // 2 :]) if lengths else 0
    return ["\n".join(_paragraphs(page, usual)) for page in kept]


def join_pages(pages: Sequence[str]) -> tuple[str, list[int]]:
    """The text of all pages, and where each starts. A sentence that goes on on the next page is not torn apart."""
    parts: list[str] = []
    starts, length, last = [], 0, ""
    for page in pages:
        glue = "" if not last or not page else "\n" if not last.endswith(_ENDS) and page[0].islower() else "\n\n"
        parts += [glue, page]
        length += len(glue)
        starts.append(length)
        length += len(page)
        last = page or last
    return "".join(parts), starts


def _clean(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _DOTS.sub(" …", text)
    return re.sub(r"[\x02\ufffe]\n?", "", text).replace("\xad\n", "").replace("\xad", "").replace("\0", "")


def _without_repeated_edges(pages: Sequence[Sequence[str]]) -> list[list[str]]:
    """The lines of pages, without those at the edges that pages around have at the same place, but for numbers."""
    tops = [[_pattern(page[i]) if i < len(page) else "" for i in range(_EDGE)] for page in pages]
    bottoms = [[_pattern(page[-1 - i]) if i < len(page) else "" for i in range(_EDGE)] for page in pages]
    kept = []
    for number, page in enumerate(pages):
        first, last = _n_repeated(tops, number), _n_repeated(bottoms, number)
        kept.append(list(page[first : len(page) - last]) if first + last < len(page) else [])
    return kept


def _pattern(line: str) -> str:
    return _DIGITS.sub("#", line.lower())


def _n_repeated(edges: Sequence[Sequence[str]], number: int) -> int:
    """How many of a page's outermost lines are repeated on pages around."""
    around = [*range(max(0, number - _AROUND), number), *range(number + 1, min(len(edges), number + _AROUND + 1))]
    n = 0
    while n < _EDGE and edges[number][n] and sum(edges[i][n] == edges[number][n] for i in around) >= _REPEATED:
        n += 1
    return n


def _paragraphs(lines: Sequence[str], usual: float) -> list[str]:
    """The lines of a page, with an empty one after each paragraph."""
    result: list[str] = []
    for i, line in enumerate(lines):
        result.append(line)
        follows = lines[i + 1] if i + 1 < len(lines) else ""
        ends = line.endswith(_ENDS) and len(line) < _SHORT * usual and not follows[:1].islower()
        if follows and ends:
            result.append("")
    return result
