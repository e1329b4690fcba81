"""Checks of what users and encoders hand over. Each error says what was got and what was expected."""

from __future__ import annotations

import json
import math
import os
import reprlib
import sys
import uuid
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.errors import DimensionMismatchError, EncoderError, InvalidInputError
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings

# How deep lists and dictionaries may be nested in a document's metadata, the metadata itself included. Far more than
# anybody writes by hand, and few enough that whatever walks through metadata ends.
MAX_METADATA_DEPTH = 32
# Values in one document's metadata. A few lines of Python can refer to one list so often that nobody could store it.
MAX_METADATA_VALUES = 1 << 20
_JSON_ADVICE = (
    "Use only strings, numbers that a float can hold, booleans, None, lists and dictionaries with string keys"
)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


def shown(value: object) -> str:
    """A value as an error message shows it: short, whatever it is and whatever its own ``repr`` does."""
    try:
        return _SHORT.repr(value)
    except Exception:  # from the value's own code, or from an int with too many digits
        return f"<{type(value).__name__}>"


def require_count(name: str, value: object, minimum: int = 1) -> int:
    """A whole number of at least ``minimum``; NumPy's integers will do."""
    # NumPy counts time spans among its integers.
    if not isinstance(value, (int, np.integer)) or isinstance(value, (bool, np.timedelta64)):
        raise InvalidInputError(f"{name} must be a whole number, got {shown(value)}")
    if value < minimum:
        raise InvalidInputError(f"{name} must be at least {minimum}, got {shown(value)}")
    return int(value)


def require_share(name: str, value: object) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)) or not 0 <= value <= 1:
        raise InvalidInputError(f"{name} must be a number between 0 and 1, got {shown(value)}")
    return float(value)


def require_unicode(name: str, value: object) -> str:
    """A string that can be written as UTF-8, as a plain ``str`` where it was of a subclass."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be a string, got {type(value).__name__}")
    text = str.__str__(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} holds half of a surrogate pair at character {error.start}, which isn't Unicode text: "
            "decode it with errors='replace'"
        ) from None
    return text


def require_text(name: str, value: object) -> str:
    """A string with something in it that can be written as UTF-8."""
    text = require_unicode(name, value)
    if not text.strip():
        raise InvalidInputError(f"{name} is empty: there is nothing to match in it, leave it out")
    return text


def require_sequence(name: str, values: object) -> Sequence[Any]:
    """A sequence of items, not a single string."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise InvalidInputError(f"{name} must be a list, got {type(values).__name__}: for a single item give [item]")
    return values


def require_path(name: str, value: object) -> Path:
    """An absolute path, from what Python takes for one and the file system can hold."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path:
        raise InvalidInputError(f"{name} must be a path, as a string or pathlib.Path, got {shown(value)}")
    try:
        impossible = b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        impossible = True
    if impossible:
        raise InvalidInputError(f"{name} has characters that no file's name can have: got {shown(path)}")
    return Path(path).absolute()


def require_texts(name: str, values: object) -> list[str]:
    """A sequence of texts, not a single one."""
    return [require_text(f"{name}[{i}]", value) for i, value in enumerate(require_sequence(name, values))]


def require_ids(ids: Sequence[str] | None, n: int) -> list[str]:
    """``n`` distinct ids; random ones where ``ids`` is None."""
    if ids is None:
        return [uuid.uuid4().hex for _ in range(n)]
    checked = require_texts("ids", ids)
    require_length("ids", checked, n)
    seen: set[str] = set()
    for id in checked:
        if id in seen:
            raise InvalidInputError(f"id {shown(id)} occurs more than once in this call: ids must be distinct")
        seen.add(id)
    return checked


def require_metadatas(metadatas: Sequence[Mapping[str, Any] | None] | None, n: int) -> list[str]:
    """``n`` metadata objects as JSON text; empty ones where ``metadatas`` is None."""
    if metadatas is None:
        return ["{}"] * n
    require_length("metadatas", require_sequence("metadatas", metadatas), n)
    return [_to_json(f"metadatas[{i}]", metadata) for i, metadata in enumerate(metadatas)]


def require_length(name: str, values: Sequence[object], n: int) -> None:
    """As many values as there are documents."""
    if len(values) != n:
        raise InvalidInputError(f"got {len(values)} {name} for {n} documents: give one for each, or none at all")


def require_query_tokens(query: npt.ArrayLike | TokenEmbeddings, dimension: int) -> FloatArray:
    """The token vectors of one query, shape (tokens, dimension)."""
    embeddings = query if isinstance(query, TokenEmbeddings) else TokenEmbeddings.from_list([query])
    if len(embeddings) != 1:
        raise InvalidInputError(f"expected the token embeddings of one query, got those of {len(embeddings)} texts")
    return _require_query_dimension(embeddings, dimension)[0]


def require_queries(queries: object, dimension: int) -> list[FloatArray]:
    """The token vectors of each of several queries, shape (tokens, dimension)."""
    if isinstance(queries, TokenEmbeddings):
        return list(_require_query_dimension(queries, dimension))
    return [require_query_tokens(query, dimension) for query in require_sequence("query_tokens", queries)]


def _require_query_dimension(embeddings: TokenEmbeddings, dimension: int) -> TokenEmbeddings:
    if len(embeddings) and embeddings.dimension != dimension:
        raise DimensionMismatchError(
            f"got {embeddings.dimension}-d query vectors, but the index holds {dimension}-d ones: "
            "encode the query with the index's model"
        )
    return embeddings


def require_encoded(embeddings: TokenEmbeddings, n: int, dimension: int) -> TokenEmbeddings:
    """What an encoder returned, if it is what the protocol promises. Raises EncoderError otherwise."""
    if not isinstance(embeddings, TokenEmbeddings):
        raise EncoderError(f"the encoder returned {type(embeddings).__name__}, expected TokenEmbeddings")
    if len(embeddings) != n or embeddings.dimension != dimension:
        raise EncoderError(
            f"the encoder returned {len(embeddings)} texts of {embeddings.dimension}-d vectors, "
            f"expected {n} of {dimension}-d"
        )
    return embeddings


def require_mapping(name: str, value: object) -> dict[Any, Any]:
    """A mapping's content, as a dictionary of its own."""
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name} must be a mapping, got {type(value).__name__}")
    try:
        return dict(value)
    except Exception as error:  # a mapping of somebody else's making can raise anything
        raise InvalidInputError(f"{name} can't be read: {type(error).__name__}: {shown(str(error))}") from error


