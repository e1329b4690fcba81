"""Stage one's files, saved beside the documents so that an index opens fast.

Each saving writes files under new names, then replaces the description, which names them, and then removes the files
that it does not name. So a description never names files that are half written. What is missing from the files is
encoded again. Files of other documents or other settings are not used.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from muvera_core.errors import CorruptIndexError
from muvera_core.files import (
    file_checksum,
    is_plain_file,
    read_small,
    storage_errors,
    sync_file,
    sync_folder,
    write_json,
)
from muvera_core.stage_one.candidates import Candidates
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.graph_parameters import GraphParameters
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.stage_one.stage_one import StageOne

DESCRIPTION_NAME = "stage_one.json"
_DESCRIPTION_LIMIT = 1 << 16
_ADVICE = "the next opening derives it from the documents again"
# How vectors are derived from encodings. Files whose vectors were derived in another way are not used.
_VECTORS = "unit length"
# The names of earlier versions have no number.
_FILE_NAME = re.compile(r"stage_one(?:-(\d{1,18}))?(\.[a-z]+)")
_CODES = {".keys", ".scales", ".codes"}
_SUFFIXES: dict[str, tuple[set[str], ...]] = {  # of each kind: the files that it may have
    FlatCandidates.kind: (_CODES, {".keys", ".vectors"}),  # earlier versions kept float32
    HnswCandidates.kind: (  # the last two of earlier versions, which kept no codes
        {".hnsw"} | _CODES,
        {".hnsw", ".shared"} | _CODES,
        {".hnsw"},
        {".hnsw", ".shared"},
    ),
}
# How often a reader starts again because a writer has saved other files meanwhile.
_ATTEMPTS = 10


def save_stage_one(stage_one: StageOne, folder: Path, index_id: str) -> None:
    """Write the published vectors to ``folder``. Until all are written, what was saved before stays in use.

    Raises:
        StorageError: the files cannot be written completely.
    """
    candidates: Candidates = stage_one.candidates
    if not len(candidates):
        candidates = FlatCandidates(stage_one.encoder.output_dimension)  # a file cannot hold an empty graph
    with storage_errors(folder):
        number = max((int(match[1] or 0) for match in map(_FILE_NAME.fullmatch, _names(folder)) if match), default=0)
        try:
            files = candidates.save(folder / f"stage_one-{number + 1}")
            for file in files:
                sync_file(file)
            sync_folder(folder)
            description = {
                "index_id": index_id,
                "encoder": stage_one.encoder.fingerprint,
                "vectors": _VECTORS,
                "kind": candidates.kind,
                "files": {file.name: file_checksum(file) for file in files},
                "sizes": {file.name: file.stat().st_size for file in files},
            }
            write_json(folder / DESCRIPTION_NAME, description)
        finally:
            remove_unnamed_files(folder)


def load_candidates(
    folder: Path, index_id: str, encoder: str, dimension: int, parameters: GraphParameters
) -> Candidates | None:
    """Read what ``save_stage_one`` wrote.

    Args:
        folder: the index's folder.
        index_id: the index's name.
        encoder: fingerprint of the encoder that makes the vectors.
        dimension: their width.
        parameters: the parameters that a graph must have.

    Returns:
        The vectors. None if nothing was saved since the encoder was chosen.

    Raises:
        CorruptIndexError: the files are damaged, or are those of another index.
        OSError: a file cannot be read.
    """
    if not _is_saved(folder):
        return None
    description = _described(folder)
    for attempt in range(_ATTEMPTS):
        try:
            if description.get("index_id") != index_id:
                raise CorruptIndexError("the saved vectors are those of another index")
            if (description.get("encoder"), description.get("vectors")) != (encoder, _VECTORS):
                return None
            _compare(folder, description)
            files = {Path(name).suffix: folder / name for name in description["files"]}
            if description["kind"] == FlatCandidates.kind:
                return FlatCandidates.load(files, dimension)
            return HnswCandidates.load(files, dimension, parameters)
        except (OSError, CorruptIndexError):
            latest = _described(folder)
            if latest == description or attempt + 1 == _ATTEMPTS:
                raise
            description = latest  # a writer has saved other files and removed these
    return None


def read_description(folder: Path) -> dict[str, Any]:
    """The description of the saved files, which are compared with it.

    Raises:
        CorruptIndexError: the description is damaged, or a file differs from what was saved.
        OSError: a file cannot be read.
    """
    description = _described(folder)
    _compare(folder, description)
    return description


def remove_unnamed_files(folder: Path) -> None:
    """Remove the files that the description does not name: interrupted savings leave them. Only a writer may do it."""
    with suppress(OSError):
        try:
            named = set(_described(folder)["files"])
        except (FileNotFoundError, CorruptIndexError):
            named = set()
        for name in _names(folder):
            if name not in named:
                with suppress(OSError):
                    (folder / name).unlink()


def _described(folder: Path) -> dict[str, Any]:
    """The description. Only its own files are looked at."""
    path = folder / DESCRIPTION_NAME
    try:
        description: dict[str, Any] = json.loads(read_small(path, _DESCRIPTION_LIMIT))
        names, sizes = list(description["files"].keys()), description.get("sizes", {})
        suffixes = [Path(name).suffix for name in names if _FILE_NAME.fullmatch(name)]
        valid = len(suffixes) == len(names) == len(set(suffixes)) and set(suffixes) in _SUFFIXES[description["kind"]]
        valid = valid and all(type(size) is int for size in sizes.values()) and set(sizes) <= set(names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptIndexError(f"{path} is damaged ({error!r:.200}): {_ADVICE}") from error
    if not valid:
        raise CorruptIndexError(f"{path} is damaged (it names other files than stage one has): {_ADVICE}")
    return description


def _compare(folder: Path, description: dict[str, Any]) -> None:
    """Compare the files with their description: first all sizes, so that a file that is far too large is not read.

    Raises:
        CorruptIndexError: a file differs from what was saved.
        OSError: a file cannot be read.
    """
    sizes = description.get("sizes", {})  # earlier versions did not note them
    for name in description["files"]:
        file = folder / name
        if not is_plain_file(file):
            raise CorruptIndexError(f"{file} is missing: {_ADVICE}")
        if file.stat().st_size != sizes.get(name, file.stat().st_size):
            raise CorruptIndexError(f"{file} has {file.stat().st_size} bytes, not {sizes[name]}: {_ADVICE}")
    for name, checksum in description["files"].items():
        if file_checksum(folder / name) != checksum:
            raise CorruptIndexError(f"{folder / name} is not as it was saved: {_ADVICE}")


def _is_saved(folder: Path) -> bool:
    return os.path.lexists(folder / DESCRIPTION_NAME) or bool(_names(folder))


def _names(folder: Path) -> Sequence[str]:
    """The names of stage one's files in a folder, the description aside."""
    possible = {suffix for kinds in _SUFFIXES.values() for suffixes in kinds for suffix in suffixes}
    return [
        path.name for path in folder.glob("stage_one*") if path.suffix in possible and _FILE_NAME.fullmatch(path.name)
    ]
