"""Splits a long token sequence into overlapping windows. Each token's vector is taken from exactly one of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from muvera_core.errors import InvalidInputError

# Windows overlap by a quarter, so that a token near a border still has an eighth of a window as context.
OVERLAP_SHARE = 0.25


@dataclass(frozen=True)
class Window:
    """Tokens ``start:stop`` are encoded together; the vectors of ``keep_start:keep_stop`` are kept.

    All four are positions in the text. The kept ranges of a text's windows join without gap or overlap.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def split_into_windows(n_tokens: int, size: int, overlap: int) -> list[Window]:
    """Cover ``n_tokens`` with windows of at most ``size`` tokens that overlap by at least ``overlap``.

    The last window is moved back so that it is full: a short one would be encoded with little context.
    Each overlap is split in the middle, so that each token is kept in the window that shows more of its context.

    Raises:
        InvalidInputError: ``overlap`` is below 0, or not below ``size``.
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
