"""What a request for each call must look like, made of the call's own signature and docstring."""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, WithJsonSchema, create_model

from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_known_names, shown
from muvera_core.wire import Call, argument_from_json

# Whole numbers beyond this are not the same in all programs that read JSON.
_MAX_INT = (1 << 53) - 1
_TYPES: dict[Any, Any] = {
    str: Annotated[str, Strict()],
    bool: Annotated[bool, Strict()],
    int: Annotated[int, Strict(), Field(ge=-_MAX_INT, le=_MAX_INT)],
    float: Annotated[float, Strict(), Field(allow_inf_nan=False)],
    type(None): None,
}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_BYTES = {"type": "string", "contentEncoding": "base64"}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_ARRAY = {
    "type": "object",
    "description": "float32, little-endian, row by row",
    "properties": {"shape": {"type": "array", "items": {"type": "integer"}}, "data": _BYTES},
    "required": ["shape", "data"],
    "additionalProperties": False,
}
_VECTORS = {"anyOf": [{"type": "array", "items": _NUMBERS}, _ARRAY]}
_EMBEDDINGS = {
    "anyOf": [
        {"type": "array", "items": _VECTORS},
        {
            "type": "object",
            "description": "vectors[offsets[i]:offsets[i + 1]] are those of text i",
            "properties": {"vectors": _VECTORS, "offsets": {"type": "array", "items": {"type": "integer"}}},
            "required": ["vectors", "offsets"],
            "additionalProperties": False,
        },
    ]
}
_GRADES = {"anyOf": [_TEXTS, {"type": "object", "additionalProperties": {"type": "number"}}]}
_METADATA = {"anyOf": [{"type": "object"}, {"type": "null"}]}
# What ``argument_from_json`` and the index check, by name.
_SCHEMAS: dict[str, dict[str, Any]] = {
    "note": {"anyOf": [{"type": "object"}, {"type": "null"}]},
    "filter": {"type": "object"},
    "metadatas": {"anyOf": [{"type": "object"}, {"type": "array", "items": _METADATA}]},
    "relevant": {"type": "array", "items": _GRADES},
    "query_tokens": {"anyOf": [*_VECTORS["anyOf"], *_EMBEDDINGS["anyOf"]]},
    "token_embeddings": _EMBEDDINGS,
    "vector": {"anyOf": [_NUMBERS, _ARRAY]},
    "images": {"type": "array", "items": _BYTES},
    "image": _BYTES,
    "query_reduction": {
        "type": "object",
        "properties": {"ball_threshold": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
        "additionalProperties": False,
    },
    "lexical": {
        "anyOf": [
            {"type": "boolean"},
            {
                "type": "object",
                "properties": {
                    "tokenizer": {"enum": ["words", "trigram"]},
                    "language": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "fields": _TEXTS,
                    "field_weight": {"type": "number"},
                },
                "additionalProperties": False,
            },
        ]
    },
}
_SECTION = re.compile(r"^(\w+):$")
_ENTRY = re.compile(r"^ {4}(\w+): (.*)$")


def request_model(call: Call) -> type[BaseModel]:
    """The model of a call's arguments. It knows no others."""
    about = _described(call.function)
    fields: dict[str, Any] = {
        name: (_type_of(parameter), _field_of(parameter, about.get(name)))
        for name, parameter in call.parameters.items()
    }
    title = "".join(word.capitalize() for word in call.name.split("_"))
    return create_model(f"{title}Request", __config__=ConfigDict(extra="forbid"), **fields)


class MalformedRequestError(InvalidInputError):
    """The body of a request is no JSON."""


def read_arguments(call: Call, model: type[BaseModel], body: bytes) -> dict[str, Any]:
    """The arguments in a request's body. An empty body has none.

    Raises:
        MalformedRequestError: it is no JSON.
        InvalidInputError: it does not fit the call.
    """
    try:
        content = json.loads(body or b"{}")
    except RecursionError:
        raise MalformedRequestError("the request's body is nested too deep: flatten it") from None
    except ValueError as error:
        raise MalformedRequestError(f"the request's body must be a JSON object, but it is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise InvalidInputError(f"{call.name} takes a JSON object with its arguments, got {shown(content)}")
    require_known_names(call.name, content, call.parameters)
    try:
        checked = model.model_validate(content)
    except ValidationError as error:
        raise InvalidInputError(_said(error)) from None
    return {name: argument_from_json(name, getattr(checked, name)) for name in checked.model_fields_set}


def summary_of(call: Call) -> tuple[str, str]:
    """The first sentence of a call's docstring, and the rest up to its arguments."""
    text = inspect.cleandoc(call.function.__doc__ or "")
    body = re.split(r"^(?:Args|Returns|Raises|Warns):$", text, maxsplit=1, flags=re.MULTILINE)[0].strip()
    first, _, rest = body.partition("\n\n")
    return " ".join(first.split()), rest.strip()


def _type_of(parameter: inspect.Parameter) -> Any:
    hint = parameter.annotation
    schema = _SCHEMAS.get(parameter.name)
    if schema is None:
        return _checked(hint)
    if parameter.default is None:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return Annotated[Any, WithJsonSchema(schema)]


def _checked(hint: Any) -> Any:
    """The type that pydantic checks for a type hint."""
    if hint in _TYPES:
        return _TYPES[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return hint
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_checked, arguments))]  # noqa: UP007 - of a number of types that varies
    if origin in (Sequence, Iterable):
        return list[_checked(arguments[0])]  # type: ignore[misc]
    raise TypeError(f"no JSON type stands for {hint!r}")


def _field_of(parameter: inspect.Parameter, description: str | None) -> Any:
    default = ... if parameter.default is inspect.Parameter.empty else parameter.default
    return Field(default, description=description)


def _described(function: Any) -> dict[str, str]:
    """What a docstring says about each argument."""
    described: dict[str, str] = {}
    section = name = ""
    for line in inspect.cleandoc(function.__doc__ or "").splitlines():
        if found := _SECTION.match(line):
            section = found[1]
        elif section == "Args" and (found := _ENTRY.match(line)):
            name, described[found[1]] = found[1], found[2]
        elif section == "Args" and name and line.strip():
            described[name] += f" {line.strip()}"
    return described


_EXPECTED = {
    "bool_type": "true or false",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "list_type": "a list",
    "string_type": "a string",
    "string_unicode": "Unicode text",
}


def _said(error: ValidationError) -> str:
    """What is wrong with a request, as muvera says it."""
    errors = error.errors(include_url=False, include_context=True)
    first = errors[0]
    name = str(first["loc"][0]) if first["loc"] else "the request"
    if first["type"] == "missing":
        return f"{name} is missing: give it"
    # Of a union, each member has errors, whose places differ in the member's name. The deepest say most.
    places = [tuple(step for step in each["loc"][1:] if isinstance(step, int)) for each in errors]
    deepest = max(
        (place for place, each in zip(places, errors, strict=True) if each["loc"][:1] == first["loc"][:1]), key=len
    )
    there = [each for place, each in zip(places, errors, strict=True) if place == deepest and each["loc"][0] == name]
    expected = " or ".join(dict.fromkeys(map(_expected, there)))
    place = name + "".join(f"[{step}]" for step in deepest)
    return f"{place} must be {expected}, got {shown(there[0]['input'])}"


def _expected(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        return f"one of {context['expected']}".replace(" or ", ", ")
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"a whole number from -{_MAX_INT} to {_MAX_INT}"
    return _EXPECTED.get(kind, "something else")
