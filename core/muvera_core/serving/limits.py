"""The limits of what one request may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.serving.settings import ServiceSettings
from muvera_core.wire import Call

# The setting that limits an argument's size or value, by the argument's name.
_LIMITS = {
    "queries": "max_queries",
    "query_tokens": "max_queries",
    "k": "max_k",
    "fetch_k": "max_k",
    "limit": "max_k",
    "n_candidates": "max_candidates",
    "n_queries": "max_candidates",
    "token_embeddings": "max_documents",
    "images": "max_documents",
    "texts": "max_documents",
    "metadatas": "max_documents",
}
# Of a call that returns what is at each id.
_READS_IDS = ("get", "get_embeddings")


def require_within(call: Call, arguments: Mapping[str, Any], settings: ServiceSettings) -> None:
    """Raise InvalidInputError if a call asks for more than a service allows."""
    if call.name == "find" and arguments.get("limit") is None:
        raise InvalidInputError(f"find needs a limit of at most {settings.max_k}: to read more, ask for pages")
    for name, value in arguments.items():
        setting = _LIMITS.get(name)
        if name == "ids":
            setting = "max_k" if call.name in _READS_IDS else "max_documents"
        if name == "query_tokens" and call.name == "search_embeddings":
            continue
        if setting is None or value is None:
            continue
        limit = getattr(settings, setting)
        given = value if isinstance(value, int) else len(value) if not isinstance(value, str | Mapping) else 1
        if given > limit:
            raise InvalidInputError(
                f"this service allows {name} up to {limit} ({setting}), got {given}: ask several times for less"
            )
