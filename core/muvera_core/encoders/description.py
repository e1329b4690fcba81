"""What an index notes about its encoder, so that people can tell which one to open it with."""

from __future__ import annotations

from typing import Any

from muvera_core.encoders.packaged.fingerprints import BUNDLED
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


def describe_mismatch(made_with: str, given: str) -> str:
    """Why an index opens only with another encoder, and what to do.

    Args:
        made_with: the fingerprint of the index's encoder.
        given: the fingerprint of the encoder that it should be opened with.
    """
    dimensions = BUNDLED.dimension(made_with), BUNDLED.dimension(given)
    if None in dimensions:
        return (
            f"was made with encoder {made_with!r}, got {given!r}: "
            "pass the encoder it was made with, or index the documents again with this one"
        )
    if BUNDLED.without_dimension(made_with) == BUNDLED.without_dimension(given):
        return (
            f"was made with the bundled encoder in {dimensions[0]} dimensions, got {dimensions[1]}: pass "
            f"BundledEncoder(dimension={dimensions[0]}), or no encoder, or index the documents again with this one"
        )
    return (
        f"was made with the bundled encoder of another version of muvera-core, {made_with!r}. This version's is "
        f"{given!r}, whose vectors cannot be compared with those: index the texts again in a new folder, or install "
        "the version that made the index"
    )
