"""Flattens metadata into fields: a path, a kind and a value each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

Field = tuple[str, str, Any]


def flatten(metadata: Mapping[str, Any]) -> set[Field]:
    """All fields of a document's metadata, as (path, kind, value)."""
    return {field for name, value in metadata.items() for field in _fields(name, value)}


def _fields(path: str, value: Any) -> Iterator[Field]:
    if isinstance(value, Mapping):
        yield path, "object", len(value)
        for name, inner in value.items():
            yield from _fields(f"{path}.{name}", inner)
    elif isinstance(value, list):
        yield path, "list", len(value)
        yield path, "items", list_as_text(value)
        for element in value:
            yield from _fields(path, element)
    else:
        yield (path, *scalar(value))


def list_as_text(items: list[Any]) -> str:
    """A list as JSON text. Equal lists give the same text, since a whole float is written as an int."""

    def normal(value: Any) -> Any:
        if isinstance(value, list):
            return [normal(element) for element in value]
        if isinstance(value, Mapping):
            return {name: normal(inner) for name, inner in value.items()}
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return json.dumps(normal(items), sort_keys=True, ensure_ascii=False)


def scalar(value: Any) -> tuple[str, Any]:
    """A value's kind, and the value as SQLite stores it. Integers beyond 64 bits become floats, possibly infinity."""
    if value is None:
        return "null", 0
    if isinstance(value, bool):
        return "boolean", int(value)
    if isinstance(value, int):
        if _INT64_MIN <= value <= _INT64_MAX:
            return "number", value
        try:
            return "number", float(value)
        except OverflowError:  # only in a filter: metadata holds no such numbers
            return "number", float("inf") if value > 0 else float("-inf")
    return ("number", value) if isinstance(value, float) else ("string", value)
