"""Documents in files, and where each comes from. The command line and bulk building read them in the same way.

paths → ``find_files`` → ``read_documents`` → documents, and what cannot be used
"""

from __future__ import annotations

from muvera_core.corpus.documents import (
    MAX_TEXT_BYTES,
    SourceDocument,
    document_of,
    other_file,
    read_documents,
    read_lines,
    until_unreadable,
)
from muvera_core.corpus.files import (
    IMAGE_SUFFIXES,
    LINES_SUFFIXES,
    ORIGIN,
    TEXT_SUFFIXES,
    SourceFile,
    Unusable,
    as_root,
    as_unicode,
    find_files,
    place,
    reason_of,
)
from muvera_core.corpus.passages import Splitting, split_into_passages

__all__ = [
    "IMAGE_SUFFIXES",
    "LINES_SUFFIXES",
    "MAX_TEXT_BYTES",
    "ORIGIN",
    "TEXT_SUFFIXES",
    "SourceDocument",
    "SourceFile",
    "Splitting",
    "Unusable",
    "as_root",
    "as_unicode",
    "document_of",
    "find_files",
    "other_file",
    "place",
    "read_documents",
    "read_lines",
    "reason_of",
    "split_into_passages",
    "until_unreadable",
]
