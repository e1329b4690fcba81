"""Reads the committed state of a database and checks it against its checksums."""

from __future__ import annotations

import sqlite3

from muvera_core.errors import REPAIR_ADVICE, CorruptIndexError
from muvera_core.files import signed_sum
from muvera_core.storage.database import DATABASE_NAME, State, read_one_state, read_snapshot_rows, read_state
from muvera_core.storage.snapshot import SnapshotRows
from muvera_core.storage.token_log import MAX_GENERATION
from muvera_core.token_embeddings import IntArray

_MAX_KEY = 1 << 62


def read_committed(db: sqlite3.Connection) -> tuple[State, SnapshotRows]:
    """The named values and the documents of one commit, even if others commit meanwhile.

    Raises:
        CorruptIndexError: the values or documents do not match their checksums, or refer to tokens that cannot exist.
    """
    state, (rows, hashes) = read_one_state(db, lambda: (read_state(db), read_snapshot_rows(db)))
    if not (_has_counters(state) and _is_consistent(rows, hashes, state)):
        raise CorruptIndexError(
            f"{DATABASE_NAME} is damaged (the table 'directory' does not match its checksums): {REPAIR_ADVICE}"
        )
    return state, rows


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
