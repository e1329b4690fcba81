"""The file of a learned encoder's matrices, beside the manifest that names it.

The file is named after the encoder's fingerprint, so that a new encoder never overwrites one that a manifest refers to.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from muvera_core.errors import CorruptIndexError
from muvera_core.files import file_checksum, is_plain_file, storage_errors, sync_file, sync_folder
from muvera_core.set_encoders import LearnedMatrices, LearnedSetEncoder
from muvera_core.stage_one.settings import Tuning


def save_weights(folder: Path, encoder: LearnedSetEncoder, tuning: Tuning) -> Tuning:
    """Write an encoder's matrices durably. Returns the tuning that refers to them."""
    name = f"set_encoder-{encoder.fingerprint.removeprefix('learned-')}.weights"
    path, temporary = folder / name, folder / f"{name}.tmp"
    with storage_errors(path):
        # The same encoder may have been learned before, and its file may be in use.
        try:
            encoder.save(temporary)
            sync_file(temporary)
            checksum = file_checksum(temporary)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(folder)
        return replace(tuning, weights=name, weights_checksum=checksum)


def load_weights(folder: Path, tuning: Tuning) -> LearnedSetEncoder:
    """The encoder that a tuning refers to.

    Raises:
        CorruptIndexError: its matrices are missing or damaged.
        EncoderError: its matrices do not match its settings.
        OSError: the file cannot be read.
    """
    if tuning.set_encoder is None or tuning.weights is None:
        raise CorruptIndexError("the tuning names no learned encoder")
    path = folder / tuning.weights
    size = LearnedMatrices.n_bytes(tuning.set_encoder)
    if not is_plain_file(path) or path.stat().st_size != size or file_checksum(path) != tuning.weights_checksum:
        raise CorruptIndexError(f"{path} is missing or damaged")
    return LearnedSetEncoder.load(path, tuning.set_encoder)


def remove_other_weights(folder: Path, tuning: Tuning | None) -> None:
    """Remove all weights files except the one that ``tuning`` names."""
    with suppress(OSError):
        for path in folder.glob("set_encoder-*"):
            if tuning is None or path.name != tuning.weights:
                path.unlink()
