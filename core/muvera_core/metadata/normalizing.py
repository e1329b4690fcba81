"""Metadata of lists, dictionaries and what stands for them, as JSON holds it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.metadata.scalars import Unstorable, to_scalar, to_text
from muvera_core.validation import require_length, require_sequence, shown

# Levels of nested lists and dictionaries in a document's metadata, the metadata itself included. Nobody needs more, and
# the limit ends every recursion through metadata.
MAX_METADATA_DEPTH = 32
# Values in one document's metadata. A few lines of Python can refer to one list so often that its copies fill any disk.
MAX_METADATA_VALUES = 1 << 20
_INT64 = 2**63


def normalize_metadata(metadata: Mapping[Any, Any], name: str = "metadata") -> dict[str, Any]:
    """Copy metadata with JSON's own types only. The copy equals itself, also after it was stored as JSON.

    A value becomes:

    - a datetime, date or time: its ISO 8601 text, with UTC's offset ``+00:00`` if it has a time zone
    - a path, a UUID: its text; bytes: their text if they are UTF-8, else base64
    - a member of an enumeration: its value
    - a tuple or a NumPy array: a list; a set: a sorted list
    - a NumPy scalar: a number, boolean or date; a Decimal: an int if it is whole, else a float
    - NaN, ``pandas.NA`` and ``pandas.NaT``: None
    - a half of a surrogate pair in a string: U+FFFD

    A key that is not a string becomes the text of such a value: 1 becomes ``"1"``, True ``"true"``, None ``"null"``.

    Args:
        metadata: any mapping.
        name: what to call it in error messages.

    Raises:
        InvalidInputError: there is no rule for a value, such as an object or infinity; two keys become the same text;
            or the metadata is too deep or too large. The message names the value's place.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidInputError(f"{name} must be a mapping such as a dictionary, got {type(metadata).__name__}")
    normal: dict[str, Any] = normalize_value(name, metadata)
    return normal


def normalize_value(name: str, value: object) -> Any:
    """Copy a value with JSON's own types only, by the rules of ``normalize_metadata``, which lists the errors, too."""
    try:
        return _Normalizer(name).value(value, 0)
    except Unstorable as error:
        place = name + "".join(f"[{shown(step)}]" for step in reversed(error.steps))
        raise InvalidInputError(f"{place} {error.problem}") from None


def require_metadatas(metadatas: Sequence[Mapping[str, Any] | None] | None, n: int) -> list[str]:
    """``n`` metadata objects as JSON text; empty ones if ``metadatas`` is None.

    Raises:
        InvalidInputError: there are more or fewer, or one is invalid.
    """
    if metadatas is None:
        return ["{}"] * n
    require_length("metadatas", require_sequence("metadatas", metadatas), n)
    return [_to_json(f"metadatas[{i}]", metadata) for i, metadata in enumerate(metadatas)]


def _to_json(name: str, metadata: Mapping[str, Any] | None) -> str:
    if metadata is None:
        return "{}"
    return metadata_as_text(normalize_metadata(metadata, name))


def metadata_as_text(metadata: Mapping[str, Any]) -> str:
    """Normal metadata as the JSON text that is stored."""
    return json.dumps(metadata, allow_nan=False, ensure_ascii=False)


class _Normalizer:
    """Copies one value, and counts the values inside it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = MAX_METADATA_VALUES

    def value(self, value: object, depth: int) -> Any:
        """The copy of a value that is ``depth`` levels deep."""
        kind = type(value)  # most values have exactly these types, which take the shortest way
        if kind is str:
            return value if value.isascii() else to_text(value)  # type: ignore[attr-defined, arg-type]
        if value is None or kind is bool:
            return value
        if kind is int and -_INT64 <= value < _INT64:  # type: ignore[operator]
            return value
        if kind is float and math.isfinite(value):  # type: ignore[arg-type]
            return value
        if kind is list:
            return self._list(value, depth)  # type: ignore[arg-type]
        if kind is dict:
            return self._dictionary(value, depth)  # type: ignore[arg-type]
        return self._other(value, depth)

    def _other(self, value: object, depth: int) -> Any:
        try:
            if isinstance(value, Enum):
                return self.value(value._value_, self._enter(depth, 1))
            if isinstance(value, Mapping):
                return self._dictionary(dict(value), depth)
            if isinstance(value, (list, tuple)):
                return self._list(list(value), depth)
            if isinstance(value, (set, frozenset)):
                return sorted(self._list(list(value), depth), key=_rank)
            if isinstance(value, np.ndarray):
                return self._array(value, depth)
            return to_scalar(value)
        except (Unstorable, InvalidInputError):
            raise
        except Exception as error:  # a foreign class can raise anything
            raise Unstorable(f"cannot be read: {type(error).__name__}: {shown(str(error))}") from error

    def _list(self, values: list[Any], depth: int) -> list[Any]:
        depth = self._enter(depth, len(values))
        copy: list[Any] = []
        try:
            for value in values:
                copy.append(self.value(value, depth))  # noqa: PERF401
        except Unstorable as error:
            error.steps.append(len(copy))
            raise
        return copy

    def _dictionary(self, content: dict[Any, Any], depth: int) -> dict[str, Any]:
        depth = self._enter(depth, len(content))
        copy: dict[str, Any] = {}
        for key, value in content.items():
            name = key if type(key) is str and key.isascii() else _key(key)
            try:
                copy[name] = self.value(value, depth)
            except Unstorable as error:
                error.steps.append(key)
                raise
        if len(copy) != len(content):
            _refuse_equal_keys(content)
        return copy

    def _array(self, values: np.ndarray[Any, Any], depth: int) -> Any:
        self._require_room(values.size)
        # As Python objects, dates in nanoseconds would be plain numbers.
        elements = (list(values) if values.ndim else values[()]) if values.dtype.kind in "mM" else values.tolist()
        return self.value(elements, depth)

    def _enter(self, depth: int, n_values: int) -> int:
        """Go one level deeper, to ``n_values`` values."""
        if depth >= MAX_METADATA_DEPTH:
            raise InvalidInputError(
                f"{self._name} is nested more than {MAX_METADATA_DEPTH} levels deep, or contains itself: flatten it"
            )
        self._require_room(n_values)
        self._left -= n_values
        return depth + 1

    def _require_room(self, n_values: int) -> None:
        if n_values > self._left:
            raise InvalidInputError(
                f"{self._name} holds more than {MAX_METADATA_VALUES} values: store less with one document"
            )


def _key(key: object) -> str:
    try:
        plain = to_scalar(key._value_ if isinstance(key, Enum) else key)
    except Exception as error:
        problem = error.problem if isinstance(error, Unstorable) else f"cannot be read: {type(error).__name__}"
        raise Unstorable(f"has a key that {problem}") from None
    return plain if isinstance(plain, str) else json.dumps(plain)


def _refuse_equal_keys(content: dict[Any, Any]) -> None:
    seen: dict[str, object] = {}
    for key in content:
        name = _key(key)
        if name in seen:
            raise Unstorable(f"has the keys {shown(seen[name])} and {shown(key)}, which are equal as text: rename one")
        seen[name] = key


def _rank(value: Any) -> tuple[Any, ...]:
    """Orders the elements of a set: None, booleans, numbers, strings, and then lists and dictionaries by their JSON."""
    if value is None or isinstance(value, bool):
        return 0, str(value)
    if isinstance(value, (int, float)):
        return 1, value, str(value)
    return (2, value) if isinstance(value, str) else (3, json.dumps(value, sort_keys=True))
