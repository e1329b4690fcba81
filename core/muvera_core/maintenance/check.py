"""Checks an index for damage."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from muvera_core.errors import CorruptIndexError, EncoderError, MuveraError, NotAnIndexError, ReadOnlyIndexError
from muvera_core.files import storage_errors
from muvera_core.maintenance.reports import IndexReport, Problem
from muvera_core.maintenance.salvage import Salvage, document_name
from muvera_core.stage_one import DESCRIPTION_NAME, Tuning, load_weights, read_description
from muvera_core.storage import (
    DATABASE_NAME,
    MANIFEST_NAME,
    Manifest,
    Store,
    claimed,
    noted_lexical,
    noted_precision,
    read_manifest,
    token_generations,
    tokens_path,
)
from muvera_core.validation import require_path


def check_index(path: str | os.PathLike[str]) -> IndexReport:
    """Read everything in an index and compare it with its checksums. No document is changed.

    The check needs room for a copy of the database, but not of the tokens, in the system's folder for temporary files.
    If the index's folder is not writable, the check cannot lock out a writer, whose work may then look like damage.

    Args:
        path: the index's folder.

    Raises:
        NotAnIndexError: the folder holds no index.
        UnsupportedFormatError: the index has another format.
        IndexLockedError: the index is open for writing.
        CorruptIndexError: both copies of the index's settings are lost.
        StorageError: there is no room for the copy, or files cannot be read.
    """
    folder = require_path("path", path)
    require_index(folder)
    with storage_errors(folder), _claimed_if_possible(folder), tempfile.TemporaryDirectory() as work:
        return check_claimed(folder, Path(work))


def check_claimed(folder: Path, work: Path) -> IndexReport:
    """Like ``check_index``, for a folder that the caller has locked. ``work`` is an empty folder for its files."""
    problems: list[Problem] = []
    n_intact = 0
    with closing(Salvage(folder, work)) as salvage:
        try:
            Manifest.read(folder).require_copy(salvage.state.get("manifest"), folder)
        except (CorruptIndexError, NotAnIndexError) as error:
            problems.append(Problem(MANIFEST_NAME, str(error)))
        manifest = read_settings(folder, salvage)
        try:
            Store(folder, manifest.codec, read_only=True).close()
        except MuveraError as error:
            problems.append(Problem(DATABASE_NAME, str(error)))
        problems += salvage.problems()
        problems += salvage.word_problems(manifest.lexical)
        generation = find_generation(folder, salvage, manifest)
        no_record, no_tokens = [], []
        for document in salvage.documents(manifest.codec, generation):
            if document.id is None:
                no_record.append(document_name(document))
            elif document.rows is None:
                no_tokens.append(document.id)
            else:
                n_intact += 1
    if no_record:
        problems.append(Problem(DATABASE_NAME, "documents are damaged", tuple(no_record)))
    if no_tokens:
        name = tokens_path(folder, generation).name
        problems.append(
            Problem(name, "documents have lost their tokens, but not their text or image", tuple(no_tokens))
        )
    if os.path.lexists(folder / DESCRIPTION_NAME):
        try:
            read_description(folder)
        except (OSError, CorruptIndexError) as error:
            message = f"stage one is damaged, but no document is affected ({error})"
            problems.append(Problem(DESCRIPTION_NAME, message, derived=True))
    if manifest.tuning is not None and (damage := weights_damage(folder, manifest.tuning)):
        message = f"the learned encoder is lost, so searches use the index's first encoding: optimize again ({damage})"
        problems.append(Problem(manifest.tuning.weights or MANIFEST_NAME, message, derived=True))
    return IndexReport(folder, n_intact, tuple(problems))


def weights_damage(folder: Path, tuning: Tuning) -> str | None:
    """The damage of the learned encoder's file. None if it is intact, or if there is no learned encoder."""
    if tuning.set_encoder is not None:
        try:
            load_weights(folder, tuning)
        except (EncoderError, CorruptIndexError, OSError) as error:
            return str(error)
    return None


def find_generation(folder: Path, salvage: Salvage, manifest: Manifest) -> int:
    """The generation of the documents' token file. If it is unknown, that of the file that matches most documents."""
    found, noted = token_generations(folder), salvage.state.get("generation")
    if isinstance(noted, int) and (noted in found or not found):
        return noted if noted in found else 0

    def n_intact(generation: int) -> int:
        return sum(document.rows is not None for document in salvage.documents(manifest.codec, generation))

    return max(found, key=n_intact, default=0)


def read_settings(folder: Path, salvage: Salvage) -> Manifest:
    """The manifest, or its copy in the database if it is damaged or missing.

    Raises:
        CorruptIndexError: both are damaged or missing.
    """
    with suppress(CorruptIndexError, NotAnIndexError):
        manifest = Manifest.read(folder)
        with suppress(CorruptIndexError):  # both are committed before the manifest is written
            copy = salvage.state.get("manifest")
            precision = noted_precision(copy, manifest.token_precision)
            lexical = manifest.lexical if copy is None else noted_lexical(copy)
            return replace(manifest, token_precision=precision, lexical=lexical)
        return manifest
    try:
        return Manifest.from_copy(salvage.state.get("manifest"), folder / MANIFEST_NAME)
    except MuveraError:
        raise CorruptIndexError(
            f"the index's settings are damaged in both {MANIFEST_NAME} and {DATABASE_NAME} in {folder}: "
            "restore one of the two files from a backup"
        ) from None


def require_index(folder: Path) -> None:
    """Check that the folder holds an index, damaged or not.

    Raises:
        NotAnIndexError: it has neither a manifest nor a database.
        UnsupportedFormatError: the index has another format.
    """
    try:
        content = read_manifest(folder)
    except CorruptIndexError:
        return
    except NotAnIndexError:
        if not os.path.lexists(folder / DATABASE_NAME):
            raise
        return
    with suppress(CorruptIndexError):
        if content.get("format_version") not in (1, 2, 3, 4):
            Manifest.from_json(content, folder / MANIFEST_NAME)


@contextmanager
def _claimed_if_possible(folder: Path) -> Iterator[None]:
    """Lock writers out if the folder is writable."""
    with ExitStack() as claim:
        with suppress(ReadOnlyIndexError):
            claim.enter_context(claimed(folder))
        yield
