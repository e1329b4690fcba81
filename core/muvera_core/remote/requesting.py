"""Makes the request for a call of a remote index, and reads the answer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from muvera_core.collection import image_problem, warn_of_skipped_images
from muvera_core.encoders import warn
from muvera_core.errors import ServiceError
from muvera_core.images import UnreadableImageError
from muvera_core.storage import warn_or_log
from muvera_core.validation import require_ids, require_iterable, require_length
from muvera_core.wire import Call, argument_to_json, image_bytes, warnings_from_json, without_local

if TYPE_CHECKING:
    import httpx

# The argument of which there is one for each document.
_DOCUMENTS = {"add": "texts", "add_images": "images", "add_embeddings": "token_embeddings"}


@dataclass(frozen=True)
class Request:
    """A request for a call.

    Attributes:
        call: the call.
        body: its arguments, as JSON.
        ids: ids of all documents that it adds, also of those that this process has left out. None if it adds none.
    """

    call: Call
    body: bytes
    ids: list[str] | None = None

    @classmethod
    def of(cls, call: Call, arguments: Sequence[Any], options: Mapping[str, Any]) -> Request:
        """Make the request for a call.

        Raises:
            TypeError: the call has no such arguments.
            InvalidInputError: an argument cannot be sent.
        """
        given = without_local(_signature(call).bind(*arguments, **options).arguments)
        documents = _DOCUMENTS.get(call.name)
        if documents is None:
            content = {name: argument_to_json(name, value) for name, value in given.items()}
            return cls(call, json.dumps(content, allow_nan=False).encode())
        if documents != "token_embeddings":
            given[documents] = require_iterable(documents, given[documents])
        # Drawn here, they make it possible to send the documents again without adding them twice.
        if given.get("ids") is None:
            given["ids"] = require_ids(None, len(given[documents]))
        ids = given["ids"] = require_iterable("ids", given["ids"])
        if documents == "images":
            given = _without_unreadable(given)
        content = {name: argument_to_json(name, value) for name, value in given.items()}
        return cls(call, json.dumps(content, allow_nan=False).encode(), ids)

    def result(self, response: httpx.Response) -> Any:
        """What the call returned. Gives the warnings that came with it.

        Raises:
            ServiceError: the answer is none to this call.
        """
        try:
            content = response.json()
            result = self.call.result.from_json(content["result"])
            warnings = warnings_from_json(content.get("warnings", ()))
        except (KeyError, TypeError, ValueError, AttributeError, OSError, RecursionError) as error:
            raise ServiceError(
                f"{response.url} answered something else than the result of {self.call.name} ({error!r}): "
                "install the same version of muvera-core there and here"
            ) from error
        for warning in warnings:
            (warn if self.call.kind == "read" else warn_or_log)(*warning)
        return result if self.ids is None else self.ids


@cache
def _signature(call: Call) -> inspect.Signature:
    """The call's signature without the index."""
    signature = inspect.signature(call.function)
    _, *parameters = signature.parameters.values()
    return signature.replace(parameters=parameters)


def _without_unreadable(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``add_images``, with the bytes of the images that can be read. Warns about the others."""
    images, readable, problems = given["images"], [], []
    of_each = {name: require_iterable(name, given[name]) for name in ("ids", "texts", "metadatas") if given.get(name)}
    for name, values in of_each.items():
        require_length(name, values, len(images))
    for i, (image, id) in enumerate(zip(images, of_each.get("ids", ()), strict=True)):
        try:
            readable.append((i, image_bytes(image)))
        except UnreadableImageError as error:
            problems.append(image_problem(id, image, str(error)))
    warn_of_skipped_images(problems)
    chosen = {name: [values[i] for i, _ in readable] for name, values in of_each.items()}
    return {**given, **chosen, "images": [content for _, content in readable]}
