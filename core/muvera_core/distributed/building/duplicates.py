"""Finds documents whose id an earlier one has."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

_DIGEST_BYTES = 16


def digest_of(id: str) -> bytes:
    """16 bytes that stand for an id. Two of even 10^12 ids have the same ones with a probability below 10^-14."""
    return blake2b(id.encode(), digest_size=_DIGEST_BYTES).digest()


def find_duplicates(digests: Sequence[bytes]) -> list[tuple[int, ...]]:
    """The places of documents whose id an earlier document has, for each unit.

    Args:
        digests: for each unit the digests of its documents' ids, one after the other.
    """
    numbers = np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(-1, 2)
    order = np.lexsort((numbers[:, 1], numbers[:, 0]))  # stable: equal ids stay in the order of the sources
    ordered = numbers[order]
    repeated = np.sort(order[1:][(ordered[1:] == ordered[:-1]).all(axis=1)])
    ends = np.cumsum([len(part) // _DIGEST_BYTES for part in digests])
    units = np.searchsorted(ends, repeated, side="right")
    found: list[list[int]] = [[] for _ in digests]
    for unit, place in zip(units.tolist(), repeated.tolist(), strict=True):
        found[unit].append(place - (int(ends[unit - 1]) if unit else 0))
    return [tuple(places) for places in found]
