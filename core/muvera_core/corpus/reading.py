"""How files are read: into passages of which size, and in which encoding."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from muvera_core.corpus.splitting import DEFAULT_MAX_TOKENS, DEFAULT_OVERLAP, require_overlap
from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_count, require_known_names, require_mapping, shown


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        max_tokens: most tokens of a passage, as the index's encoder counts them, without its markers. None makes one
            document of each text, whatever its length.
        overlap: most tokens that a passage repeats of the one before it.
        encoding: the encoding of text files, such as "cp1252". None finds it out, file by file.

    Raises:
        InvalidInputError: a number is no whole number or too small, ``overlap`` is more than half of ``max_tokens``, or
            Python does not know the encoding.
    """

    max_tokens: int | None = DEFAULT_MAX_TOKENS
    overlap: int = DEFAULT_OVERLAP
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            require_count("max_tokens", self.max_tokens)
            require_overlap(self.overlap, self.max_tokens)
        if self.encoding is not None:
            require_encoding(self.encoding)

    def to_json(self) -> dict[str, Any]:
        """The settings as values of JSON, by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> Reading:
        """The reading that ``to_json`` wrote. A setting that is missing has its default.

        Raises:
            InvalidInputError: a setting is unknown, or has a value that cannot be used.
        """
        given = require_mapping("the settings of a reading", settings)
        require_known_names("Reading", given, [field.name for field in fields(cls)])
        return cls(**given)


def require_encoding(name: object) -> str:
    """The name of an encoding of text that Python knows. Raises InvalidInputError otherwise."""
    if isinstance(name, str):
        try:
            "text".encode(name)  # refuses names such as "base64", whose codec is for bytes
            return codecs.lookup(name).name
        except (LookupError, ValueError):
            pass
    raise InvalidInputError(
        f"encoding must be the name of an encoding that Python knows, such as 'utf-8' or 'cp1252', got {shown(name)}"
    )
