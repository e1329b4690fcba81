"""Looks for damage in an index."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from muvera_core.errors import CorruptIndexError, EncoderError, MuveraError, NotAnIndexError, ReadOnlyIndexError
from muvera_core.files import storage_errors
from muvera_core.maintenance.reports import IndexReport, Problem
from muvera_core.maintenance.salvage import Salvage, name_of
from muvera_core.stage_one import DESCRIPTION_NAME, Tuning, load_weights, read_description
from muvera_core.storage import (
    DATABASE_NAME,
    MANIFEST_NAME,
    Manifest,
    Store,
    claimed,
    read_manifest,
    token_generations,
    tokens_path,
)
from muvera_core.validation import require_path


def check_index(path: str | os.PathLike[str]) -> IndexReport:
    """Read everything in an index and compare it with its checksums. Changes no document.

    It needs room for a copy of the database, though not of the tokens, in the folder for temporary files. Where the
    index's folder can't be written no writer can be kept out, and one that is at work looks like damage.

    Raises:
        NotAnIndexError: there is no index.
        UnsupportedFormatError: the index is of another format.
        IndexLockedError: it is open for writing.
    """
    folder = require_path("path", path)
    require_index(folder)
    with storage_errors(folder), _claimed_if_possible(folder), tempfile.TemporaryDirectory() as work:
        return check_claimed(folder, Path(work))


def check_claimed(folder: Path, work: Path) -> IndexReport:
    """``check_index`` for a folder that the caller has claimed, with an empty folder to work in."""
    problems: list[Problem] = []
    n_whole = 0
    with closing(Salvage(folder, work)) as salvage:
        try:
            Manifest.read(folder).require_copy(salvage.state.get("manifest"), folder)
        except (CorruptIndexError, NotAnIndexError) as error:
            problems.append(Problem(MANIFEST_NAME, str(error)))
        manifest = settings_of(folder, salvage)
        try:
            Store(folder, manifest.codec, read_only=True).close()
        except MuveraError as error:
            problems.append(Problem(DATABASE_NAME, str(error)))
        problems += salvage.problems()
        generation = generation_of(folder, salvage, manifest)
        no_record, no_tokens = [], []
        for document in salvage.documents(manifest.codec, generation):
            if document.id is None:
                no_record.append(name_of(document))
            elif document.rows is None:
                no_tokens.append(document.id)
            else:
                n_whole += 1
    if no_record:
        problems.append(Problem(DATABASE_NAME, "documents are damaged", tuple(no_record)))
    if no_tokens:
        name = tokens_path(folder, generation).name
        problems.append(Problem(name, "documents have lost their tokens, not their text", tuple(no_tokens)))
    if os.path.lexists(folder / DESCRIPTION_NAME):
        try:
            read_description(folder)
        except (OSError, CorruptIndexError) as error:
            message = f"stage one is damaged and will be derived from the documents ({error})"
            problems.append(Problem(DESCRIPTION_NAME, message, derived=True))
    if manifest.tuning is not None and (damage := weights_damage(folder, manifest.tuning)):
        message = f"what stage one has learned is lost, searches use its first encoding; optimize again ({damage})"
        problems.append(Problem(manifest.tuning.weights or MANIFEST_NAME, message, derived=True))
    return IndexReport(folder, n_whole, tuple(problems))


def weights_damage(folder: Path, tuning: Tuning) -> str | None:
    """What is wrong with the file of a learned encoder."""
    if tuning.set_encoder is not None:
        try:
            load_weights(folder, tuning)
        except (EncoderError, CorruptIndexError, OSError) as error:
            return str(error)
    return None


def generation_of(folder: Path, salvage: Salvage, manifest: Manifest) -> int:
    """Of the token file that the documents refer to; where that isn't known, of the one that fits most of them."""
    there, noted = token_generations(folder), salvage.state.get("generation")
    if isinstance(noted, int) and (noted in there or not there):
        return noted if noted in there else 0

    def n_whole(generation: int) -> int:
        return sum(document.rows is not None for document in salvage.documents(manifest.codec, generation))

    return max(there, key=n_whole, default=0)


def settings_of(folder: Path, salvage: Salvage) -> Manifest:
    """The settings, or their copy in the database where they are damaged."""
    with suppress(CorruptIndexError, NotAnIndexError):
        return Manifest.read(folder)
    try:
        return Manifest.from_text(salvage.state.get("manifest"), folder / MANIFEST_NAME)
    except MuveraError:
        raise CorruptIndexError(
            f"both copies of the index's settings are damaged, in {MANIFEST_NAME} and in {DATABASE_NAME} in {folder}: "
            "restore one of the two files from a backup"
        ) from None


def require_index(folder: Path) -> None:
    """Raise NotAnIndexError where nothing looks like one, and UnsupportedFormatError for other formats."""
    try:
        content = read_manifest(folder)
    except CorruptIndexError:
        return
    except NotAnIndexError:
        if not os.path.lexists(folder / DATABASE_NAME):
            raise
        return
    with suppress(CorruptIndexError):
        if content.get("format_version") != 1:
            Manifest.from_json(content, folder / MANIFEST_NAME)


@contextmanager
def _claimed_if_possible(folder: Path) -> Iterator[None]:
    """Keep writers out, where the folder can be written."""
    with ExitStack() as claim:
        with suppress(ReadOnlyIndexError):
            claim.enter_context(claimed(folder))
        yield
