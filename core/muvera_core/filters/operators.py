"""The operators that a filter applies to one field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.filters.conditions import And, Condition, Has, Like, Not, Nothing, Or
from muvera_core.filters.fields import list_as_text
from muvera_core.filters.moments import moment, window
from muvera_core.filters.operands import Operand, boolean, elements, is_list, plain_list, single, text
from muvera_core.validation import shown

MAX_PATTERN_LENGTH = 4096
_SQL_BATCH = 500


def equals(path: str, operator: str, operand: Any) -> Condition:
    """Whether a field equals the operand: a single value, or a whole list."""
    if is_list(operand):
        return Has(path, "kind = 'items' AND value = ?", (list_as_text(plain_list(path, operator, operand)),))
    return _equals_single(path, single(path, operator, operand))


def _equals_single(path: str, operand: Operand) -> Condition:
    if operand.kind == "null":  # as in MongoDB, a missing field equals null
        return Or((Has(path, "kind = 'null'"), Not(Has(path))))
    if operand.moment is not None:
        where = "kind = 'string' AND value >= ? AND value < ? AND moment(value) = ?"
        return Has(path, where, (*window(operand.moment), operand.moment))
    return Has(path, "kind = ? AND value = ?", (operand.kind, operand.value))


def _compare(path: str, operator: str, operand: Any) -> Condition:
    kind, value, _ = single(path, operator, operand)
    if kind not in ("number", "string"):
        raise InvalidInputError(
            f"field {shown(path)}: {operator} needs a number, a string or a date, got {shown(operand)}"
        )
    sql = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}[operator]
    when = moment(value)
    if when is None:
        return Has(path, f"kind = ? AND value {sql} ?", (kind, value))
    # Beyond the window, the order of strings is that of the moments that they name. Within it, moments are compared.
    lower, upper = window(when)
    near, far = (lower, upper) if operator in ("$gt", "$gte") else (upper, lower)
    where = f"kind = 'string' AND value {sql} ? AND (value {sql} ? OR coalesce(moment(value) {sql} ?, value {sql} ?))"
    return Has(path, where, (near, far, when, value))


def _is_in(path: str, operator: str, operand: Any) -> Condition:
    operands = [single(path, operator, element) for element in elements(operator, operand, path)]
    plain = [operand for operand in operands if operand.kind != "null" and operand.moment is None]
    parts: list[Condition] = []
    for kind in sorted({operand.kind for operand in plain}):
        of_kind = [operand.value for operand in plain if operand.kind == kind]
        for start in range(0, len(of_kind), _SQL_BATCH):
            batch = of_kind[start : start + _SQL_BATCH]
            parts.append(Has(path, f"kind = ? AND value IN ({','.join('?' * len(batch))})", (kind, *batch)))
    others = {operand for operand in operands if operand.kind == "null" or operand.moment is not None}
    parts += [_equals_single(path, operand) for operand in sorted(others)]
    if not parts:
        return Nothing()
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


def _has_all(path: str, operator: str, operand: Any) -> Condition:
    parts = tuple(equals(path, operator, element) for element in elements(operator, operand, path))
    return And(parts) if parts else Nothing()


def _exists(path: str, operator: str, operand: Any) -> Condition:
    return Has(path) if boolean(path, operator, operand) else Not(Has(path))


def _empty(path: str, operator: str, operand: Any) -> Condition:
    filled = (
        "kind NOT IN ('null', 'items') AND NOT (kind = 'string' AND value = '') "
        "AND NOT (kind IN ('list', 'object') AND value = 0)"
    )
    return Not(Has(path, filled)) if boolean(path, operator, operand) else Has(path, filled)


def _like(path: str, operator: str, operand: Any) -> Condition:
    pattern = text(path, operator, operand)
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise InvalidInputError(
            f"field {shown(path)}: {operator} takes at most {MAX_PATTERN_LENGTH} characters, got {len(pattern)}"
        )
    return Like(path, pattern, fold_case=operator == "$ilike")


def _contains(path: str, operator: str, operand: Any) -> Condition:
    part = text(path, operator, operand)
    if operator == "$contains":
        return Has(path, "kind = 'string' AND instr(value, ?) > 0", (part,))
    return Has(path, "kind = 'string' AND instr(casefold(value), ?) > 0", (part.casefold(),))


OPERATORS: dict[str, Callable[[str, str, Any], Condition]] = {
    "$eq": equals,
    "$ne": lambda path, operator, operand: Not(equals(path, operator, operand)),
    "$gt": _compare,
    "$gte": _compare,
    "$lt": _compare,
    "$lte": _compare,
    "$in": _is_in,
    "$nin": lambda path, operator, operand: Not(_is_in(path, operator, operand)),
    "$all": _has_all,
    "$exists": _exists,
    "$empty": _empty,
    "$like": _like,
    "$ilike": _like,
    "$contains": _contains,
    "$icontains": _contains,
}
