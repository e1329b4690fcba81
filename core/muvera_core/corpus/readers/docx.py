"""Reads Word documents, by way of HTML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from muvera_core.corpus.files import SourceFile
from muvera_core.corpus.readers.contract import Extracted, ExtractedText
from muvera_core.corpus.readers.markdown_of_html import parse_html, text_of
from muvera_core.corpus.readers.packages import opened_package
from muvera_core.corpus.reading import Reading

# The title of a document stands above all of its headings.
_STYLES = "\n".join(
    [
        "p[style-name='Title'] => h1:fresh",
        *(f"p[style-name='heading {n}'] => h{min(n + 1, 6)}:fresh" for n in range(1, 7)),
    ]
)


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The text of a document, with its headings, lists and tables, as Markdown."""
    import mammoth

    with opened_package(file), file.path.open("rb") as stream:
        result = mammoth.convert_to_html(stream, style_map=_STYLES, convert_image=mammoth.images.img_element(_no_image))
    yield ExtractedText(*text_of(parse_html(result.value)))


def _no_image(image: Any) -> dict[str, str]:
    return {"src": ""}
