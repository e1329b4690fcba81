"""Checksums that detect accidental damage: CRC-32 for content, 64-bit sums of hashes for sets of rows.

A set's digest is the sum of its rows' hashes modulo 2**64. It can be updated when a row is added or removed, and it
reveals rows that were lost, added or altered. None of this stops a forger; values that a forger could do harm with are
checked where they are used.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.token_embeddings import IntArray

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def record_checksum(key: int, id: str, text: str | None, metadata: str, image: str | None = None) -> int:
    """CRC-32 of a stored document. That of a document without an image is as it was in format 2."""
    value = zlib.crc32(b"%d\0" % key)
    value = zlib.crc32(id.encode(), value)
    value = zlib.crc32(b"\0-" if text is None else b"\0+" + text.encode(), value)
    value = zlib.crc32(b"\0" + metadata.encode(), value)
    return value if image is None else zlib.crc32(b"\0" + image.encode(), value)


def id_hash(id: str) -> int:
    """A 64-bit hash of an id, as a signed number."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "little", signed=True)


def field_hash(path: str, kind: str, value: Any, key: int) -> int:
    """A 64-bit hash of a metadata field of a document, as an unsigned number."""
    encoded = repr((path, kind, value, key)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def row_hashes(columns: Iterable[IntArray]) -> IntArray:
    """A 64-bit hash of each row of a table, given as int64 columns of shape (rows,).

    The columns are chained through the finaliser of the SplitMix64 generator (Steele et al., OOPSLA 2014).
    """
    state: Any = _ODD
    for column in columns:
        mixed: npt.NDArray[np.uint64] = (column.astype(np.int64).view(np.uint64) ^ state) + _ODD
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MULTIPLIERS[0]
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MULTIPLIERS[1]
        state = mixed ^ (mixed >> np.uint64(31))
    return np.asarray(state).view(np.int64)


def signed_sum(hashes: IntArray | Iterable[int]) -> int:
    """The sum modulo 2**64, as a signed number, because SQLite holds only those."""
    if isinstance(hashes, np.ndarray):
        return int(hashes.sum(dtype=np.int64)) if len(hashes) else 0
    total = sum(hashes) & (2**64 - 1)
    return total - 2**64 if total >= 2**63 else total


def file_checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
