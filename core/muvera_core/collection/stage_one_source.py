"""Where an index's stage one comes from: its saved files, and the stored documents for what those lack."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from muvera_core.collection.accelerator import Accelerator
from muvera_core.errors import REPAIR_ADVICE, CorruptIndexError, EncoderError, StageOneNotSavedWarning
from muvera_core.set_encoders import DocumentEncoder, FDEConfig, FixedDimensionalEncoder, SetEncoder
from muvera_core.stage_one import (
    Candidates,
    StageOne,
    Tuning,
    load_candidates,
    load_weights,
    remove_unnamed_files,
    save_stage_one,
)
from muvera_core.storage import DATABASE_NAME, Manifest, Snapshot, Store, warn_or_log
from muvera_core.token_embeddings import FloatArray, IntArray
from muvera_core.validation import counted

# Documents that are read and encoded for stage one at a time.
ENCODED_TOGETHER = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageOneChoice:
    """All that decides how documents are encoded for stage one. If it changes, they are encoded anew.

    Attributes:
        tuning: what ``optimize`` chose. None before that.
        mean_token: the frozen mean token, as it is stored. None until it is frozen, or without centring.
    """

    tuning: Tuning | None
    mean_token: Any


class StageOneSource:
    """Makes the stage one that is chosen, and brings it in step with the stored documents."""

    def __init__(self, store: Store, folder: Path | None, accelerator: Accelerator | None, *, read_only: bool) -> None:
        self._store, self._folder, self._accelerator, self._read_only = store, folder, accelerator, read_only
        self._latest: tuple[tuple[FDEConfig, bytes | None], FixedDimensionalEncoder] | None = None

    def committed_choice(self, manifest: Manifest) -> StageOneChoice:
        """What is committed. A tuning is committed before the file of an earlier one is removed."""
        state = self._store.get_states()
        text, tuning = state.get("manifest"), manifest.tuning
        if self._folder is not None and text is not None:
            tuning = Manifest.from_text(text, self._folder / DATABASE_NAME).tuning
        return StageOneChoice(tuning, state.get("mean_token"))

    def load(self, manifest: Manifest, choice: StageOneChoice) -> tuple[StageOneChoice, StageOne]:
        """Load the stage one that is chosen, as it was saved. The caller stages the documents that it lacks.

        If the learned encoder's file is lost, stage one has the index's first encoding. If the file is gone because a
        writer has optimized the index again meanwhile, the stage one of the latest choice is loaded.

        Returns:
            The choice that was followed, and stage one.
        """
        tuning, learned = choice.tuning, None
        if self._folder is None:
            return choice, self.make(self._first_encoder(manifest.fde, choice.mean_token), tuning)
        if tuning is not None and tuning.set_encoder is not None:
            try:
                learned = load_weights(self._folder, tuning)
            except (EncoderError, CorruptIndexError, OSError) as error:
                if self._read_only and (later := self.committed_choice(manifest)) != choice:
                    return self.load(manifest, later)
                _log.warning(
                    "%s searches with its first encoding until it is optimized again: %s", self._folder, str(error)
                )
                tuning = None  # its few candidates were for the learned encoder
        stage_one = self.make(learned or self._first_encoder(manifest.fde, choice.mean_token), tuning)
        if (candidates := self._saved_candidates(self._folder, manifest.index_id, stage_one)) is not None:
            stage_one = self.make(stage_one.encoder, tuning, candidates)
        return choice, stage_one

    def _saved_candidates(self, folder: Path, index_id: str, empty: StageOne) -> Candidates | None:
        """The saved vectors for a stage one. None if there are none, or if they cannot be used, which is logged."""
        encoder, n = empty.encoder, len(self._store.snapshot)
        try:
            return load_candidates(folder, index_id, encoder.fingerprint, encoder.output_dimension, empty.graph)
        except (OSError, CorruptIndexError) as error:
            # A reader finds files without a description while a writer saves for the first time.
            if n and not (self._read_only and isinstance(error, FileNotFoundError)):
                _log.warning("%s derives stage one of %s again: %s", folder, counted(n, "document"), str(error))
            return None
        finally:
            if not self._read_only:
                remove_unnamed_files(folder)

    def make(self, encoder: SetEncoder, tuning: Tuning | None = None, candidates: Candidates | None = None) -> StageOne:
        """A stage one with these candidates, or an empty one."""
        return StageOne(encoder, self._store.locks.state, candidates, tuning, self.document_encoder(encoder))

    def document_encoder(self, encoder: SetEncoder) -> DocumentEncoder:
        """The encoder of documents: ``encoder`` on the GPU if there is one, else ``encoder`` itself."""
        return encoder if self._accelerator is None else self._accelerator.document_encoder(encoder)

    def stage(self, stage_one: StageOne, keys: IntArray, snapshot: Snapshot, *, show_progress: bool = False) -> None:
        """Encode stored documents for stage one. They are not found until they are published."""
        with tqdm(total=len(keys), desc="building stage one", unit="doc", disable=not show_progress) as bar:
            for start in range(0, len(keys), ENCODED_TOGETHER):
                batch = keys[start : start + ENCODED_TOGETHER]
                stage_one.stage(batch, self._store.embeddings(snapshot, batch))
                bar.update(len(batch))

    def bring_in_step(self, stage_one: StageOne, snapshot: Snapshot, *, show_progress: bool = False) -> int:
        """Let stage one hold a snapshot's documents and no others. Returns the number of added and removed ones."""
        added, removed = stage_one.difference(snapshot.keys)
        self.stage(stage_one, added, snapshot, show_progress=show_progress)
        stage_one.publish(removed)
        return len(added) + len(removed)

    def save(self, stage_one: StageOne, index_id: str) -> bool:
        """Write stage one's files if the index has a folder. Returns whether it did. A failure gives a warning."""
        if self._folder is None:
            return False
        try:
            save_stage_one(stage_one, self._folder, index_id)
        except Exception as error:
            warn_or_log(
                f"stage one of {self._folder} could not be saved; the next opening derives it again: {error}",
                StageOneNotSavedWarning,
            )
            return False
        return True

    # The first encoding

    def first_encoder(self, config: FDEConfig) -> FixedDimensionalEncoder:
        """The encoder of the index's first encoding, with the mean token that is committed now, if it is centred."""
        return self._first_encoder(config, self._store.get_state("mean_token") if config.center else None)

    def _first_encoder(self, config: FDEConfig, mean_token: Any) -> FixedDimensionalEncoder:
        """An encoder with these settings. The latest one is kept, because drawing its matrices takes time."""
        mean = self._centre(config.dimension, mean_token) if config.center else None
        wanted = config, None if mean is None else mean.tobytes()
        if self._latest is None or self._latest[0] != wanted:
            self._latest = wanted, FixedDimensionalEncoder(config, mean=mean)
        return self._latest[1]

    def _centre(self, dimension: int, stored: Any) -> FloatArray:
        """The mean token as it is stored, float32, shape (dimension,). Zeros until it is frozen."""
        if stored is None:
            return np.zeros(dimension, np.float32)
        mean = (
            np.frombuffer(stored, dtype="<f4") if isinstance(stored, bytes) and len(stored) == 4 * dimension else None
        )
        if mean is None or not np.isfinite(mean).all():
            raise CorruptIndexError(f"the mean token of {self._folder} is damaged: {REPAIR_ADVICE}")
        return mean
