"""Arguments of calls as JSON, and back. Arguments of one name have one form in all calls.

The client checks what it has to convert anyway, by the rules of the index itself. All other arguments are checked at
the service.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.filters import compile_filter
from muvera_core.images import ImageInput, UnreadableImageError, require_pillow
from muvera_core.lexical import LexicalConfig
from muvera_core.metadata import normalize_metadata, normalize_value
from muvera_core.search import QueryReduction
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings
from muvera_core.validation import require_iterable, require_sequence, shown
from muvera_core.wire.arrays import (
    array_to_json,
    bytes_from_json,
    bytes_to_json,
    embeddings_from_json,
    embeddings_to_json,
    floats_from_json,
    image_to_json,
)
from muvera_core.wire.calls import LOCAL

# How a filter on the wire holds what JSON has no value for.
_DATE, _NUMBER = "$date", "$number"
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def argument_to_json(name: str, value: Any) -> Any:
    """An argument as JSON.

    Raises:
        InvalidInputError: it cannot be sent.
    """
    if value is None:
        return None  # whatever the argument
    return _TO_JSON.get(name, _plain_to_json)(name, value)


def argument_from_json(name: str, content: Any) -> Any:
    """The argument that ``argument_to_json`` made JSON of.

    Raises:
        InvalidInputError: it cannot be read.
    """
    if content is None or name not in _FROM_JSON:
        return content
    return _FROM_JSON[name](name, content)


def without_local(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are sent. Raises InvalidInputError for a clock, which nobody would wind."""
    if arguments.get("clock") is not None:
        raise InvalidInputError("clock cannot be sent to a service: leave it out, and time the call itself")
    return {name: value for name, value in arguments.items() if name not in LOCAL}


