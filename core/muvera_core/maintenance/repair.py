"""Repairs a damaged index."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from muvera_core.batches import batched
from muvera_core.encoders import (
    TokenEncoder,
    default_encoder,
    is_image_encoder,
    is_precomputed,
)
from muvera_core.errors import (
    CorruptIndexError,
    EncoderMismatchError,
    InvalidInputError,
    MissingExtraError,
    NotAnIndexError,
)
from muvera_core.files import copy_plain, storage_errors, write_json
from muvera_core.images import ImageRecord, UnreadableImageError, read_again
from muvera_core.maintenance.check import check_claimed, find_generation, read_settings, require_index, weights_damage
from muvera_core.maintenance.migrations import migrate_index
from muvera_core.maintenance.rebuild import Rebuild, work_folder
from muvera_core.maintenance.reports import RepairReport
from muvera_core.maintenance.salvage import Salvage, SalvagedDocument, document_name
from muvera_core.stage_one import DESCRIPTION_NAME, remove_unnamed_files
from muvera_core.storage import (
    COPY_BATCH,
    DATABASE_NAME,
    LEARNED_NAME,
    Manifest,
    Store,
    claimed,
    token_generations,
    tokens_path,
    undo_interrupted_commit,
)
from muvera_core.token_embeddings import TokenEmbeddings
from muvera_core.validation import counted, require_encoded, require_path

if TYPE_CHECKING:
    from PIL.Image import Image

# Number of documents that are encoded at a time.
_BATCH = 64
# Number of images that are encoded at a time.
_IMAGES = 8


def repair_index(path: str | os.PathLike[str], encoder: TokenEncoder | None = None) -> RepairReport:
    """Repair an index.

    Documents that lost their tokens are encoded again from their text. Those that were added as images are encoded
    again from the image's file, if it is still there and the same. Lost documents are removed from the index; the
    damaged files, and what is left of these documents, are copied to a quarantine folder. Damaged files of stage one
    are removed; the next opening derives them again. A damaged word index is made again from the texts. If the learned
    encoder is damaged, the index returns to its first encoding.

    The repair needs room for a copy of the index. If it is interrupted, run it again. Processes that read the index
    must open it again afterwards.

    Args:
        path: the index's folder.
        encoder: the encoder that the index was made with, needed if tokens are lost. None takes the bundled one.

    Raises:
        NotAnIndexError: the folder holds no index.
        UnsupportedFormatError: the index has another format.
        IndexLockedError: the index is open for writing.
        ReadOnlyIndexError: the folder cannot be written.
        EncoderMismatchError: tokens are lost, and ``encoder`` is not the one that they were made with.
        CorruptIndexError: both copies of the index's settings are lost.
        StorageError: there is no room for the copy.
        MissingExtraError: pooled tokens are lost, and SciPy is not installed.
    """
    folder = require_path("path", path)
    require_index(folder)
    with storage_errors(folder), claimed(folder):
        undo_interrupted_commit(folder / DATABASE_NAME)
        with suppress(CorruptIndexError, NotAnIndexError):
            migrate_index(folder)
        with tempfile.TemporaryDirectory() as work:
            report = check_claimed(folder, Path(work))
        if report.ok:
            return RepairReport(folder, report.n_documents)
        if any(problem.file == DESCRIPTION_NAME for problem in report.problems):
            _drop_stage_one(folder)
        if all(problem.file == DESCRIPTION_NAME or problem.file.endswith(".weights") for problem in report.problems):
            _drop_lost_weights(folder)
            return RepairReport(folder, report.n_documents)
        return _rebuild(folder, encoder)


def _without_lost_weights(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest, without its tuning if the learned encoder's file is missing or damaged."""
    lost = manifest.tuning is not None and weights_damage(folder, manifest.tuning) is not None
    return replace(manifest, tuning=None) if lost else manifest


def _drop_stage_one(folder: Path) -> None:
    (folder / DESCRIPTION_NAME).unlink(missing_ok=True)
    remove_unnamed_files(folder)


def _drop_lost_weights(folder: Path) -> None:
    manifest = Manifest.read(folder)
    kept = _without_lost_weights(folder, manifest)
    if kept != manifest:
        with closing(Store(folder, kept.codec)) as store:
            kept = replace(kept, token_precision=store.codec.precision, lexical=store.snapshot.lexical)
            store.apply(lambda change: change.put_state("manifest", kept.as_text()))
        kept.write(folder)


