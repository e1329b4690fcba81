"""Changes of an open index. Each change is made whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from muvera_core.batches import batched
from muvera_core.collection.additions import NO_TOKENS, Comparison, Record, TokenSource, compare, same_metadata
from muvera_core.collection.collection import Collection
from muvera_core.errors import StorageError
from muvera_core.filters import Condition
from muvera_core.lexical import LexicalConfig
from muvera_core.metadata import metadata_as_text
from muvera_core.set_encoders import LearnedSetEncoder, SetEncoder
from muvera_core.stage_one import Candidates, Tuning, remove_other_weights, save_weights
from muvera_core.storage import (
    COPY_BATCH,
    LEARNED_NAME,
    AppendedTokens,
    Change,
    LearnedSettings,
    TokenPrecision,
    follow_up,
    log_failure,
)
from muvera_core.token_embeddings import IntArray

# A mean over fewer tokens says little about the corpus. Until then a centring index encodes without one.
MIN_TOKENS_FOR_MEAN = 16_384
# Stage one is saved at close. It is also saved when this number of documents, and this share of all, are new. So what a
# killed process has done for stage one and the next opening does again is bounded by the larger of the two, and a
# document is written about ten times at most while an index grows.
_MIN_TO_SAVE = 5_000
_SHARE_TO_SAVE = 0.1


class Writer:
    """Changes a collection. One thread at a time: each change holds ``locks.writing``."""

    def __init__(self, collection: Collection) -> None:
        self._collection, self._store = collection, collection.store
        self._next_key = 0
        self._n_unsaved_at_failure = 0

    def add(self, records: Sequence[Record], tokens: TokenSource, *, skip_unchanged: bool) -> None:
        """Add documents, all or none. A document replaces the one with the same id.

        Args:
            records: the documents, with distinct ids.
            tokens: gives their token embeddings. They are stored and encoded as they come, so that they are never in
                memory together.
            skip_unchanged: leave out documents that are stored with the same text and metadata, and take the stored
                tokens of those whose metadata alone is new.
        """
        collection = self._collection
        with collection.locks.writing:
            collection.require_writable()
            if skip_unchanged:
                comparison = compare(self._store, collection.snapshot(), records)
            else:
                comparison = Comparison(list(range(len(records))), {})
            self._write(records, tokens, comparison)

    def update_metadata(self, metadatas: Mapping[str, Mapping[str, Any]], *, replace: bool) -> int:
        """Change the metadata of stored documents. Their tokens stay as they are.

        Args:
            metadatas: metadata by id, of JSON's types only. Unknown ids are skipped.
            replace: replace the present metadata. Otherwise keys are added to it, or replaced in it.

        Returns:
            The number of documents whose metadata changed.
        """
        collection, records, keys = self._collection, [], []
        with collection.locks.writing:
            collection.require_writable()
            for ids in batched(metadatas, COPY_BATCH):
                for document in self._store.documents_by_id(collection.snapshot(), ids):
                    given = metadatas[document.id]
                    wanted = given if replace else {**document.metadata, **given}
                    if not same_metadata(document, wanted):
                        records.append(Record(document.id, document.text, metadata_as_text(wanted), document.image))
                        keys.append(document.key)
            self._write(records, NO_TOKENS, Comparison([], dict(enumerate(keys))))
        return len(records)

    def _write(self, records: Sequence[Record], tokens: TokenSource, comparison: Comparison) -> None:
        """Commit the documents that a comparison names. The caller holds ``locks.writing``."""
        collection = self._collection
        places = sorted([*comparison.new, *comparison.retagged])
        written: list[int] = []  # all places, but for documents that turn out to have no tokens

        def write() -> None:
            key_of = dict(zip(places, self._new_keys(len(places)).tolist(), strict=True))
            parts: list[tuple[Sequence[int], AppendedTokens]] = []
            for batch, embeddings in tokens.batches(comparison.new):
                appended, stored = self._store.append_tokens(embeddings)
                collection.stage_one.stage(_of(key_of, batch), stored)
                parts.append((batch, appended))
            if comparison.retagged:
                batch = list(comparison.retagged)
                parts.append((batch, self._take_over(_of(key_of, batch), list(comparison.retagged.values()))))
            written.extend(sorted(place for batch, _ in parts for place in batch))
            if written:
                position = {place: i for i, place in enumerate(written)}
                places_of = AppendedTokens.scattered([(_of(position, batch), appended) for batch, appended in parts])
                changed = [records[place] for place in written]
                self._commit(
                    lambda change: change.add(
                        _of(key_of, written),
                        [record.id for record in changed],
                        [record.text for record in changed],
                        [record.metadata for record in changed],
                        [None if record.image is None else record.image.as_text() for record in changed],
                        places_of,
                    )
                )

        if places:
            collection.write(write)
        if written:
            collection.n_unsaved += len(written)
            self._tidy()

    def _take_over(self, keys: IntArray, stored: Sequence[int]) -> AppendedTokens:
        """Let new ``keys`` have the tokens and the stage-one vectors of ``stored`` ones, which the change replaces."""
        stage_one, snapshot = self._collection.stage_one, self._store.snapshot
        stage_one.stage_vectors(keys, stage_one.candidates.vectors(np.asarray(stored, dtype=np.int64)))
        rows = snapshot.rows[snapshot.places(stored)]
        return AppendedTokens(rows.first, rows.count, rows.token_checksums)

    def delete(self, ids: Sequence[str] | None, condition: Condition | None) -> int:
        """Delete documents that have one of the ids and that the filter admits. None instead of either admits all.

        Returns:
            The number of deleted documents.
        """
        collection = self._collection
        with collection.locks.writing:
            collection.require_writable()
            keys = self._store.matching(collection.snapshot(), condition, ids)
            if len(keys):
                collection.write(lambda: self._commit(lambda change: change.delete(keys)))
                collection.n_unsaved += len(keys)
                self._tidy()
        return len(keys)

    def compact(self) -> int:
        """Give back the space of deleted documents. Returns the number of bytes that were given back on disk."""
        collection = self._collection
        with collection.locks.writing:
            collection.require_writable()
            before = self._store.size_on_disk()
            collection.write(self._store.compact)
            stage_one = collection.stage_one
            self._try(lambda: stage_one.compact(thoroughly=True), "has a stage one that could not be compacted")
            self._save_stage_one()
            collection.update_accelerator()
            try:
                return before - self._store.size_on_disk()
            except StorageError as error:
                log_failure(f"the size of {collection.folder} cannot be read", error)
                return 0

    def adopt(self, encoder: SetEncoder, candidates: Candidates, tuning: Tuning) -> Tuning:
        """Replace stage one, for searches and for the next opening. The caller holds ``locks.writing``.

        Args:
            encoder: makes the vectors.
            candidates: holds the vectors of all documents.
            tuning: the settings that were chosen.

        Returns:
            The tuning, with the name of the learned encoder's file.
        """
        collection = self._collection
        if collection.folder is not None and isinstance(encoder, LearnedSetEncoder):
            tuning = save_weights(collection.folder, encoder, tuning)
        manifest = replace(collection.manifest, tuning=tuning)
        collection.write(lambda: self._commit(lambda change: change.put_state("manifest", manifest.as_text())))
        folder, is_written = collection.folder, False
        if folder is not None:  # if this fails, it is done at the next opening
            is_written = self._try(lambda: manifest.write(folder), "its manifest could not")
        chosen = collection.stage_one_source.make(encoder, tuning, candidates)
        collection.adopt_stage_one(chosen, replace(collection.choice, tuning=tuning))
        collection.n_unsaved = max(1, collection.n_unsaved)
        self._save_stage_one()
        if folder is not None and is_written:
            self._try(lambda: remove_other_weights(folder, tuning), "earlier weights could not be removed")
        collection.update_accelerator()
        return tuning

    def learn(self, learned: LearnedSettings) -> None:
        """Replace what was learned about scores, for searches and for the next opening, all or nothing.

        The caller holds ``locks.writing``.
        """
        collection = self._collection

        def publish(removed: IntArray) -> None:
            collection.publish(removed)
            collection.learned = learned

        collection.write(
            lambda: self._store.apply(lambda change: change.put_state(LEARNED_NAME, learned.as_text()), then=publish)
        )

    def store_tokens_as(self, precision: TokenPrecision) -> None:
        """Rewrite all tokens in another precision, all or nothing. The caller holds ``locks.writing``.

        Raises:
            CorruptIndexError: a document's tokens are damaged. Nothing was changed.
            InvalidInputError: a vector is too long for the precision. Nothing was changed.
            StorageError: there is no room for the copy. Nothing was changed.
        """
        collection = self._collection
        manifest = replace(collection.manifest, token_precision=precision)
        collection.write(lambda: self._store.recode(manifest.codec, manifest.as_text()))
        folder = collection.folder
        if folder is not None:  # if this fails, it is done at the next opening
            self._try(lambda: manifest.write(folder), "its manifest could not")
        collection.update_accelerator()

    def set_lexical(self, lexical: LexicalConfig | None) -> None:
        """Make the word index anew, by other settings, all or nothing. None removes it."""
        collection = self._collection
        with collection.locks.writing:
            collection.require_writable()
            manifest = replace(collection.manifest, lexical=lexical)
            collection.write(lambda: self._store.index_words(lexical, manifest.as_text()))
            folder = collection.folder
            if folder is not None:  # if this fails, it is done at the next opening
                self._try(lambda: manifest.write(folder), "its manifest could not")

    def _commit(self, fill: Callable[[Change], None]) -> None:
        """Change the store. The change becomes visible together with what is staged in stage one."""
        self._store.apply(fill, then=self._collection.publish)

    def _new_keys(self, n: int) -> IntArray:
        """Keys that no document ever had. Those of a write that failed may be in the graph, marked as deleted."""
        first = max(self._next_key, self._store.get_state("next_key"))
        self._next_key = first + n
        return np.arange(first, first + n, dtype=np.int64)

    def _tidy(self) -> None:
        """After a write: give back space if that is worth it, and save stage one if much of it is new.

        Stage one is saved if ``_MIN_TO_SAVE`` documents, and the share ``_SHARE_TO_SAVE`` of all, are not saved. If it
        cannot be saved, that is tried again when as many more are not.

        The documents are safe, so an error here is logged, and the work is tried again after the next write.
        """
        collection = self._collection
        self._try(lambda: collection.write(self._freeze_mean), "could not be centred")
        if self._store.is_wasteful:
            self._try(lambda: collection.write(self._store.compact), "could not be compacted")
        self._try(collection.stage_one.compact, "has a stage one that could not be compacted")
        limit = max(_MIN_TO_SAVE, _SHARE_TO_SAVE * len(self._store.snapshot))
        if collection.n_unsaved - self._n_unsaved_at_failure >= limit:
            self._save_stage_one()
        collection.update_accelerator()

    def _try(self, work: Callable[[], object], problem: str) -> bool:
        """Do work that follows a commit. If it fails, the log says so. Returns whether it was done."""
        return follow_up(work, f"{self._collection.folder} was written, but {problem}")

    def _save_stage_one(self) -> None:
        self._collection.save_stage_one()
        self._n_unsaved_at_failure = self._collection.n_unsaved

    def _freeze_mean(self) -> None:
        """Once a centring index has enough tokens, fix their mean for good and encode the documents anew."""
        collection, snapshot, fde = self._collection, self._store.snapshot, self._collection.manifest.fde
        if isinstance(collection.stage_one.encoder, LearnedSetEncoder) or not fde.center:
            return
        source = collection.stage_one_source
        mean = self._store.get_state("mean_token")
        if mean is None:
            if snapshot.n_tokens < MIN_TOKENS_FOR_MEAN:
                return
            mean = self._store.mean_token().astype("<f4").tobytes()
            self._commit(lambda change: change.put_state("mean_token", mean))
        if mean != collection.choice.mean_token:  # also if an earlier attempt to encode anew has failed
            centred = source.make(source.first_encoder(fde), collection.stage_one.tuning)
            source.bring_in_step(centred, self._store.snapshot)
            collection.adopt_stage_one(centred, replace(collection.choice, mean_token=mean))
            collection.n_unsaved = max(1, collection.n_unsaved)


def _of(numbers: Mapping[int, int], places: Sequence[int]) -> IntArray:
    """The number of each place, int64."""
    return np.array([numbers[place] for place in places], dtype=np.int64)
