"""Single values of metadata, as JSON holds them."""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np

from muvera_core.validation import shown

Scalar = str | int | float | bool | None

_MOST_DIGITS = sys.float_info.max_10_exp


class Unstorable(Exception):  # noqa: N818
    """A part of metadata that JSON cannot hold.

    Attributes:
        problem: what is wrong with the part, and what to do.
        steps: the indices and keys that lead to the part, the last one first.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.steps: list[object] = []


def to_scalar(value: object) -> Scalar:
    """A single value as JSON holds it. Raises Unstorable if there is no rule for the value."""
    for kinds, convert in _RULES:
        if isinstance(value, kinds):
            return convert(value)
    if value is None or _is_pandas_na(value):
        return None
    raise Unstorable(
        f"cannot be stored as JSON: got a value of type {type(value).__name__} ({shown(value)}). "
        "Convert it to a string, a number, a list or a dictionary"
    )


def to_text(value: str) -> str:
    """A plain string, with U+FFFD in place of each half of a surrogate pair, which is not Unicode text."""
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _to_int(value: int) -> int:
    plain = int.__int__(value)
    if abs(plain) > sys.float_info.max:
        raise Unstorable("is a number that no float can hold: store it as a string")
    return plain


def _to_float(value: float | np.floating[Any]) -> float | None:
    plain = float.__float__(value) if isinstance(value, float) else float(value)
    if math.isinf(plain):
        raise Unstorable("is infinite, which JSON cannot hold: use None or a finite number")
    return None if math.isnan(plain) else plain


def _from_decimal(value: Decimal) -> int | float | None:
    if value.is_nan():
        return None
    if not value:
        return 0
    if value.is_infinite() or value.adjusted() > _MOST_DIGITS:  # it would take long to write more digits out
        return _to_float(math.copysign(math.inf, value))
    return _to_int(int(value)) if value == value.to_integral_value() else _to_float(float(value))


def _from_bytes(value: bytes | bytearray | memoryview) -> str:
    content = bytes(value)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(content).decode("ascii")


def _from_datetime(value: datetime) -> str | None:
    if value != value:  # pandas.NaT is a datetime, and equals nothing
        return None
    # Built anew, because a subclass may write itself in another way: pandas with nanoseconds.
    moment = datetime(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.tzinfo,
        fold=value.fold,
    )
    if moment.utcoffset() is not None:
        with suppress(OverflowError):  # at the edges of the years 1 and 9999, where the offset stays
            moment = moment.astimezone(UTC)
    return moment.isoformat()


def _from_datetime64(value: np.datetime64) -> str | None:
    if np.isnat(value):
        return None
    if not 1 <= int(value.astype("datetime64[Y]").astype(np.int64)) + 1970 <= 9999:
        return str(value)  # Python has no such date
    if np.datetime_data(value.dtype)[0] in ("Y", "M", "W", "D"):
        return str(value.astype("datetime64[D]"))
    return _from_datetime(value.astype("datetime64[us]").item())


def _refuse_span(value: timedelta | np.timedelta64) -> Scalar:
    raise Unstorable(f"is a span of time ({shown(value)}), which JSON cannot hold: store its seconds, as a number")


def _is_pandas_na(value: object) -> bool:
    return type(value).__name__ == "NAType" and type(value).__module__.startswith("pandas.")


# The first rule that fits is applied: a bool is an int, a datetime is a date, and a timedelta64 is an integer of NumPy.
_RULES: tuple[tuple[type | tuple[type, ...], Callable[[Any], Scalar]], ...] = (
    (str, to_text),
    ((bool, np.bool_), bool),
    (int, _to_int),
    ((float, np.floating), _to_float),
    (datetime, _from_datetime),
    (date, date.isoformat),
    (time, time.isoformat),
    ((PurePath, UUID), lambda value: to_text(str(value))),
    (Decimal, _from_decimal),
    ((bytes, bytearray, memoryview), _from_bytes),
    (np.datetime64, _from_datetime64),
    ((timedelta, np.timedelta64), _refuse_span),
    (np.integer, int),
)
