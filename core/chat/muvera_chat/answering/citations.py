"""Citations such as [1], [2, 3] and [1-3] in the text of an answer."""

from __future__ import annotations

import re

CITATION = re.compile(r"\[(\d{1,3}(?:\s*(?:[,;]|[-–])\s*\d{1,3})*)\]")
_PART = re.compile(r"(\d+)(?:\s*[-–]\s*(\d+))?")


def numbers_in(citation: str, n_sources: int) -> list[int]:
    """The numbers of the sources that a citation names, each once. Those that there are not are left out.

    >>> numbers_in("[1, 3-5]", 4)
    [1, 3, 4]
    """
    numbers: list[int] = []
    for part in _PART.finditer(citation):
        first, last = int(part[1]), int(part[2] or part[1])
        numbers += range(max(first, 1), min(last, n_sources) + 1)
    return list(dict.fromkeys(numbers))


def cited_numbers(text: str, n_sources: int) -> list[int]:
    """The numbers of the sources that a text cites, in the order in which it cites them first."""
    cited = [number for match in CITATION.finditer(text) for number in numbers_in(match[0], n_sources)]
    return list(dict.fromkeys(cited))
