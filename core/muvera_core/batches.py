"""Taking many items a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")


def batched(items: Iterable[_T], n: int) -> Iterator[list[_T]]:
    """Lists of ``n`` items, the last one shorter."""
    iterator = iter(items)
    while some := list(islice(iterator, n)):
        yield some
