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

import fnmatch
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import count
from typing import Any

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import IntArray
from muvera_core.validation import require_json, require_mapping, require_unicode, shown

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
# Fields and operators in one filter, the elements of lists aside.
MAX_CONDITIONS = 10_000
MAX_PATTERN_LENGTH = 4096
_SHOWN_CHARACTERS = 60
_SQL_BATCH = 500
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

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
    """A value's kind and how SQLite holds it. Whole numbers beyond 64 bits are held as floats, infinity if need be."""
    if value is None:
        return "null", 0
    if isinstance(value, bool):
        return "boolean", int(value)
    if isinstance(value, int):
        if _INT64_MIN <= value <= _INT64_MAX:
            return "number", value
        try:
            return "number", float(value)
        except OverflowError:  # only a filter's: metadata has no such numbers
            return "number", float("inf") if value > 0 else float("-inf")
    return ("number", value) if isinstance(value, float) else ("string", value)


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
class _Has(Condition):
    """A field at a path for which an SQL condition on kind and value holds."""

    path: str
    where: str = "1"
    parameters: tuple[Any, ...] = ()

    def keys(self, fields: FieldIndex) -> IntArray:
        return fields.select(self.path, self.where, self.parameters)


@dataclass(frozen=True)
class _Like(Condition):
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
    if filter is None or (isinstance(filter, Mapping) and not require_mapping("the filter", filter)):
        return None
    return _compile(filter, MAX_DEPTH, count(1))


def _compile(filter: Any, depth: int, counter: count[int]) -> Condition:
    _require_depth(depth)
    content = require_mapping("the filter", filter) if isinstance(filter, Mapping) else {}
    if not content:
        raise InvalidInputError(
            f'a filter must be a dictionary such as {{"year": {{"$gte": 2020}}}}, got {shown(filter)}'
        )
    parts = []
    for name, operand in content.items():
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"a filter's keys must be names of fields or operators, got {shown(name)}")
        name = require_unicode("a field's name in the filter", name)
        if name.startswith("$"):
            parts.append(_logical(name, operand, depth, counter))
        else:
            parts.append(_field(name, operand, depth, counter))
    return parts[0] if len(parts) == 1 else _And(tuple(parts))


def _logical(operator: str, operand: Any, depth: int, counter: count[int]) -> Condition:
    if operator == "$not":
        return _Not(_compile(operand, depth - 1, counter))
    if operator not in ("$and", "$or", "$nor"):
        raise InvalidInputError(
            f"unknown operator {operator[:_SHOWN_CHARACTERS]} at the top of a filter: "
            "expected a field's name, $and, $or, $nor or $not"
        )
    inner = tuple(_compile(part, depth - 1, counter) for part in _list(operator, operand))
    if operator == "$and":
        return _And(inner)
    return _Or(inner) if operator == "$or" else _Not(_Or(inner))


def _field(path: str, operand: Any, depth: int, counter: count[int]) -> Condition:
    if next(counter) > MAX_CONDITIONS:
        raise InvalidInputError(f"the filter has more than {MAX_CONDITIONS} conditions: compare with lists, by $in")
    if not isinstance(operand, Mapping):
        return _equals(path, "equality", operand)
    content = require_mapping(f"field {shown(path)} of the filter", operand)
    is_operator = [isinstance(name, str) and name.startswith("$") for name in content]
    if not content or (any(is_operator) and not all(is_operator)):
        raise InvalidInputError(
            f"field {shown(path)}: expected either operators or nested fields, got {shown(content)}"
        )
    _require_depth(depth)
    if not is_operator[0]:
        for name in content:
            if not isinstance(name, str) or not name:
                raise InvalidInputError(f"field {shown(path)}: nested fields must have names, got {shown(name)}")
        return _compile({f"{path}.{name}": inner for name, inner in content.items()}, depth - 1, counter)
    parts: list[Condition] = []
    for operator, value in content.items():
        if operator == "$not":
            if not isinstance(value, Mapping):
                raise InvalidInputError(
                    f"field {shown(path)}: $not needs operators such as {{'$gt': 3}}, got {shown(value)}"
                )
            parts.append(_Not(_field(path, value, depth - 1, counter)))
        elif operator in _OPERATORS:
            parts.append(_OPERATORS[operator](path, operator, value))
        else:
            raise InvalidInputError(
                f"field {shown(path)}: unknown operator {operator[:_SHOWN_CHARACTERS]}, "
                f"expected one of {', '.join(_OPERATORS)}, $not"
            )
    return parts[0] if len(parts) == 1 else _And(tuple(parts))


