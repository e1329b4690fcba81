"""Answers filters for a snapshot, in short reads of the database, and keeps the latest answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain, repeat
from typing import Any

import numpy as np

from muvera_core.errors import RUN_REPAIR, CorruptIndexError, MuveraError
from muvera_core.filters import FIELDS_SCHEMA, Condition, FieldIndex, fetch_from, field_rows, verify_path
from muvera_core.storage.database import connect_to_any, read_version
from muvera_core.storage.documents import StaleError
from muvera_core.storage.shared_connection import SharedConnection
from muvera_core.storage.snapshot import Snapshot
from muvera_core.token_embeddings import IntArray

# Applications use few filters at a time (a tenant, a language), and one that many documents match is slow to evaluate.
_MAX_CACHED_FILTERS = 16
# A limited statement is stopped after this many steps of SQLite's virtual machine, some milliseconds.
_STEPS_AT_ONCE, _MAX_TIMES = 1_000, 50
# Added documents that the latest filters are compared with when they are committed. That takes some milliseconds.
_MAX_LOOKED_AT = 1_000


class FilterReader:
    """Answers filters through one connection. Any number of threads may call ``matching``."""

    def __init__(self, connection: SharedConnection) -> None:
        """Read through this connection."""
        self._connection = connection
        self._verified_paths: set[str] = set()

    def matching(self, snapshot: Snapshot, condition: Condition) -> IntArray:
        """Keys of the documents that match a filter, ascending, int64.

        Raises:
            StaleError: something was committed after this snapshot.
            CorruptIndexError: the index over the fields is damaged.
        """
        matches = snapshot.filter_matches.get(condition)
        if matches is None:
            matches = self._evaluate(snapshot, condition)
            with self._connection.lock:
                while len(snapshot.filter_matches) >= _MAX_CACHED_FILTERS:
                    del snapshot.filter_matches[next(iter(snapshot.filter_matches))]
                snapshot.filter_matches[condition] = matches
        return matches

    def _evaluate(self, snapshot: Snapshot, condition: Condition) -> IntArray:
        def fetch(sql: str, parameters: Sequence[Any], *, limited: bool = False) -> list[Any] | None:
            with self._connection.lock, self._connection.checked() as db:
                rows = _run_limited(db, sql, parameters) if limited else db.execute(sql, parameters).fetchall()
                # Versions only grow. If this is still the snapshot's, the rows are, too.
                if read_version(db) != snapshot.version:
                    raise StaleError
                return rows

        def verify(path: str) -> None:
            if path not in self._verified_paths and verify_path(fetch, path):
                self._verified_paths.add(path)

        matches = condition.keys(FieldIndex(fetch, snapshot.keys, verify))
        if not snapshot.has(matches).all():
            raise CorruptIndexError(
                f"the index over metadata fields in {self._connection.path} names documents that do not exist: "
                f"{RUN_REPAIR}"
            )
        return matches


def carried_over(
    known: Mapping[Condition, IntArray], removed: IntArray, keys: IntArray, metadatas: Sequence[Mapping[str, Any]]
) -> dict[Condition, IntArray]:
    """Answers of filters after a change. Only the added documents are looked at.

    Args:
        known: the answers before, by condition.
        removed: keys of the documents that the change deletes or replaces.
        keys: keys of the documents that it adds, higher than all before.
        metadatas: their metadata.

    Returns:
        The answers of those filters that can be answered like this, and of none if many documents are added.
    """
    if not known or len(keys) > _MAX_LOOKED_AT:
        return {}
    kept = {condition: np.setdiff1d(matches, removed, assume_unique=True) for condition, matches in known.items()}
    if not len(keys):
        return kept
    answers: dict[Condition, IntArray] = {}
    with closing(connect_to_any(None)) as db:
        db.executescript(FIELDS_SCHEMA)
        db.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)", field_rows(keys.tolist(), metadatas))
        fields = FieldIndex(fetch_from(db), keys, lambda path: None)
        for condition, matches in kept.items():
            with suppress(MuveraError):  # some conditions say so if no document has their field
                answers[condition] = np.concatenate([matches, condition.keys(fields)])
    return answers


def _run_limited(db: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> list[Any] | None:
    """All rows; None if the statement takes too many steps.

    SQLite calls the handler after each thousand steps, and stops when it returns 1. It is not a Python function: an
    interruption within one would be lost.
    """
    try:
        db.set_progress_handler(chain(repeat(0, _MAX_TIMES), repeat(1)).__next__, _STEPS_AT_ONCE)
        return db.execute(sql, parameters).fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
        return None
    finally:
        db.set_progress_handler(None, 0)
