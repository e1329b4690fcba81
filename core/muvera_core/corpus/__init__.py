"""Documents in files, and where each comes from. The command line and bulk building read them in the same way.

paths → ``find_files`` → ``read_documents`` → passages, and what cannot be used
"""

from __future__ import annotations

from muvera_core.corpus.blocks import Markup
from muvera_core.corpus.documents import read_documents, until_unreadable
from muvera_core.corpus.files import (
    IMAGE_SUFFIXES,
    LINES_SUFFIXES,
    ORIGIN,
    SourceFile,
    Unusable,
    as_root,
    as_unicode,
    exists,
    file_of,
    find_files,
    home_of,
    name_of,
    place,
    reason_of,
)
from muvera_core.corpus.limits import MAX_TEXT_BYTES
from muvera_core.corpus.readers import READABLE, format_of, suffixes_of
from muvera_core.corpus.readers.json_lines import read_lines
from muvera_core.corpus.readers.parquet import PARQUET_SUFFIX, read_rows, row_ranges
from muvera_core.corpus.reading import Reading
from muvera_core.corpus.records import document_of
from muvera_core.corpus.source_document import SourceDocument
from muvera_core.corpus.splitting import DEFAULT_MAX_TOKENS, DEFAULT_OVERLAP, split_text
from muvera_core.corpus.text_passage import TextPassage

__all__ = [
    "DEFAULT_MAX_TOKENS",
    "DEFAULT_OVERLAP",
    "IMAGE_SUFFIXES",
    "LINES_SUFFIXES",
    "MAX_TEXT_BYTES",
    "ORIGIN",
    "PARQUET_SUFFIX",
    "READABLE",
    "Markup",
    "Reading",
    "SourceDocument",
    "SourceFile",
    "TextPassage",
    "Unusable",
    "as_root",
    "as_unicode",
    "document_of",
    "exists",
    "file_of",
    "find_files",
    "format_of",
    "home_of",
    "name_of",
    "place",
    "read_documents",
    "read_lines",
    "read_rows",
    "reason_of",
    "row_ranges",
    "split_text",
    "suffixes_of",
    "until_unreadable",
]