def _require_depth(depth: int) -> None:
    if depth == 0:
        raise InvalidInputError(f"the filter is nested more than {MAX_DEPTH} deep: write it flatter")


def _equals(path: str, operator: str, operand: Any) -> Condition:
    if isinstance(operand, list):
        try:
            plain = require_json("the list", operand)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"field {shown(path)}: {operator} can't compare with {shown(operand)}: {error}"
            ) from None
        return _Has(path, "kind = 'items' AND value = ?", (_list_as_text(plain),))
    kind, value = _operand(path, operator, operand)
    if kind == "null":  # MongoDB's rule: a missing field is null, too
        return _Or((_Has(path, "kind = 'null'"), _Not(_Has(path))))
    return _Has(path, "kind = ? AND value = ?", (kind, value))


def _compare(path: str, operator: str, operand: Any) -> Condition:
    kind, value = _operand(path, operator, operand)
    if kind not in ("number", "string"):
        raise InvalidInputError(f"field {shown(path)}: {operator} needs a number or a string, got {shown(operand)}")
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
        raise InvalidInputError(f"field {shown(path)}: {operator} needs a string, got {shown(operand)}")
    operand = require_unicode(f"field {shown(path)}: the operand of {operator}", operand)
    if operator in ("$like", "$ilike"):
        if len(operand) > MAX_PATTERN_LENGTH:
            raise InvalidInputError(f"field {shown(path)}: {operator} takes at most {MAX_PATTERN_LENGTH} characters")
        return _Like(path, operand, fold_case=operator == "$ilike")
    if operator == "$contains":
        return _Has(path, "kind = 'string' AND instr(value, ?) > 0", (operand,))
    return _Has(path, "kind = 'string' AND instr(casefold(value), ?) > 0", (operand.casefold(),))


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
    if isinstance(operand, (np.bool_, np.integer, np.floating)) and not isinstance(operand, np.timedelta64):
        operand = operand.item()
    if operand is not None and not isinstance(operand, (bool, int, float, str)):
        raise InvalidInputError(
            f"field {shown(path)}: {operator} compares with a string, number, boolean or None, got {shown(operand)}: "
            "for lists use $in or $all"
        )
    if isinstance(operand, float) and operand != operand:
        raise InvalidInputError(f"field {shown(path)}: {operator} can't compare with NaN")
    if isinstance(operand, str):
        operand = require_unicode(f"field {shown(path)}: the operand of {operator}", operand)
    return _scalar(operand)


def _list(operator: str, operand: Any, path: str | None = None) -> list[Any]:
    if not isinstance(operand, (list, tuple, set, frozenset)) or not operand:
        where = "" if path is None else f"field {shown(path)}: "
        raise InvalidInputError(f"{where}{operator} needs a list with something in it, got {shown(operand)}")
    return list(operand)


def _boolean(path: str, operator: str, operand: Any) -> bool:
    if not isinstance(operand, bool):
        raise InvalidInputError(f"field {shown(path)}: {operator} needs True or False, got {shown(operand)}")
    return operand


def _as_glob(pattern: str) -> str:
    """An SQL LIKE pattern, % for any text and _ for any character, as a GLOB pattern, which minds case."""
    return "".join(
        {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}.get(character, character) for character in pattern
    )
