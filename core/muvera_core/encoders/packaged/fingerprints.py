"""Names the vectors of the encoders that come with a package, for an index to note, and reads such names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muvera_core.encoders.text.unknown_words import UNKNOWN_WORDS_VERSION


@dataclass(frozen=True)
class PackagedFingerprints:
    """The fingerprints of one encoder, such as "bundled-minilm-maxsim-<files>-p512-w256-o64-u1-d64".

    Attributes:
        family: how those of all versions begin.
        model: how those of this version go on.
        unmarked: the dimension that is not written down; None if each is.
    """

    family: str
    model: str
    unmarked: int | None = None

    def of(self, settings: Mapping[str, Any], dimension: int) -> str:
        """The fingerprint of the model that ``settings`` describe, the content of encoder.json, in a dimension."""
        files = "-".join(file["sha256"][:12] for file in settings["files"].values())
        windows = f"p{settings['positions']}-w{settings['window_tokens']}-o{settings['window_overlap']}"
        width = "" if dimension == self.unmarked else f"-d{dimension}"
        return f"{self.family}{self.model}-{files}-{windows}-{UNKNOWN_WORDS_VERSION}{width}"

    def dimension(self, fingerprint: str) -> int | None:
        """The dimension that a fingerprint names; None if it is not of this encoder, of this or another version."""
        if not fingerprint.startswith(self.family):
            return None
        written = _DIMENSION.search(fingerprint)
        return self.unmarked if written is None else int(written[1])

    def without_dimension(self, fingerprint: str) -> str:
        """What the fingerprints of one model have in common."""
        return _DIMENSION.sub("", fingerprint)


_DIMENSION = re.compile(r"-d(\d+)$")

BUNDLED_DIMENSION = 128
"""The width of the bundled encoder's vectors, of which the first directions can be chosen."""

MULTILINGUAL_DIMENSIONS = (384, 256)
"""The widths of the multilingual encoder's vectors. Measured: at these, they find what those of full width find."""

BUNDLED = PackagedFingerprints("bundled-", "minilm-maxsim", unmarked=BUNDLED_DIMENSION)
MULTILINGUAL = PackagedFingerprints("multilingual-", "e5-small")
