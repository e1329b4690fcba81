"""The documents of an index as token embeddings: what is stored and what stage one finds, kept in step.

A change becomes visible at once: while ``_state`` is held, the store commits it and stage one publishes it. A search
takes the directory of one committed state and its candidates at once, too, and then works on that state without a lock;
where a document that it would return has been deleted meanwhile, it starts again.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from muvera_core.batches import runs_by_size
from muvera_core.candidates import HnswCandidates
from muvera_core.database import DATABASE_NAME
from muvera_core.directory import Directory
from muvera_core.errors import (
    CorruptIndexError,
    EncoderError,
    ForkedIndexError,
    IndexClosedError,
    MuveraError,
    ReadOnlyIndexError,
    StageOneNotSavedWarning,
    StorageError,
)
from muvera_core.fde import FixedDimensionalEncoder, SetEncoder, unit_length
from muvera_core.filters import Condition
from muvera_core.folder_lock import ForkGuard
from muvera_core.lemur import LearnedSetEncoder
from muvera_core.manifest import Manifest, Tuning
from muvera_core.maxsim.cpu import maxsim_of_many, maxsim_scaled
from muvera_core.maxsim.ranking import Ranking, Task, ranked, sharing_documents
from muvera_core.stage_one import StageOne
from muvera_core.store import AppendedTokens, Change, StaleError, Store, StoredDocument
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.tuning import Choice, Corpus, choose, questions, require_enough
from muvera_core.weights import load_weights, remove_other_weights, save_weights

if TYPE_CHECKING:
    from muvera_core.cuda.accelerator import Accelerator

# A mean over fewer tokens says little about the corpus; until then a centring index encodes without one.
MIN_TOKENS_FOR_MEAN = 16_384
_STAGE_ONE_BATCH = 256
_EXACT_BATCH = 1024
# Tokens of queries that are compared with the same documents together: their products stay in the caches.
_QUERY_TOKENS_TOGETHER = 512
# A search whose documents are replaced under its hands starts again; the last attempt makes writers wait.
_ATTEMPTS = 4
# Stage one is saved at close; and earlier, once it would take as long as this many documents to derive again, and
# half of it is new, so that a process that is killed has not worked for nothing.
_MIN_TO_SAVE = 5_000
_T = TypeVar("_T")
_NONE = np.empty(0, dtype=np.int64)
_log = logging.getLogger(__name__)


class Collection:
    """Documents, their tokens and stage one, for one writing and any number of searching threads."""

    def __init__(
        self,
        manifest: Manifest,
        store: Store,
        *,
        folder: Path | None = None,
        lock: FileLock | None = None,
        read_only: bool = False,
        show_progress: bool = False,
        gpu: Accelerator | None = None,
    ) -> None:
        """Take over an open store, derive what stage one lacks and bring to a card what it is to hold.

        Args:
            manifest: the index's settings.
            store: the documents.
            folder: where the store is; None where it is in memory.
            lock: the claim to the folder; None for reading.
            read_only: allow no changes.
            show_progress: show bars.
            gpu: the card to use, if any.
        """
        self.manifest, self._store = manifest, store
        self.folder, self._folder_lock, self._read_only = folder, lock, read_only
        self._closed = False
        self._fork_guard = ForkGuard(store, lock, locks=(store.change_lock, store.lock))
        # _writing admits one writer, who may take as long as encoding takes; _state guards what searches see, and is
        # held for moments only. A thread that takes both takes _writing first.
        self._writing = threading.RLock()
        self._state = store.lock
        self._next_key = 0
        if folder is not None:
            manifest.require_copy(store.get_state("manifest"), folder)
        self._gpu = None if gpu is None else gpu.attach(manifest.codec, store.token_rows)
        # Set while a write is under way; one that finds it set comes after one that was interrupted beyond help.
        self._writes = False
        # Set while memory may differ from what is committed, which only an error or an interruption leaves behind.
        self._unsettled = False
        self.manifest, self.stage_one = self._load_stage_one(manifest)
        added, removed = self.stage_one.difference(store.directory.keys)
        self._n_unsaved = len(added) + len(removed)
        self._stage(self.stage_one, added, store.directory, show_progress=show_progress)
        self.stage_one.publish(removed)
        if self._gpu is not None:
            self._gpu.update(store.directory, self.stage_one, show_progress=show_progress)

    # Reading

    def snapshot(self) -> Directory:
        """The state that a search sees."""
        self.require_open()
        if self._unsettled:
            self._settle()
        return self._store.directory

    def consistently(self, read: Callable[[Directory], _T]) -> _T:
        """What ``read`` gives for one committed state; anew for a later one, where that state is gone meanwhile."""

        def latest() -> _T:
            if self._read_only:
                self._catch_up()
            return read(self.snapshot())

        for _ in range(_ATTEMPTS - 1):
            try:
                return read(self.snapshot())
            except StaleError:
                if self._read_only:  # else it is this index that has changed it
                    self._catch_up()
        with self._writing if self._read_only else nullcontext(), self._state:
            self.require_open()
            return self._store.frozen(latest)

    def documents(self, directory: Directory, keys: IntArray) -> list[StoredDocument]:
        """Documents of a state, in the order of the keys. Raises StaleError where some are gone meanwhile."""
        with self._state:
            return self._store.documents(directory, keys)

    def keys_of(self, directory: Directory, ids: Sequence[str]) -> dict[str, int]:
        """Keys of those of the ids that are in a state. Raises as ``documents`` does."""
        with self._state:
            return self._store.keys_of(directory, ids)

    def matching(self, directory: Directory, condition: Condition | None) -> IntArray:
        """Keys of a state's documents that a filter admits. Raises as ``documents`` does."""
        with self._state:
            return self._store.matching(directory, condition)

    def embeddings(self, directory: Directory, keys: Sequence[int] | IntArray) -> TokenEmbeddings:
        """Token embeddings of a state's documents."""
        return self._store.embeddings(directory, keys)

    def documents_by_id(self, directory: Directory, ids: Sequence[str]) -> list[StoredDocument]:
        """The documents with these ids, in the order of the ids; unknown ids are passed over."""
        with self._state:
            keys = self._store.keys_of(directory, ids)
            return self._store.documents(directory, [keys[id] for id in ids if id in keys])

    def find_candidates(
        self, tokens: FloatArray, k: int, n_candidates: int | None, condition: Condition | None, *, exact: bool = False
    ) -> tuple[Directory, IntArray]:
        """Keys of the documents to rerank for ``k`` hits.

        Args:
            tokens: of the query.
            k: how many hits are wanted.
            n_candidates: how many to rerank; None leaves it to stage one, which knows how many its encoding needs.
            condition: the filter.
            exact: give all that the filter admits.

        Returns:
            The committed state that they were found in, and the keys.
        """
        stage_one, vector = self.stage_one, None
        n_candidates = max(k, stage_one.n_candidates(k) if n_candidates is None else n_candidates)
        if not exact and len(self.snapshot()) > n_candidates:
            vector = stage_one.encode_query(tokens)
        with self._state:
            directory = self.snapshot()
            if self.stage_one is not stage_one:
                raise StaleError
            keys = self._store.matching(directory, condition)
            if vector is None or not stage_one.is_worth_it(len(keys), n_candidates):
                return directory, keys
            if self._gpu is None or condition is not None:
                return directory, stage_one.search(vector, n_candidates, None if condition is None else keys)
        found = self._gpu.search(stage_one, directory, vector, n_candidates)
        if found is not None:
            return directory, found
        with self._state:
            if self.snapshot() is not directory:
                raise StaleError
            return directory, stage_one.search(vector, n_candidates)

    def rerank(self, directory: Directory, tokens: FloatArray, keys: IntArray, k: int | None = None) -> Ranking:
        """The ``k`` best of the keys (all, where None) by falling MaxSim, ties by rising key, with their scores."""
        return self.rerank_all([(directory, keys)], [tokens], k)[0]

    def rerank_all(
        self, found: Sequence[tuple[Directory, IntArray]], queries: Sequence[FloatArray], k: int | None = None
    ) -> list[Ranking]:
        """``rerank`` for each of several queries with its own documents."""
        ascending = {id(keys): keys if keys is directory.keys else np.sort(keys) for directory, keys in found}
        tasks = [
            Task(query, directory, ascending[id(keys)]) for query, (directory, keys) in zip(queries, found, strict=True)
        ]
        rankings = None if self._gpu is None else self._gpu.rank(tasks, k)
        if rankings is not None:
            return rankings
        rankings = []
        for some in sharing_documents(tasks):
            n_tokens = np.array([len(task.query) for task in some])
            for first, end in runs_by_size(n_tokens, _QUERY_TOKENS_TOGETHER):
                rankings += self._rerank(some[first:end], k)
        return rankings

    def _rerank(self, tasks: Sequence[Task], k: int | None) -> list[Ranking]:
        """Rank the same documents for each task, on the CPU."""
        directory, keys = tasks[0].directory, tasks[0].keys
        scores = np.empty((len(tasks), len(keys)), dtype=np.float32)
        for start in range(0, len(keys), _EXACT_BATCH):
            rows, offsets = self._store.token_rows(directory, keys[start : start + _EXACT_BATCH])
            codes, scales = self.manifest.codec.split(rows)
            some = scores[:, start : start + _EXACT_BATCH]
            if len(tasks) == 1:
                some[0] = maxsim_scaled(tasks[0].query, codes, scales, offsets)
            else:
                some[:] = maxsim_of_many([task.query for task in tasks], codes, scales, offsets)
        return [ranked(keys, of_task, k) for of_task in scores]

    def similarities(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Cosines between documents' encodings, float32, shape (documents, documents).

        Of the index's own encoding: it goes along with late-interaction similarity (correlation .9) more than what is
        learned for finding (.75).
        """
        encoder = self.stage_one.encoder
        vectors = unit_length(
            (self._own if isinstance(encoder, LearnedSetEncoder) else encoder).encode_documents(embeddings)
        )
        return vectors @ vectors.T

    # Writing

    def add(
        self,
        batches: Iterable[TokenEmbeddings],
        ids: Sequence[str],
        texts: Sequence[str | None],
        metadatas: Sequence[str],
    ) -> None:
        """Add documents, all or none; those whose ids are known replace the ones that had them.

        Args:
            batches: their token embeddings, in any grouping. They are stored and encoded as they come, so that they
                never have to be in memory together.
            ids: distinct ids.
            texts: one for each id.
            metadatas: one JSON object, as text, for each id.
        """

        def write() -> None:
            keys, places, done = self._new_keys(len(ids)), [], 0
            for batch in batches:
                appended, stored = self._store.append_tokens(batch)
                self.stage_one.stage(keys[done : done + len(batch)], stored)
                places.append(appended)
                done += len(batch)
            self._commit(lambda change: change.add(keys, ids, texts, metadatas, AppendedTokens.joined(places)))

        with self._writing:
            self._require_writable()
            if ids:
                self._write(write)
                self._n_unsaved += len(ids)
                self._tidy()

    def delete(self, ids: Sequence[str] | None, condition: Condition | None) -> int:
        """Delete documents that have one of the ids and are admitted by the filter; None of either admits all.

        Returns:
            How many were deleted.
        """
        with self._writing:
            self._require_writable()
            with self._state:
                directory = self._store.directory
                named = (
                    None if ids is None else np.array(sorted(self._store.keys_of(directory, ids).values()), np.int64)
                )
                admitted = self._store.matching(directory, condition)
            if named is None:
                keys = admitted
            else:
                keys = named if condition is None else np.intersect1d(named, admitted, assume_unique=True)
            if len(keys):
                self._write(lambda: self._commit(lambda change: change.delete(keys)))
                self._n_unsaved += len(keys)
                self._tidy()
        return len(keys)

    @contextmanager
    def standing_still(self) -> Iterator[Directory]:
        """The present state, while no other thread writes."""
        with self._writing:
            yield self.snapshot()

    # Keeping

    def refresh(self) -> bool:
        """See ``MuveraIndex.refresh``."""
        self.require_open()
        with self._writing:
            self.require_open()
            if not self._read_only:
                return False
            caught_up = self._catch_up()
            return self._take_up_tuning() or caught_up

    def _catch_up(self) -> bool:
        """Go on to the documents that are committed now. Returns whether there were others."""
        with self._writing:
            self.require_open()
            now = self._store.load()
            if now is self._store.directory:
                return False
            self._write(lambda: self._take_in(now))
            self.stage_one.compact()
            self._bring_to_device()
        return True

    def _take_in(self, now: Directory) -> None:
        """Go on to a state that another process has committed."""
        added, removed = self.stage_one.difference(now.keys)
        self._stage(self.stage_one, added, now)
        with self._state:
            self.require_open()
            self._store.directory = now
            self.stage_one.publish(removed)

    def _take_up_tuning(self) -> bool:
        """Go on to the stage one that another process has chosen, made beside the present one; hold ``_writing``.

        Returns:
            Whether it had chosen one.
        """
        tuning = self._committed_tuning()
        if tuning == self.manifest.tuning:
            return False
        directory = self.snapshot()
        manifest, stage_one = self._load_stage_one(replace(self.manifest, tuning=tuning))
        added, removed = stage_one.difference(directory.keys)
        self._stage(stage_one, added, directory)
        stage_one.publish(removed)
        with self._state:
            self.require_open()
            self.stage_one = stage_one
            self.manifest = manifest
        self._bring_to_device()
        return True

    def compact(self) -> int:
        """See ``MuveraIndex.compact``."""
        with self._writing:
            self._require_writable()
            before = self._store.size_on_disk()
            self._write(self._store.compact)
            self.stage_one.compact(thoroughly=True)
            self._save_stage_one()
            self._bring_to_device()
            return before - self._store.size_on_disk()

    def optimize(
        self,
        queries: Sequence[FloatArray] | None,
        encode_queries: Callable[[Sequence[str]], TokenEmbeddings] | None,
        *,
        target_recall: float,
        k: int,
        n_queries: int,
        show_progress: bool,
    ) -> Tuning:
        """See ``MuveraIndex.optimize``; ``encode_queries`` is None where no text can be encoded."""
        with self._writing:
            self._require_writable()
            directory = self.snapshot()
            corpus = Corpus(
                directory.keys,
                lambda keys: self._store.embeddings(directory, keys),
                lambda keys: [document.text for document in self.documents(directory, keys)],
                lambda queries, keys: self.rerank_all([(directory, keys)] * len(queries), queries, k),
                encode_queries,
                self._encode_documents,
            )
            require_enough(corpus, k)
            start = time.perf_counter()
            examples, asked = questions(corpus, queries, n_queries)
            choice = choose(
                corpus, self._make_fde(), asked, examples, target_recall=target_recall, k=k, show_progress=show_progress
            )
            tuning = _as_tuning(choice, k, target_recall, len(asked), time.perf_counter() - start)
            return self._adopt(choice, tuning)

    def _adopt(self, choice: Choice, tuning: Tuning) -> Tuning:
        """Put a chosen stage one in the present one's place, for searches and for the next opening.

        Returns:
            The tuning, with the name of the file that has what was learned.
        """
        if self.folder is not None and isinstance(choice.encoder, LearnedSetEncoder):
            tuning = save_weights(self.folder, choice.encoder, tuning)
        manifest = replace(self.manifest, tuning=tuning)
        self._write(lambda: self._commit(lambda change: change.put_state("manifest", manifest.as_text())))
        if self.folder is not None:
            manifest.write(self.folder)
        with self._state:
            self.stage_one = StageOne(choice.encoder, self._state, choice.candidates, tuning, self._encode_documents)
            self.manifest = manifest
        self._n_unsaved = max(1, self._n_unsaved)
        self._save_stage_one()
        if self.folder is not None:
            remove_other_weights(self.folder, tuning)
        self._bring_to_device()
        return tuning

    def sizes(self) -> dict[str, int]:
        """Bytes of each part, by name."""
        with self._state:
            on_disk = self._store.size_on_disk()
            directory = self.snapshot()
            parts = {"documents and tokens on disk": on_disk} if on_disk else {}
            if self._gpu is not None:
                parts[f"on {self._gpu.name}"] = self._gpu.n_bytes
            return parts | {
                "stage one in memory": self.stage_one.candidates.n_bytes,
                "directory in memory": sum(column.nbytes for column in directory.rows.columns),
            }

    def close(self) -> None:
        """Save stage one and let go of the folder."""
        if self._fork_guard.in_child:
            return  # all of it is the parent's
        with self._writing:
            try:
                if self._n_unsaved and not self._read_only and not self._closed:
                    self._save_stage_one()
            finally:
                try:
                    with self._state:
                        self._closed = True
                        self._store.close()
                    if self._gpu is not None:
                        self._gpu.close()
                finally:
                    if self._folder_lock is not None:
                        self._folder_lock.release()

    @property
    def device(self) -> str:
        """Name of the device that searches use."""
        return "cpu" if self._gpu is None else self._gpu.name

    @property
    def is_open(self) -> bool:
        """Whether it can be used in this process."""
        return not (self._closed or self._fork_guard.in_child)

    def require_open(self) -> None:
        """Raise IndexClosedError or ForkedIndexError unless it can be used."""
        if self._fork_guard.in_child:
            advice = (
                "make one here"
                if self.folder is None
                else "open it again here with MuveraIndex.open(path, read_only=True)"
            )
            raise ForkedIndexError(f"the index belongs to the process that this one was forked from: {advice}")
        if self._closed:
            raise IndexClosedError("the index is closed: open it again with MuveraIndex.open")

    # Inner workings

    def _require_writable(self) -> None:
        """Raise unless the index can be changed; hold ``_writing``."""
        self.require_open()
        if self._read_only:
            raise ReadOnlyIndexError(f"{self.folder} was opened with read_only=True: open it without to change it")

    def _write(self, write: Callable[[], None]) -> None:
        """Run a write; after an error or an interruption return to what is committed.

        Not a context manager: an interruption between its generator and its block would leave the write half done.
        """
        if self._writes and not self._unsettled:
            raise MuveraError("an encoder can't write to the index that it is encoding documents for")
        if self._unsettled:
            self._settle()
        self._writes = True
        try:
            write()
            self._writes = False
        finally:
            if self._writes:
                self._unsettled = True
                self._writes = False
                try:
                    self._settle()
                except Exception as error:
                    _log.warning(
                        "%s can't be read after a failed write, the next use tries again: %s", self.folder, error
                    )

    def _commit(self, fill: Callable[[Change], None]) -> None:
        """A change of the store that becomes visible together with what is staged in stage one."""
        self._store.apply(fill, then=self.stage_one.publish)

    def _settle(self) -> None:
        with self._state:
            if self._unsettled and not self._closed:
                if not self._read_only:
                    self._store.roll_back()
                self.stage_one.discard()
                added, removed = self.stage_one.difference(self._store.directory.keys)
                self._stage(self.stage_one, added, self._store.directory)
                self.stage_one.publish(removed)
                self._unsettled = False

    def _encode_documents(self, encoder: SetEncoder, embeddings: TokenEmbeddings) -> FloatArray:
        encoded = None if self._gpu is None else self._gpu.encode_documents(encoder, embeddings)
        return encoder.encode_documents(embeddings) if encoded is None else encoded

    def _bring_to_device(self) -> None:
        """Let the device have what was written; hold ``_writing``."""
        if self._gpu is not None:
            self._gpu.update_after_write(self._store.directory, self.stage_one)

    def _new_keys(self, n: int) -> IntArray:
        """Keys that no document ever had. Those of a write that failed may be in the graph, marked as deleted."""
        with self._state:
            first = max(self._next_key, self._store.get_state("next_key"))
        self._next_key = first + n
        return np.arange(first, first + n, dtype=np.int64)

    def _stage(self, stage_one: StageOne, keys: IntArray, directory: Directory, *, show_progress: bool = False) -> None:
        """Encode stored documents for stage one; they aren't found until they are published."""
        with tqdm(total=len(keys), desc="building stage one", unit="doc", disable=not show_progress) as bar:
            for start in range(0, len(keys), _STAGE_ONE_BATCH):
                some = keys[start : start + _STAGE_ONE_BATCH]
                stage_one.stage(some, self._store.embeddings(directory, some))
                bar.update(len(some))

    def _load_stage_one(self, manifest: Manifest) -> tuple[Manifest, StageOne]:
        """What is saved of the stage one that a manifest asks for; what it lacks remains to be staged.

        Where what it has learned is lost, it is the first encoding's. Where that is gone because a writer has optimized
        the index again meanwhile, it is what the manifest asks for now.

        Returns:
            The manifest that it is of, and stage one.
        """
        if self.folder is None:
            return manifest, StageOne(self._make_fde(), self._state, encode=self._encode_documents)
        tuning, learned = manifest.tuning, None
        if tuning is not None and tuning.set_encoder is not None:
            try:
                learned = load_weights(self.folder, tuning)
            except (EncoderError, CorruptIndexError, OSError) as error:
                if self._read_only and (later := self._committed_tuning()) != tuning:
                    return self._load_stage_one(replace(manifest, tuning=later))
                _log.warning("%s searches with its first encoding until it is optimized again: %s", self.folder, error)
                tuning = None  # its few candidates were for what was learned
        encoder = learned or self._make_fde()
        return manifest, StageOne.load(
            self.folder, manifest.index_id, encoder, self._state, tuning, self._encode_documents
        )

    def _committed_tuning(self) -> Tuning | None:
        """The tuning that the writer has committed. It does so before it lets go of what an earlier one has learned."""
        with self._state:
            manifest = self._store.get_state("manifest")
        if self.folder is None or manifest is None:
            return self.manifest.tuning
        return Manifest.from_text(manifest, self.folder / DATABASE_NAME).tuning

    @cached_property
    def _own(self) -> FixedDimensionalEncoder:
        return self._make_fde()

    def _make_fde(self) -> FixedDimensionalEncoder:
        config = self.manifest.fde
        if not config.center:
            return FixedDimensionalEncoder(config)
        mean = self._mean_token()
        return FixedDimensionalEncoder(config, mean=np.zeros(config.dimension, np.float32) if mean is None else mean)

    def _mean_token(self) -> FloatArray | None:
        with self._state:
            stored = self._store.get_state("mean_token")
        if stored is None:
            return None
        size = 4 * self.manifest.fde.dimension
        mean = np.frombuffer(stored, dtype="<f4") if isinstance(stored, bytes) and len(stored) == size else None
        if mean is None or not np.isfinite(mean).all():
            raise CorruptIndexError(
                f"the mean token of {self.folder} is damaged: run muvera_core.repair_index on the folder"
            )
        return mean

    def _freeze_mean(self) -> None:
        """Once a centring index has enough tokens, fix their mean for good and encode what is there anew."""
        directory = self._store.directory
        if isinstance(self.stage_one.encoder, LearnedSetEncoder):
            return
        if not self.manifest.fde.center or directory.n_tokens < MIN_TOKENS_FOR_MEAN or self._mean_token() is not None:
            return
        mean = self._store.mean_token().astype("<f4").tobytes()
        self._commit(lambda change: change.put_state("mean_token", mean))
        centred = StageOne(self._make_fde(), self._state, tuning=self.stage_one.tuning, encode=self._encode_documents)
        self._stage(centred, directory.keys, directory)
        centred.publish(_NONE)
        with self._state:
            self.stage_one = centred

    def _tidy(self) -> None:
        """After a write: give back space where that is worth it, and save stage one where it would be missed.

        What was written is safe, so what goes wrong here is logged and tried again after the next write.
        """
        try:
            self._write(self._freeze_mean)
            if self._store.is_wasteful:
                self._write(self._store.compact)
        except MuveraError as error:
            _log.warning("%s was written, but couldn't be compacted or centred: %s", self.folder, error)
        self.stage_one.compact()
        if self._n_unsaved >= max(_MIN_TO_SAVE, len(self._store.directory) // 2):
            self._save_stage_one()
        self._bring_to_device()

    def _save_stage_one(self) -> None:
        if self.folder is None:
            return
        try:
            self.stage_one.save(self.folder, self.manifest.index_id)
            self._n_unsaved = 0
        except StorageError as error:
            warnings.warn(
                f"stage one of {self.folder} couldn't be saved, the next opening derives it again: {error}",
                StageOneNotSavedWarning,
                stacklevel=4,
            )


def _as_tuning(choice: Choice, k: int, target_recall: float, n_queries: int, seconds: float) -> Tuning:
    learned = choice.encoder.config if isinstance(choice.encoder, LearnedSetEncoder) else None
    measured = {
        "target_recall": target_recall,
        "recall": round(choice.recall, 4),
        "milliseconds": round(choice.seconds * 1000, 3),
        "dimension": choice.encoder.output_dimension,
        "n_documents": len(choice.candidates),
        "n_queries": n_queries,
        "seconds_to_choose": round(seconds, 1),
    }
    if isinstance(choice.candidates, HnswCandidates):
        measured |= asdict(choice.graph)
    return Tuning(learned, None, None, k, choice.n_candidates, choice.beam, measured, choice.graph)
