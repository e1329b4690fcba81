"""Which file a document of an index comes from."""

from __future__ import annotations

from pathlib import Path

from muvera_core import IndexCalls
from muvera_core.corpus import ORIGIN, as_root, home_of, name_of

# The metadata field with the name of a document's file.
FILE_FIELD = f"{ORIGIN}.file"


def name_in(index: IndexCalls, file: Path) -> str:
    """The name of a file in an index."""
    home = home_of(index.path)
    return name_of(as_root(file, home), home)
