"""The index: follow ``add`` and ``search`` to see how a passage and a query flow through every stage.

text → token encoder → token embeddings → store, and from there → set encoder → stage one
query → token encoder → set encoder → stage one's candidates → exact MaxSim over their stored tokens → hits

``MuveraIndex`` checks arguments, encodes texts and delegates. ``collection`` keeps the documents, ``search`` searches.
"""

from __future__ import annotations

import os
from collections.abc import Collection as AnyCollection
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy.typing as npt
from tqdm import tqdm

from muvera_core.collection import (
    Accelerator,
    Collection,
    Writer,
    copy_collection,
    create_collection,
    new_index_id,
    open_collection,
    refresh,
)
from muvera_core.encoders import (
    PrecomputedEmbeddings,
    TokenEncoder,
    default_encoder,
    pool_tokens,
    require_encoder,
    require_pool_factor,
    require_scipy,
)
from muvera_core.errors import InvalidInputError, MuveraError
from muvera_core.evaluation import Evaluation, evaluate
from muvera_core.filters import compile_filter
from muvera_core.hits import Document, Hit, TokenMatch
from muvera_core.search import SearchOptions, StageClock, diversify, explain, search
from muvera_core.set_encoders import FDEConfig, resolve_fde_config
from muvera_core.stage_one import Tuning
from muvera_core.storage import Manifest, Snapshot, StoredDocument, TokenPrecision
from muvera_core.token_embeddings import TokenEmbeddings, require_dimension
from muvera_core.tuning import optimize
from muvera_core.validation import (
    require_count,
    require_encoded,
    require_ids,
    require_length,
    require_metadatas,
    require_path,
    require_queries,
    require_share,
    require_text,
    require_texts,
    require_unicode,
)

Filter = Mapping[str, Any]


