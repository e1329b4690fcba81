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
    counted,
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
            path: a folder that does not exist or is empty. None keeps the index in memory.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the defaults. Its dimension must be the
                encoder's.
            token_precision: how token vectors are stored: "int8", or "float16", which takes twice the space.
            pool_factor: from 1 to 16. Similar tokens of a document are merged until about one in ``pool_factor`` is
                left. That saves space and time and loses some recall. Above 1, adding documents needs SciPy.
            device: the device to search on; see ``open``. It is not part of the index.
            device_memory: see ``open``.

        Raises:
            IndexExistsError: the folder is in use.
            DimensionMismatchError: ``fde`` is for vectors of another width.
            ReadOnlyIndexError: the folder cannot be made or written.
            MissingExtraError: ``pool_factor`` is above 1 and SciPy is missing, or the device is CUDA and CuPy is.
            DeviceError: the device cannot be used.
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
            path: the index's folder.
            encoder: the encoder that the index was made with. None takes the bundled encoder. An index never loads a
                model by itself.
            read_only: refuse changes. Any number of processes can read an index. They need no write permission.
            show_progress: show bars if stage one has to be derived again, and while documents are copied to a GPU.
            device: the device to search on. "cpu"; "cuda" or "cuda:N" for a GPU, which must work; "auto" for the first
                GPU, or the CPU, with a ``DeviceFallbackWarning``, if the GPU cannot be used.
            device_memory: bytes of GPU memory to cache documents in. None takes half of what is free. A search copies
                the documents to the GPU that it needs and that are not cached.

        Raises:
            InvalidInputError: ``device`` is not the name of a device.
            MissingExtraError: the device is CUDA and CuPy is not installed.
            DeviceError: the device cannot be used.
            NotAnIndexError: the folder holds no index.
            EncoderMismatchError: the index was made with another encoder.
            UnsupportedFormatError: a newer muvera wrote the index, or an older one did and ``read_only`` is set.
            IndexLockedError: another writer has the index open.
            ReadOnlyIndexError: the folder cannot be written and ``read_only`` is not set.
            CorruptIndexError: files are missing or damaged.
            StorageError: files cannot be read.
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
        """Encode and add documents, all or none. A document replaces the one with the same id.

        Args:
            texts: the passages. None of them is empty.
            ids: a distinct id for each text. None draws random ids.
            metadatas: a JSON-like mapping for each text. None stands for empty ones.
            batch_size: texts per call of the encoder.
            show_progress: show a bar on standard error.

        Returns:
            The ids, in order.

        Raises:
            InvalidInputError: a text is empty, an id repeats, JSON cannot hold the metadata, or lengths differ.
            EncoderError: the encoder returned something unusable.
            ReadOnlyIndexError: the index was opened for reading.
        """
        texts = require_texts("texts", texts)
        batch_size = require_count("batch_size", batch_size)

        def batches() -> Iterator[TokenEmbeddings]:
            with tqdm(total=len(texts), desc="encoding", unit="doc", disable=not show_progress) as bar:
                for start in range(0, len(texts), batch_size):
                    batch = texts[start : start + batch_size]
                    encoded = self._encoder.encode_documents(batch)
                    encoded = require_encoded(encoded, len(batch), self._encoder.dimension)
                    yield pool_tokens(encoded, self.pool_factor)
                    bar.update(len(batch))

        return self._add(batches(), len(texts), ids, texts, metadatas)

    def add_embeddings(
        self,
        token_embeddings: TokenEmbeddings | Sequence[npt.ArrayLike],
        ids: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> list[str]:
        """Add documents by their token embeddings, all or none. See ``add``.

        Args:
            token_embeddings: made by the index's encoder. Or a list of arrays of shape (tokens, dimension).
            ids: a distinct id for each document. None draws random ids.
            texts: the passages that the embeddings were made from. Hits return them.
            metadatas: a JSON-like mapping for each document.

        Raises:
            InvalidInputError: the same cases as for ``add``, or a vector holds NaN or infinity.
            DimensionMismatchError: the vectors have another width than the index's.
        """
        if not isinstance(token_embeddings, TokenEmbeddings):
            token_embeddings = TokenEmbeddings.from_list(token_embeddings)
        require_dimension(token_embeddings, self._encoder.dimension, "this index")
        checked = None if texts is None else require_texts("texts", texts)
        token_embeddings = pool_tokens(token_embeddings, self.pool_factor)
        return self._add([token_embeddings], len(token_embeddings), ids, checked, metadatas)

    def delete(self, ids: str | Sequence[str] | None = None, *, filter: Filter | None = None) -> int:
        """Delete documents by id, by metadata, or by both.

        Args:
            ids: one or more ids. Unknown ids are skipped.
            filter: see ``search``. An empty filter admits every document. With ``ids`` too, a document is deleted if
                it has one of the ids and the filter admits it.

        Returns:
            The number of deleted documents.

        Raises:
            InvalidInputError: neither argument is given, or the filter is invalid. ``clear`` deletes everything.
        """
        if ids is None and filter is None:
            raise InvalidInputError("delete needs ids or a filter; to delete every document call clear()")
        wanted = None if ids is None else _one_or_more(ids)
        condition = compile_filter(filter)
        return self._writer.delete(wanted, condition)

    def clear(self) -> int:
        """Delete every document. Returns their number."""
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
        """The ``k`` documents that match a query best, best first.

        Args:
            query: the query's text.
            k: number of hits. A smaller index returns all its documents.
            n_candidates: number of candidates to rerank. More candidates find more and take longer. None takes what
                ``optimize`` chose, or else the larger of 400 and 10 * k.
            filter: admits documents by their metadata, for example ``{"year": {"$gte": 2020}}``. See
                ``muvera_core.filters``. If the filter admits at least ``k`` documents, ``k`` are returned.
            exact: score every document. This is slow. It is the reference for every other search.
            clock: collects the time of each stage.

        Raises:
            InvalidInputError: the query is empty, ``k`` or ``n_candidates`` is below 1, or the filter is invalid.
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
        """The hits of each query. Scores can differ from those of ``search`` in their last bits."""
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
        """The hits of a query that is given by its token embeddings, shape (tokens, dimension). See ``search``."""
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
        """The hits of several queries that are given by their token embeddings. See ``search``."""
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
        """Hits that match a query well and differ from one another, by maximal marginal relevance.

        The similarity of two documents is the cosine of their FDEs. Among the hits of one query it agrees with their
        late-interaction similarity (correlation .9), whose cost would grow with the square of their length.

        Args:
            query: the query's text.
            k: number of hits. They are returned in the order in which they are chosen.
            fetch_k: number of best hits to choose from. At least ``k`` are taken.
            relevance_weight: from 0, which looks at diversity only, to 1, which looks at relevance only.
            filter: see ``search``.

        Raises:
            InvalidInputError: the same cases as for ``search``, or ``relevance_weight`` is outside [0, 1].
        """
        relevance_weight = require_share("relevance_weight", relevance_weight)
        k, fetch_k = require_count("k", k), require_count("fetch_k", fetch_k)
        hits = self.search(query, max(k, fetch_k), filter=filter)
        return diversify(self._collection, hits, k, relevance_weight)

    def explain(self, query: str, id: str) -> list[TokenMatch]:
        """The document token that matches each query token best.

        If the document's tokens were merged (``pool_factor``), the similarity is that of the merged token, because the
        score is made of it. Of the tokens that were merged, the match names the one that is nearest to the query token.
        To find it, the document is encoded again.

        Returns:
            One match per query token, in order. Their similarities add up to the hit's score.

        Raises:
            InvalidInputError: no document has this id, or the query is empty.
        """
        self._collection.require_open()
        query, id = require_text("query", query), require_text("id", id)
        return explain(self._collection, self._encoder, query, id)

    # Reading

    def get(self, ids: str | Sequence[str]) -> list[Document]:
        """The documents with these ids, in the order of the ids. Unknown ids are skipped."""
        self._collection.require_open()
        wanted = _one_or_more(ids)
        store = self._collection.store
        found = self._collection.read_with_retry(lambda snapshot: store.documents_by_id(snapshot, wanted))
        return [_to_document(document) for document in found]

    def find(self, filter: Filter | None = None, limit: int | None = None) -> list[Document]:
        """Documents by their metadata, in the order in which they were added.

        Args:
            filter: see ``search``. None admits every document.
            limit: the largest number of documents to return. None returns all.
        """
        self._collection.require_open()
        condition = compile_filter(filter)
        if limit is not None:
            limit = require_count("limit", limit)

        def read(snapshot: Snapshot) -> list[StoredDocument]:
            store = self._collection.store
            return store.documents(snapshot, store.matching(snapshot, condition)[:limit])

        return [_to_document(document) for document in self._collection.read_with_retry(read)]

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Write an index with the same documents and settings to another folder. No text is encoded again.

        The choice of ``optimize`` is not copied.

        Raises:
            IndexExistsError: the folder is in use.
            ReadOnlyIndexError: the folder cannot be made or written.
        """
        copy_collection(self._collection, require_path("path", path))

    def __len__(self) -> int:
        return len(self._collection.snapshot())

    def __contains__(self, id: object) -> bool:
        self._collection.require_open()
        try:
            wanted = require_unicode("id", id)
        except InvalidInputError:
            return False  # no document can have such an id
        store = self._collection.store
        return self._collection.read_with_retry(lambda snapshot: wanted in store.keys_of(snapshot, [wanted]))

    @property
    def path(self) -> Path | None:
        """The index's folder. None if the index is in memory."""
        return self._collection.folder

    @property
    def device(self) -> str:
        """The device that searches use: "cpu" or "cuda:N"."""
        return self._collection.device

    @property
    def encoder(self) -> TokenEncoder:
        """The token encoder."""
        return self._encoder

    @property
    def n_tokens(self) -> int:
        """The number of token vectors of all documents."""
        return self._collection.snapshot().n_tokens

    @property
    def pool_factor(self) -> int:
        """About one in ``pool_factor`` tokens of a document is stored; see ``create``."""
        return self._collection.manifest.pool_factor

    # Keeping

    def refresh(self) -> bool:
        """Take in what another process has committed since the index was opened or last refreshed.

        An index that was opened with ``read_only=True`` answers from one snapshot. It moves on by itself only if it
        must: a document that it would return is gone, or it has to answer a filter for the first time. The index that
        writes is always up to date.

        A new stage one of ``optimize`` is loaded, or derived if the writer has not saved it yet, while searches use the
        present one. If its learned encoder is lost, the index uses its first encoding, and the log says so.

        Returns:
            Whether anything had changed.

        Raises:
            CorruptIndexError: files are missing or damaged.
        """
        return refresh(self._collection)

    def compact(self) -> int:
        """Give back the space of deleted and replaced documents. Searches go on meanwhile.

        This also happens by itself when the tokens of deleted documents take half as much space as the others. It needs
        room for a copy of the tokens that stay.

        Returns:
            The number of bytes given back on disk. 0 for an index in memory.

        Raises:
            ReadOnlyIndexError: the index was opened for reading.
            StorageError: there is no room for the copy. Nothing was changed.
            CorruptIndexError: some tokens are damaged. Nothing was changed.
        """
        return self._writer.compact()

    def default_candidates(self, k: int = 10) -> int:
        """The number of candidates that a search for ``k`` hits reranks by default."""
        return self._collection.stage_one.n_candidates(require_count("k", k))

    def sizes(self) -> dict[str, int]:
        """The size of each part in bytes, on disk or in memory, by name."""
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
        """Measure how many of exact MaxSim's hits a search finds, and how long it takes.

        Args:
            queries: example queries, like those that users ask.
            relevant: for each query the ids of the documents that answer it, or a grade by id.
            k: number of hits.
            n_candidates: number of candidates to rerank; see ``search``.
            show_progress: show bars on standard error.

        Raises:
            InvalidInputError: there are no queries or no documents, or ``relevant`` is not as long as ``queries``.
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
        """Choose stage one for the documents that the index has, and use it from now on.

        Measures the encoding that the index was made with, and learned encodings (``LearnedSetEncoder``) of several
        widths. The fastest one that reaches the target is taken, with the number of candidates that it needs. With
        enough documents for a graph, graphs of other parameters are measured, too.

        Searches go on meanwhile; writes wait. The vectors of all documents must fit in memory. Documents that are added
        later are encoded with the same encoder: optimize again when the index has grown several times over, or is about
        something else. Processes that read the index use the choice after ``refresh``.

        Args:
            target_recall: the share of exact MaxSim's ``k`` best documents that a search should find.
            queries: example queries, the more the better. Of 100 or more, half are for measuring and half for fitting.
                None takes parts of the documents instead.
            k: number of hits to tune for.
            n_queries: number of parts of documents to measure with if ``queries`` is None.
            show_progress: show bars on standard error.

        Returns:
            What was chosen and measured. The index's manifest keeps it. If nothing reaches the target, the
            choice is the one that comes nearest.

        Raises:
            InvalidInputError: the target is outside [0, 1], ``queries`` is empty, or there are at most ``k`` documents.
            ReadOnlyIndexError: the index was opened for reading.
            StorageError: there is no room for the learned encoder.
        """
        self._collection.require_open()
        target_recall, k = require_share("target_recall", target_recall), require_count("k", k)
        tokens = None
        if queries is not None:
            texts = require_texts("queries", queries)
            if not texts:
                raise InvalidInputError("queries is empty: give example queries, or None to use parts of documents")
            tokens = list(require_encoded(self._encoder.encode_queries(texts), len(texts), self._encoder.dimension))
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
        """Save stage one, which makes the next opening fast, and release the folder. Documents are safe without it.

        A search that is running in another thread ends with its result or with IndexClosedError.
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
            "an index cannot be pickled: it holds open files and a lock. Pass its path and open it there with "
            "MuveraIndex.open(path, read_only=True)"
        )

    def __repr__(self) -> str:
        place = "in memory" if self.path is None else repr(str(self.path))
        content = counted(len(self), "document") if self._collection.is_open else "closed"
        return f"<MuveraIndex {place}: {content}>"

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


def _to_document(document: StoredDocument) -> Document:
    return Document(document.id, document.text, document.metadata)