def image_bytes(image: ImageInput) -> bytes:
    """The bytes of an image file.

    Raises:
        UnreadableImageError: the file cannot be read.
        InvalidInputError: it is neither a path, nor bytes, nor an image of Pillow.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).expanduser().read_bytes()
        except FileNotFoundError:
            raise UnreadableImageError("there is no such file") from None
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnreadableImageError(f"it cannot be read ({reason})") from error
    if not isinstance(image, require_pillow().Image):
        raise InvalidInputError(
            f"an image must be a path, the bytes of an image file, or a PIL.Image.Image, got {type(image).__name__}"
        )
    return bytes_from_json("image", image_to_json(image))


def _plain_to_json(name: str, value: Any) -> Any:
    """Numbers, strings, None, and lists of them."""
    if value is None:
        return None
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer) and not isinstance(value, np.timedelta64):
        return int(value)
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            raise InvalidInputError(f"{name} must be a finite number, got {value}")
        return float(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | memoryview | Mapping):
        return [_plain_to_json(name, each) for each in require_iterable(name, value)]
    raise InvalidInputError(f"{name} cannot be {shown(value)}, of type {type(value).__name__}")


def _filter_to_json(name: str, filter: Any) -> Any:
    compile_filter(filter)
    return _condition_to_json(filter)


def _condition_to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _condition_to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset) or (isinstance(value, np.ndarray) and value.ndim):
        return [_condition_to_json(each) for each in value]
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return {_NUMBER: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    plain = normalize_value("the filter", value)
    # Unlike its text, a date is compared as a moment.
    return {_DATE: plain} if isinstance(value, date | np.datetime64) and plain is not None else plain


def _filter_from_json(name: str, content: Any) -> Any:
    # The filter language itself limits the depth, but reads it only after this.
    try:
        return _condition_from_json(content)
    except RecursionError:
        raise InvalidInputError("the filter is nested too deep: flatten it") from None


def _condition_from_json(content: Any) -> Any:
    if isinstance(content, list):
        return [_condition_from_json(each) for each in content]
    if not isinstance(content, dict):
        return content
    if content.keys() == {_NUMBER} and content[_NUMBER] in _NOT_FINITE:
        return float(content[_NUMBER])
    if content.keys() == {_DATE} and isinstance(content[_DATE], str):
        return _date(content[_DATE])
    return {key: _condition_from_json(each) for key, each in content.items()}


def _date(text: str) -> date | np.datetime64:
    for parse in (date.fromisoformat, datetime.fromisoformat, np.datetime64):
        with suppress(ValueError):
            return parse(text)
    raise InvalidInputError(f"the filter's {_DATE} must be a date or a time in ISO 8601's form, got {shown(text)}")


def _metadatas_to_json(name: str, metadatas: Any) -> Any:
    if isinstance(metadatas, Mapping):
        return normalize_metadata(metadatas, name)
    return [
        None if each is None else normalize_metadata(each, f"{name}[{i}]")
        for i, each in enumerate(require_iterable(name, metadatas))
    ]


def _relevant_to_json(name: str, relevant: Any) -> Any:
    return [_judgement_to_json(each) for each in require_sequence(name, relevant)]


def _judgement_to_json(judged: Any) -> Any:
    if isinstance(judged, Mapping):
        return {_plain_to_json("an id", id): _plain_to_json("a grade", grade) for id, grade in judged.items()}
    if isinstance(judged, str) or not isinstance(judged, Collection):
        raise InvalidInputError(f"relevant must hold a collection of ids for each query, got {shown(judged)}")
    return [_plain_to_json("an id", id) for id in judged]


def _relevant_from_json(name: str, content: Any) -> Any:
    for i, each in enumerate(require_sequence(name, content)):
        is_list = isinstance(each, list) and all(isinstance(id, str) for id in each)
        if not is_list and not isinstance(each, dict):
            raise InvalidInputError(f"{name}[{i}] must be a list of ids, or grades by id, got {shown(each)}")
    return content


def _query_tokens_to_json(name: str, tokens: Any) -> Any:
    """Of one query or of several."""
    if isinstance(tokens, TokenEmbeddings):
        return embeddings_to_json(tokens)
    if isinstance(tokens, list | tuple) and any(_is_of_one_query(each) for each in tokens):
        parts = [each if isinstance(each, TokenEmbeddings) else TokenEmbeddings.from_list([each]) for each in tokens]
        return [array_to_json(_of_one_query(part)) for part in parts]
    if isinstance(tokens, list | tuple) and not tokens:
        return []
    return array_to_json(TokenEmbeddings.from_list([tokens]).vectors)


def _is_of_one_query(tokens: Any) -> bool:
    """Whether it is the token vectors of a query, rather than one vector."""
    if isinstance(tokens, TokenEmbeddings):
        return True
    if isinstance(tokens, list | tuple):
        return any(not np.isscalar(row) for row in tokens)
    return getattr(tokens, "ndim", 0) > 1


def _of_one_query(embeddings: TokenEmbeddings) -> FloatArray:
    if len(embeddings) != 1:
        raise InvalidInputError(f"expected the token embeddings of one query, got those of {len(embeddings)} texts")
    return embeddings.vectors


def _query_tokens_from_json(name: str, content: Any) -> Any:
    if isinstance(content, dict) and "offsets" in content:
        return embeddings_from_json(name, content)
    if not isinstance(content, list):
        return floats_from_json(name, content)
    if any(isinstance(each, dict) for each in content) or any(
        isinstance(row, list) for each in content if isinstance(each, list) for row in each
    ):
        return [floats_from_json(f"{name}[{i}]", each) for i, each in enumerate(content)]
    return floats_from_json(name, content) if content else []


def _embeddings_to_json(name: str, embeddings: Any) -> Any:
    if not isinstance(embeddings, TokenEmbeddings):
        embeddings = TokenEmbeddings.from_list(embeddings)
    return embeddings_to_json(embeddings)


def _vector_to_json(name: str, vector: Any) -> Any:
    vectors = TokenEmbeddings.from_list([np.atleast_2d(vector)]).vectors
    return array_to_json(vectors[0] if len(vectors) == 1 else vectors)


def _settings_to_json(name: str, value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return _plain_to_json(name, value)


def _settings_from(kind: Callable[..., Any]) -> Callable[[str, Any], Any]:
    def from_json(name: str, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        try:
            return kind(**content)
        except TypeError as error:
            raise InvalidInputError(f"{name} has other fields than a {kind.__name__}: {error}") from None

    return from_json


def _images_to_json(name: str, images: Any) -> Any:
    return [bytes_to_json(image_bytes(image)) for image in require_iterable(name, images)]


def _images_from_json(name: str, content: Any) -> Any:
    if not isinstance(content, list):
        raise InvalidInputError(f"{name} must be a list of image files in base64, got {shown(content)}")
    return [bytes_from_json(f"{name}[{i}]", each) for i, each in enumerate(content)]


_TO_JSON: dict[str, Callable[[str, Any], Any]] = {
    "filter": _filter_to_json,
    "metadatas": _metadatas_to_json,
    "note": lambda name, note: normalize_metadata(note, name) if isinstance(note, Mapping) else note,
    "relevant": _relevant_to_json,
    "query_tokens": _query_tokens_to_json,
    "token_embeddings": _embeddings_to_json,
    "vector": _vector_to_json,
    "query_reduction": _settings_to_json,
    "lexical": _settings_to_json,
    "images": _images_to_json,
    "image": lambda name, image: bytes_to_json(image_bytes(image)),
}
_FROM_JSON: dict[str, Callable[[str, Any], Any]] = {
    "filter": _filter_from_json,
    "query_tokens": _query_tokens_from_json,
    "relevant": _relevant_from_json,
    "token_embeddings": embeddings_from_json,
    "vector": floats_from_json,
    "query_reduction": _settings_from(QueryReduction),
    "lexical": _settings_from(LexicalConfig),
    "images": _images_from_json,
    "image": bytes_from_json,
}
