"""What a reader gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from muvera_core.corpus.blocks import Markup
from muvera_core.corpus.files import SourceFile, Unusable
from muvera_core.corpus.reading import Reading
from muvera_core.corpus.source_document import SourceDocument

_BETWEEN_PARTS = "\n\n"


@dataclass(frozen=True)
class Mark:
    """What is true of a text from some character on, up to the next mark.

    Attributes:
        start: the character.
        fields: metadata, such as ``{"page": 3}``.
    """

    start: int
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class ExtractedText:
    """The text of a document.

    Attributes:
        text: the text.
        markup: what it is written in, which says where it may be cut.
        marks: where pages and the like start, in order.
        metadata: what is true of the whole text.
    """

    text: str
    markup: Markup = "plain"
    marks: tuple[Mark, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def of_parts(
    parts: Iterable[tuple[Mapping[str, Any], str]], metadata: Mapping[str, Any] | None = None
) -> ExtractedText:
    """A text in Markdown whose parts, such as slides, have a mark each. Empty parts are left out.

    Args:
        parts: what is true of each part, and its text.
        metadata: what is true of the whole text.
    """
    texts: list[str] = []
    marks, length = [], 0
    for fields, text in parts:
        if text:
            marks.append(Mark(length, fields))
            texts.append(text)
            length += len(text) + len(_BETWEEN_PARTS)
    return ExtractedText(_BETWEEN_PARTS.join(texts), "markdown", tuple(marks), metadata or {})


# A whole text, a record of many, or what cannot be used.
Extracted = ExtractedText | SourceDocument | Unusable
# Reads a file. Whatever it raises becomes one ``Unusable``, so it need not catch what libraries raise.
Reader = Callable[[SourceFile, Reading], Iterator[Extracted]]
