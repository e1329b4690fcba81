"""Taking many items a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np

from muvera_core.token_embeddings import IntArray

_T = TypeVar("_T")


def batched(items: Iterable[_T], n: int) -> Iterator[list[_T]]:
    """Lists of ``n`` items, the last one shorter."""
    iterator = iter(items)
    while some := list(islice(iterator, n)):
        yield some


def runs_by_size(sizes: IntArray, most: int) -> list[tuple[int, int]]:
    """Runs of items whose sizes add up to at most so much, or that are one: (first, end) of each."""
    ends, result, start = np.cumsum(sizes), [], 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        result.append((start, end))
        start = end
    return result
