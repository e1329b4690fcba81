"""Readers: each takes a file of one family of formats and gives its text, or its records. ``formats`` lists them.

file → reader → texts with marks (where pages start), or records → ``read_documents`` → passages
"""

from __future__ import annotations

from muvera_core.corpus.readers.contract import Extracted, ExtractedText, Mark, Reader
from muvera_core.corpus.readers.formats import FORMATS, READABLE, Format, format_of, suffixes_of

__all__ = [
    "FORMATS",
    "READABLE",
    "Extracted",
    "ExtractedText",
    "Format",
    "Mark",
    "Reader",
    "format_of",
    "suffixes_of",
]
