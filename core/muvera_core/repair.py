"""Looking for damage in an index, and repairing it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core.batches import batched
from muvera_core.database import DATABASE_NAME, undo_interrupted_commit
from muvera_core.encoders.default import default_encoder
from muvera_core.encoders.protocol import TokenEncoder
from muvera_core.errors import (
    CorruptIndexError,
    EncoderError,
    EncoderMismatchError,
    InvalidInputError,
    MuveraError,
    NotAnIndexError,
    ReadOnlyIndexError,
)
from muvera_core.files import storage_errors, write_json
from muvera_core.folder_lock import claimed
from muvera_core.manifest import MANIFEST_NAME, Manifest, Tuning, read_manifest
from muvera_core.migrations import bring_up_to_date
from muvera_core.rebuild import Rebuild, work_folder
from muvera_core.salvage import Salvage, SalvagedDocument
from muvera_core.stage_one import DESCRIPTION_NAME, read_description
from muvera_core.store import Store
from muvera_core.token_log import token_generations, tokens_path
from muvera_core.token_pooling import pool_tokens
from muvera_core.validation import require_encoded, require_path
from muvera_core.weights import load_weights

_BATCH = 64
_COPY_BATCH = 1024
_NAMED = 20


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with an index.

    Attributes:
        file: name of the damaged file.
        message: what is wrong.
        ids: of the documents concerned, where that is known.
        derived: whether it is only something that is made from the documents, so that nothing is lost.
    """

    file: str
    message: str
    ids: tuple[str, ...] = ()
    derived: bool = False

    def __str__(self) -> str:
        named = ", ".join(map(repr, self.ids[:_NAMED])) + (", …" if len(self.ids) > _NAMED else "")
        return f"{self.file}: {self.message}{f' ({named})' if self.ids else ''}"


@dataclass(frozen=True)
class IndexReport:
    """What ``check_index`` found.

    Attributes:
        path: the index's folder.
        n_documents: how many documents are whole.
        problems: everything that is wrong.
    """

    path: Path
    n_documents: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        state = "no damage" if self.ok else "DAMAGED"
        lines = [f"{self.path}: {state}, {self.n_documents} documents are whole"]
        return "\n".join(lines + [f"  {problem}" for problem in self.problems])


@dataclass(frozen=True)
class RepairReport:
    """What ``repair_index`` did.

    Attributes:
        path: the index's folder.
        n_documents: how many documents it has now.
        reencoded: ids of those whose tokens were lost and made again from their text.
        lost: ids, or internal numbers, of those that aren't in the index any more.
        quarantine: folder with the damaged files and what is left of the lost documents; None if none was lost.
    """

    path: Path
    n_documents: int
    reencoded: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    quarantine: Path | None = None

    def __str__(self) -> str:
        text = f"{self.path}: {self.n_documents} documents are whole, {len(self.reencoded)} of them encoded again"
        return text + (f"; {len(self.lost)} are lost, see {self.quarantine}" if self.lost else "")


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
    _require_index(folder)
    with storage_errors(folder), _claimed_if_possible(folder), tempfile.TemporaryDirectory() as work:
        return _check(folder, Path(work))


def repair_index(path: str | os.PathLike[str], encoder: TokenEncoder | None = None) -> RepairReport:
    """Make an index whole: derive what is derived anew, encode again what lost its tokens, set aside what is lost.

    It needs room for a copy of the index. Interrupted at any point, it can be run again. Processes that read the index
    have to open it again.

    Args:
        path: the index's folder.
        encoder: the encoder that the index was made with, needed where tokens are lost; None takes the bundled one.

    Raises:
        NotAnIndexError: there is no index.
        IndexLockedError: it is open for writing.
        ReadOnlyIndexError: the folder can't be written.
        EncoderMismatchError: tokens are lost, and this isn't the encoder that they were made with.
        CorruptIndexError: the settings are lost, of which there are two copies.
        StorageError: no room for the copy.
        MissingExtraError: tokens are lost that were pooled, and SciPy isn't installed.
    """
    folder = require_path("path", path)
    _require_index(folder)
    with storage_errors(folder), claimed(folder):
        undo_interrupted_commit(folder / DATABASE_NAME)
        with suppress(CorruptIndexError, NotAnIndexError):
            bring_up_to_date(folder)
        with tempfile.TemporaryDirectory() as work:
            report = _check(folder, Path(work))
        if report.ok:
            return RepairReport(folder, report.n_documents)
        if any(problem.file == DESCRIPTION_NAME for problem in report.problems):
            (folder / DESCRIPTION_NAME).unlink()
        if all(problem.file == DESCRIPTION_NAME or problem.file.endswith(".weights") for problem in report.problems):
            _let_go_of_lost_weights(folder)
            return RepairReport(folder, report.n_documents)
        return _rebuild(folder, encoder)


