"""Which file a document of an index comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muvera_core import IndexCalls
from muvera_core.corpus import ORIGIN, as_root, name_of

# The metadata field with the name of a document's file.
FILE_FIELD = f"{ORIGIN}.file"


def file_of(metadata: Mapping[str, Any]) -> str | None:
    """The name of the file that a document comes from. None if it did not come from one."""
    origin = metadata.get(ORIGIN)
    file = origin.get("file") if isinstance(origin, dict) else None
    return file if isinstance(file, str) else None


def home_of(index: IndexCalls) -> Path | None:
    """The folder that holds the index, below which files are named. None if the index is in memory."""
    return None if index.path is None else index.path.absolute().parent


def name_in(index: IndexCalls, file: Path) -> str:
    """The name of a file in an index."""
    home = home_of(index)
    return name_of(as_root(file, home), home)
