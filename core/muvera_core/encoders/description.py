"""What an index notes about its encoder, so that people can tell which one to open it with."""

from __future__ import annotations

from typing import Any

from muvera_core.encoders.protocol import TokenEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.metadata import normalize_metadata


def describe_encoder(encoder: TokenEncoder) -> dict[str, Any]:
    """The name of an encoder's class and its settings.

    Settings are its attribute ``settings``, which is optional: a mapping of JSON's types. Settings that JSON cannot
    hold are left out, because an index must not fail for them.
    """
    name = type(encoder).__qualname__
    try:
        settings = normalize_metadata(getattr(encoder, "settings", {}), "the encoder's settings")
    except InvalidInputError:
        settings = {}
    return {"name": name, "settings": settings}
