"""What a filter compares with: the same values as metadata, by the same rules, and infinite numbers."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.filters.fields import scalar
from muvera_core.filters.moments import moment
from muvera_core.metadata import normalize_value
from muvera_core.validation import shown


class Operand(NamedTuple):
    """A single value to compare with.

    Attributes:
        kind: its kind, as in the table of fields.
        value: the value as SQLite stores it.
        moment: the moment of a date object; None for strings, which equal only the same string.
    """

    kind: str
    value: Any
    moment: int | None


def single(path: str, operator: str, operand: Any) -> Operand:
    """An operand that is a string, number, boolean, date or None.

    Raises:
        InvalidInputError: it is something else, or NaN.
    """
    operand = operand._value_ if isinstance(operand, Enum) else operand
    plain = _plain(path, operator, operand)
    if plain is None and operand is not None:
        raise InvalidInputError(
            f"field {shown(path)}: {operator} cannot compare with {shown(operand)} (NaN): documents have None instead"
        )
    if isinstance(plain, (list, dict)):
        raise InvalidInputError(
            f"field {shown(path)}: {operator} compares with a string, number, boolean, date or None, "
            f"got {shown(operand)}: for lists use $in or $all"
        )
    is_date = isinstance(operand, (date, np.datetime64))
    return Operand(*scalar(plain), moment(plain) if is_date else None)


def is_list(operand: Any) -> bool:
    """Whether metadata would hold the operand as a list."""
    return isinstance(operand, (list, tuple, set, frozenset)) or (isinstance(operand, np.ndarray) and operand.ndim > 0)


def plain_list(path: str, operator: str, operand: Any) -> list[Any]:
    """A list of any values, as metadata holds it."""
    plain: list[Any] = _normal(path, operator, operand)
    return plain


def elements(operator: str, operand: Any, path: str | None = None) -> list[Any]:
    """The elements of a list, as they are."""
    if not is_list(operand):
        where = "" if path is None else f"field {shown(path)}: "
        raise InvalidInputError(f"{where}{operator} needs a list, got {shown(operand)}")
    return list(operand)


def text(path: str, operator: str, operand: Any) -> str:
    """A string, or what metadata holds as a string."""
    plain = single(path, operator, operand)
    if plain.kind != "string":
        raise InvalidInputError(f"field {shown(path)}: {operator} needs a string, got {shown(operand)}")
    return str(plain.value)


def boolean(path: str, operator: str, operand: Any) -> bool:
    """True or False."""
    if not isinstance(operand, (bool, np.bool_)):
        raise InvalidInputError(f"field {shown(path)}: {operator} needs True or False, got {shown(operand)}")
    return bool(operand)


def _normal(path: str, operator: str, operand: Any) -> Any:
    try:
        return normalize_value("it", operand)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"field {shown(path)}: {operator} cannot compare with {shown(operand)}: {error}"
        ) from None


def _plain(path: str, operator: str, operand: Any) -> Any:
    """A single operand with JSON's own types, or a number that JSON lacks: an infinite or a very large one."""
    if isinstance(operand, int) and not isinstance(operand, bool):
        return int.__int__(operand)
    if isinstance(operand, (float, np.floating)) and math.isinf(operand):
        return float(operand)
    if isinstance(operand, Decimal) and operand.is_infinite():
        return float(operand)
    return _normal(path, operator, operand)
