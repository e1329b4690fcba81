"""Cuts a long token sequence into overlapping windows, each token owned by exactly one of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from muvera_core.errors import InvalidInputError


@dataclass(frozen=True)
class Window:
    """Tokens ``start:stop`` go through the model together; of its output ``keep_start:keep_stop`` is kept.

    All four count from the start of the text. The kept ranges of a text's windows join without gap or overlap.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def split_into_windows(n_tokens: int, size: int, overlap: int) -> list[Window]:
    """Cover ``n_tokens`` with windows of at most ``size`` that overlap by at least ``overlap``.

    The last window is moved back so that it is full: a short rest would be encoded with little context.
    Each overlap is split in the middle, so that a token is taken from the window that shows more around it.

    Raises:
        InvalidInputError: unless 0 <= overlap < size.
    """
    if not 0 <= overlap < size:
        raise InvalidInputError(f"overlap must be at least 0 and below the window size {size}, got {overlap}")
    if n_tokens <= size:
        return [Window(0, n_tokens, 0, n_tokens)]
    starts = [*range(0, n_tokens - size, size - overlap), n_tokens - size]
    borders = [0, *((right + left + size) // 2 for left, right in pairwise(starts)), n_tokens]
    return [
        Window(start, start + size, keep_start, keep_stop)
        for start, (keep_start, keep_stop) in zip(starts, pairwise(borders), strict=True)
    ]
