"""A document that was read from a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from muvera_core.corpus.files import SourceFile


@dataclass(frozen=True)
class SourceDocument:
    """A document that was read from a file: a passage, if texts are split.

    Attributes:
        file: the file.
        line: number of its line or row; None for a whole text or an image.
        id: its id.
        text: its text; None for an image.
        metadata: its metadata, of JSON's types.
        id_is_own: whether the file gives the id. Otherwise the id is made from the file's name.
        image_digest: of an image; see ``Document``. None for a text.
    """

    file: SourceFile
    line: int | None
    id: str
    text: str | None
    metadata: dict[str, Any]
    id_is_own: bool = False
    image_digest: str | None = None