def require_json(name: str, value: object) -> Any:
    """A copy of a value, in nothing but JSON's own types, that is equal to it and stays so when JSON holds it.

    Raises:
        InvalidInputError: there is no such copy. The message says where in the value the trouble is.
    """
    return _plain(name, (), value, count(1))


def _plain(name: str, path: tuple[object, ...], value: object, counter: count[int]) -> Any:
    if next(counter) > MAX_METADATA_VALUES:
        raise InvalidInputError(f"{name} holds more than {MAX_METADATA_VALUES} values: keep less with one document")
    if isinstance(value, (dict, list)):
        if len(path) >= MAX_METADATA_DEPTH:
            raise InvalidInputError(
                f"{name} is nested more than {MAX_METADATA_DEPTH} deep, or contains itself: write it flatter"
            )
        if isinstance(value, list):
            return [_plain(name, (*path, i), inner, counter) for i, inner in enumerate(value)]
        content = require_mapping(_place(name, path), value).items()
        return {_plain_key(name, path, key): _plain(name, (*path, key), inner, counter) for key, inner in content}
    return _plain_scalar(name, path, value)


def _plain_key(name: str, path: tuple[object, ...], key: object) -> str:
    if not isinstance(key, str):
        raise InvalidInputError(
            f"{_place(name, path)} would come back from JSON as something else: a key is {shown(key)}. {_JSON_ADVICE}"
        )
    return _plain_text(f"a key of {_place(name, path)}", key)


def _plain_scalar(name: str, path: tuple[object, ...], value: object) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(_place(name, path), value)
    # The members of an enumeration become what they stand for, NumPy's float64 a float.
    if isinstance(value, float) and math.isfinite(value):
        return float.__float__(value)
    if isinstance(value, int) and abs(plain := int.__int__(value)) <= sys.float_info.max:
        return plain
    trouble = "would come back from JSON as something else" if isinstance(value, tuple) else "can't be stored as JSON"
    raise InvalidInputError(f"{_place(name, path)} {trouble}: got {shown(value)}. {_JSON_ADVICE}")


def _plain_text(place: str, value: str) -> str:
    try:
        return require_unicode(place, value)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}, or JSON can't hold it") from None


def _place(name: str, path: tuple[object, ...]) -> str:
    return name + "".join(f"[{shown(step)}]" for step in path)


def _to_json(name: str, metadata: Mapping[str, Any] | None) -> str:
    if metadata is None:
        return "{}"
    return json.dumps(require_json(name, require_mapping(name, metadata)), allow_nan=False, ensure_ascii=False)
