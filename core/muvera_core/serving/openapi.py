"""What the OpenAPI page says about calls: made of their type hints, like the JSON itself."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from fastapi import FastAPI
from pydantic import BaseModel

from muvera_core.hits import Hit
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.wire import Call, Picture

_REFERENCE = "#/components/schemas/"
_JSON = "application/json"
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_ARRAY = {
    "type": "object",
    "description": "float32 or int64, little-endian, row by row",
    "properties": {"shape": {"type": "array", "items": {"type": "integer"}}, "data": _BASE64},
    "required": ["shape", "data"],
}
_PROBLEM = {
    "type": "object",
    "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
    "required": ["type", "message"],
}
_ERROR = {"type": "object", "properties": {"error": _PROBLEM}, "required": ["error"]}
_PLAIN: dict[Any, dict[str, Any]] = {
    Any: {},
    type(None): {"type": "null"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]},
    Picture: {**_BASE64, "contentMediaType": "image/png"},
    FloatArray: _ARRAY,
    IntArray: _ARRAY,
    TokenEmbeddings: {
        "type": "object",
        "properties": {"vectors": _ARRAY, "offsets": {"type": "array", "items": {"type": "integer"}}},
        "required": ["vectors", "offsets"],
    },
}


def operation_of(call: Call, model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    """Request and answers of a call. Adds the schemas that they refer to to ``schemas``."""
    schemas[model.__name__] = model.model_json_schema()
    schemas["Error"], schemas["Problem"] = _ERROR, _PROBLEM
    warnings = {"type": "array", "items": _reference("Problem")}
    result = {"result": schema_of(call.result_type, schemas), "warnings": warnings}
    answer = {"type": "object", "properties": result, "required": ["result"]}
    error = {"description": "The call failed", "content": {_JSON: {"schema": _reference("Error")}}}
    is_needed = any(field.is_required() for field in model.model_fields.values())
    return {
        "requestBody": {"required": is_needed, "content": {_JSON: {"schema": _reference(model.__name__)}}},
        "responses": {
            "200": {"description": "What the call returned", "content": {_JSON: {"schema": answer}}},
            "4XX": error,
            "5XX": error,
        },
    }


def schema_of(hint: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of what ``codec_of(hint)`` makes. Dataclasses are added to ``schemas``."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(each, schemas) for each in arguments]}
    if hint == cast(Any, list[Hit]):
        shards = {"type": "array", "items": {"type": "integer"}}
        hits = {"type": "array", "items": schema_of(Hit, schemas)}
        return {"type": "object", "properties": {"hits": hits, "missing_shards": shards}, "required": ["hits"]}
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return {"type": "array", "items": schema_of(arguments[0], schemas)}
    if origin is tuple:
        return {"type": "array", "prefixItems": [schema_of(each, schemas) for each in arguments]}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1], schemas)}
    if is_dataclass(hint) and isinstance(hint, type):
        return _dataclass_schema(hint, schemas)
    raise TypeError(f"no JSON schema describes {hint!r}")


def add_schemas(app: FastAPI, schemas: dict[str, Any], *, needs_token: bool) -> None:
    """Let an application's OpenAPI page have the schemas that its operations refer to."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        content = make()
        components = content.setdefault("components", {})
        components.setdefault("schemas", {}).update(schemas)
        if needs_token:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            content["security"] = [{"token": []}]
        return content

    app.openapi = openapi  # type: ignore[method-assign]


def _dataclass_schema(kind: type[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in schemas:
        schemas[kind.__name__] = {}  # stands for itself inside itself
        hints = get_type_hints(kind)
        schemas[kind.__name__] = {
            "type": "object",
            "description": (kind.__doc__ or "").partition("\n")[0],
            "properties": {field.name: schema_of(hints[field.name], schemas) for field in fields(kind)},
            "required": [field.name for field in fields(kind) if field.default is field.default_factory is MISSING],
        }
    return _reference(kind.__name__)


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE + name}
