"""Checked filters, which SQLite answers from the table of metadata fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.filters.patterns import LikePattern
from muvera_core.filters.table import FIELDS_AT_ONCE, FIRST, LAST, Fetch, damaged_fields, n_fields
from muvera_core.token_embeddings import IntArray

# Kind, value and key: the place of a field among those of its path.
Position = tuple[Any, Any, Any]


class Condition:
    """A checked filter. ``keys`` returns the documents that match it."""

    def keys(self, fields: FieldIndex) -> IntArray:
        """Keys of the documents that match, int64, ascending."""
        raise NotImplementedError


@dataclass(frozen=True)
class FieldIndex:
    """The data from which conditions are answered.

    Attributes:
        fetch: runs one short statement.
        all_keys: the keys of all documents, int64, ascending.
        verify: checks the fields at a path; raises CorruptIndexError if they are damaged.
    """

    fetch: Fetch
    all_keys: IntArray
    verify: Callable[[str], None]

    def select(self, path: str, where: str = "1", parameters: Sequence[Any] = ()) -> IntArray:
        """Keys of the documents with a field at ``path`` that meets the SQL condition, ascending."""
        keys = [key for page in self.rows(path, "key", where, parameters) for (key,) in page]
        return np.unique(np.array(keys, dtype=np.int64))

    def rows(
        self, path: str, columns: str, where: str = "1", parameters: Sequence[Any] = ()
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Columns of the fields at ``path`` that meet the SQL condition, in pages, in any order.

        A condition that SQLite answers fast is answered at once. Another is answered for a page of fields at a time,
        from the first field that meets it to the last.
        """
        self.verify(path)
        matching, values = f"FROM fields WHERE path = ? AND ({where})", (path, *parameters)
        page = self.fetch(f"SELECT {columns} {matching}", values, limited=True)
        if page is not None:
            yield page
            return
        first, last = (
            self.fetch(f"SELECT kind, value, key {matching} ORDER BY {order} LIMIT 1", values, limited=True)
            for order in ("kind, value, key", "kind DESC, value DESC, key DESC")
        )
        if first == []:
            return
        for start, end in self._spans(path, first[0] if first else FIRST, last[0] if last else LAST):
            span = "(kind, value, key) >= (?, ?, ?) AND (kind, value, key) <= (?, ?, ?)"
            yield self.fetch(f"SELECT {columns} {matching} AND {span}", (*values, *start, *end)) or []

    def _spans(self, path: str, low: Position, high: Position) -> Iterator[tuple[Position, Position]]:
        """First and last field of each page between two fields, these included."""
        sql = (
            "SELECT kind, value, key FROM fields WHERE path = ? AND (kind, value, key) >= (?, ?, ?) "
            f"ORDER BY kind, value, key LIMIT 2 OFFSET {FIELDS_AT_ONCE - 1}"
        )
        for _ in range(n_fields(self.fetch, path) // FIELDS_AT_ONCE + 1):
            ends = self.fetch(f"SELECT * FROM ({sql}) WHERE (kind, value, key) <= (?, ?, ?)", (path, *low, *high)) or []
            if len(ends) < 2:
                yield low, high
                return
            yield low, ends[0]
            low = ends[1]
        raise damaged_fields(path)  # the pages go round in a circle

    def has(self, path: str, where: str = "1") -> bool:
        """Whether a document has a field at ``path`` that meets the SQL condition."""
        self.verify(path)
        sql = f"SELECT EXISTS (SELECT 1 FROM fields WHERE path = ? AND {where})"
        return self.fetch(sql, (path,)) == [(1,)]


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
        pattern = LikePattern(self.pattern, fold_case=self.fold_case)
        # SQLite quickly finds the values with the longest literal part of the pattern.
        value = "casefold(value)" if self.fold_case else "value"
        where = f"kind = 'string' AND instr({value}, ?) > 0"
        pages = fields.rows(self.path, "key, value", where, (pattern.longest_literal,))
        found = [key for page in pages for key, text in page if pattern.matches(text)]
        return np.unique(np.array(found, dtype=np.int64))


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
