"""Folders as a power loss could leave them, made from a log of file operations.

What a drive and a file system may lose: data that wasn't followed by an fsync of its file, and changes of names that
weren't followed by an fsync of their folder. Of the data written since then each write may be there, be missing or be
torn at sectors. Of the names

* ordinarily, the changes up to some point are there and later ones aren't, over all folders, as in the journals of
  ext4 and XFS; a truncation that is lost takes the file's later writes along;
* in the ``strict`` mode any of them are, as POSIX allows, and what a file was extended by may be garbage.

An fsync of a file never makes its name durable here. Data whose fsync failed counts as not written ever after, because
Linux drops it from what it will try again.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

SECTOR = 512
_HEADER = struct.Struct("<IcxxxiQQQQIIQ")
_MAGIC = 0x474F4C49
_NAME_CHANGES = "CDRULX"

# Contents by path relative to the root; None for a folder.
Tree = dict[str, bytes | None]
Strategy = Literal["nothing", "everything", "prefix", "random"]
STRATEGIES: tuple[Strategy, ...] = ("nothing", "everything", "prefix", "random", "random")


@dataclass(frozen=True)
class Record:
    """One file operation, as ``iolog`` wrote it; ``kind`` is explained there."""

    kind: str
    error: int
    number: int
    inode: int
    offset: int
    length: int
    path: str
    other: str
    data: bytes


def read_log(log: Path, root: Path) -> list[Record]:
    """All operations, with paths relative to the root.

    Raises:
        ValueError: a file was changed in a way that the log can't tell.
    """
    content, at, records = log.read_bytes(), 0, []
    while at < len(content):
        magic, kind, error, number, inode, offset, length, n_path, n_other, n_data = _HEADER.unpack_from(content, at)
        if magic != _MAGIC:
            raise ValueError(f"{log} is damaged at {at}")
        at += _HEADER.size
        path, other, data = (
            content[at : at + n_path],
            content[at + n_path : at + n_path + n_other],
            content[at + n_path + n_other : at + n_path + n_other + n_data],
        )
        at += n_path + n_other + n_data
        names = tuple(_relative(name.decode(), root) if name else "" for name in (path, other))
        records.append(Record(kind.decode(), error, number, inode, offset, length, names[0], names[1], data))
        if kind == b"M":
            raise ValueError(f"{names[0]} was mapped for writing: its changes can't be seen")
    return records


def _relative(path: str, root: Path) -> str:
    return str(PurePosixPath(path).relative_to(root))


@dataclass
class _File:
    """A file or folder: what was written, with the record's number, and when it was synced."""

    is_folder: bool = False
    initial: bytes = b""
    changes: list[tuple[int, Record]] = field(default_factory=list)
    synced: int = -1  # the last record that was a sync of this file
    doomed: set[int] = field(default_factory=set)  # records whose data a failed sync dropped


@dataclass(frozen=True)
class Start:
    """What the root held before the first record, all of it durable: contents and inode numbers by path."""

    tree: Tree = field(default_factory=dict)
    inodes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> Start:
        tree = read_tree(root)
        return cls(tree, {path: (root / path).stat().st_ino for path in tree})


EMPTY = Start()


def acknowledged(records: list[Record]) -> int:
    """How many operations of the script returned."""
    return sum(record.data.count(b"\n") for record in records if record.kind == "A" and not record.error)


def tree_after(
    records: list[Record],
    rng: random.Random,
    strategy: Strategy = "random",
    *,
    strict: bool = False,
    start: Start = EMPTY,
) -> Tree:
    """The folder as it may be found if the power goes after the last of the records."""
    names = {path: _File(content is None, content or b"") for path, content in start.tree.items()}
    by_inode = {start.inodes[path]: file for path, file in names.items()}
    named: list[tuple[Record, _File | None]] = []
    durable: set[int] = set()  # of the changes of names
    for number, record in enumerate(records):
        if record.kind == "S":
            _note_sync(record, number, by_inode, named, durable)
        if record.error:
            continue
        if record.kind in "CD":
            by_inode[record.inode] = _File(is_folder=record.kind == "D")
        if record.kind in _NAME_CHANGES:
            named.append((record, by_inode[record.inode] if record.kind in "CD" else None))
        elif record.kind in "WT":
            by_inode[record.inode].changes.append((number, record))
    for i in _surviving(len(named), durable, rng, strategy, strict=strict):
        _change_names(names, *named[i])
    tree: Tree = {}
    for path, file in sorted(names.items()):
        parent = str(PurePosixPath(path).parent)
        if parent == "." or (parent in tree and tree[parent] is None):
            tree[path] = None if file.is_folder else _surviving_content(file, rng, strategy, strict=strict)
    return tree


def _note_sync(
    record: Record, number: int, by_inode: dict[int, _File], named: list[tuple[Record, _File | None]], durable: set[int]
) -> None:
    file = by_inode.get(record.inode)
    if file is not None and not file.is_folder:
        if record.error:
            file.doomed.update(n for n, _ in file.changes if n > file.synced)
        else:
            file.synced = number
    elif not record.error:
        for i, (change, _) in enumerate(named):
            if record.path in _folders_of(change):
                durable.add(i)