class MuveraIndex:
    """A collection of documents that is searched by late interaction.

    Make one with ``create`` or ``open``. Any number of threads may search while one adds or deletes.

    >>> with MuveraIndex.create(None) as index:
    ...     _ = index.add(["Ants live in colonies.", "Owls hunt at night."], ids=["ant", "owl"])
    ...     index.search("Which bird is active after dark?", k=1)[0].id
    'owl'
    """

    def __init__(self, collection: Collection, encoder: TokenEncoder) -> None:
        """Use ``create`` or ``open``."""
        self._collection, self._encoder = collection, encoder
        self._writer = Writer(collection)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        token_precision: TokenPrecision = "int8",
        pool_factor: int = 1,
        device: str = "cpu",
        device_memory: int | None = None,
    ) -> MuveraIndex:
        """Make an empty index.

        Args:
            path: a folder that doesn't exist or is empty; None keeps the index in memory only.
            encoder: turns text into token vectors; None takes the bundled one.
            fde: settings of stage one; None takes the defaults. Its dimension must be the encoder's.
            token_precision: how token vectors are stored: "int8" or "float16", which takes twice the space.
            pool_factor: merge tokens of a document that are alike until about one in so many is left, which saves
                space and time and loses some of what is found. From 1, which keeps all, to 16; adding then needs SciPy.
            device: what searches, see ``open``; it isn't part of the index.
            device_memory: see ``open``.

        Raises:
            IndexExistsError: the folder is in use.
            DimensionMismatchError: ``fde`` is for vectors of another width.
            ReadOnlyIndexError: the folder can't be made or written.
            MissingExtraError: ``pool_factor`` isn't 1 and SciPy isn't installed, or the device is CUDA and CuPy isn't.
            DeviceError: the device can't be used.
        """
        pool_factor = require_pool_factor(pool_factor)
        if pool_factor > 1:
            require_scipy()
        encoder = default_encoder() if encoder is None else require_encoder(encoder)
        fde = resolve_fde_config(fde, encoder.dimension)
        manifest = Manifest(new_index_id(), encoder.fingerprint, token_precision, fde, pool_factor)
        gpu = accelerator_of(device, device_memory)
        folder = None if path is None else require_path("path", path)
        return cls(create_collection(folder, manifest, gpu), encoder)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        *,
        read_only: bool = False,
        show_progress: bool = False,
        device: str = "cpu",
        device_memory: int | None = None,
    ) -> MuveraIndex:
        """Open an index that ``create`` made.

        Args:
            path: the folder.
            encoder: the encoder that the index was made with; None takes the bundled one. An index never loads a
                model by itself.
            read_only: allow no changes. Needs no right to write, and any number of processes can do it.
            show_progress: show a bar if part of stage one has to be derived again, and for what goes to the device.
            device: what compares, encodes for stage one and scans: "cpu"; "cuda" or "cuda:N", a card, which must work;
                "auto", the first card, and the CPU, with a ``DeviceFallbackWarning``, where and when it can't be used.
            device_memory: bytes of the card to keep documents in; None takes half of what is free. Documents beyond it
                are brought to the card by each search that needs them.

        Raises:
            InvalidInputError: a device that there can't be.
            MissingExtraError: the device is CUDA and CuPy isn't installed.
            DeviceError: the device can't be used.
            NotAnIndexError: there is no index.
            EncoderMismatchError: the index was made with another encoder.
            UnsupportedFormatError: a newer muvera wrote it; or an older one did, and ``read_only`` is set.
            IndexLockedError: another writer has it open.
            ReadOnlyIndexError: the folder can't be written and ``read_only`` isn't set.
            CorruptIndexError: files are missing or damaged.
            StorageError: they can't be read.
        """
        folder = require_path("path", path)
        gpu = accelerator_of(device, device_memory)
        encoder = default_encoder() if encoder is None else require_encoder(encoder)
        collection = open_collection(
            folder,
            encoder=encoder.fingerprint,
            read_only=read_only,
            show_progress=show_progress,
            accelerator=gpu,
        )
        return cls(collection, encoder)

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
                    encoded = require_encoded(self._encoder.encode_documents(some), len(some), self._encoder.dimension)
                    yield pool_tokens(encoded, self.pool_factor)
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
        token_embeddings = pool_tokens(token_embeddings, self.pool_factor)
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
        return self._writer.delete(wanted, condition)

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
            n_candidates: how many documents of stage one to rerank; more find more and take longer. None takes what
                ``optimize`` found, or else 400, or 10 * k where that is more.
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
        """Hits for each of several questions, as ``search`` gives them, but for the rounding of scores."""
        self._collection.require_open()
        queries = require_texts("queries", queries)
        clock = _require_clock(clock)
        if not queries:
            return []
        with clock.stage("encode"):
            encoded = require_encoded(self._encoder.encode_queries(queries), len(queries), self._encoder.dimension)
        return self.search_embeddings_batch(encoded, k, n_candidates, filter=filter, exact=exact, clock=clock)

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
        return self.search_embeddings_batch([query_tokens], k, n_candidates, filter=filter, exact=exact, clock=clock)[0]

    def search_embeddings_batch(
        self,
        query_tokens: TokenEmbeddings | Sequence[npt.ArrayLike | TokenEmbeddings],
        k: int = 10,
        n_candidates: int | None = None,
        *,
        filter: Filter | None = None,
        exact: bool = False,
        clock: StageClock | None = None,
    ) -> list[list[Hit]]:
        """Hits for each of several questions whose token embeddings are at hand. See ``search``."""
        self._collection.require_open()
        queries = require_queries(query_tokens, self._encoder.dimension)
        clock = _require_clock(clock)
        k = require_count("k", k)
        if n_candidates is not None:
            n_candidates = require_count("n_candidates", n_candidates)
        return search(self._collection, queries, SearchOptions(k, n_candidates, compile_filter(filter), exact), clock)

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

        Two documents are as similar as the cosine of their encodings (``FDEConfig``): among hits for one question it
        goes along with their late-interaction similarity (correlation .9), whose cost grows with the square of their
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
        relevance_weight = require_share("relevance_weight", relevance_weight)
        k, fetch_k = require_count("k", k), require_count("fetch_k", fetch_k)
        hits = self.search(query, max(k, fetch_k), filter=filter)
        return diversify(self._collection, hits, k, relevance_weight)

    def explain(self, query: str, id: str) -> list[TokenMatch]:
        """Which document token matched each query token best.

        Of tokens that were merged (``pool_factor``), the one nearest to the query token is named, but the similarity is
        that of the merged one, which counts in the score. To find it the document is encoded again.

        Returns:
            One match per query token, in order; their similarities add up to the hit's score.

        Raises:
            InvalidInputError: no document has this id, or the question is empty.
        """
        self._collection.require_open()
        query, id = require_text("query", query), require_text("id", id)
        return explain(self._collection, self._encoder, query, id)

    # Reading

    def get(self, ids: str | Sequence[str]) -> list[Document]:
        """The documents with these ids, in their order; ids that aren't there are passed over."""
        self._collection.require_open()
        wanted = _one_or_more(ids)
        store = self._collection.store
        found = self._collection.read_with_retry(lambda snapshot: store.documents_by_id(snapshot, wanted))
        return [_as_added(document) for document in found]

    def find(self, filter: Filter | None = None, limit: int | None = None) -> list[Document]:
        """Documents by their metadata, in the order in which they were added.

        Args:
            filter: see ``search``; None admits every document.
            limit: how many to return at most; None returns all.
        """
        self._collection.require_open()
        condition = compile_filter(filter)
        if limit is not None:
            limit = require_count("limit", limit)

        def read(snapshot: Snapshot) -> list[StoredDocument]:
            store = self._collection.store
            return store.documents(snapshot, store.matching(snapshot, condition)[:limit])

        return [_as_added(document) for document in self._collection.read_with_retry(read)]

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Write an index with the same documents and settings to another folder, without encoding any text anew.

        What ``optimize`` chose isn't copied.

        Raises:
            IndexExistsError: the folder is in use.
            ReadOnlyIndexError: the folder can't be made or written.
        """
        copy_collection(self._collection, require_path("path", path))

    def __len__(self) -> int:
        return len(self._collection.snapshot())

    def __contains__(self, id: object) -> bool:
        self._collection.require_open()
        try:
            wanted = require_unicode("id", id)
        except InvalidInputError:
            return False  # nothing of the kind can be in an index
        store = self._collection.store
        return self._collection.read_with_retry(lambda snapshot: wanted in store.keys_of(snapshot, [wanted]))

    @property
    def path(self) -> Path | None:
        """The index's folder; None where it is in memory."""
        return self._collection.folder

    @property
    def device(self) -> str:
        """What searches: "cpu" or "cuda:N"."""
        return self._collection.device

    @property
    def encoder(self) -> TokenEncoder:
        """The token encoder."""
        return self._encoder

    @property
    def n_tokens(self) -> int:
        """Number of token vectors of all documents."""
        return self._collection.snapshot().n_tokens

    @property
    def pool_factor(self) -> int:
        """Of so many tokens of a document about one is stored; see ``create``."""
        return self._collection.manifest.pool_factor

    # Keeping

    def refresh(self) -> bool:
        """Take in what another process has committed to the folder since it was opened or last refreshed.

        Between refreshes an index that was opened with ``read_only=True`` answers from the state it has seen, and takes
        in a later one by itself only where it must: a document that it would return is gone, or a filter has to be
        answered that it doesn't know the answer to. The index that writes is always up to date.

        After ``optimize`` has chosen another stage one, it is loaded beside the present one, or derived where the
        writer hasn't saved it yet; searches go on with the present one meanwhile. If what was learned is lost, it is
        the index's first encoding, and the log says so.

        Returns:
            Whether anything had changed.

        Raises:
            CorruptIndexError: files are missing or damaged.
        """
        return refresh(self._collection)

    def compact(self) -> int:
        """Give back the space of deleted and replaced documents. Searches go on meanwhile.

        It happens by itself when deleted documents' tokens take half as much as those of the others. It needs room for
        a copy of the tokens that stay.

        Returns:
            By how many bytes the stored documents got smaller on disk; 0 for an index in memory.

        Raises:
            ReadOnlyIndexError: the index was opened for reading.
            StorageError: no room for the copy; nothing was changed.
            CorruptIndexError: some tokens are damaged; nothing was changed.
        """
        return self._writer.compact()

    def default_candidates(self, k: int = 10) -> int:
        """How many documents a search for ``k`` hits reranks where it isn't told."""
        return self._collection.stage_one.n_candidates(require_count("k", k))

    def sizes(self) -> dict[str, int]:
        """Bytes that each part takes, on disk or in memory, by name."""
        return self._collection.sizes()

    def evaluate(
        self,
        queries: Sequence[str],
        relevant: Sequence[Mapping[str, float] | AnyCollection[str]] | None = None,
        *,
        k: int = 10,
        n_candidates: int | None = None,
        show_progress: bool = False,
    ) -> Evaluation:
        """Measure what a search finds of what exact MaxSim would find, and what it takes.

        Args:
            queries: questions such as are asked.
            relevant: for each of them the ids of documents that answer it, or a grade by id.
            k: number of hits.
            n_candidates: how many documents to rerank; see ``search``.
            show_progress: show bars on standard error.

        Raises:
            InvalidInputError: no questions, an empty index, or another number of ``relevant`` than of questions.
        """
        self._collection.require_open()
        return evaluate(self, queries, relevant, k, n_candidates, show_progress=show_progress)

    def optimize(
        self,
        target_recall: float = 0.95,
        queries: Sequence[str] | None = None,
        *,
        k: int = 10,
        n_queries: int = 200,
        show_progress: bool = False,
    ) -> Tuning:
        """Choose and fit stage one for the documents that are there, and use it from now on.

        Measures the encoding that the index was made with and learned ones (``LearnedSetEncoder``) of several widths,
        and takes the one that finds the target in the least time, with as many candidates as it needs for that. Where
        there are enough documents for a graph, that one is also measured in graphs of more links, and of links chosen
        from more, and the fastest is kept. Searches go on meanwhile; writes wait. What is added later is encoded with
        what was learned: optimize again when the index has grown several times over, or is about something else. It
        needs memory for the vectors of all documents. Processes that read the index go on as before until ``refresh``.

        Args:
            target_recall: share of the ``k`` best documents, by exact MaxSim, that a search is to find.
            queries: questions such as will be asked, the more the better; where None, parts of the documents stand in.
                Of 100 or more, half are measured with and half are learned from.
            k: number of hits to tune for.
            n_queries: how many stand-ins to use.
            show_progress: show bars on standard error.

        Returns:
            What was chosen, and what was measured; it is also in the index's manifest. Where no choice reaches the
            target, the one that comes nearest.

        Raises:
            InvalidInputError: a target outside [0, 1], no questions, or not more than ``k`` documents.
            ReadOnlyIndexError: the index was opened for reading.
            StorageError: no room for what was learned.
        """
        self._collection.require_open()
        target_recall, k = require_share("target_recall", target_recall), require_count("k", k)
        tokens = None
        if queries is not None:
            questions = require_texts("queries", queries)
            if not questions:
                raise InvalidInputError("queries is empty: give questions, or None for stand-ins")
            encoded = self._encoder.encode_queries(questions)
            tokens = list(require_encoded(encoded, len(questions), self._encoder.dimension))

        return optimize(
            self._collection,
            self._writer,
            tokens,
            None if isinstance(self._encoder, PrecomputedEmbeddings) else self._encoder,
            target_recall=target_recall,
            k=k,
            n_queries=require_count("n_queries", n_queries),
            show_progress=show_progress,
        )

    # Closing

    def close(self) -> None:
        """Save what makes the next opening fast, and let go of the folder. Documents are safe without it.

        A search that is under way in another thread ends with IndexClosedError, or with its result.
        """
        self._collection.close()

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
        where = "in memory" if self.path is None else repr(str(self.path))
        content = f"{len(self)} documents" if self._collection.is_open else "closed"
        return f"<MuveraIndex {where}: {content}>"

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
        self._writer.add(batches, checked_ids, texts, checked_metadatas)
        return checked_ids


def accelerator_of(device: str, memory: int | None = None) -> Accelerator | None:
    """The GPU for a ``device`` argument; None for the CPU, for which CuPy is not imported."""
    if memory is not None:
        memory = require_count("device_memory", memory)
    if device == "cpu":
        return None
    from muvera_core.cuda.accelerator import accelerate

    return accelerate(device, memory)


def _require_clock(clock: StageClock | None) -> StageClock:
    if clock is not None and not isinstance(clock, StageClock):
        raise InvalidInputError(f"clock must be a StageClock, got {type(clock).__name__}")
    return StageClock() if clock is None else clock


def _one_or_more(ids: str | Sequence[str]) -> list[str]:
    return require_texts("ids", [ids] if isinstance(ids, str) else ids)


def _as_added(document: StoredDocument) -> Document:
    return Document(document.id, document.text, document.metadata)
