"""Errors and warnings as JSON, so that what a service raises is raised at its client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from muvera_core import errors
from muvera_core.encoders import GivenWarning
from muvera_core.errors import MuveraError, PartialWriteError, ServiceError, ShardUnavailableError


def error_to_json(error: MuveraError) -> dict[str, Any]:
    """The error's class, message and attributes."""
    content: dict[str, Any] = {"type": _public_name(type(error)), "message": str(error)}
    if isinstance(error, ShardUnavailableError):
        content["shards"] = list(error.shards)
    if isinstance(error, PartialWriteError):
        content |= {"acknowledged": list(error.acknowledged), "unknown": list(error.unknown)}
        content["failed"] = {str(shard): reason for shard, reason in error.failed.items()}
    return content


def error_from_json(content: Any) -> MuveraError:
    """The error that ``error_to_json`` described. A ServiceError for a class that this version does not know.

    Raises:
        KeyError, TypeError or ValueError: it describes none.
    """
    message = content["message"]
    if not isinstance(message, str):
        raise TypeError("an error's message must be a string")
    name = content["type"]
    make = _WITH_ATTRIBUTES.get(name)
    if make is not None:
        return make(message, content)
    kind = getattr(errors, name, None)
    is_known = isinstance(kind, type) and issubclass(kind, MuveraError)
    return kind(message) if is_known else ServiceError(message)  # type: ignore[misc]


def warnings_to_json(warnings: Iterable[GivenWarning]) -> list[dict[str, str]]:
    """The class and message of each warning, each once."""
    return [
        {"type": _public_name(category, UserWarning), "message": message}
        for message, category in dict.fromkeys(warnings)
    ]


def warnings_from_json(content: Any) -> list[GivenWarning]:
    """The warnings that ``warnings_to_json`` described. A UserWarning for a class that this version does not know.

    Raises:
        KeyError or TypeError: it describes none.
    """
    return [GivenWarning(str(each["message"]), _warning_class(each["type"])) for each in content]


def _public_name(kind: type, base: type = MuveraError) -> str:
    """Name of the nearest class above that everybody knows."""
    return next((each.__name__ for each in kind.__mro__ if vars(errors).get(each.__name__) is each), base.__name__)


def _warning_class(name: str) -> type[Warning]:
    kind = getattr(errors, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Warning) else UserWarning


def _partial_write(message: str, content: Any) -> PartialWriteError:
    failed = {int(shard): str(reason) for shard, reason in content.get("failed", {}).items()}
    return PartialWriteError(message, tuple(content.get("acknowledged", ())), failed, tuple(content.get("unknown", ())))


_WITH_ATTRIBUTES: dict[str, Callable[[str, Any], MuveraError]] = {
    "PartialWriteError": _partial_write,
    "ShardUnavailableError": lambda message, content: ShardUnavailableError(message, tuple(content.get("shards", ()))),
}
