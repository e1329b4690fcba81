"""Stage one's files, saved beside the documents so that an index opens fast.

What is missing from the files is encoded again. Files of other documents or other settings are not used.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from muvera_core.errors import CorruptIndexError
from muvera_core.files import file_checksum, is_plain_file, read_small, storage_errors, write_json
from muvera_core.set_encoders import DocumentEncoder, SetEncoder
from muvera_core.stage_one.candidates import Candidates
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.stage_one.settings import Tuning
from muvera_core.stage_one.stage_one import StageOne

DESCRIPTION_NAME = "stage_one.json"
_DESCRIPTION_LIMIT = 1 << 16
_ADVICE = "the next opening derives it from the documents again"
# How vectors are derived from encodings. Files whose vectors were derived in another way are not used.
_VECTORS = "unit length"
_KINDS: dict[str, type[FlatCandidates] | type[HnswCandidates]] = {c.kind: c for c in (FlatCandidates, HnswCandidates)}


def save_stage_one(stage_one: StageOne, folder: Path, index_id: str) -> None:
    """Write the vectors to ``folder``. The description is removed first and written last.

    Raises:
        StorageError: the files cannot be written.
    """
    with storage_errors(folder):
        (folder / DESCRIPTION_NAME).unlink(missing_ok=True)
        stage_one.candidates.save(folder)
        write_json(
            folder / DESCRIPTION_NAME,
            {
                "index_id": index_id,
                "encoder": stage_one.encoder.fingerprint,
                "vectors": _VECTORS,
                "kind": stage_one.candidates.kind,
                "files": {name: file_checksum(folder / name) for name in stage_one.candidates.file_names},
            },
        )


def load_stage_one(
    folder: Path,
    index_id: str,
    encoder: SetEncoder,
    lock: threading.RLock,
    tuning: Tuning | None = None,
    document_encoder: DocumentEncoder | None = None,
) -> StageOne:
    """Read what ``save_stage_one`` wrote. Return an empty stage one if the files cannot be used."""
    empty = StageOne(encoder, lock, None, tuning, document_encoder)
    try:
        description = read_description(folder)
        expected = {"index_id": index_id, "encoder": encoder.fingerprint, "vectors": _VECTORS}
        if description.items() >= expected.items():
            candidates: Candidates
            if description["kind"] == FlatCandidates.kind:
                candidates = FlatCandidates.load(folder, encoder.output_dimension)
            else:
                candidates = HnswCandidates.load(folder, encoder.output_dimension, empty.graph)
            if read_description(folder, compare=False) == description:  # else a writer has saved new files meanwhile
                return StageOne(encoder, lock, candidates, tuning, document_encoder)
    except (OSError, CorruptIndexError):
        pass
    return empty


def read_description(folder: Path, *, compare: bool = True) -> dict[str, Any]:
    """The description of the saved files. With ``compare``, the files are compared with their checksums.

    Raises:
        CorruptIndexError: the description is damaged, or a file differs from what was saved.
        OSError: a file cannot be read.
    """
    path = folder / DESCRIPTION_NAME
    try:
        description: dict[str, Any] = json.loads(read_small(path, _DESCRIPTION_LIMIT))
        checksums = {folder / name: description["files"][name] for name in _KINDS[description["kind"]].file_names}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptIndexError(f"{path} is damaged ({error!r}): {_ADVICE}") from error
    for file, checksum in checksums.items() if compare else ():
        if not is_plain_file(file) or file_checksum(file) != checksum:
            raise CorruptIndexError(f"{file} is not as it was saved: {_ADVICE}")
    return description
