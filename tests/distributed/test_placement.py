from __future__ import annotations

import subprocess
import sys
from collections import Counter

from muvera_core.distributed.placement import PLACEMENT, shard_of

IDS = [f"document-{i}" for i in range(20_000)]


def test_places_never_change() -> None:
    """An index finds its documents by them, so these values hold for ever."""
    ids = ["", "a", "b", "doc-1", "доклад", "文書", "🐜", "x" * 1000]
    assert PLACEMENT == "blake2b-jump"
    assert [shard_of(id, 4) for id in ids] == [2, 3, 2, 1, 3, 2, 1, 0]
    assert [shard_of(id, 1000) for id in ids] == [987, 333, 107, 208, 55, 367, 62, 661]


def test_places_are_the_same_in_every_process() -> None:
    code = "from muvera_core.distributed.placement import shard_of; print([shard_of(str(i), 7) for i in range(50)])"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == str([shard_of(str(i), 7) for i in range(50)])


def test_one_shard_holds_everything() -> None:
    assert {shard_of(id, 1) for id in IDS[:100]} == {0}


def test_shards_get_even_parts() -> None:
    for n_shards in (2, 3, 8, 50):
        sizes = Counter(shard_of(id, n_shards) for id in IDS)
        expected = len(IDS) / n_shards
        assert set(sizes) == set(range(n_shards))
        assert all(abs(size - expected) < 6 * expected**0.5 for size in sizes.values())


def test_with_more_shards_documents_move_to_new_ones_only() -> None:
    before, after = [shard_of(id, 4) for id in IDS], [shard_of(id, 6) for id in IDS]
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {4, 5}
    assert abs(len(moved) - len(IDS) / 3) < 400
