"""Metadata filters: a MongoDB-style dictionary, checked once and answered by an index over metadata fields.

    {"year": {"$gte": 2020}, "author.name": "Ada"}          both must hold
    {"$or": [{"lang": "en"}, {"lang": {"$exists": False}}]}

A document's metadata is flattened into fields: a path such as ``author.name`` and a value. A list counts as each of
its elements, as in MongoDB, so ``{"tags": "red"}`` holds where ``red`` is among the tags, and as a whole: ``{"tags":
["red"]}`` holds where it is the only one. Values are equal only to
values of their own kind: 1 is neither "1" nor True. ``$ne``, ``$nin`` and ``$not`` also hold where the field is
missing. Every operator is answered by SQLite from the table that ``SCHEMA`` makes, as a set of document keys; the
logical ones combine those sets.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import IntArray

SCHEMA = """
CREATE TABLE fields (
    path TEXT NOT NULL,
    kind TEXT NOT NULL,   -- 'number', 'string', 'boolean', 'null'; 'list' and 'object' with their length as value;
                          -- 'items' with a whole list, as JSON
    value NOT NULL,
    key INTEGER NOT NULL,
    PRIMARY KEY (path, kind, value, key)
) WITHOUT ROWID;
"""
MAX_DEPTH = 32
_SQL_BATCH = 500
_INT64 = range(-(2**63), 2**63)

Field = tuple[str, str, Any]


def flatten(metadata: Mapping[str, Any]) -> set[Field]:
    """The (path, kind, value) of everything in a document's metadata."""
    return {field for name, value in metadata.items() for field in _fields(name, value)}


def _fields(path: str, value: Any) -> Iterator[Field]:
    if isinstance(value, Mapping):
        yield path, "object", len(value)
        for name, inner in value.items():
            yield from _fields(f"{path}.{name}", inner)
    elif isinstance(value, list):
        yield path, "list", len(value)
        yield path, "items", _list_as_text(value)
        for element in value:
            yield from _fields(path, element)
    else:
        yield (path, *_scalar(value))


def _list_as_text(items: list[Any]) -> str:
    """The same text for equal lists: a whole number is written alike as int and as float."""

    def normal(value: Any) -> Any:
        if isinstance(value, list):
            return [normal(element) for element in value]
        if isinstance(value, Mapping):
            return {name: normal(inner) for name, inner in value.items()}
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return json.dumps(normal(items), sort_keys=True, ensure_ascii=False)


def _scalar(value: Any) -> tuple[str, Any]:
    """A value's kind and how SQLite holds it. Whole numbers beyond 64 bits are held as floats."""
    if value is None:
        return "null", 0
    if isinstance(value, bool):
        return "boolean", int(value)
    if isinstance(value, int):
        return "number", value if value in _INT64 else float(value)
    return ("number", value) if isinstance(value, float) else ("string", value)


class Condition:
    """A checked filter. ``keys`` says which documents it admits."""

    def keys(self, fields: FieldIndex) -> IntArray:
        """Keys of the documents for which it holds, int64, ascending."""
        raise NotImplementedError


@dataclass(frozen=True)
class FieldIndex:
    """Where conditions are answered: the database with the fields, and the keys of all documents."""

    database: sqlite3.Connection
    all_keys: IntArray

    def select(self, path: str, where: str = "1", parameters: Sequence[Any] = ()) -> IntArray:
        """Keys of the documents that have a field at ``path`` for which the SQL condition holds, ascending."""
        rows = self.database.execute(
            f"SELECT DISTINCT key FROM fields WHERE path = ? AND {where}", (path, *parameters)
        ).fetchall()
        return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows)))


@dataclass(frozen=True)
class _Has(Condition):
    """A field at a path for which an SQL condition on kind and value holds."""

    path: str
    where: str = "1"
    parameters: tuple[Any, ...] = ()

    def keys(self, fields: FieldIndex) -> IntArray:
        return fields.select(self.path, self.where, self.parameters)


@dataclass(frozen=True)
class _Not(Condition):
    inner: Condition

    def keys(self, fields: FieldIndex) -> IntArray:
        return np.setdiff1d(fields.all_keys, self.inner.keys(fields), assume_unique=True)


