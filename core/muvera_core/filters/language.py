"""The filter language: checks a filter and turns it into a ``Condition``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.filters.conditions import And, Condition, Has, Like, Not, Or
from muvera_core.filters.fields import list_as_text, scalar
from muvera_core.metadata import normalize_value
from muvera_core.validation import require_mapping, require_unicode, shown

MAX_DEPTH = 32
# Fields and operators in one filter, without the elements of lists.
MAX_CONDITIONS = 10_000
MAX_PATTERN_LENGTH = 4096
_SHOWN_CHARACTERS = 60
_SQL_BATCH = 500


def compile_filter(filter: Mapping[str, Any] | None) -> Condition | None:
    """Check a filter and return its condition; None if the filter is None or empty and so matches every document.

    Raises:
        InvalidInputError: the filter is invalid.
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
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _logical(operator: str, operand: Any, depth: int, counter: count[int]) -> Condition:
    if operator == "$not":
        return Not(_compile(operand, depth - 1, counter))
    if operator not in ("$and", "$or", "$nor"):
        raise InvalidInputError(
            f"unknown operator {operator[:_SHOWN_CHARACTERS]} at the top of a filter: "
            "expected a field's name, $and, $or, $nor or $not"
        )
    inner = tuple(_compile(part, depth - 1, counter) for part in _list(operator, operand))
    if operator == "$and":
        return And(inner)
    return Or(inner) if operator == "$or" else Not(Or(inner))


def _field(path: str, operand: Any, depth: int, counter: count[int]) -> Condition:
    if next(counter) > MAX_CONDITIONS:
        raise InvalidInputError(f"the filter has more than {MAX_CONDITIONS} conditions: combine values with $in")
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
            parts.append(Not(_field(path, value, depth - 1, counter)))
        elif operator in _OPERATORS:
            parts.append(_OPERATORS[operator](path, operator, value))
        else:
            raise InvalidInputError(
                f"field {shown(path)}: unknown operator {operator[:_SHOWN_CHARACTERS]}, "
                f"expected one of {', '.join(_OPERATORS)}, $not"
            )
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _require_depth(depth: int) -> None:
    if depth == 0:
        raise InvalidInputError(f"the filter is nested more than {MAX_DEPTH} levels deep: flatten it")


def _equals(path: str, operator: str, operand: Any) -> Condition:
    if isinstance(operand, list):
        try:
            plain = normalize_value("the list", operand)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"field {shown(path)}: {operator} cannot compare with {shown(operand)}: {error}"
            ) from None
        return Has(path, "kind = 'items' AND value = ?", (list_as_text(plain),))
    kind, value = _operand(path, operator, operand)
    if kind == "null":  # as in MongoDB, a missing field equals null
        return Or((Has(path, "kind = 'null'"), Not(Has(path))))
    return Has(path, "kind = ? AND value = ?", (kind, value))


def _compare(path: str, operator: str, operand: Any) -> Condition:
    kind, value = _operand(path, operator, operand)
    if kind not in ("number", "string"):
        raise InvalidInputError(f"field {shown(path)}: {operator} needs a number or a string, got {shown(operand)}")
    sql = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}[operator]
    return Has(path, f"kind = ? AND value {sql} ?", (kind, value))


def _is_in(path: str, operator: str, operand: Any) -> Condition:
    values = [_operand(path, operator, element) for element in _list(operator, operand, path)]
    parts: list[Condition] = []
    for kind in sorted({kind for kind, _ in values} - {"null"}):
        of_kind = [value for k, value in values if k == kind]
        for start in range(0, len(of_kind), _SQL_BATCH):
            batch = of_kind[start : start + _SQL_BATCH]
            parts.append(Has(path, f"kind = ? AND value IN ({','.join('?' * len(batch))})", (kind, *batch)))
    if any(kind == "null" for kind, _ in values):
        parts.append(_equals(path, operator, None))
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


def _has_all(path: str, operator: str, operand: Any) -> Condition:
    return And(tuple(_equals(path, operator, element) for element in _list(operator, operand, path)))


def _exists(path: str, operator: str, operand: Any) -> Condition:
    return Has(path) if _boolean(path, operator, operand) else Not(Has(path))


def _empty(path: str, operator: str, operand: Any) -> Condition:
    filled = (
        "kind NOT IN ('null', 'items') AND NOT (kind = 'string' AND value = '') "
        "AND NOT (kind IN ('list', 'object') AND value = 0)"
    )
    return Not(Has(path, filled)) if _boolean(path, operator, operand) else Has(path, filled)


def _text(path: str, operator: str, operand: Any) -> Condition:
    if not isinstance(operand, str):
        raise InvalidInputError(f"field {shown(path)}: {operator} needs a string, got {shown(operand)}")
    operand = require_unicode(f"field {shown(path)}: the operand of {operator}", operand)
    if operator in ("$like", "$ilike"):
        if len(operand) > MAX_PATTERN_LENGTH:
            raise InvalidInputError(
                f"field {shown(path)}: {operator} takes at most {MAX_PATTERN_LENGTH} characters, got {len(operand)}"
            )
        return Like(path, operand, fold_case=operator == "$ilike")
    if operator == "$contains":
        return Has(path, "kind = 'string' AND instr(value, ?) > 0", (operand,))
    return Has(path, "kind = 'string' AND instr(casefold(value), ?) > 0", (operand.casefold(),))


_OPERATORS: dict[str, Callable[[str, str, Any], Condition]] = {
    "$eq": _equals,
    "$ne": lambda path, operator, operand: Not(_equals(path, operator, operand)),
    "$gt": _compare,
    "$gte": _compare,
    "$lt": _compare,
    "$lte": _compare,
    "$in": _is_in,
    "$nin": lambda path, operator, operand: Not(_is_in(path, operator, operand)),
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
        raise InvalidInputError(f"field {shown(path)}: {operator} cannot compare with NaN: give another number")
    if isinstance(operand, str):
        operand = require_unicode(f"field {shown(path)}: the operand of {operator}", operand)
    return scalar(operand)


def _list(operator: str, operand: Any, path: str | None = None) -> list[Any]:
    if not isinstance(operand, (list, tuple, set, frozenset)) or not operand:
        where = "" if path is None else f"field {shown(path)}: "
        raise InvalidInputError(f"{where}{operator} needs a list that is not empty, got {shown(operand)}")
    return list(operand)


def _boolean(path: str, operator: str, operand: Any) -> bool:
    if not isinstance(operand, bool):
        raise InvalidInputError(f"field {shown(path)}: {operator} needs True or False, got {shown(operand)}")
    return operand
