"""Checks of what users and encoders hand over. Each error says what was got and what was expected."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.errors import DimensionMismatchError, EncoderError, InvalidInputError
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings


def require_count(name: str, value: object, minimum: int = 1) -> int:
    """A whole number of at least ``minimum``; NumPy's integers will do."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise InvalidInputError(f"{name} must be a whole number of at least {minimum}, got {value!r}")
    return int(value)


def require_unicode(name: str, value: object) -> str:
    """A string that can be written as UTF-8."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be a string, got {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} holds half of a surrogate pair at character {error.start}, which isn't Unicode text: "
            "decode it with errors='replace'"
        ) from None
    return value


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


def require_texts(name: str, values: object) -> list[str]:
    """A sequence of texts, not a single one."""
    return [require_text(f"{name}[{i}]", value) for i, value in enumerate(require_sequence(name, values))]


def require_ids(ids: Sequence[str] | None, n: int) -> list[str]:
    """``n`` distinct ids; random ones where ``ids`` is None."""
    if ids is None:
        return [uuid.uuid4().hex for _ in range(n)]
    checked = require_texts("ids", ids)
    require_length("ids", checked, n)
    if len(set(checked)) < n:
        double = next(id for i, id in enumerate(checked) if id in checked[:i])
        raise InvalidInputError(f"id {double!r} occurs more than once in this call: ids must be distinct")
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
    if embeddings.dimension != dimension:
        raise DimensionMismatchError(
            f"got {embeddings.dimension}-d query vectors, but the index holds {dimension}-d ones: "
            "encode the query with the index's model"
        )
    return embeddings[0]


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


def _to_json(name: str, metadata: Mapping[str, Any] | None) -> str:
    if metadata is None:
        return "{}"
    if not isinstance(metadata, Mapping):
        raise InvalidInputError(f"{name} must be a mapping, got {type(metadata).__name__}")
    advice = "use only strings, finite numbers, booleans, None, lists and dictionaries with string keys"
    try:
        encoded = json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False)
        encoded.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} can't be stored as JSON ({error}): {advice}") from None
    if json.loads(encoded) != metadata:
        raise InvalidInputError(
            f"{name} would come back from JSON as something else (keys or tuples changed): {advice}"
        )
    return encoded
