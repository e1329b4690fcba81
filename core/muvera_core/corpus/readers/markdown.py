"""Reads Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from muvera_core.corpus.files import SourceFile
from muvera_core.corpus.readers.contract import Extracted, ExtractedText
from muvera_core.corpus.readers.decoding import read_text
from muvera_core.corpus.reading import Reading


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The text of a file."""
    yield ExtractedText(read_text(file, reading), "markdown")
