"""Checks of what users and encoders pass in.

A function that returns something returns the checked value. If the value is invalid, every function raises
InvalidInputError, or EncoderError if an encoder returned it; the message says what was got and what was expected.
"""

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

# Levels of nested lists and dictionaries in a document's metadata, the metadata itself included. Nobody needs more, and
# the limit ends every recursion through metadata.
MAX_METADATA_DEPTH = 32
# Values in one document's metadata. A few lines of Python can refer to one list so often that its copies fill any disk.
MAX_METADATA_VALUES = 1 << 20
_JSON_ADVICE = (
    "Use only strings, numbers that a float can hold, booleans, None, lists and dictionaries with string keys"
)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


def shown(value: object) -> str:
    """Format a value for an error message: short, whatever the value is and whatever its ``repr`` does."""
    try:
        return _SHORT.repr(value)
    except Exception:  # the value's own code fails, or an int has too many digits
        return f"<{type(value).__name__}>"


def counted(n: int, noun: str) -> str:
    """A number with its noun, such as "1 document" or "2 documents"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def require_count(name: str, value: object, minimum: int = 1) -> int:
    """A whole number of at least ``minimum``. NumPy integers are accepted."""
    # In NumPy a timedelta64 is an integer, too.
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
    """A string that UTF-8 can encode. A subclass is converted to a plain ``str``."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be a string, got {type(value).__name__}")
    text = str.__str__(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} holds half of a surrogate pair at character {error.start}, which is not Unicode text: "
            "decode it with errors='replace'"
        ) from None
    return text


def require_text(name: str, value: object) -> str:
    """A string that UTF-8 can encode and that is not blank."""
    text = require_unicode(name, value)
    if not text.strip():
        raise InvalidInputError(f"{name} is empty, so nothing can match it: leave it out")
    return text


def require_sequence(name: str, values: object) -> Sequence[Any]:
    """A sequence that is not a string."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise InvalidInputError(f"{name} must be a list, got {type(values).__name__}: for a single item give [item]")
    return values


def require_path(name: str, value: object) -> Path:
    """An absolute path that the file system can hold, from a string or ``os.PathLike``."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path:
        raise InvalidInputError(f"{name} must be a path, as a string or pathlib.Path, got {shown(value)}")
    try:
        impossible = b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        impossible = True
    if impossible:
        raise InvalidInputError(f"{name} has characters that a file name cannot have: got {shown(path)}")
    return Path(path).absolute()


def require_texts(name: str, values: object) -> list[str]:
    """A sequence of texts that are not blank, as a list."""
    return [require_text(f"{name}[{i}]", value) for i, value in enumerate(require_sequence(name, values))]


def require_ids(ids: Sequence[str] | None, n: int) -> list[str]:
    """``n`` distinct ids; random ones if ``ids`` is None."""
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
    """``n`` metadata objects as JSON text; empty ones if ``metadatas`` is None."""
    if metadatas is None:
        return ["{}"] * n
    require_length("metadatas", require_sequence("metadatas", metadatas), n)
    return [_to_json(f"metadatas[{i}]", metadata) for i, metadata in enumerate(metadatas)]


def require_length(name: str, values: Sequence[object], n: int, owner: str = "document") -> None:
    """Check that there are ``n`` values: one per ``owner``."""
    if len(values) != n:
        raise InvalidInputError(f"{name} has length {len(values)}, expected {n}: give one per {owner}, or none at all")


def require_query_tokens(query: npt.ArrayLike | TokenEmbeddings, dimension: int) -> FloatArray:
    """The token vectors of one query, shape (tokens, dimension)."""
    embeddings = query if isinstance(query, TokenEmbeddings) else TokenEmbeddings.from_list([query])
    if len(embeddings) != 1:
        raise InvalidInputError(f"expected the token embeddings of one query, got those of {len(embeddings)} texts")
    return _require_query_dimension(embeddings, dimension)[0]


def require_queries(queries: object, dimension: int) -> list[FloatArray]:
    """The token vectors of several queries, shape (tokens, dimension) each."""
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
    """The token embeddings that an encoder returned for ``n`` texts. Raises EncoderError if they are invalid."""
    if not isinstance(embeddings, TokenEmbeddings):
        raise EncoderError(f"the encoder returned {type(embeddings).__name__}, expected TokenEmbeddings")
    if len(embeddings) != n or embeddings.dimension != dimension:
        raise EncoderError(
            f"the encoder returned {embeddings.dimension}-d vectors of {counted(len(embeddings), 'text')}, "
            f"expected {dimension}-d vectors of {counted(n, 'text')}: correct the encoder"
        )
    return embeddings


def require_mapping(name: str, value: object) -> dict[Any, Any]:
    """A copy of a mapping, as a dictionary."""
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name} must be a mapping, got {type(value).__name__}")
    try:
        return dict(value)
    except Exception as error:  # a foreign mapping class can raise anything
        raise InvalidInputError(f"{name} cannot be read: {type(error).__name__}: {shown(str(error))}") from error


def require_json(name: str, value: object) -> Any:
    """Copy a value with JSON's own types only. The copy equals the value, also after it was stored as JSON.

    Raises:
        InvalidInputError: there is no such copy. The message names the part of the value that JSON cannot hold.
    """
    return _json_value(name, (), value, count(1))


def _json_value(name: str, path: tuple[object, ...], value: object, counter: count[int]) -> Any:
    if next(counter) > MAX_METADATA_VALUES:
        raise InvalidInputError(f"{name} holds more than {MAX_METADATA_VALUES} values: store less with one document")
    if isinstance(value, (dict, list)):
        if len(path) >= MAX_METADATA_DEPTH:
            raise InvalidInputError(
                f"{name} is nested more than {MAX_METADATA_DEPTH} levels deep, or contains itself: flatten it"
            )
        if isinstance(value, list):
            return [_json_value(name, (*path, i), inner, counter) for i, inner in enumerate(value)]
        content = require_mapping(_location(name, path), value).items()
        return {_json_key(name, path, key): _json_value(name, (*path, key), inner, counter) for key, inner in content}
    return _json_scalar(name, path, value)


def _json_key(name: str, path: tuple[object, ...], key: object) -> str:
    if not isinstance(key, str):
        raise InvalidInputError(
            f"{_location(name, path)} would change when stored as JSON: got the key {shown(key)}. {_JSON_ADVICE}"
        )
    return _json_text(f"a key of {_location(name, path)}", key)


def _json_scalar(name: str, path: tuple[object, ...], value: object) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _json_text(_location(name, path), value)
    # Subclasses become plain numbers: NumPy's float64 a float, a member of an IntEnum an int.
    if isinstance(value, float) and math.isfinite(value):
        return float.__float__(value)
    if isinstance(value, int) and abs(plain := int.__int__(value)) <= sys.float_info.max:
        return plain
    problem = "would change when stored as JSON" if isinstance(value, tuple) else "cannot be stored as JSON"
    raise InvalidInputError(f"{_location(name, path)} {problem}: got {shown(value)}. {_JSON_ADVICE}")


def _json_text(place: str, value: str) -> str:
    try:
        return require_unicode(place, value)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}. JSON cannot hold it") from None


def _location(name: str, path: tuple[object, ...]) -> str:
    return name + "".join(f"[{shown(step)}]" for step in path)


def _to_json(name: str, metadata: Mapping[str, Any] | None) -> str:
    if metadata is None:
        return "{}"
    return json.dumps(require_json(name, require_mapping(name, metadata)), allow_nan=False, ensure_ascii=False)
