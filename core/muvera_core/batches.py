"""Splitting many items into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np

from muvera_core.token_embeddings import IntArray

_T = TypeVar("_T")


def batched(items: Iterable[_T], n: int) -> Iterator[list[_T]]:
    """Yield lists of ``n`` items. The last list may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, n)):
        yield batch


def runs_by_size(sizes: IntArray, limit: int) -> list[tuple[int, int]]:
    """Split items into consecutive runs whose sizes add up to at most ``limit``.

    An item that is larger than ``limit`` forms a run by itself.

    Returns:
        (start, end) of each run.
    """
    ends, result, start = np.cumsum(sizes), [], 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        result.append((start, end))
        start = end
    return result
