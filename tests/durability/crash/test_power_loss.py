"""The model of a power loss, on logs small enough to enumerate."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence

from power_loss import SECTOR, STRATEGIES, Record, Start, Tree, tree_after

FOLDER, FILE, OTHER = 1, 2, 3
OLD, NEW = b"o" * 2 * SECTOR, b"n" * 2 * SECTOR


def record(kind: str, inode: int = 0, path: str = "", other: str = "", **fields: int | bytes) -> Record:
    values: dict[str, object] = {"error": 0, "number": 0, "offset": 0, "length": 0, "data": b"", **fields}
    return Record(kind=kind, inode=inode, path=path, other=other, **values)  # type: ignore[arg-type]


def mkdir() -> list[Record]:
    return [record("D", FOLDER, "index"), record("S", 99, ".")]


def create(path: str, inode: int = FILE) -> Record:
    return record("C", inode, path)


def write(data: bytes, inode: int = FILE, offset: int = 0) -> Record:
    return record("W", inode, offset=offset, data=data)


def sync(inode: int = FILE, error: int = 0) -> Record:
    return record("S", inode, "index" if inode == FOLDER else "", error=error)


def states(records: Sequence[Record], *, strict: bool = False, start: Start | None = None) -> list[Tree]:
    """All that 400 draws come upon."""
    found: list[Tree] = []
    for seed in range(400):
        strategy = STRATEGIES[seed % len(STRATEGIES)]
        tree = tree_after(list(records), random.Random(seed), strategy, strict=strict, start=start or Start())
        if tree not in found:
            found.append(tree)
    return found


def contents(records: Sequence[Record], path: str = "index/a", *, strict: bool = False) -> set[bytes | None]:
    return {tree.get(path) for tree in states(records, strict=strict)}


def test_what_was_synced_with_its_name_is_always_there() -> None:
    assert states([*mkdir(), create("index/a"), write(NEW), sync(), sync(FOLDER)]) == [{"index": None, "index/a": NEW}]


def test_syncing_a_file_does_not_keep_its_name() -> None:
    assert contents([*mkdir(), create("index/a"), write(NEW), sync()]) == {None, NEW}


def test_unsynced_data_is_there_or_missing_or_zero_or_torn_at_sectors() -> None:
    found = contents([*mkdir(), create("index/a"), sync(FOLDER), write(NEW)])
    half, zeros = b"n" * SECTOR, bytes(SECTOR)
    assert found == {b"", NEW, zeros + zeros, half + zeros, zeros + half}


def test_an_unsynced_overwrite_leaves_old_or_new_sectors() -> None:
    found = contents([*mkdir(), create("index/a"), write(OLD), sync(), sync(FOLDER), write(NEW)])
    assert found == {OLD, NEW, OLD[:SECTOR] + NEW[:SECTOR], NEW[:SECTOR] + OLD[:SECTOR]}


def test_unsynced_writes_are_lost_in_any_order() -> None:
    base = [*mkdir(), create("index/a"), write(b"....", offset=0), sync(), sync(FOLDER)]
    assert contents([*base, write(b"1", offset=0), write(b"2", offset=1)]) == {b"....", b"1...", b".2..", b"12.."}


def test_a_rename_leaves_the_old_or_the_new_file() -> None:
    base = [*mkdir(), create("index/a"), write(OLD), sync(), sync(FOLDER)]
    renamed = [*base, create("index/b", OTHER), write(NEW, OTHER), sync(OTHER), record("R", 0, "index/b", "index/a")]
    assert contents(renamed) == {OLD, NEW}
    assert contents([*renamed, sync(FOLDER)]) == {NEW}


def test_a_rename_of_an_unsynced_file_may_leave_an_empty_one() -> None:
    base = [*mkdir(), create("index/a"), write(OLD), sync(), sync(FOLDER)]
    renamed = [create("index/b", OTHER), write(NEW, OTHER), record("R", 0, "index/b", "index/a"), sync(FOLDER)]
    assert b"" in contents([*base, *renamed])


def test_names_survive_in_order_unless_strict() -> None:
    records = [*mkdir(), create("index/a"), create("index/b", OTHER)]
    without_first = {"index": None, "index/b": b""}
    assert without_first not in states(records)
    assert without_first in states(records, strict=True)


def test_an_unsynced_deletion_may_be_undone() -> None:
    records = [*mkdir(), create("index/a"), write(OLD), sync(), sync(FOLDER), record("U", 0, "index/a")]
    assert contents(records) == {None, OLD}
    assert contents([*records, sync(FOLDER)]) == {None}


def test_data_of_a_failed_sync_stays_in_doubt_after_one_that_succeeds() -> None:
    records = [*mkdir(), create("index/a"), sync(FOLDER), write(b"x"), sync(error=errno.EIO), sync()]
    assert contents(records) == {b"", b"x", b"\0"}


def test_a_lost_truncation_takes_later_writes_along_unless_strict() -> None:
    records = [*mkdir(), create("index/a"), write(b"abcd"), sync(), sync(FOLDER), record("T", FILE), write(b"x")]
    assert contents(records) == {b"abcd", b"", b"x", b"\0"}
    assert b"xbcd" in contents(records, strict=True)


def test_what_was_there_before_the_first_operation_is_durable() -> None:
    start = Start({"index": None, "index/a": OLD}, {"index": FOLDER, "index/a": FILE})
    found = {tree["index/a"] for tree in states([write(NEW)], start=start)}
    assert {OLD, NEW} <= found
    assert all(tree["index"] is None for tree in states([write(NEW)], start=start))
