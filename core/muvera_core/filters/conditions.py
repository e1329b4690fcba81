"""Checked filters, which SQLite answers from the table of metadata fields."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.filters.patterns import LikePattern
from muvera_core.token_embeddings import IntArray


class Condition:
    """A checked filter. ``keys`` returns the documents that match it."""

    def keys(self, fields: FieldIndex) -> IntArray:
        """Keys of the documents that match, int64, ascending."""
        raise NotImplementedError


@dataclass(frozen=True)
class FieldIndex:
    """The data from which conditions are answered.

    Attributes:
        database: the database with the table of fields.
        all_keys: the keys of all documents, int64, ascending.
        verify: checks the fields at a path; raises CorruptIndexError if they are damaged.
    """

    database: sqlite3.Connection
    all_keys: IntArray
    verify: Callable[[str], None]

    def select(self, path: str, where: str = "1", parameters: Sequence[Any] = ()) -> IntArray:
        """Keys of the documents with a field at ``path`` that meets the SQL condition, ascending."""
        self.verify(path)
        rows = self.database.execute(
            f"SELECT DISTINCT key FROM fields WHERE path = ? AND {where}", (path, *parameters)
        ).fetchall()
        return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows)))

    def has(self, path: str, where: str = "1") -> bool:
        """Whether a document has a field at ``path`` that meets the SQL condition."""
        self.verify(path)
        sql = f"SELECT EXISTS (SELECT 1 FROM fields WHERE path = ? AND {where})"
        return bool(self.database.execute(sql, (path,)).fetchone()[0])


@dataclass(frozen=True)
class Has(Condition):
    """Matches documents with a field at a path that meets an SQL condition on its kind and value."""

    path: str
    where: str = "1"
    parameters: tuple[Any, ...] = ()

    def keys(self, fields: FieldIndex) -> IntArray:
        return fields.select(self.path, self.where, self.parameters)


@dataclass(frozen=True)
class Like(Condition):
    """Matches documents with a string at a path that matches a LIKE pattern.

    Python matches the pattern: SQLite's GLOB ends a string at its first NUL, and refuses long patterns.
    """

    path: str
    pattern: str
    fold_case: bool

    def keys(self, fields: FieldIndex) -> IntArray:
        fields.verify(self.path)
        pattern = LikePattern(self.pattern, fold_case=self.fold_case)
        # SQLite quickly finds the values with the longest literal part of the pattern.
        value = "casefold(value)" if self.fold_case else "value"
        rows = fields.database.execute(
            f"SELECT key, value FROM fields WHERE path = ? AND kind = 'string' AND instr({value}, ?) > 0",
            (self.path, pattern.longest_literal),
        ).fetchall()
        return np.unique(np.array([key for key, text in rows if pattern.matches(text)], dtype=np.int64))


@dataclass(frozen=True)
class Nothing(Condition):
    """Matches no document."""

    def keys(self, fields: FieldIndex) -> IntArray:
        return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class NestedField(Condition):
    """Matches what ``inner`` matches, a field in the object at ``path`` whose name looks like an operator's.

    If documents have the field ``path``, but none has an object there, the operator was meant.
    """

    path: str
    message: str
    inner: Condition

    def keys(self, fields: FieldIndex) -> IntArray:
        if fields.has(self.path) and not fields.has(self.path, "kind = 'object'"):
            raise InvalidInputError(self.message)
        return self.inner.keys(fields)


@dataclass(frozen=True)
class TopField(Condition):
    """Matches what ``inner`` matches, a field at ``path`` that looks like a logical operator.

    If no document has the field, the operator was meant.
    """

    path: str
    message: str
    inner: Condition

    def keys(self, fields: FieldIndex) -> IntArray:
        if len(fields.all_keys) and not fields.has(self.path):
            raise InvalidInputError(self.message)
        return self.inner.keys(fields)


@dataclass(frozen=True)
class Not(Condition):
    """Matches the documents that ``inner`` does not match."""

    inner: Condition

    def keys(self, fields: FieldIndex) -> IntArray:
        return np.setdiff1d(fields.all_keys, self.inner.keys(fields), assume_unique=True)


@dataclass(frozen=True)
class And(Condition):
    """Matches the documents that all of ``inner`` match."""

    inner: tuple[Condition, ...]

    def keys(self, fields: FieldIndex) -> IntArray:
        return reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), (c.keys(fields) for c in self.inner))


@dataclass(frozen=True)
class Or(Condition):
    """Matches the documents that at least one of ``inner`` matches."""

    inner: tuple[Condition, ...]

    def keys(self, fields: FieldIndex) -> IntArray:
        return reduce(np.union1d, (condition.keys(fields) for condition in self.inner))