@dataclass(frozen=True)
class _And(Condition):
    inner: tuple[Condition, ...]

    def keys(self, fields: FieldIndex) -> IntArray:
        return reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), (c.keys(fields) for c in self.inner))


@dataclass(frozen=True)
class _Or(Condition):
    inner: tuple[Condition, ...]

    def keys(self, fields: FieldIndex) -> IntArray:
        return reduce(np.union1d, (condition.keys(fields) for condition in self.inner))


def compile_filter(filter: Mapping[str, Any] | None) -> Condition | None:
    """Check a filter. None stands for one that admits everything.

    Raises:
        InvalidInputError: not a filter, an unknown operator, or an operand of the wrong type.
    """
    if filter is None or (isinstance(filter, Mapping) and not filter):
        return None
    return _compile(filter, MAX_DEPTH)


def _compile(filter: Any, depth: int) -> Condition:
    if depth == 0:
        raise InvalidInputError(f"the filter is nested more than {MAX_DEPTH} deep: write it flatter")
    if not isinstance(filter, Mapping) or not filter:
        raise InvalidInputError(f'a filter must be a dictionary such as {{"year": {{"$gte": 2020}}}}, got {filter!r}')
    parts = []
    for name, operand in filter.items():
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"a filter's keys must be names of fields or operators, got {name!r}")
        if name.startswith("$"):
            parts.append(_logical(name, operand, depth))
        else:
            parts.append(_field(name, operand, depth))
    return parts[0] if len(parts) == 1 else _And(tuple(parts))


def _logical(operator: str, operand: Any, depth: int) -> Condition:
    if operator == "$not":
        return _Not(_compile(operand, depth - 1))
    if operator not in ("$and", "$or", "$nor"):
        raise InvalidInputError(
            f"unknown operator {operator} at the top of a filter: expected a field's name, $and, $or, $nor or $not"
        )
    inner = tuple(_compile(part, depth - 1) for part in _list(operator, operand))
    if operator == "$and":
        return _And(inner)
    return _Or(inner) if operator == "$or" else _Not(_Or(inner))


def _field(path: str, operand: Any, depth: int) -> Condition:
    if not isinstance(operand, Mapping):
        return _equals(path, "equality", operand)
    is_operator = [isinstance(name, str) and name.startswith("$") for name in operand]
    if not operand or (any(is_operator) and not all(is_operator)):
        raise InvalidInputError(f"field {path!r}: expected either operators or nested fields, got {dict(operand)!r}")
    if depth == 0:
        raise InvalidInputError(f"the filter is nested more than {MAX_DEPTH} deep: write it flatter")
    if not is_operator[0]:
        return _compile({f"{path}.{name}": inner for name, inner in operand.items()}, depth - 1)
    parts: list[Condition] = []
    for operator, value in operand.items():
        if operator == "$not":
            if not isinstance(value, Mapping):
                raise InvalidInputError(f"field {path!r}: $not needs operators such as {{'$gt': 3}}, got {value!r}")
            parts.append(_Not(_field(path, value, depth - 1)))
        elif operator in _OPERATORS:
            parts.append(_OPERATORS[operator](path, operator, value))
        else:
            raise InvalidInputError(
                f"field {path!r}: unknown operator {operator}, expected one of {', '.join(_OPERATORS)}, $not"
            )
    return parts[0] if len(parts) == 1 else _And(tuple(parts))


def _equals(path: str, operator: str, operand: Any) -> Condition:
    if isinstance(operand, list):
        try:
            return _Has(path, "kind = 'items' AND value = ?", (_list_as_text(operand),))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"field {path!r}: {operator} can't compare with {operand!r} ({error})") from None
    kind, value = _operand(path, operator, operand)
    if kind == "null":  # MongoDB's rule: a missing field is null, too
        return _Or((_Has(path, "kind = 'null'"), _Not(_Has(path))))
    return _Has(path, "kind = ? AND value = ?", (kind, value))