def _folders_of(change: Record) -> set[str]:
    return {str(PurePosixPath(path).parent) for path in (change.path, change.other) if path}


def _surviving(n: int, durable: set[int], rng: random.Random, strategy: Strategy, *, strict: bool) -> Sequence[int]:
    """Which of ``n`` changes of names are there."""
    if strict:
        return [i for i in range(n) if i in durable or _keep(rng, strategy)]
    least = max(durable, default=-1) + 1
    return range({"nothing": least, "everything": n}.get(strategy, rng.randint(least, n)))


def _change_names(names: dict[str, _File], change: Record, file: _File | None) -> None:
    if file is not None:
        names[change.path] = file
    elif change.path not in names:
        return
    elif change.kind == "L":
        names[change.other] = names[change.path]
    elif change.kind == "R":
        for path in [path for path in names if path == change.path or path.startswith(change.path + "/")]:
            names[change.other + path[len(change.path) :]] = names.pop(path)
    else:
        del names[change.path]


def _keep(rng: random.Random, strategy: Strategy) -> bool:
    return {"nothing": False, "everything": True}.get(strategy, rng.random() < 0.5)


def _surviving_content(file: _File, rng: random.Random, strategy: Strategy, *, strict: bool) -> bytes:
    content = bytearray(file.initial)
    pending = [n for n, _ in file.changes if n > file.synced or n in file.doomed]
    kept_first = rng.randint(0, len(pending))
    for number, change in file.changes:
        lost = False
        if number in pending:
            lost = pending.index(number) >= kept_first if strategy == "prefix" else not _keep(rng, strategy)
        if change.kind == "T":
            if lost and not strict and number not in file.doomed:
                break
            if not lost:
                _resize(content, change.length)
        elif not lost:
            _write(content, change.offset, change.data)
        elif strategy == "random":
            _write_partly(content, change, rng, strict=strict)
    return bytes(content)


def _resize(content: bytearray, length: int) -> None:
    del content[length:]
    content.extend(bytes(length - len(content)))


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        _resize(content, offset)
    content[offset : offset + len(data)] = data


def _write_partly(content: bytearray, change: Record, rng: random.Random, *, strict: bool) -> None:
    """A write of which some sectors are there, or only the new size, or nothing."""
    kind = rng.choice(["nothing", "size", "sectors"])
    end = change.offset + len(change.data)
    if kind == "nothing":
        return
    if end > len(content):
        new = end - len(content)
        content.extend(rng.randbytes(new) if strict and rng.random() < 0.5 else bytes(new))
    if kind == "sectors":
        first = change.offset
        while first < end:
            last = min(end, (first // SECTOR + 1) * SECTOR)
            if rng.random() < 0.5:
                content[first:last] = change.data[first - change.offset : last - change.offset]
            first = last


def read_tree(root: Path) -> Tree:
    """A folder's contents."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


def write_tree(tree: Tree, root: Path) -> None:
    """Make a folder with these contents."""
    root.mkdir(parents=True)
    for path, content in tree.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


@dataclass(frozen=True)
class PowerLoss:
    """One state to test: that after ``cut`` records, with ``seed`` for what was lost."""

    cut: int
    seed: int
    strategy: Strategy
    acknowledged: int
    tree: Tree = field(repr=False)

    @classmethod
    def at(
        cls,
        records: list[Record],
        cut: int,
        seed: int,
        strategy: Strategy,
        *,
        strict: bool = False,
        start: Start = EMPTY,
    ) -> PowerLoss:
        tree = tree_after(records[:cut], random.Random(seed), strategy, strict=strict, start=start)
        return cls(cut, seed, strategy, acknowledged(records[:cut]), tree)

    def __str__(self) -> str:
        return f"{self.cut}:{self.seed}:{self.strategy}"


def power_losses(
    records: list[Record], n: int, seed: int, *, strict: bool = False, start: Start = EMPTY, first: int = 0
) -> Iterator[PowerLoss]:
    """``n`` different states after ``first`` records or more; fewer where there aren't as many."""
    # Most is at stake just before a sync, and just after a call has returned.
    critical = [i + (records[i].kind == "A") for i in range(first, len(records)) if records[i].kind in "SA"]
    # A rename puts something whole in another's place: between it and what makes it last only a few operations go by.
    renames = [j for i in range(first, len(records)) if records[i].kind == "R" for j in (i + 1, _next_sync(records, i))]
    rng, seen, tries = random.Random(seed), set[bytes](), 0
    while len(seen) < n and tries < 20 * n:
        tries += 1
        cut = rng.choice(rng.choice([critical, critical, renames]) or [len(records)])
        if rng.random() < 0.4:
            cut = rng.randint(first, len(records))
        state_seed, strategy = rng.randrange(1 << 32), rng.choice(STRATEGIES)
        loss = PowerLoss.at(records, cut, state_seed, strategy, strict=strict, start=start)
        digest = hashlib.sha256(repr((loss.acknowledged, sorted(loss.tree.items()))).encode()).digest()
        if digest not in seen:
            seen.add(digest)
            yield loss


def _next_sync(records: list[Record], after: int) -> int:
    return next((i for i in range(after, len(records)) if records[i].kind == "S"), len(records))
