"""Reads the committed state of a database and checks it against its checksums."""

from __future__ import annotations

import sqlite3

import numpy as np

from muvera_core.errors import REPAIR_ADVICE, CorruptIndexError
from muvera_core.files import signed_sum
from muvera_core.storage.database import (
    DATABASE_NAME,
    State,
    read_one_state,
    read_snapshot_rows,
    read_state,
    read_version,
)
from muvera_core.storage.snapshot import SnapshotRows
from muvera_core.storage.token_log import MAX_GENERATION
from muvera_core.token_embeddings import IntArray

_MAX_KEY = 1 << 62
# Rows that are read at a time: commits of other processes wait for some milliseconds.
_ROWS_AT_ONCE = 4096
_ATTEMPTS = 4


def read_committed(db: sqlite3.Connection) -> tuple[State, SnapshotRows]:
    """The named values and the documents of one commit, even if others commit meanwhile.

    The documents are read in pages, between which others can commit. If they do so time and again, the last attempt
    makes them wait.

    Raises:
        CorruptIndexError: the values or documents do not match their checksums, or refer to tokens that cannot exist.
    """
    for _ in range(_ATTEMPTS):
        state = read_one_state(db, lambda: read_state(db))
        found = _read_in_pages(db, state)
        if found is not None:
            break
    else:
        state, found = read_one_state(db, lambda: (read_state(db), read_snapshot_rows(db)))
    rows, hashes = found
    if not (_has_counters(state) and _is_consistent(rows, hashes, state)):
        raise _damaged_directory()
    return state, rows


def _read_in_pages(db: sqlite3.Connection, state: State) -> tuple[SnapshotRows, IntArray] | None:
    """The documents, and their stored hashes. None if something was committed after ``state`` was read."""
    parts, hashes, last = [SnapshotRows.empty()], [np.empty(0, dtype=np.int64)], -1
    while True:
        page, page_hashes = read_snapshot_rows(db, last, _ROWS_AT_ONCE)
        if read_version(db) != state.get("version"):
            return None
        parts.append(page)
        hashes.append(page_hashes)
        if len(page) < _ROWS_AT_ONCE:
            return SnapshotRows.joined(parts), np.concatenate(hashes)
        if not (np.diff(page.keys, prepend=last) > 0).all():  # otherwise the pages could go round in a circle
            raise _damaged_directory()
        last = int(page.keys[-1])


def _damaged_directory() -> CorruptIndexError:
    return CorruptIndexError(
        f"{DATABASE_NAME} is damaged (the table 'directory' does not match its checksums): {REPAIR_ADVICE}"
    )


def _has_counters(state: State) -> bool:
    limits = {"version": _MAX_KEY, "next_key": _MAX_KEY, "n_token_rows": _MAX_KEY, "generation": MAX_GENERATION}
    return all(isinstance(state.get(name), int) and 0 <= state[name] <= limit for name, limit in limits.items())


def _is_consistent(rows: SnapshotRows, hashes: IntArray, state: State) -> bool:
    """Whether the rows match their checksums, and refer to token rows that exist."""
    n_rows = state["n_token_rows"]
    return bool(
        (rows.hashes() == hashes).all()
        and signed_sum(hashes) == state.get("digest")
        and ((rows.keys > 0) & (rows.keys < state["next_key"])).all()
        and int(rows.count.sum()) <= n_rows  # no token row belongs to two documents
        and ((rows.first >= 0) & (rows.count >= 1) & (rows.count <= n_rows) & (rows.first <= n_rows - rows.count)).all()
    )