def _rebuild(folder: Path, encoder: TokenEncoder | None) -> RepairReport:
    with work_folder(folder) as work, closing(Salvage(folder, work)) as salvage:
        manifest = _without_lost_weights(folder, read_settings(folder, salvage))
        manifest.require_copy(salvage.state.get("manifest"), folder)
        old = find_generation(folder, salvage, manifest)
        new = max([old, *token_generations(folder)]) + 1
        kept: dict[str, Any] = {"next_key": salvage.next_key}
        names = ("version", "mean_token", *(() if salvage.learned_damage else (LEARNED_NAME,)))
        kept |= {name: salvage.state[name] for name in names if name in salvage.state}
        latest: dict[str, int] = {}  # of two documents with one id, the newer one replaces the older one
        without_tokens: list[SalvagedDocument] = []
        lost: list[SalvagedDocument] = []
        with closing(Rebuild(folder, work, manifest, generation=new, state=kept)) as rebuild:
            for batch in batched(salvage.documents(manifest.codec, old), COPY_BATCH):
                lost += [document for document in batch if document.id is None]
                latest |= {document.id: document.key for document in batch if document.id is not None}
                newest = [document for document in batch if document.id and latest[document.id] == document.key]
                without_tokens += [document for document in newest if document.rows is None]
                _add_intact(rebuild, [document for document in newest if document.rows is not None])
            without_tokens = [document for document in without_tokens if latest[document.id or ""] == document.key]
            reencoded = _reencode(rebuild, without_tokens, manifest, encoder)
            done = set(reencoded)
            lost += [document for document in without_tokens if document.id not in done]
            quarantine = _quarantine(folder, lost) if lost else None
            report = RepairReport(
                folder, rebuild.n_documents, tuple(reencoded), tuple(map(document_name, lost)), quarantine
            )
            with storage_errors(folder):  # stage one may hold vectors of other documents with the same keys
                _drop_stage_one(folder)
            rebuild.finish()
            manifest.write(folder)
    with storage_errors(folder):
        for generation in token_generations(folder):
            if generation != new:
                tokens_path(folder, generation).unlink()
    return report


def _add_intact(rebuild: Rebuild, documents: list[SalvagedDocument]) -> None:
    if documents:
        rows = [document.rows for document in documents if document.rows is not None]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        keys = np.array([document.key for document in documents], dtype=np.int64)
        rebuild.add_rows(keys, *_columns(documents), np.concatenate(rows), offsets)


def _reencode(
    rebuild: Rebuild, documents: list[SalvagedDocument], manifest: Manifest, encoder: TokenEncoder | None
) -> list[str]:
    """Encode and add those documents that have a text to encode, or an image. Returns their ids."""
    texts = [document for document in documents if document.image is None and document.text is not None]
    images = [document for document in documents if document.image is not None]
    n = len(texts) + len(images)
    if not n:
        return []
    if encoder is None:
        if is_precomputed(manifest.encoder):
            return []  # the bundled encoder did not make its tokens
        encoder = default_encoder(manifest.encoder)
    if encoder.fingerprint != manifest.encoder:
        raise EncoderMismatchError(
            f"the tokens of {counted(n, 'document')} are lost. Only encoder {manifest.encoder!r} can make "
            f"them again from the texts and images, got {encoder.fingerprint!r}: pass the index's encoder"
        )
    done: list[str] = []
    for batch in batched(texts, _BATCH):
        try:
            encoded = encoder.encode_documents([document.text for document in batch if document.text is not None])
        except InvalidInputError:  # an encoder for precomputed embeddings does not encode texts
            return done
        done += _add_encoded(rebuild, batch, encoded, manifest, encoder)
    for batch in batched(images if is_image_encoder(encoder) else [], _IMAGES):
        pixels = {document.key: image for document in batch if (image := _image_of(document)) is not None}
        readable = [document for document in batch if document.key in pixels]
        if readable and is_image_encoder(encoder):
            encoded = encoder.encode_images(list(pixels.values()))
            done += _add_encoded(rebuild, readable, encoded, manifest, encoder)
    return done


def _image_of(document: SalvagedDocument) -> Image | None:
    """The document's image. None if it cannot be read, or was changed."""
    try:
        return read_again(ImageRecord.from_text(document.image))
    except (UnreadableImageError, MissingExtraError):
        return None


def _add_encoded(
    rebuild: Rebuild,
    documents: Sequence[SalvagedDocument],
    encoded: TokenEmbeddings,
    manifest: Manifest,
    encoder: TokenEncoder,
) -> list[str]:
    """Add documents with their new tokens. Returns their ids."""
    encoded = require_encoded(encoded, len(documents), encoder.dimension)
    columns = _columns(documents)
    rebuild.add_embeddings(*columns, manifest.reduction.apply(encoded))
    return columns[0]


def _quarantine(folder: Path, lost: list[SalvagedDocument]) -> Path:
    """Copy the damaged files to a new folder, and write there what is left of the lost documents."""
    with storage_errors(folder):
        quarantine = Path(tempfile.mkdtemp(dir=folder, prefix="quarantine-"))
        for path in (folder / DATABASE_NAME, *(tokens_path(folder, n) for n in token_generations(folder))):
            if path.is_file() and not path.is_symlink():
                copy_plain(path, quarantine / path.name)
        left = [
            {
                "number": document.key,
                "id": document.id,
                "text": document.text,
                "metadata": None if document.metadata is None else json.loads(document.metadata),
                "image": None if document.image is None else json.loads(document.image),
            }
            for document in lost
        ]
        write_json(quarantine / "lost.json", {"documents": left})
        return quarantine


def _columns(
    documents: Sequence[SalvagedDocument],
) -> tuple[list[str], list[str | None], list[str], list[str | None]]:
    """Ids, texts, metadata and images of documents whose records are intact."""
    intact = [(d.id, d.metadata, d) for d in documents if d.id is not None and d.metadata is not None]
    return (
        [id for id, _, _ in intact],
        [document.text for _, _, document in intact],
        [metadata for _, metadata, _ in intact],
        [document.image for _, _, document in intact],
    )