def _check(folder: Path, work: Path) -> IndexReport:
    problems: list[Problem] = []
    n_whole = 0
    with closing(Salvage(folder, work)) as salvage:
        try:
            Manifest.read(folder).require_copy(salvage.state.get("manifest"), folder)
        except (CorruptIndexError, NotAnIndexError) as error:
            problems.append(Problem(MANIFEST_NAME, str(error)))
        manifest = _manifest(folder, salvage)
        try:
            Store(folder, manifest.codec, threading.RLock(), read_only=True).close()
        except MuveraError as error:
            problems.append(Problem(DATABASE_NAME, str(error)))
        problems += [Problem(DATABASE_NAME, text, derived="metadata field" in text) for text in salvage.problems()]
        generation = _generation(folder, salvage, manifest)
        no_record, no_tokens = [], []
        for document in salvage.documents(manifest.codec, generation):
            if document.id is None:
                no_record.append(_name(document))
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
    if manifest.tuning is not None and (damage := _weights_damage(folder, manifest.tuning)):
        message = f"what stage one has learned is lost, searches use its first encoding; optimize again ({damage})"
        problems.append(Problem(manifest.tuning.weights or MANIFEST_NAME, message, derived=True))
    return IndexReport(folder, n_whole, tuple(problems))


def _weights_damage(folder: Path, tuning: Tuning) -> str | None:
    """What is wrong with the file of a learned encoder."""
    if tuning.set_encoder is not None:
        try:
            load_weights(folder, tuning)
        except (EncoderError, CorruptIndexError, OSError) as error:
            return str(error)
    return None


