"""Names the vectors of the multilingual encoder, for an index to note, and reads such names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from muvera_core.encoders.unknown_words import UNKNOWN_WORDS_VERSION

# The widths of vectors that can be chosen. Measured: at these, they find what those of full width find.
MULTILINGUAL_DIMENSIONS = (384, 256)
_MODEL = "multilingual-e5-small"
_DIMENSION = re.compile(rf"{_MODEL}-.*-d(\d+)")


def multilingual_fingerprint(settings: Mapping[str, Any], dimension: int) -> str:
    """The fingerprint of the model that ``settings`` describe, the content of encoder.json, in a dimension."""
    files = "-".join(file["sha256"][:12] for file in settings["files"].values())
    windows = f"p{settings['positions']}-w{settings['window_tokens']}-o{settings['window_overlap']}"
    return f"{_MODEL}-{files}-{windows}-{UNKNOWN_WORDS_VERSION}-d{dimension}"


def multilingual_dimension(fingerprint: str) -> int | None:
    """The dimension that a fingerprint names; None if it is not one of the multilingual encoder's."""
    match = _DIMENSION.fullmatch(fingerprint)
    return int(match[1]) if match and int(match[1]) in MULTILINGUAL_DIMENSIONS else None
