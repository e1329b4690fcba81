"""Which shard a document belongs to. The answer depends on its id and the number of shards only, for ever."""

from __future__ import annotations

import hashlib

# The name of this rule in ``cluster.json``. Another rule would need another name.
PLACEMENT = "blake2b-jump"
_MULTIPLIER = 2862933555777941757
_MASK = (1 << 64) - 1


def shard_of(id: str, n_shards: int) -> int:
    """The number of the shard that holds the document ``id``, from 0 to ``n_shards - 1``.

    It is a jump consistent hash (Lamping and Veach, 2014) of the id's BLAKE2b hash: every shard gets the same share of
    ids, and with M in place of N < M shards only the share (M - N) / M of them moves, all to new shards.
    """
    key = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "little")
    shard, candidate = 0, 0
    while candidate < n_shards:
        shard = candidate
        key = (key * _MULTIPLIER + 1) & _MASK
        candidate = int((shard + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return shard
