"""Results of calls as JSON, and back, by the type hints of the calls."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from muvera_core.hits import Hit, Hits
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.wire.arrays import (
    array_to_json,
    bytes_from_json,
    bytes_to_json,
    embeddings_from_json,
    embeddings_to_json,
    floats_from_json,
    image_from_json,
    image_to_json,
    integers_from_json,
)

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Picture:
    """Stands for an image of Pillow in type hints, because Pillow need not be installed."""


class Codec(NamedTuple):
    """Turns values of one type into JSON's types, and back.

    ``from_json`` ignores what a newer version may have added. It raises KeyError, TypeError, ValueError or
    AttributeError if the content is damaged.
    """

    to_json: Callable[[Any], Any]
    from_json: Callable[[Any], Any]


@cache
def codec_of(hint: Any) -> Codec:
    """The codec for a type hint.

    Raises:
        TypeError: there is none.
    """
    if hint in _CODECS:
        return _CODECS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _AS_IT_IS
    if origin in (Union, types.UnionType):
        (inner,) = (codec_of(each) for each in arguments if each is not type(None))
        return Codec(*(_or_none(convert) for convert in inner))
    if origin is list:
        return Codec(*(_each(convert, list) for convert in codec_of(arguments[0])))
    if origin is tuple:
        return _tuple_codec(arguments)
    if origin in (dict, Mapping):
        return Codec(*(_values(convert) for convert in codec_of(arguments[1])))
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass_codec(hint)
    raise TypeError(f"values of type {hint!r} have no form in JSON")


def _hits_to_json(hits: list[Hit]) -> dict[str, Any]:
    missing = hits.missing_shards if isinstance(hits, Hits) else ()
    return {"hits": list(map(codec_of(Hit).to_json, hits)), "missing_shards": list(missing)}


def _hits_from_json(content: Any) -> Hits:
    return Hits(map(codec_of(Hit).from_json, content["hits"]), tuple(content.get("missing_shards", ())))


def _float_to_json(value: float) -> float | str:
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float_from_json(content: Any) -> float:
    return _NOT_FINITE[content] if isinstance(content, str) else float(content)


def _or_none(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _each(convert: Callable[[Any], Any], make: Callable[[Iterable[Any]], Any]) -> Callable[[Any], Any]:
    return lambda values: make(map(convert, values))


def _values(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda mapping: {key: convert(value) for key, value in mapping.items()}


def _tuple_codec(arguments: tuple[Any, ...]) -> Codec:
    if arguments[-1] is Ellipsis:
        inner = codec_of(arguments[0])
        return Codec(_each(inner.to_json, list), _each(inner.from_json, tuple))
    codecs = [codec_of(each) for each in arguments]

    def to_json(values: Iterable[Any]) -> list[Any]:
        return [codec.to_json(value) for codec, value in zip(codecs, values, strict=True)]

    def from_json(values: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(codec.from_json(value) for codec, value in zip(codecs, values, strict=True))

    return Codec(to_json, from_json)


def _dataclass_codec(kind: type[Any]) -> Codec:
    hints = get_type_hints(kind)
    codecs = [(field.name, codec_of(hints[field.name])) for field in fields(kind)]
    required = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}

    def to_json(value: Any) -> dict[str, Any]:
        return {name: codec.to_json(getattr(value, name)) for name, codec in codecs}

    def from_json(content: Any) -> Any:
        return kind(
            **{name: codec.from_json(content[name]) for name, codec in codecs if name in content or name in required}
        )

    return Codec(to_json, from_json)


def _same(value: Any) -> Any:
    return value


_AS_IT_IS = Codec(_same, _same)
_CODECS: dict[Any, Codec] = {
    Any: _AS_IT_IS,
    type(None): _AS_IT_IS,
    str: _AS_IT_IS,
    bool: Codec(bool, _same),
    int: Codec(int, _same),
    float: Codec(_float_to_json, _float_from_json),
    bytes: Codec(bytes_to_json, lambda content: bytes_from_json("the result", content)),
    Picture: Codec(image_to_json, image_from_json),
    FloatArray: Codec(array_to_json, lambda content: floats_from_json("the result", content)),
    IntArray: Codec(array_to_json, lambda content: integers_from_json("the result", content)),
    TokenEmbeddings: Codec(embeddings_to_json, lambda content: embeddings_from_json("the result", content)),
    # Metadata is stored as JSON.
    dict[str, Any]: _AS_IT_IS,
    typing.cast(Any, list[Hit]): Codec(_hits_to_json, _hits_from_json),
}