def _compare(path: str, operator: str, operand: Any) -> Condition:
    kind, value = _operand(path, operator, operand)
    if kind not in ("number", "string"):
        raise InvalidInputError(f"field {path!r}: {operator} needs a number or a string, got {operand!r}")
    sql = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}[operator]
    return _Has(path, f"kind = ? AND value {sql} ?", (kind, value))


def _is_in(path: str, operator: str, operand: Any) -> Condition:
    values = [_operand(path, operator, element) for element in _list(operator, operand, path)]
    parts: list[Condition] = []
    for kind in sorted({kind for kind, _ in values} - {"null"}):
        of_kind = [value for k, value in values if k == kind]
        for start in range(0, len(of_kind), _SQL_BATCH):
            some = of_kind[start : start + _SQL_BATCH]
            parts.append(_Has(path, f"kind = ? AND value IN ({','.join('?' * len(some))})", (kind, *some)))
    if any(kind == "null" for kind, _ in values):
        parts.append(_equals(path, operator, None))
    return parts[0] if len(parts) == 1 else _Or(tuple(parts))


def _has_all(path: str, operator: str, operand: Any) -> Condition:
    return _And(tuple(_equals(path, operator, element) for element in _list(operator, operand, path)))


def _exists(path: str, operator: str, operand: Any) -> Condition:
    return _Has(path) if _boolean(path, operator, operand) else _Not(_Has(path))


def _empty(path: str, operator: str, operand: Any) -> Condition:
    filled = (
        "kind NOT IN ('null', 'items') AND NOT (kind = 'string' AND value = '') "
        "AND NOT (kind IN ('list', 'object') AND value = 0)"
    )
    return _Not(_Has(path, filled)) if _boolean(path, operator, operand) else _Has(path, filled)


def _text(path: str, operator: str, operand: Any) -> Condition:
    if not isinstance(operand, str):
        raise InvalidInputError(f"field {path!r}: {operator} needs a string, got {operand!r}")
    sql, parameter = {
        "$like": ("value GLOB ?", _as_glob(operand)),
        "$ilike": ("casefold(value) GLOB ?", _as_glob(operand.casefold())),
        "$contains": ("instr(value, ?) > 0", operand),
        "$icontains": ("instr(casefold(value), ?) > 0", operand.casefold()),
    }[operator]
    return _Has(path, f"kind = 'string' AND {sql}", (parameter,))


_OPERATORS: dict[str, Callable[[str, str, Any], Condition]] = {
    "$eq": _equals,
    "$ne": lambda path, operator, operand: _Not(_equals(path, operator, operand)),
    "$gt": _compare,
    "$gte": _compare,
    "$lt": _compare,
    "$lte": _compare,
    "$in": _is_in,
    "$nin": lambda path, operator, operand: _Not(_is_in(path, operator, operand)),
    "$all": _has_all,
    "$exists": _exists,
    "$empty": _empty,
    "$like": _text,
    "$ilike": _text,
    "$contains": _text,
    "$icontains": _text,
}


def _operand(path: str, operator: str, operand: Any) -> tuple[str, Any]:
    if isinstance(operand, np.generic):
        operand = operand.item()
    if operand is not None and not isinstance(operand, (bool, int, float, str)):
        raise InvalidInputError(
            f"field {path!r}: {operator} compares with a string, number, boolean or None, got {operand!r}: "
            "for lists use $in or $all"
        )
    if isinstance(operand, float) and operand != operand:
        raise InvalidInputError(f"field {path!r}: {operator} can't compare with NaN")
    return _scalar(operand)


def _list(operator: str, operand: Any, path: str | None = None) -> list[Any]:
    if not isinstance(operand, (list, tuple, set, frozenset)) or not operand:
        where = "" if path is None else f"field {path!r}: "
        raise InvalidInputError(f"{where}{operator} needs a list with something in it, got {operand!r}")
    return list(operand)


def _boolean(path: str, operator: str, operand: Any) -> bool:
    if not isinstance(operand, bool):
        raise InvalidInputError(f"field {path!r}: {operator} needs True or False, got {operand!r}")
    return operand


def _as_glob(pattern: str) -> str:
    """An SQL LIKE pattern, % for any text and _ for any character, as a GLOB pattern, which minds case."""
    return "".join(
        {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}.get(character, character) for character in pattern
    )
