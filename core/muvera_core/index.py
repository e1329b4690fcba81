"""The index: follow ``add`` and ``search`` to see how a passage and a question flow through every stage.

text → token encoder → token embeddings → store, and from there → set encoder → candidates
question → token encoder → set encoder → candidates → exact MaxSim over their stored tokens → hits
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from tqdm import tqdm

from muvera_core.directory import Directory
from muvera_core.diversity import maximal_marginal_relevance
from muvera_core.encoders.protocol import TokenEncoder
from muvera_core.errors import (
    CorruptIndexError,
    EncoderMismatchError,
    ForkedIndexError,
    IndexClosedError,
    InvalidInputError,
    MuveraError,
    ReadOnlyIndexError,
    StageOneNotSavedWarning,
    StorageError,
)
from muvera_core.explanation import match_tokens
from muvera_core.fde import FDEConfig, FixedDimensionalEncoder
from muvera_core.filters import Condition, compile_filter
from muvera_core.folder_lock import ForkGuard, claim_folder, claim_new_folder, remove_unfinished
from muvera_core.hits import Document, Hit, TokenMatch
from muvera_core.manifest import Manifest, read_manifest
from muvera_core.maxsim.cpu import maxsim_scaled
from muvera_core.migrations import bring_up_to_date
from muvera_core.rerank import normalize_scores
from muvera_core.stage_clock import StageClock
from muvera_core.stage_one import StageOne
from muvera_core.store import AppendedTokens, Change, StaleError, Store, StoredDocument
from muvera_core.text_encoder import matching_fde
from muvera_core.token_codec import TokenPrecision
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, require_dimension
from muvera_core.validation import (
    require_count,
    require_encoded,
    require_ids,
    require_length,
    require_metadatas,
    require_query_tokens,
    require_text,
    require_texts,
)

# Per hit asked for, and at least. Stage one is cheap and narrow; reranking 400 short passages takes 3 ms.
CANDIDATES_PER_HIT = 10
MIN_CANDIDATES = 400
# A mean over fewer tokens says little about the corpus; until then a centring index encodes without one.
MIN_TOKENS_FOR_MEAN = 16_384
_STAGE_ONE_BATCH = 256
_COPY_BATCH = 4096
# A search whose documents are replaced under its hands starts again; the last attempt makes writers wait.
_ATTEMPTS = 4
# Stage one is saved at close; and earlier, once it would take as long as this many documents to derive again, and
# half of it is new, so that a process that is killed has not worked for nothing.
_MIN_TO_SAVE = 5_000
Filter = Mapping[str, Any]
_EXACT_BATCH = 1024
_T = TypeVar("_T")
_NONE = np.empty(0, dtype=np.int64)
_log = logging.getLogger(__name__)


class MuveraIndex:
    """A collection of documents that is searched by late interaction.

    Make one with ``create`` or ``open``. Any number of threads may search while one adds or deletes.

    >>> with MuveraIndex.create(None) as index:
    ...     _ = index.add(["Ants live in colonies.", "Owls hunt at night."], ids=["ant", "owl"])
    ...     index.search("Which bird is active after dark?", k=1)[0].id
    'owl'
    """

    def __init__(
        self,
        manifest: Manifest,
        encoder: TokenEncoder,
        store: Store,
        *,
        folder: Path | None,
        lock: FileLock | None,
        read_only: bool,
        show_progress: bool = False,
    ) -> None:
        """Use ``create`` or ``open``."""
        self._manifest, self._encoder, self._store = manifest, encoder, store
        self._folder, self._folder_lock, self._read_only = folder, lock, read_only
        self._closed = False
        self._fork_guard = ForkGuard(store, lock)
        # _writing admits one writer, who may take as long as encoding takes; _state guards what searches see, and is
        # held for moments only. A thread that takes both takes _writing first.
        self._writing = threading.RLock()
        self._state = store.lock
        self._next_key = 0
        # Set while memory may differ from what is committed, which only an error or an interruption leaves behind.
        self._unsettled = False
        set_encoder = self._make_set_encoder()
        self._stage_one = (
            StageOne(set_encoder, self._state)
            if folder is None
            else StageOne.load(folder, manifest.index_id, set_encoder, self._state)
        )
        added, removed = self._stage_one.difference(store.directory.keys)
        self._n_unsaved = len(added) + len(removed)
        self._stage(self._stage_one, added, store.directory, show_progress=show_progress)
        self._stage_one.publish(removed)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        token_precision: TokenPrecision = "int8",
    ) -> MuveraIndex:
        """Make an empty index.

        Args:
            path: a folder that doesn't exist or is empty; None keeps the index in memory only.
            encoder: turns text into token vectors; None takes the bundled one.
            fde: settings of stage one; None takes the defaults. Its dimension must be the encoder's.
            token_precision: how token vectors are stored: "int8" or "float16", which takes twice the space.

        Raises:
            IndexExistsError: the folder is in use.
            DimensionMismatchError: ``fde`` is for vectors of another width.
            ReadOnlyIndexError: the folder can't be made or written.
        """
        encoder = encoder if encoder is not None else _bundled_encoder()
        fde = matching_fde(encoder, fde)
        manifest = Manifest(uuid.uuid4().hex, encoder.fingerprint, token_precision, fde)
        if path is None:
            store = Store(None, manifest.codec, threading.RLock())
            return cls(manifest, encoder, store, folder=None, lock=None, read_only=False)
        folder = Path(path).absolute()
        with ExitStack() as undo:
            lock = claim_new_folder(folder)
            undo.callback(lock.release)
            undo.callback(remove_unfinished, folder)
            store = Store(folder, manifest.codec, threading.RLock(), create={"manifest": manifest.as_text()})
            undo.callback(store.close)
            index = cls(manifest, encoder, store, folder=folder, lock=lock, read_only=False)
            manifest.write(folder)
            undo.pop_all()
        return index

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        *,
        read_only: bool = False,
        show_progress: bool = False,
    ) -> MuveraIndex:
        """Open an index that ``create`` made.

        Args:
            path: the folder.
            encoder: the encoder that the index was made with; None takes the bundled one. An index never loads a
                model by itself.
            read_only: allow no changes. Needs no right to write, and any number of processes can do it.
            show_progress: show a bar if part of stage one has to be derived again.

        Raises:
            NotAnIndexError: there is no index.
            EncoderMismatchError: the index was made with another encoder.
            UnsupportedFormatError: a newer muvera wrote it; or an older one did, and ``read_only`` is set.
            IndexLockedError: another writer has it open.
            ReadOnlyIndexError: the folder can't be written and ``read_only`` isn't set.
            CorruptIndexError: files are missing or damaged.
            StorageError: they can't be read.
        """
        folder = Path(path).absolute()
        read_manifest(folder)  # before a lock file is made in a folder that isn't an index
        with ExitStack() as undo:
            lock = None if read_only else claim_folder(folder)
            if lock is not None:
                undo.callback(lock.release)
                bring_up_to_date(folder)
            manifest = Manifest.read(folder)
            encoder = encoder if encoder is not None else _bundled_encoder()
            if encoder.fingerprint != manifest.encoder:
                raise EncoderMismatchError(
                    f"{folder} was made with encoder {manifest.encoder!r}, got {encoder.fingerprint!r}: "
                    "pass the encoder it was made with, or index the documents again with this one"
                )
            store = Store(folder, manifest.codec, threading.RLock(), read_only=read_only)
            undo.callback(store.close)
            index = cls(
                manifest,
                encoder,
                store,
                folder=folder,
                lock=lock,
                read_only=read_only,
                show_progress=show_progress,
            )
            undo.pop_all()
        return index

    # Adding and deleting

    def add(
        self,
        texts: Sequence[str],
        ids: Sequence[str] | None = None,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        batch_size: int = 64,
        show_progress: bool = False,
    ) -> list[str]:
        """Encode and add documents, all or none. A document whose id is known replaces the one that had it.

        Args:
            texts: the passages, none of them empty.
            ids: one for each, distinct; random ones where None.
            metadatas: one JSON-like mapping for each; empty ones where None.
            batch_size: texts per call of the encoder.
            show_progress: show a bar on standard error.

        Returns:
            The ids, in order.

        Raises:
            InvalidInputError: an empty text, ids that repeat, metadata that JSON can't hold, lengths that differ.
            EncoderError: the encoder gave something unusable.
            ReadOnlyIndexError: the index was opened for reading.
        """
        texts = require_texts("texts", texts)
        batch_size = require_count("batch_size", batch_size)

        def batches() -> Iterator[TokenEmbeddings]:
            with tqdm(total=len(texts), desc="encoding", unit="doc", disable=not show_progress) as bar:
                for start in range(0, len(texts), batch_size):
                    some = texts[start : start + batch_size]
                    yield require_encoded(self._encoder.encode_documents(some), len(some), self._encoder.dimension)
                    bar.update(len(some))

        return self._add(batches(), len(texts), ids, texts, metadatas)

    def add_embeddings(
        self,
        token_embeddings: TokenEmbeddings | Sequence[npt.ArrayLike],
        ids: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> list[str]:
        """Add documents whose token embeddings are at hand, all or none. See ``add``.

        Args:
            token_embeddings: those of the index's encoder; a list of (tokens, dimension) arrays will do.
            ids: one for each, distinct; random ones where None.
            texts: the passages they were made from, to be returned with hits.
            metadatas: one JSON-like mapping for each.

        Raises:
            InvalidInputError: as ``add``, and NaN or infinity in a vector.
            DimensionMismatchError: vectors of another width than the index's.
        """
        if not isinstance(token_embeddings, TokenEmbeddings):
            token_embeddings = TokenEmbeddings.from_list(token_embeddings)
        require_dimension(token_embeddings, self._encoder.dimension, "this index")
        checked = None if texts is None else require_texts("texts", texts)
        return self._add([token_embeddings], len(token_embeddings), ids, checked, metadatas)

    def delete(self, ids: str | Sequence[str] | None = None, *, filter: Filter | None = None) -> int:
        """Delete documents by id, by metadata, or those for which both hold.

        Args:
            ids: one or more ids; those that aren't there are passed over.
            filter: see ``search``. An empty one admits every document.

        Returns:
            How many were deleted.

        Raises:
            InvalidInputError: neither is given (to delete everything there is ``clear``), or a filter that can't be.
        """
        if ids is None and filter is None:
            raise InvalidInputError("delete needs ids or a filter; to delete every document call clear()")
        wanted = None if ids is None else _one_or_more(ids)
        condition = compile_filter(filter)
        with self._writer():
            with self._state:
                keys = self._store.matching(self._store.directory, condition)
                if wanted is not None:
                    named = self._store.keys_of(self._store.directory, wanted).values()
                    keys = np.intersect1d(keys, np.fromiter(named, dtype=np.int64))
            if len(keys):
                with self._changing() as change:
                    change.delete(keys)
                self._tidy()
        return len(keys)

    def clear(self) -> int:
        """Delete every document. Returns how many there were."""
        return self.delete(filter={})

    # Searching

    def search(
        self,
        query: str,
        k: int = 10,
        n_candidates: int | None = None,
        *,
        filter: Filter | None = None,
        exact: bool = False,
        clock: StageClock | None = None,
    ) -> list[Hit]:
        """The ``k`` documents that match a question best, best first; all of them where there are fewer.

        Args:
            query: the question.
            k: how many hits to return.
            n_candidates: how many documents of stage one to rerank; more find more and take longer. None takes
                400, or 10 * k where that is more.
            filter: admit only documents whose metadata satisfy this, such as ``{"year": {"$gte": 2020}}``; see
                ``muvera_core.filters``. ``k`` documents are found wherever ``k`` satisfy it.
            exact: score every document instead: slow, the yardstick for everything else.
            clock: collects the time of each stage.

        Raises:
            InvalidInputError: an empty question, k or n_candidates below 1, a filter that can't be.
        """
        return self.search_batch([query], k, n_candidates, filter=filter, exact=exact, clock=clock)[0]

    def search_batch(
        self,
        queries: Sequence[str],
        k: int = 10,
        n_candidates: int | None = None,
        *,
        filter: Filter | None = None,
        exact: bool = False,
        clock: StageClock | None = None,
    ) -> list[list[Hit]]:
        """Hits for each of several questions. See ``search``."""
        self._require_open()
        queries = require_texts("queries", queries)
        clock = clock or StageClock()
        if not queries:
            return []
        with clock.stage("encode"):
            encoded = require_encoded(self._encoder.encode_queries(queries), len(queries), self._encoder.dimension)
        return [
            self.search_embeddings(tokens, k, n_candidates, filter=filter, exact=exact, clock=clock)
            for tokens in encoded
        ]

    def search_embeddings(
        self,
        query_tokens: npt.ArrayLike | TokenEmbeddings,
        k: int = 10,
        n_candidates: int | None = None,
        *,
        filter: Filter | None = None,
        exact: bool = False,
        clock: StageClock | None = None,
    ) -> list[Hit]:
        """Hits for a question whose token embeddings are at hand, shape (tokens, dimension). See ``search``."""
        self._require_open()
        k = require_count("k", k)
        if n_candidates is None:
            n_candidates = max(MIN_CANDIDATES, CANDIDATES_PER_HIT * k)
        n_candidates = max(k, require_count("n_candidates", n_candidates))
        tokens = require_query_tokens(query_tokens, self._encoder.dimension)
        clock = clock or StageClock()
        condition = compile_filter(filter)

        def search(_: Directory) -> list[Hit]:
            with clock.stage("candidates"):
                directory, keys = self._find_candidates(tokens, None if exact else n_candidates, condition)
            with clock.stage("rerank"):
                keys, scores = self._rerank(directory, tokens, keys)
            with clock.stage("fetch"):
                return self._fetch_hits(directory, keys[:k], scores[:k], len(tokens))

        return self._consistently(search)

    def search_diverse(
        self,
        query: str,
        k: int = 10,
        *,
        fetch_k: int = 50,
        relevance_weight: float = 0.5,
        filter: Filter | None = None,
    ) -> list[Hit]:
        """Hits that match a question well and are unlike one another, by maximal marginal relevance.

        Two documents are as similar as the cosine of their stage-one vectors: among hits for one question it goes
        along with their late-interaction similarity (correlation .9), whose cost grows with the square of their
        length.

        Args:
            query: the question.
            k: how many hits to return, in the order of choice.
            fetch_k: how many of the best hits to choose from; k where that is more.
            relevance_weight: 1 ranks by relevance only, 0 by unlikeness only.
            filter: see ``search``.

        Raises:
            InvalidInputError: as ``search``, and a relevance_weight outside [0, 1].
        """
        if not 0 <= relevance_weight <= 1:
            raise InvalidInputError(f"relevance_weight must be between 0 and 1, got {relevance_weight!r}")
        k, fetch_k = require_count("k", k), require_count("fetch_k", fetch_k)
        hits = self.search(query, max(k, fetch_k), filter=filter)

        def embeddings_of_hits(directory: Directory) -> tuple[list[Hit], TokenEmbeddings]:
            with self._state:
                keys = self._store.keys_of(directory, [hit.id for hit in hits])
            there = [hit for hit in hits if hit.id in keys]
            return there, self._store.embeddings(directory, [keys[hit.id] for hit in there])

        hits, embeddings = self._consistently(embeddings_of_hits)
        vectors = self._stage_one.encode_documents(embeddings)
        relevance = np.array([hit.normalized_score for hit in hits], dtype=np.float32)
        return [hits[i] for i in maximal_marginal_relevance(relevance, vectors @ vectors.T, k, relevance_weight)]

    def explain(self, query: str, id: str) -> list[TokenMatch]:
        """Which document token matched each query token best.

        Returns:
            One match per query token, in order; their similarities add up to the hit's score.

        Raises:
            InvalidInputError: no document has this id, or the question is empty.
        """
        self._require_open()
        query, id = require_text("query", query), require_text("id", id)
        encoded = require_encoded(self._encoder.encode_queries([query]), 1, self._encoder.dimension)

        def read(directory: Directory) -> tuple[StoredDocument, TokenEmbeddings]:
            found = self._documents_by_id(directory, [id])
            if not found:
                raise InvalidInputError(f"there is no document with id {id!r}")
            return found[0], self._store.embeddings(directory, [found[0].key])

        document, tokens = self._consistently(read)
        return match_tokens(self._encoder, query, encoded.vectors, document.text, tokens.vectors)

    # Reading

    def get(self, ids: str | Sequence[str]) -> list[Document]:
        """The documents with these ids, in their order; ids that aren't there are passed over."""
        self._require_open()
        wanted = _one_or_more(ids)
        found = self._consistently(lambda directory: self._documents_by_id(directory, wanted))
        return [_as_added(document) for document in found]

    def find(self, filter: Filter | None = None, limit: int | None = None) -> list[Document]:
        """Documents by their metadata, in the order in which they were added.

        Args:
            filter: see ``search``; None admits every document.
            limit: how many to return at most; None returns all.
        """
        self._require_open()
        condition = compile_filter(filter)
        if limit is not None:
            limit = require_count("limit", limit)

        def read(directory: Directory) -> list[StoredDocument]:
            with self._state:
                return self._store.documents(directory, self._store.matching(directory, condition)[:limit])

        return [_as_added(document) for document in self._consistently(read)]

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Write an index with the same documents and settings to another folder, without encoding anything anew.

        Raises:
            IndexExistsError: the folder is in use.
            ReadOnlyIndexError: the folder can't be made or written.
        """

        def copy(directory: Directory) -> None:
            precision, fde = self._manifest.token_precision, self._manifest.fde
            with MuveraIndex.create(path, self._encoder, fde, token_precision=precision) as made:
                for start in range(0, len(directory), _COPY_BATCH):
                    keys = directory.keys[start : start + _COPY_BATCH]
                    with self._state:
                        documents = self._store.documents(directory, keys)
                    made._add(
                        [self._store.embeddings(directory, keys)],
                        len(documents),
                        [document.id for document in documents],
                        [document.text for document in documents],
                        [document.metadata for document in documents],
                    )

        with self._writing:
            self._require_open()
            copy(self._snapshot())

    def __len__(self) -> int:
        return len(self._snapshot())

    def __contains__(self, id: object) -> bool:
        self._require_open()
        if not isinstance(id, str):
            return False

        def read(directory: Directory) -> bool:
            with self._state:
                return id in self._store.keys_of(directory, [id])

        return self._consistently(read)

    @property
    def path(self) -> Path | None:
        """The index's folder; None where it is in memory."""
        return self._folder

    @property
    def encoder(self) -> TokenEncoder:
        """The token encoder."""
        return self._encoder

    @property
    def n_tokens(self) -> int:
        """Number of token vectors of all documents."""
        return self._snapshot().n_tokens

    # Keeping

    def refresh(self) -> bool:
        """Take in what another process has committed to the folder since it was opened or last refreshed.

        Between refreshes an index that was opened with ``read_only=True`` answers from the state it has seen, and takes
        in a later one only where a document that it would return is gone. The index that writes is always up to date.

        Returns:
            Whether anything had changed.

        Raises:
            CorruptIndexError: files are missing or damaged.
        """
        with self._writing:
            self._require_open()
            if not self._read_only:
                return False
            with self._state:
                now = self._store.load()
                before = self._store.directory
            if now is before:
                return False
            added, removed = self._stage_one.difference(now.keys)
            try:
                self._stage(self._stage_one, added, now)
                with self._state:
                    self._require_open()
                    self._store.directory = now
                    self._stage_one.publish(removed)
            except BaseException:
                self._stage_one.discard()
                raise
            self._stage_one.compact()
        return True

    def compact(self) -> int:
        """Give back the space of deleted and replaced documents. Searches go on meanwhile.

        It happens by itself when deleted documents' tokens take half as much as those of the others. It needs room for
        a copy of the tokens that stay.

        Returns:
            By how many bytes the folder got smaller; 0 for an index in memory.

        Raises:
            ReadOnlyIndexError: the index was opened for reading.
            StorageError: no room for the copy; nothing was changed.
            CorruptIndexError: some tokens are damaged; nothing was changed.
        """
        with self._writer():
            before = self._size_on_disk()
            with self._settling():
                self._store.compact()
            self._stage_one.compact(thoroughly=True)
            self._save_stage_one()
            return before - self._size_on_disk()

    # Closing

    def close(self) -> None:
        """Save what makes the next opening fast, and let go of the folder. Documents are safe without it.

        A search that is under way in another thread ends with IndexClosedError, or with its result.
        """
        if self._fork_guard.in_child:
            return  # all of it is the parent's
        with self._writing:
            if self._closed:
                return
            try:
                if self._n_unsaved and not self._read_only:
                    self._save_stage_one()
            finally:
                with self._state:
                    self._closed = True
                    self._store.close()
                if self._folder_lock is not None:
                    self._folder_lock.release()

    def __enter__(self) -> MuveraIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise MuveraError(
            "an index can't be pickled: it holds open files and a lock. Pass its path and open it there with "
            "MuveraIndex.open(path, read_only=True)"
        )

    def __repr__(self) -> str:
        where = "in memory" if self._folder is None else repr(str(self._folder))
        unusable = self._closed or self._fork_guard.in_child
        return f"<MuveraIndex {where}: {'closed' if unusable else f'{len(self._store.directory)} documents'}>"

    # The stages

    def _add(
        self,
        batches: Iterable[TokenEmbeddings],
        n: int,
        ids: Sequence[str] | None,
        texts: Sequence[str | None] | None,
        metadatas: Sequence[Mapping[str, Any] | None] | None,
    ) -> list[str]:
        checked_ids = require_ids(ids, n)
        checked_metadatas = require_metadatas(metadatas, n)
        texts = [None] * n if texts is None else texts
        require_length("texts", texts, n)
        with self._writer():
            if n == 0:
                return []
            with self._settling():
                places, keys = [], self._new_keys(n)
                done = 0
                for batch in batches:
                    appended, stored = self._store.append_tokens(batch)
                    self._stage_one.stage(keys[done : done + len(batch)], stored)
                    places.append(appended)
                    done += len(batch)
                with self._changing() as change:
                    change.add(keys, checked_ids, texts, checked_metadatas, AppendedTokens.joined(places))
            self._freeze_mean()
            self._n_unsaved += n
            self._tidy()
        return checked_ids

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

    @contextmanager
    def _changing(self) -> Iterator[Change]:
        """A change of the store that becomes visible together with what is staged in stage one."""
        with self._settling(), self._store.change() as change:
            yield change
            with self._state:
                self._require_open()
                change.commit()
                self._stage_one.publish(change.removed)
        self._n_unsaved += len(change.removed)

    @contextmanager
    def _settling(self) -> Iterator[None]:
        """After an error or an interruption, return to what is committed."""
        try:
            yield
        except BaseException:
            self._unsettled = True
            try:
                self._settle()
            except Exception as error:
                _log.warning(
                    "%r can't be read after a failed write; it is tried again at the next use: %s", self, error
                )
            raise

    def _settle(self) -> None:
        with self._state:
            if self._unsettled and not self._closed:
                self._store.roll_back()
                self._stage_one.discard()
                added, removed = self._stage_one.difference(self._store.directory.keys)
                self._stage(self._stage_one, added, self._store.directory)
                self._stage_one.publish(removed)
                self._unsettled = False

    def _tidy(self) -> None:
        """After a write: give back space where that is worth it, and save stage one where it would be missed."""
        try:
            if self._store.is_wasteful:
                with self._settling():
                    self._store.compact()
        except (StorageError, CorruptIndexError) as error:  # what was written is safe all the same
            _log.warning("%r couldn't be compacted: %s", self, error)
        self._stage_one.compact()
        if self._n_unsaved >= max(_MIN_TO_SAVE, len(self._store.directory) // 2):
            self._save_stage_one()

    def _save_stage_one(self) -> None:
        if self._folder is None:
            return
        try:
            self._stage_one.save(self._folder, self._manifest.index_id)
            self._n_unsaved = 0
        except StorageError as error:
            warnings.warn(
                f"stage one of {self._folder} couldn't be saved, the next opening derives it again: {error}",
                StageOneNotSavedWarning,
                stacklevel=3,
            )

    def _snapshot(self) -> Directory:
        """The state that a search sees."""
        self._require_open()
        if self._unsettled:
            self._settle()
        return self._store.directory

    def _consistently(self, read: Callable[[Directory], _T]) -> _T:
        """What ``read`` gives for one committed state; anew for a later one, where that state is gone meanwhile."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return read(self._snapshot())
            except StaleError:
                if self._read_only:  # else it is this index that has changed it
                    self.refresh()
        with self._writing if self._read_only else nullcontext(), self._state:
            self._require_open()
            with self._store.frozen():
                if self._read_only:
                    self.refresh()
                return read(self._snapshot())

    def _find_candidates(
        self, tokens: FloatArray, n_candidates: int | None, condition: Condition | None
    ) -> tuple[Directory, IntArray]:
        """Keys of the documents to rerank; all that the filter admits where ``n_candidates`` is None.

        Returns:
            The committed state that they were found in, and the keys.
        """
        stage_one, vector = self._stage_one, None
        if n_candidates is not None and len(self._snapshot()) > n_candidates:
            vector = stage_one.encode_query(tokens)
        with self._state:
            directory = self._snapshot()
            if self._stage_one is not stage_one:
                raise StaleError
            keys = self._store.matching(directory, condition)
            if vector is not None and n_candidates is not None and stage_one.is_worth_it(len(keys), n_candidates):
                keys = stage_one.search(vector, n_candidates, None if condition is None else keys)
        return directory, keys

    def _rerank(self, directory: Directory, tokens: FloatArray, keys: IntArray) -> tuple[IntArray, FloatArray]:
        """Keys by falling MaxSim, ties by rising key, with their scores."""
        parts = []
        keys = np.sort(keys)
        for start in range(0, len(keys), _EXACT_BATCH):
            rows, offsets = self._store.token_rows(directory, keys[start : start + _EXACT_BATCH])
            codes, scales = self._manifest.codec.split(rows)
            parts.append(maxsim_scaled(tokens, codes, scales, offsets))
        scores = np.concatenate([np.empty(0, dtype=np.float32), *parts])
        order = np.lexsort((keys, -scores))
        return keys[order], scores[order]

    def _fetch_hits(self, directory: Directory, keys: IntArray, scores: FloatArray, n_query_tokens: int) -> list[Hit]:
        with self._state:
            documents = self._store.documents(directory, keys)
        both = zip(documents, scores.tolist(), normalize_scores(scores, n_query_tokens).tolist(), strict=True)
        return [Hit(found.id, found.text, found.metadata, score, normalized) for found, score, normalized in both]

    def _documents_by_id(self, directory: Directory, ids: Sequence[str]) -> list[StoredDocument]:
        """The documents with these ids, in the order of the ids; unknown ids are passed over."""
        with self._state:
            keys = self._store.keys_of(directory, ids)
            return self._store.documents(directory, [keys[id] for id in ids if id in keys])

    def _make_set_encoder(self) -> FixedDimensionalEncoder:
        config = self._manifest.fde
        if not config.center:
            return FixedDimensionalEncoder(config)
        frozen = self._store.get_state("mean_token")
        mean = np.zeros(config.dimension, np.float32) if frozen is None else np.frombuffer(frozen, dtype="<f4")
        return FixedDimensionalEncoder(config, mean=mean)

    def _freeze_mean(self) -> None:
        """Once a centring index has enough tokens, fix their mean for good and encode what is there anew."""
        directory = self._store.directory
        if (
            not self._manifest.fde.center
            or directory.n_tokens < MIN_TOKENS_FOR_MEAN
            or self._store.get_state("mean_token") is not None
        ):
            return
        with self._changing() as change:
            change.put_state("mean_token", self._store.mean_token().astype("<f4").tobytes())
        centred = StageOne(self._make_set_encoder(), self._state)
        self._stage(centred, directory.keys, directory)
        centred.publish(_NONE)
        with self._state:
            self._stage_one = centred

    def _size_on_disk(self) -> int:
        if self._folder is None:
            return 0
        return sum(entry.stat().st_size for entry in os.scandir(self._folder) if entry.is_file(follow_symlinks=False))

    @contextmanager
    def _writer(self) -> Iterator[None]:
        self._require_open()
        with self._writing:
            self._require_open()
            if self._read_only:
                raise ReadOnlyIndexError(f"{self._folder} was opened with read_only=True: open it without to change it")
            if self._unsettled:
                self._settle()
            yield

    def _require_open(self) -> None:
        if self._fork_guard.in_child:
            raise ForkedIndexError(
                "the index was opened by the process that this one was forked from: open it again here with "
                "MuveraIndex.open(path, read_only=True)"
            )
        if self._closed:
            raise IndexClosedError("the index is closed: open it again with MuveraIndex.open")


def _bundled_encoder() -> TokenEncoder:
    from muvera_core.encoders.bundled import BundledEncoder  # onnxruntime is slow to import: not before it is needed

    return BundledEncoder()


def _one_or_more(ids: str | Sequence[str]) -> list[str]:
    return require_texts("ids", [ids] if isinstance(ids, str) else ids)


def _as_added(document: StoredDocument) -> Document:
    return Document(document.id, document.text, document.metadata)
