"""An open index: stored documents and stage one, kept in step for one writing thread and many searching threads.

The writer makes a change visible in one moment: it holds ``locks.state`` while the store commits and stage one
publishes. A search holds ``locks.state`` while it takes a snapshot and a view of stage one, then only for single short
reads. If a document that it would return has been deleted meanwhile, the search starts again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from muvera_core.collection.accelerator import Accelerator
from muvera_core.collection.stage_one_source import StageOneChoice, StageOneSource
from muvera_core.errors import (
    CLOSED,
    ForkedIndexError,
    IndexClosedError,
    InvalidInputError,
    MuveraError,
    ReadOnlyIndexError,
)
from muvera_core.stage_one import StageOne
from muvera_core.storage import (
    LEARNED_NAME,
    ForkGuard,
    LearnedSettings,
    Manifest,
    Snapshot,
    StaleError,
    Store,
    follow_up,
    log_failure,
)
from muvera_core.token_embeddings import IntArray

# Attempts to read from one snapshot before a write replaces it. The last attempt makes writers wait.
_ATTEMPTS = 4
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Collection:
    """An open index's documents and stage one. ``IndexLocks`` says which lock guards what.

    Attributes:
        store: the stored documents.
        stage_one: finds candidates among them.
        choice: how stage one encodes documents.
        learned: what was learned about scores. It is replaced only while ``locks.state`` is held.
        stage_one_source: makes stage one from saved files or stored documents.
        folder: the index's folder. None if it is in memory.
        read_only: whether changes are refused.
        accelerator: the GPU to use. None for the CPU.
        n_unsaved: the number of added and deleted documents that stage one's saved files do not know.
    """

    def __init__(
        self,
        manifest: Manifest,
        store: Store,
        *,
        folder: Path | None = None,
        folder_lock: FileLock | None = None,
        read_only: bool = False,
        show_progress: bool = False,
        accelerator: Accelerator | None = None,
    ) -> None:
        """Take over an open store. Load stage one, derive what it lacks, and copy documents to the GPU.

        Args:
            manifest: the index's settings.
            store: the documents.
            folder: the store's folder. None if it is in memory.
            folder_lock: the lock of the folder's one writer. None for reading.
            read_only: allow no changes.
            show_progress: show bars.
            accelerator: the GPU to use, if any.
        """
        self.store, self.locks = store, store.locks
        self.folder, self._folder_lock, self.read_only = folder, folder_lock, read_only
        self._closed = False
        self._fork_guard = ForkGuard(store, folder_lock, locks=(self.locks.change, self.locks.state, self.locks.words))
        if folder is not None:
            manifest.require_copy(store.get_state("manifest"), folder)
        self.accelerator = None if accelerator is None else accelerator.attach(store)
        # Set while a write is under way. A write that finds it set was started by the encoder of the one under way:
        # the lock ``writing`` is reentrant.
        self._is_writing = False
        # Set after an error or an interruption, while memory may differ from what is committed.
        self._unsettled = False
        self.stage_one_source = StageOneSource(store, folder, self.accelerator, read_only=read_only)
        choice = self.stage_one_source.committed_choice(manifest)
        self.choice, self.stage_one = self.stage_one_source.load(manifest, choice)
        self._settings = manifest
        self.learned = self._committed_learned()
        if self.manifest != manifest and folder is not None and not read_only:  # a writer was cut short before it
            follow_up(lambda: self.manifest.write(folder), f"the manifest of {folder} could not be brought up to date")
        self.n_unsaved = self.stage_one_source.bring_in_step(
            self.stage_one, store.snapshot, show_progress=show_progress
        )
        if self.accelerator is not None:
            self.accelerator.update(store.snapshot, self.stage_one, show_progress=show_progress)

    # Reading

    @property
    def manifest(self) -> Manifest:
        """The index's settings, with the tuning, the token precision and the word index that are in use."""
        snapshot = self.store.snapshot
        precision = snapshot.tokens.codec.precision
        return replace(self._settings, tuning=self.choice.tuning, token_precision=precision, lexical=snapshot.lexical)

    def snapshot(self) -> Snapshot:
        """The state that a search sees."""
        self.require_open()
        if self._unsettled:
            self._settle()
        return self.store.snapshot

    def read_with_retry(self, read: Callable[[Snapshot], _T]) -> _T:
        """What ``read`` returns for one snapshot. If it is replaced meanwhile, read again from a later one."""

        def latest() -> _T:
            if self.read_only:
                self.catch_up()
            return read(self.snapshot())

        for _ in range(_ATTEMPTS - 1):
            try:
                return read(self.snapshot())
            except StaleError:
                if self.read_only:  # otherwise this index itself has replaced the snapshot
                    self.catch_up()
        with self.locks.writing if self.read_only else nullcontext():
            if self.read_only:
                self.catch_up()  # most of the work, before the writer has to wait
            return self.store.read_exclusively(lambda: self._read_undisturbed(latest))

    def is_current(self, *, waits: bool = False) -> bool:
        """Whether no other process has committed anything since the snapshot. This is cheap.

        While another thread is taking something in, the answer is True; with ``waits``, it is that afterwards.
        """
        if not self.locks.writing.acquire(blocking=waits):
            return True
        try:
            self.require_open()
            return self.store.is_current()
        finally:
            self.locks.writing.release()

    def _read_undisturbed(self, read: Callable[[], _T]) -> _T:
        """What ``read`` returns while nothing can be committed. What follows a commit may still disturb it, once."""
        try:
            return read()
        except StaleError:
            return read()

    def sizes(self) -> dict[str, int]:
        """Bytes of each part, by name."""
        snapshot = self.snapshot()
        on_disk = self.store.size_on_disk()
        parts = {"documents and tokens on disk": on_disk} if on_disk else {}
        if self.accelerator is not None:
            parts[f"on {self.accelerator.name}"] = self.accelerator.n_bytes
        with self.locks.state:
            parts["stage one in memory"] = self.stage_one.candidates.n_bytes
        return parts | {"directory in memory": sum(column.nbytes for column in snapshot.rows.columns)}

    @property
    def device(self) -> str:
        """Name of the device that searches use."""
        return "cpu" if self.accelerator is None else self.accelerator.name

    # Changing what a search sees. The caller holds ``locks.writing``.

    def write(self, write: Callable[[], None]) -> None:
        """Run a write. After an error or an interruption return to what is committed.

        Not a context manager: an interruption between its generator and its block would leave the write half done.
        """
        if self._is_writing and not self._unsettled:
            raise MuveraError(
                "an encoder cannot write to the index that it is encoding documents for: write after `add` has returned"
            )
        if self._unsettled:
            self._settle()
        self._is_writing = True
        try:
            write()
            self._is_writing = False
        finally:
            if self._is_writing:
                self._unsettled = True
                self._is_writing = False
                try:
                    self._settle()
                except Exception as error:
                    _log.warning(
                        "%s cannot be read after a failed write; the next use tries again: %s", self.folder, str(error)
                    )

    def catch_up(self) -> bool:
        """Take in what another process has committed: documents, and how they are encoded for stage one.

        If they are encoded in another way, another stage one is made, while searches use the present one.

        Returns:
            Whether another process has committed anything.
        """
        with self.locks.writing:
            self.require_open()
            committed = self.store.load()
            choice, learned = self.stage_one_source.committed_choice(self.manifest), self._committed_learned()
            if committed is self.store.snapshot and choice == self.choice:
                return False
            if choice == self.choice:
                self.write(lambda: self._take_in(committed, learned))
            else:
                self.write(lambda: self._take_in_anew(committed, choice, learned))
            follow_up(self.stage_one.compact, f"stage one of {self.folder} could not be compacted")
            self.update_accelerator()
        return True

    def update_accelerator(self) -> None:
        """Copy newly written documents to the GPU. An error is only logged."""
        gpu = self.accelerator
        if gpu is not None:
            follow_up(
                lambda: gpu.update_after_write(self.store.snapshot, self.stage_one),
                f"new documents could not be copied to {gpu.name}",
            )

    def publish(self, removed: IntArray) -> None:
        """Let stage one show what was just committed. The caller holds ``locks.state``.

        If that fails, the next use brings stage one in step.
        """
        try:
            self.stage_one.publish(removed)
        except BaseException as error:
            self._unsettled = True
            if not isinstance(error, Exception):
                raise
            log_failure(f"stage one of {self.folder} must be brought in step", error)

    def _take_in(self, committed: Snapshot, learned: LearnedSettings) -> None:
        added, removed = self.stage_one.difference(committed.keys)
        self.stage_one_source.stage(self.stage_one, added, committed)
        with self.locks.state:
            self.require_open()
            self.store.snapshot, self.learned = committed, learned
            self.stage_one.publish(removed)

    def _take_in_anew(self, committed: Snapshot, choice: StageOneChoice, learned: LearnedSettings) -> None:
        choice, stage_one = self.stage_one_source.load(self.manifest, choice)
        self.stage_one_source.bring_in_step(stage_one, committed)
        with self.locks.state:
            self.require_open()
            self.store.snapshot, self.stage_one, self.choice = committed, stage_one, choice
            self.learned = learned

    def adopt_stage_one(self, stage_one: StageOne, choice: StageOneChoice) -> None:
        """Let searches use another stage one from now on. It is in step with the snapshot."""
        with self.locks.state:
            self.require_open()
            self.stage_one, self.choice = stage_one, choice

    def _settle(self) -> None:
        """Return to what is committed, if memory may differ from it."""
        with self.locks.state:
            if self._unsettled and not self._closed:
                if not self.read_only:
                    self.store.roll_back()
                self.stage_one.discard()
                self.stage_one_source.bring_in_step(self.stage_one, self.store.snapshot)
                self.learned = self._committed_learned()
                self._unsettled = False

    def _committed_learned(self) -> LearnedSettings:
        """What is committed about scores. If that is damaged, nothing, which is logged: documents are not affected."""
        try:
            return LearnedSettings.from_text(self.store.get_state(LEARNED_NAME))
        except InvalidInputError as error:
            _log.warning("%s searches without its calibration until it is calibrated again: %s", self.folder, error)
            return LearnedSettings()

    # Opening and closing

    @property
    def is_open(self) -> bool:
        """Whether the index can be used in this process."""
        return not (self._closed or self._fork_guard.in_child)

    def require_open(self) -> None:
        """Raise IndexClosedError or ForkedIndexError unless the index can be used."""
        if self._fork_guard.in_child:
            advice = "make one here" if self.folder is None else "open it again here, with read_only=True"
            raise ForkedIndexError(f"the index belongs to the process that this one was forked from: {advice}")
        if self._closed:
            raise IndexClosedError(CLOSED)

    def require_writable(self) -> None:
        """Raise ReadOnlyIndexError, or an error of ``require_open``, unless the index can be changed."""
        self.require_open()
        if self.read_only:
            raise ReadOnlyIndexError(f"{self.folder} was opened with read_only=True: open it without to change it")

    def close(self) -> None:
        """Save stage one and release the folder."""
        if self._fork_guard.in_child:
            return  # all of it is the parent's
        with self.locks.writing:
            try:
                if self.n_unsaved and not self.read_only and not self._closed:
                    self.save_stage_one()
            finally:
                try:
                    with self.locks.state:
                        self._closed = True
                        self.store.close()
                    if self.accelerator is not None:
                        follow_up(self.accelerator.close, f"{self.accelerator.name} could not be freed")
                finally:
                    if self._folder_lock is not None:
                        self._folder_lock.release()

    def save_stage_one(self) -> None:
        """Write stage one's files. A failure only gives a warning, because the next opening derives stage one again."""
        if self.stage_one_source.save(self.stage_one, self.manifest.index_id):
            self.n_unsaved = 0
