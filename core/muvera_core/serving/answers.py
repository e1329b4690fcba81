"""Answers to requests: results and errors as JSON, with their HTTP status."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from fastapi import Response

from muvera_core.encoders import GivenWarning
from muvera_core.errors import (
    ForkedIndexError,
    IndexClosedError,
    IndexLockedError,
    InvalidInputError,
    MissingExtraError,
    MuveraError,
    ReadOnlyIndexError,
    ServiceError,
    ServiceTimeoutError,
    StorageError,
)
from muvera_core.serving.requests import MalformedRequestError
from muvera_core.wire import Call, error_to_json, warnings_to_json

# The first class that an error is an instance of gives the status.
_STATUSES = (
    (MalformedRequestError, 400),
    (InvalidInputError, 422),
    (ReadOnlyIndexError, 403),
    (MissingExtraError, 501),
    (ServiceTimeoutError, 504),
    ((ServiceError, IndexLockedError, IndexClosedError, ForkedIndexError), 503),
    (StorageError, 507),
)
_log = logging.getLogger(__name__)


def result_answer(call: Call, result: Any, warnings: Iterable[GivenWarning] = ()) -> Response:
    """What a call returned."""
    content = {"result": call.result.to_json(result)}
    given = warnings_to_json(warnings)
    if given:
        content["warnings"] = given
    return json_answer(content)


def error_answer(error: Exception, status: int | None = None) -> Response:
    """What a call raised. An error that is not muvera's is logged, and not shown."""
    if not isinstance(error, MuveraError):
        _log.error("a call failed", exc_info=error)
        error = ServiceError("the service failed to answer: its log says why")
        status = 500
    if status is None:
        status = next((number for kinds, number in _STATUSES if isinstance(error, kinds)), 500)
    return json_answer({"error": error_to_json(error)}, status)


def json_answer(content: Any, status: int = 200) -> Response:
    """Any content. Escapes make half of a surrogate pair, which UTF-8 cannot encode, possible."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(body, status, media_type="application/json")
