"""What an index notes about the image of a document. The image itself stays where it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ImageRecord:
    """The image of a document.

    Attributes:
        path: absolute path of its file. None if it was given as bytes, or as pixels that no file holds.
        width: its width in pixels, upright.
        height: its height in pixels, upright.
        digest: tells whether an image is the same: a hash of the file, or of the pixels if no file was read.
    """

    path: str | None
    width: int
    height: int
    digest: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    def as_text(self) -> str:
        """The record as JSON, in ASCII: a path need not be Unicode text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: Any) -> ImageRecord:
        """Parse what ``as_text`` made. Raises TypeError or ValueError if it is something else."""
        content = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError("it is not a JSON object")
        record = cls(**content)
        sizes = (record.width, record.height)
        if not (
            isinstance(record.path, str | None)
            and all(type(size) is int and size > 0 for size in sizes)
            and isinstance(record.digest, str)
        ):
            raise ValueError("a field has another type")
        return record
