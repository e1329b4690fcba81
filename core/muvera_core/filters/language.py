"""The filter language: checks a filter and turns it into a ``Condition``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.filters.conditions import And, Condition, NestedField, Not, Or, TopField
from muvera_core.filters.operands import elements, is_list
from muvera_core.filters.operators import OPERATORS, equals
from muvera_core.filters.suggestions import meant_operator
from muvera_core.metadata import normalize_value
from muvera_core.validation import require_mapping, shown

MAX_DEPTH = 32
# Fields and operators in one filter, without the elements of lists.
MAX_CONDITIONS = 10_000
_LOGICAL = ("$and", "$or", "$nor", "$not")
_SHOWN_CHARACTERS = 60


def compile_filter(filter: Mapping[str, Any] | None) -> Condition | None:
    """Check a filter and return its condition; None if the filter is None or empty and so matches every document.

    Raises:
        InvalidInputError: the filter is invalid.
    """
    if filter is None or (isinstance(filter, Mapping) and not require_mapping("the filter", filter)):
        return None
    return _compile(filter, MAX_DEPTH, count(1))


def _compile(filter: Any, depth: int, counter: count[int], *, is_top: bool = True) -> Condition:
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
        name = normalize_value("a filter's key", name)
        if name.startswith("$"):
            parts.append(_logical(name, operand, depth, counter))
        else:
            part = _field(name, operand, depth, counter)
            parts.append(_doubting_top(name, operand, part) if is_top else part)
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _logical(operator: str, operand: Any, depth: int, counter: count[int]) -> Condition:
    if operator == "$not":
        return Not(_compile(operand, depth - 1, counter))
    if operator not in _LOGICAL:
        raise InvalidInputError(
            f"unknown operator {operator[:_SHOWN_CHARACTERS]} at the top of a filter: "
            f"expected a field's name, $and, $or, $nor or $not{_did_you_mean(operator)}"
        )
    parts = elements(operator, operand)
    if not parts:
        raise InvalidInputError(f"{operator} needs a list that is not empty, got {shown(operand)}")
    inner = tuple(_compile(part, depth - 1, counter) for part in parts)
    if operator == "$and":
        return And(inner)
    return Or(inner) if operator == "$or" else Not(Or(inner))


def _field(path: str, operand: Any, depth: int, counter: count[int]) -> Condition:
    if next(counter) > MAX_CONDITIONS:
        raise InvalidInputError(f"the filter has more than {MAX_CONDITIONS} conditions: combine values with $in")
    if not isinstance(operand, Mapping):
        return equals(path, "equality", operand)
    content = require_mapping(f"field {shown(path)} of the filter", operand)
    is_operator = [isinstance(name, str) and name.startswith("$") for name in content]
    if not content or (any(is_operator) and not all(is_operator)):
        raise InvalidInputError(
            f"field {shown(path)}: expected either operators or nested fields, got {shown(content)}"
        )
    _require_depth(depth)
    if not is_operator[0]:
        return _nested(path, content, depth, counter)
    parts = [_operator(path, operator, value, depth, counter) for operator, value in content.items()]
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _nested(path: str, content: Mapping[Any, Any], depth: int, counter: count[int]) -> Condition:
    for name in content:
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"field {shown(path)}: nested fields must have names, got {shown(name)}")
    fields = {f"{path}.{name}": inner for name, inner in content.items()}
    condition = _compile(fields, depth - 1, counter, is_top=False)
    for name in content:
        if meant := meant_operator(name):
            message = (
                f"field {shown(path)}: {shown(name)} names the nested field {shown(f'{path}.{name}')}, but no document "
                f"has an object at {shown(path)}. If you mean the operator, write {meant!r}"
            )
            condition = NestedField(path, message, condition)
    return condition


def _operator(path: str, operator: str, value: Any, depth: int, counter: count[int]) -> Condition:
    if operator == "$not":
        if not isinstance(value, Mapping):
            raise InvalidInputError(
                f"field {shown(path)}: $not needs operators such as {{'$gt': 3}}, got {shown(value)}"
            )
        return Not(_field(path, value, depth - 1, counter))
    if operator not in OPERATORS:
        raise InvalidInputError(
            f"field {shown(path)}: unknown operator {operator[:_SHOWN_CHARACTERS]}, "
            f"expected one of {', '.join(OPERATORS)}, $not{_did_you_mean(operator)}"
        )
    return OPERATORS[operator](path, operator, value)


def _doubting_top(name: str, operand: Any, condition: Condition) -> Condition:
    """The condition of a field, which is an error if a logical operator was meant."""
    meant = meant_operator(name, likeness=1)
    holds_filters = (
        isinstance(operand, Mapping)
        if meant == "$not"
        else is_list(operand) and len(operand) > 0 and all(isinstance(part, Mapping) for part in operand)
    )
    if meant not in _LOGICAL or not holds_filters:
        return condition
    message = f"no document has the field {shown(name)}. If you mean the operator, write {meant!r}"
    return TopField(name, message, condition)


def _did_you_mean(operator: str) -> str:
    meant = meant_operator(operator, likeness=0.5)
    return f". Did you mean {meant}?" if meant else ""


def _require_depth(depth: int) -> None:
    if depth == 0:
        raise InvalidInputError(f"the filter is nested more than {MAX_DEPTH} levels deep: flatten it")
