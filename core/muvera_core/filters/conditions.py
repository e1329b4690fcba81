"""Checked filters, and how each of them is answered by SQLite from the table of metadata fields."""

from __future__ import annotations

import fnmatch
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from muvera_core.token_embeddings import IntArray


class Condition:
    """A checked filter. ``keys`` says which documents it admits."""

    def keys(self, fields: FieldIndex) -> IntArray:
        """Keys of the documents for which it holds, int64, ascending."""
        raise NotImplementedError


@dataclass(frozen=True)
class FieldIndex:
    """Where conditions are answered: the database with the fields, the keys of all documents, a check of a path."""

    database: sqlite3.Connection
    all_keys: IntArray
    verify: Callable[[str], None]

    def select(self, path: str, where: str = "1", parameters: Sequence[Any] = ()) -> IntArray:
        """Keys of the documents that have a field at ``path`` for which the SQL condition holds, ascending."""
        self.verify(path)
        rows = self.database.execute(
            f"SELECT DISTINCT key FROM fields WHERE path = ? AND {where}", (path, *parameters)
        ).fetchall()
        return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows)))


@dataclass(frozen=True)
class Has(Condition):
    """A field at a path for which an SQL condition on kind and value holds."""

    path: str
    where: str = "1"
    parameters: tuple[Any, ...] = ()

    def keys(self, fields: FieldIndex) -> IntArray:
        return fields.select(self.path, self.where, self.parameters)


@dataclass(frozen=True)
class Like(Condition):
    """A string at a path that is like a pattern.

    Python matches the pattern: SQLite's GLOB ends a string at its first NUL, and refuses long patterns.
    """

    path: str
    pattern: str
    fold_case: bool

    def keys(self, fields: FieldIndex) -> IntArray:
        fields.verify(self.path)
        value, pattern = ("casefold(value)", self.pattern.casefold()) if self.fold_case else ("value", self.pattern)
        # A value that is like the pattern contains each of its literal parts; SQLite is quick to look for one.
        literal = max(re.split("[%_]", pattern), key=len)
        rows = fields.database.execute(
            f"SELECT key, {value} FROM fields WHERE path = ? AND kind = 'string' AND instr({value}, ?) > 0",
            (self.path, literal),
        ).fetchall()
        is_like = re.compile(fnmatch.translate(_as_glob(pattern))).match
        return np.unique(np.array([key for key, text in rows if is_like(text)], dtype=np.int64))


@dataclass(frozen=True)
class Not(Condition):
    """Admits what ``inner`` refuses."""

    inner: Condition

    def keys(self, fields: FieldIndex) -> IntArray:
        return np.setdiff1d(fields.all_keys, self.inner.keys(fields), assume_unique=True)


@dataclass(frozen=True)
class And(Condition):
    """Admits what all of ``inner`` admit."""

    inner: tuple[Condition, ...]

    def keys(self, fields: FieldIndex) -> IntArray:
        return reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), (c.keys(fields) for c in self.inner))


@dataclass(frozen=True)
class Or(Condition):
    """Admits what at least one of ``inner`` admits."""

    inner: tuple[Condition, ...]

    def keys(self, fields: FieldIndex) -> IntArray:
        return reduce(np.union1d, (condition.keys(fields) for condition in self.inner))


def _as_glob(pattern: str) -> str:
    """An SQL LIKE pattern, % for any text and _ for any character, as a GLOB pattern, which minds case."""
    return "".join(
        {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}.get(character, character) for character in pattern
    )