def _without_lost_weights(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest, without its tuning where that refers to weights that can't be used."""
    lost = manifest.tuning is not None and _weights_damage(folder, manifest.tuning) is not None
    return replace(manifest, tuning=None) if lost else manifest


def _let_go_of_lost_weights(folder: Path) -> None:
    manifest = Manifest.read(folder)
    kept = _without_lost_weights(folder, manifest)
    if kept != manifest:
        with closing(Store(folder, kept.codec, threading.RLock())) as store:
            store.apply(lambda change: change.put_state("manifest", kept.as_text()))
        kept.write(folder)


def _rebuild(folder: Path, encoder: TokenEncoder | None) -> RepairReport:
    with work_folder(folder) as work, closing(Salvage(folder, work)) as salvage:
        manifest = _without_lost_weights(folder, _manifest(folder, salvage))
        manifest.require_copy(salvage.state.get("manifest"), folder)
        old = _generation(folder, salvage, manifest)
        new = max([old, *token_generations(folder)]) + 1
        kept: dict[str, Any] = {"next_key": salvage.next_key}
        kept |= {name: salvage.state[name] for name in ("version", "mean_token") if name in salvage.state}
        latest: dict[str, int] = {}  # of two documents with one id the older was being replaced
        without_tokens: list[SalvagedDocument] = []
        lost: list[SalvagedDocument] = []
        with closing(Rebuild(folder, work, manifest, generation=new, state=kept)) as rebuild:
            for batch in batched(salvage.documents(manifest.codec, old), _COPY_BATCH):
                lost += [document for document in batch if document.id is None]
                latest |= {document.id: document.key for document in batch if document.id is not None}
                newest = [document for document in batch if document.id and latest[document.id] == document.key]
                without_tokens += [document for document in newest if document.rows is None]
                _add_whole(rebuild, [document for document in newest if document.rows is not None])
            without_tokens = [document for document in without_tokens if latest[document.id or ""] == document.key]
            reencoded = _reencode(rebuild, without_tokens, manifest, encoder)
            done = set(reencoded)
            lost += [document for document in without_tokens if document.id not in done]
            quarantine = _set_aside(folder, lost) if lost else None
            report = RepairReport(folder, rebuild.n_documents, tuple(reencoded), tuple(map(_name, lost)), quarantine)
            with storage_errors(folder):  # its vectors may be those of other documents with the same keys
                (folder / DESCRIPTION_NAME).unlink(missing_ok=True)
            rebuild.finish()
            manifest.write(folder)
    with storage_errors(folder):
        for generation in token_generations(folder):
            if generation != new:
                tokens_path(folder, generation).unlink()
    return report


def _add_whole(rebuild: Rebuild, documents: list[SalvagedDocument]) -> None:
    if documents:
        rows = [document.rows for document in documents if document.rows is not None]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        keys = np.array([document.key for document in documents], dtype=np.int64)
        rebuild.add_rows(keys, *_columns(documents), np.concatenate(rows), offsets)


def _reencode(
    rebuild: Rebuild, documents: list[SalvagedDocument], manifest: Manifest, encoder: TokenEncoder | None
) -> list[str]:
    """Encode documents that have a text and add them. Returns their ids."""
    documents = [document for document in documents if document.text is not None]
    if not documents:
        return []
    if encoder is None:
        encoder = default_encoder()
    if encoder.fingerprint != manifest.encoder:
        raise EncoderMismatchError(
            f"{len(documents)} documents have lost their tokens, which can be made again from their texts, but only by "
            f"encoder {manifest.encoder!r}, got {encoder.fingerprint!r}: pass it as encoder"
        )
    done: list[str] = []
    for batch in batched(documents, _BATCH):
        ids, texts, metadatas = _columns(batch)
        try:
            encoded = encoder.encode_documents([text for text in texts if text is not None])
        except InvalidInputError:  # an encoder for precomputed embeddings takes no text
            return done
        encoded = require_encoded(encoded, len(batch), encoder.dimension)
        rebuild.add_embeddings(ids, texts, metadatas, pool_tokens(encoded, manifest.pool_factor))
        done += ids
    return done


def _set_aside(folder: Path, lost: list[SalvagedDocument]) -> Path:
    """Copy the damaged files, and write what is left of lost documents, to a folder of their own."""
    with storage_errors(folder):
        quarantine = Path(tempfile.mkdtemp(dir=folder, prefix="quarantine-"))
        for path in (folder / DATABASE_NAME, *(tokens_path(folder, n) for n in token_generations(folder))):
            if path.is_file() and not path.is_symlink():
                shutil.copyfile(path, quarantine / path.name)
        left = [
            {
                "number": document.key,
                "id": document.id,
                "text": document.text,
                "metadata": None if document.metadata is None else json.loads(document.metadata),
            }
            for document in lost
        ]
        write_json(quarantine / "lost.json", {"documents": left})
        return quarantine


def _columns(documents: Sequence[SalvagedDocument]) -> tuple[list[str], list[str | None], list[str]]:
    """Ids, texts and metadata of documents whose records are whole."""
    records = [(d.id, d.text, d.metadata) for d in documents if d.id is not None and d.metadata is not None]
    return [id for id, _, _ in records], [text for _, text, _ in records], [metadata for _, _, metadata in records]


def _name(document: SalvagedDocument) -> str:
    return f"document number {document.key}" if document.id is None else document.id


def _generation(folder: Path, salvage: Salvage, manifest: Manifest) -> int:
    """Of the token file that the documents refer to; where that isn't known, of the one that fits most of them."""
    there, noted = token_generations(folder), salvage.state.get("generation")
    if isinstance(noted, int) and (noted in there or not there):
        return noted if noted in there else 0

    def n_whole(generation: int) -> int:
        return sum(document.rows is not None for document in salvage.documents(manifest.codec, generation))

    return max(there, key=n_whole, default=0)


def _manifest(folder: Path, salvage: Salvage) -> Manifest:
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


def _require_index(folder: Path) -> None:
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
