"""Names the vectors of the bundled encoder, for an index to note, and reads such names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from muvera_core.encoders.unknown_words import UNKNOWN_WORDS_VERSION

# The largest width of a vector, which needs no mention.
BUNDLED_DIMENSION = 128
_PREFIX = "bundled-"
_MODEL = "minilm-maxsim"
_DIMENSION = re.compile(rf"{_PREFIX}.*-d(\d+)")


def bundled_fingerprint(settings: Mapping[str, Any], dimension: int) -> str:
    """The fingerprint of the model that ``settings`` describe, the content of encoder.json, in a dimension."""
    files = "-".join(file["sha256"][:12] for file in settings["files"].values())
    windows = f"p{settings['positions']}-w{settings['window_tokens']}-o{settings['window_overlap']}"
    width = "" if dimension == BUNDLED_DIMENSION else f"-d{dimension}"
    return f"{_PREFIX}{_MODEL}-{files}-{windows}-{UNKNOWN_WORDS_VERSION}{width}"


def bundled_dimension(fingerprint: str) -> int | None:
    """The dimension that a fingerprint names; None if it is not of the bundled encoder of this or another version."""
    if not fingerprint.startswith(_PREFIX):
        return None
    match = _DIMENSION.fullmatch(fingerprint)
    return BUNDLED_DIMENSION if match is None else int(match[1])


def bundled_model(fingerprint: str) -> str:
    """The fingerprint of the same model in its full dimension."""
    return fingerprint if _DIMENSION.fullmatch(fingerprint) is None else fingerprint.rpartition("-d")[0]
