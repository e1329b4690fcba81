"""A LangChain vector store over a muvera index."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from langchain_muvera.documents import PassageUse, ScoredDocument, require_passage, to_document, to_scored_document
from langchain_muvera.embeddings import MuveraEmbeddings
from langchain_muvera.keywords import names_of, refuse_unknown, refuses_unknown, translations_to
from langchain_muvera.search_types import LANGCHAINS_TYPES, OWN_TYPES, MuveraStoreRetriever
from muvera_core import FDEConfig, MuveraIndex, TokenEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.images import ImageInput
from muvera_core.lexical import LexicalConfig
from muvera_core.search import CrossEncoder, DiversityMethod, Fusion, QueryReduction, SearchMode
from muvera_core.storage import DEFAULT_PRECISION, TokenPrecision
from muvera_core.validation import require_choice, require_path, require_share

Filter = Mapping[str, Any]


class MuveraVectorStore(VectorStore):
    """Stores documents in a ``MuveraIndex`` and finds them by late interaction.

    Searches return a ``ScoredDocument`` for each document, with its scores. LangChain's relevance score is its
    ``relevance``: the probability that it is relevant, if the index was calibrated (``store.index.calibrate()``), or
    else the normalized score, the mean per query token, clipped to [0, 1]. Both can be compared between queries, so a
    smallest score is meaningful. Filters are MongoDB-style conditions on metadata:
    ``{"year": {"$gte": 2020}, "author.name": "Ada"}``. Every method has an async version, which runs in a thread.
    Unknown keywords are refused. Calls of the index that the store lacks are at hand in ``store.index``.

    Args:
        index: holds the documents and encodes them. Close it with ``close`` or a ``with`` statement.

    Example:
        .. code-block:: python

            from langchain_muvera import MuveraVectorStore

            with MuveraVectorStore.open_or_create("birds") as store:
                store.add_texts(["Ants live in colonies.", "Owls hunt at night."], ids=["ant", "owl"])
                store.similarity_search("Which bird is active after dark?", k=1)
    """

    @refuses_unknown
    def __init__(self, index: MuveraIndex) -> None:
        if not isinstance(index, MuveraIndex):
            raise InvalidInputError(
                f"index must be a MuveraIndex, got {type(index).__name__}: for a folder use "
                "MuveraVectorStore.open_or_create(folder)"
            )
        self.index = index

    # Making, opening and closing

    @classmethod
    @refuses_unknown
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        token_precision: TokenPrecision = DEFAULT_PRECISION,
        pool_factor: int = 1,
        keep_tokens: float = 1.0,
        lexical: LexicalConfig | bool = True,
        device: str = "cpu",
        batch_size: int = 64,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Make an index of these texts. If that fails, nothing of it is left.

        Args:
            texts: the passages; see ``add_texts``.
            embedding: None, or ``MuveraEmbeddings``, whose token encoder and FDE settings are used. Other embeddings
                are refused: they give one vector per text, and late interaction needs one per token.
            metadatas: a mapping for each text.
            ids: an id for each text.
            path: a folder that does not exist or is empty. None keeps the index in memory.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the defaults.
            token_precision: how token vectors are stored; see ``MuveraIndex.create``.
            pool_factor: about one in ``pool_factor`` tokens is stored; see ``MuveraIndex.create``.
            keep_tokens: the share of a document's tokens that is kept; see ``MuveraIndex.create``.
            lexical: settings of the word index, which lexical and hybrid searches need. True takes the defaults, False
                makes none.
            device: the device to search on; see ``MuveraIndex.open``.
            batch_size: texts per call of the encoder.
            show_progress: show a bar on standard error.
            **kwargs: refused.

        Raises:
            InvalidInputError: the same cases as for ``add_texts``, or the embedding is of another kind.
            IndexExistsError: the folder is in use. Call ``open_or_create`` and add to that index instead.
        """
        if isinstance(embedding, MuveraEmbeddings):
            encoder, fde = encoder or embedding.encoder, fde or embedding.fde
        elif embedding is not None:
            raise InvalidInputError(
                f"embedding must be None or MuveraEmbeddings, got {type(embedding).__name__}, which gives one vector "
                "per text: pass a token encoder as encoder=, or leave both out for the bundled one"
            )
        with MuveraIndex.creating(
            path,
            encoder,
            fde,
            token_precision=token_precision,
            pool_factor=pool_factor,
            keep_tokens=keep_tokens,
            lexical=lexical,
            device=device,
        ) as index:
            store = cls(index)
            store.add_texts(texts, metadatas, ids=ids, batch_size=batch_size, show_progress=show_progress)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """See ``from_texts``. Runs in a thread."""
        return await super().afrom_texts(texts, embedding, metadatas, ids=ids, **kwargs)  # type: ignore[arg-type]

    @classmethod
    def from_documents(cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any) -> Self:
        """Make an index of these documents. See ``from_texts``."""
        texts, kwargs = _unpack("from_documents", cls.from_texts, documents, kwargs)
        return cls.from_texts(texts, embedding, **kwargs)

    @classmethod
    async def afrom_documents(
        cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any
    ) -> Self:
        """See ``from_documents``. Runs in a thread."""
        texts, kwargs = _unpack("from_documents", cls.from_texts, documents, kwargs)
        return await cls.afrom_texts(texts, embedding, **kwargs)

    @classmethod
    @refuses_unknown
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        token_precision: TokenPrecision | None = None,
        pool_factor: int | None = None,
        keep_tokens: float | None = None,
        lexical: LexicalConfig | bool | None = None,
        device: str = "cpu",
    ) -> Self:
        """Open the index in a folder for writing. Make it if there is none. See ``MuveraIndex.open_or_create``.

        Args:
            path: the index's folder.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the index's own, or the defaults.
            token_precision: how token vectors are stored. None takes the index's own, or "int8".
            pool_factor: about one in ``pool_factor`` tokens is stored. None takes the index's own, or 1.
            keep_tokens: the share of a document's tokens that is kept. None takes the index's own, or 1.
            lexical: settings of the word index. None takes the index's own, or the defaults.
            device: the device to search on; see ``MuveraIndex.open``.

        Raises:
            InvalidInputError: the index has another setting than the one given.
            IndexFolderError: the folder holds something else, another process writes to it, or files are damaged.
        """
        index = MuveraIndex.open_or_create(
            path,
            encoder,
            fde,
            token_precision=token_precision,
            pool_factor=pool_factor,
            keep_tokens=keep_tokens,
            lexical=lexical,
            device=device,
        )
        return cls(index)

    @classmethod
    @refuses_unknown
    def load(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        *,
        read_only: bool = False,
        refresh_interval: float | None = 1.0,
        device: str = "cpu",
    ) -> Self:
        """Open an index that is on disk. See ``MuveraIndex.open``.

        Args:
            path: the index's folder.
            encoder: the encoder that the index was made with. None takes the bundled encoder.
            read_only: refuse changes. Any number of processes can read an index.
            refresh_interval: if ``read_only``, the seconds after which a search looks for what the writer has
                committed. 0 looks every time, None never.
            device: the device to search on.

        Raises:
            NotAnIndexError: the folder holds no index.
            IndexFolderError: the other cases of ``MuveraIndex.open``.
        """
        return cls(
            MuveraIndex.open(path, encoder, read_only=read_only, refresh_interval=refresh_interval, device=device)
        )

    @refuses_unknown
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the documents and settings to a folder.

        If ``path`` is the index's own folder, nothing is done: every change is there already. Another folder must be
        empty or new and gets a copy.

        Raises:
            IndexExistsError: the folder is in use.
        """
        if self.index.path != require_path("path", path):
            self.index.copy_to(path)

    def close(self) -> None:
        """Close the index and release its folder. Documents are safe without it."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Adding, reading and deleting

    @refuses_unknown
    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int = 64,
        force: bool = False,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Encode and add documents, all or none. A document replaces the one with the same id.

        A document that the index has with the same text and metadata is left as it is. If only its metadata differs, it
        is not encoded again.

        Args:
            texts: the passages. A text without a visible character, such as an empty page, is skipped, with a
                ``SkippedTextWarning``.
            metadatas: a mapping for each text; see ``muvera_core.metadata`` for the values it can hold.
            ids: a distinct id for each text. A random id is drawn in place of None.
            batch_size: texts per call of the encoder.
            force: encode every text, also those that the index has.
            show_progress: show a bar on standard error.
            **kwargs: refused.

        Returns:
            An id for each text, in order, also for those that were skipped.

        Raises:
            InvalidInputError: an id repeats or is empty, metadata cannot be stored, or lengths differ.
        """
        return self.index.add(
            texts, _drawn(ids), metadatas, batch_size=batch_size, force=force, show_progress=show_progress
        )

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Encode and add documents, all or none. ``ids`` replace the documents' own ids. See ``add_texts``."""
        # LangChain's TimeWeightedVectorStoreRetriever passes on what it has already put into the metadata.
        kwargs.pop("current_time", None)
        texts, kwargs = _unpack("add_documents", self.add_texts, documents, kwargs)
        return self.add_texts(texts, **kwargs)

    @refuses_unknown
    def add_images(
        self,
        images: Iterable[ImageInput],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        texts: Iterable[str | None] | None = None,
        batch_size: int = 8,
        force: bool = False,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Encode and add images, such as the pages of a document, all or none. See ``MuveraIndex.add_images``.

        The index's encoder must embed images. Questions stay text. The metadata of a document that comes back has the
        path of its image file under "image".

        Args:
            images: each a path, the bytes of an image file, or an image of Pillow. One that cannot be read is skipped,
                with a ``SkippedImageWarning``.
            metadatas: a mapping for each image.
            ids: a distinct id for each image. A random id is drawn in place of None.
            texts: a text for each image, which becomes the ``page_content``. It is not encoded.
            batch_size: images per call of the encoder.
            force: encode every image, also those that the index has.
            show_progress: show a bar on standard error.
            **kwargs: refused.

        Returns:
            An id for each image, in order, also for those that were skipped.

        Raises:
            InvalidInputError: the encoder embeds no images, an item is no image, an id repeats or is empty, metadata
                cannot be stored, or lengths differ.
            MissingExtraError: Pillow is not installed.
        """
        return self.index.add_images(
            images, _drawn(ids), texts, metadatas, batch_size=batch_size, force=force, show_progress=show_progress
        )

    async def aadd_images(
        self,
        images: Iterable[ImageInput],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """See ``add_images``. Runs in a thread."""
        return await run_in_executor(None, self.add_images, images, metadatas, **kwargs)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in the order of the ids. Unknown ids are skipped."""
        return [to_document(document) for document in self.index.get(list(ids))]

    @refuses_unknown
    def count(self, filter: Filter | None = None) -> int:
        """The number of documents that a filter admits. Without a filter, of all documents."""
        return self.index.count(filter)

    async def acount(self, filter: Filter | None = None) -> int:
        """See ``count``. Runs in a thread."""
        return await run_in_executor(None, self.count, filter)

    @refuses_unknown
    def update_metadata(
        self,
        ids: str | Sequence[str],
        metadatas: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        replace: bool = False,
    ) -> int:
        """Change the metadata of documents, all or none, without encoding them again.

        Args:
            ids: one or more ids. Unknown ids are skipped.
            metadatas: one mapping for all documents, or one for each id.
            replace: replace the present metadata. Otherwise the mapping's keys are added to it, or replaced in it.

        Returns:
            The number of documents whose metadata changed.

        Raises:
            InvalidInputError: an id repeats, metadata cannot be stored, or lengths differ.
        """
        return self.index.update_metadata(ids, metadatas, replace=replace)

    async def aupdate_metadata(
        self,
        ids: str | Sequence[str],
        metadatas: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        **kwargs: Any,
    ) -> int:
        """See ``update_metadata``. Runs in a thread."""
        return await run_in_executor(None, self.update_metadata, ids, metadatas, **kwargs)

    @refuses_unknown
    def delete(self, ids: list[str] | None = None, *, filter: Filter | None = None, **kwargs: Any) -> bool:
        """Delete documents by id, by metadata, or by both. Without arguments, delete **all** documents.

        Deleting everything without arguments is LangChain's rule. ``clear`` says it more plainly.

        Args:
            ids: the ids. Unknown ids are skipped.
            filter: conditions on metadata. With ``ids`` too, a document is deleted if it has one of the ids and the
                filter admits it.
            **kwargs: refused.

        Returns:
            Always True.

        Raises:
            InvalidInputError: the filter is empty or invalid.
        """
        if ids is None and filter is None:
            self.clear()
        else:
            self.index.delete(ids, filter=filter)
        return True

    def clear(self) -> int:
        """Delete all documents. Returns their number."""
        return self.index.clear()

    async def aclear(self) -> int:
        """See ``clear``. Runs in a thread."""
        return await run_in_executor(None, self.clear)

    # Searching

    @refuses_unknown
    def similarity_search(
        self,
        query: str,
        k: int = 4,
        filter: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        min_score: float | None = None,
        n_candidates: int | None = None,
        exact: bool = False,
        mode: SearchMode = "late",
        lexical_weight: float | None = None,
        fusion: Fusion = "scores",
        query_reduction: QueryReduction | None = None,
        passage: PassageUse | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """The ``k`` documents that match a query best, best first.

        A query without a visible character matches nothing. With a filter or ids, the first ``k`` documents that these
        admit are returned, with a score of 0.

        Args:
            query: the query's text.
            k: number of documents. If fewer match, all of them are returned.
            filter: conditions on metadata.
            ids: admits only documents with these ids.
            min_score: smallest relevance of a returned document, from 0 to 1.
            n_candidates: number of candidates to rerank by exact MaxSim. None leaves it to the index.
            exact: score every document. This is slow. It is the reference for every other search.
            mode: what ranks documents. "late" takes late interaction, "lexical" the words alone (BM25), "hybrid" both.
            lexical_weight: BM25's share in mode "hybrid", from 0 to 1. None lets the index choose.
            fusion: how mode "hybrid" joins the two: by "scores" or by "ranks".
            query_reduction: makes the query shorter for the choice of a shortlist; see ``MuveraIndex.search``.
            passage: what to do with the part of a text that matched best. "metadata" puts it into the metadata, as
                "passage", with its place in the text, "passage_start" and "passage_end". "text" also makes it the
                ``page_content``. Both make another document of it for each query, so retrievers that join the results
                of several queries return it several times. None leaves documents as they were stored.
            **kwargs: refused.

        Returns:
            A ``ScoredDocument`` for each document.

        Raises:
            InvalidInputError: ``k`` or ``n_candidates`` is below 1, ``min_score`` is outside [0, 1], the filter is
                invalid, an option has no meaning in this mode, or the index has no words to search.
        """
        passage = require_passage(passage)
        hits = self.index.search(
            query,
            k,
            n_candidates,
            mode=mode,
            lexical_weight=lexical_weight,
            fusion=fusion,
            filter=filter,
            ids=ids,
            min_score=min_score,
            exact=exact,
            with_passages=passage is not None,
            query_reduction=query_reduction,
        )
        return [to_scored_document(hit, passage) for hit in hits]

    @refuses_unknown
    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        min_score: float | None = None,
        n_candidates: int | None = None,
        exact: bool = False,
        mode: SearchMode = "late",
        lexical_weight: float | None = None,
        fusion: Fusion = "scores",
        query_reduction: QueryReduction | None = None,
        passage: PassageUse | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """The documents of ``similarity_search``, each with its relevance."""
        return _with_scores(
            self.similarity_search(
                query,
                k,
                filter,
                ids=ids,
                min_score=min_score,
                n_candidates=n_candidates,
                exact=exact,
                mode=mode,
                lexical_weight=lexical_weight,
                fusion=fusion,
                query_reduction=query_reduction,
                passage=passage,
            )
        )

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Leaves scores as they are: they are relevances already."""
        return lambda score: score

    @refuses_unknown
    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        min_score: float | None = None,
        mode: SearchMode = "late",
        method: DiversityMethod = "mmr",
        n_neighbors: int = 0,
        **kwargs: Any,
    ) -> list[Document]:
        """Documents that match a query well and differ from one another, or that answer its parts together.

        Args:
            query: the query's text.
            k: number of documents. If fewer match, all of them are returned.
            fetch_k: number of best documents to choose from. At least ``k`` are taken.
            lambda_mult: from 0, which looks at diversity or coverage only, to 1, which looks at relevance only.
            filter: conditions on metadata.
            ids: admits only documents with these ids.
            min_score: smallest relevance of a returned document, from 0 to 1.
            mode: what ranks the documents to choose from; see ``similarity_search``.
            method: "mmr", maximal marginal relevance, takes documents that are unlike each other. "coverage" takes
                those that match together as much of the query as possible, for questions with several parts.
            n_neighbors: number of documents to choose from as well for each of the ``k`` best: its nearest ones.
            **kwargs: refused.

        Returns:
            A ``ScoredDocument`` for each document.

        Raises:
            InvalidInputError: the same cases as for ``similarity_search``, or ``lambda_mult`` is outside [0, 1].
        """
        weight = require_share("lambda_mult", lambda_mult)
        hits = self.index.search_diverse(
            query,
            k,
            mode=mode,
            method=method,
            fetch_k=fetch_k,
            relevance_weight=weight,
            n_neighbors=n_neighbors,
            filter=filter,
            ids=ids,
            min_score=min_score,
        )
        return [to_scored_document(hit) for hit in hits]

    def search(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """The documents of the call that a search type stands for.

        Args:
            query: the query's text.
            search_type: "similarity", "similarity_score_threshold" or "mmr", as everywhere in LangChain; or "hybrid",
                "lexical" or "coverage".
            **kwargs: keywords of that call.

        Raises:
            InvalidInputError: the type is unknown, or its search does not know a keyword.
        """
        require_choice("search_type", search_type, (*LANGCHAINS_TYPES, *OWN_TYPES))
        if search_type not in OWN_TYPES:
            return super().search(query, search_type, **kwargs)
        self._refuse_unknown(f"search type {search_type!r}", search_type, kwargs)
        call, fixed = OWN_TYPES[search_type]
        found: list[Document] = getattr(self, call)(query, **kwargs, **fixed)
        return found

    async def asearch(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """See ``search``. Runs in a thread."""
        return await run_in_executor(None, self.search, query, search_type, **kwargs)

    @refuses_unknown
    def search_with_cross_encoder(
        self,
        query: str,
        cross_encoder: CrossEncoder,
        k: int = 4,
        *,
        n_calls: int = 50,
        n_candidates: int = 1000,
        batch_size: int = 8,
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Document]:
        """The documents that a cross-encoder ranks highest among many candidates, of which it judges only some.

        Args:
            query: the query's text.
            cross_encoder: LangChain's, such as ``HuggingFaceCrossEncoder``, the ``CrossEncoder`` of
                sentence-transformers, or a function of (query, text) pairs that returns one number for each.
            k: number of documents.
            n_calls: number of pairs to judge, at most.
            n_candidates: number of candidates to judge or predict, found by late interaction.
            batch_size: number of pairs to judge at a time.
            filter: conditions on metadata.
            ids: admits only documents with these ids.

        Returns:
            A ``ScoredDocument`` for each document, by falling ``judged_score``. See
            ``MuveraIndex.search_with_cross_encoder``.

        Raises:
            InvalidInputError: the same cases as for ``similarity_search``, ``n_calls`` or ``batch_size`` is below 1, or
                ``cross_encoder`` cannot be called.
            EncoderError: the cross-encoder did not return one finite number for each pair.
        """
        hits = self.index.search_with_cross_encoder(
            query,
            cross_encoder,
            k,
            n_calls=n_calls,
            n_candidates=n_candidates,
            batch_size=batch_size,
            filter=filter,
            ids=ids,
        )
        return [to_scored_document(hit) for hit in hits]

    async def asearch_with_cross_encoder(
        self, query: str, cross_encoder: CrossEncoder, k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """See ``search_with_cross_encoder``. Runs in a thread."""
        return await run_in_executor(None, self.search_with_cross_encoder, query, cross_encoder, k, **kwargs)

    @refuses_unknown
    def rerank(
        self, query: str, ids: Sequence[str], k: int | None = None, *, min_score: float | None = None
    ) -> list[Document]:
        """Rank documents that another search has found, such as BM25, by exact MaxSim with their stored tokens.

        Args:
            query: the query's text.
            ids: the documents' ids. Unknown ids are skipped.
            k: number of documents. None returns all.
            min_score: smallest relevance of a returned document, from 0 to 1.

        Returns:
            A ``ScoredDocument`` for each document, best first.

        Raises:
            InvalidInputError: ``k`` is below 1, or ``min_score`` is outside [0, 1].
        """
        return [to_scored_document(hit) for hit in self.index.rerank(query, ids, k, min_score=min_score)]

    async def arerank(self, query: str, ids: Sequence[str], k: int | None = None, **kwargs: Any) -> list[Document]:
        """See ``rerank``. Runs in a thread."""
        return await run_in_executor(None, self.rerank, query, ids, k, **kwargs)

    @refuses_unknown
    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """The ``k`` documents whose stage-one vectors are nearest to a vector. This is only a rough order.

        For code that has a vector and no text. Exact MaxSim needs the query's tokens, so nothing is reranked here:
        search by text wherever you can.

        Args:
            embedding: a query's vector, made by ``MuveraEmbeddings`` with the index's encoder and FDE settings.
            k: number of documents.
            filter: conditions on metadata.
            ids: admits only documents with these ids.
            **kwargs: refused.

        Returns:
            A ``ScoredDocument`` for each document. Its score is the cosine of the two vectors.

        Raises:
            InvalidInputError: the vector has another width, or the index cannot compare its vectors with one that was
                made elsewhere, because it was optimized or its FDE is centred.
        """
        hits = self.index.search_by_vector(embedding, k, filter=filter, ids=ids)
        return [to_scored_document(hit) for hit in hits]

    @refuses_unknown
    def similarity_search_with_score_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """The documents of ``similarity_search_by_vector``, each with the cosine, clipped to [0, 1]."""
        return _with_scores(self.similarity_search_by_vector(embedding, k, filter, ids=ids))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """See ``similarity_search_with_score_by_vector``. Runs in a thread."""
        return await run_in_executor(None, self.similarity_search_with_score_by_vector, embedding, k, filter, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> NoReturn:
        """Not available: call ``max_marginal_relevance_search`` with the query's text."""
        raise NotImplementedError(
            "MuveraVectorStore cannot search for diverse documents by one vector: call max_marginal_relevance_search "
            "with the query's text"
        )

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """A retriever that searches this store.

        Args:
            **kwargs: ``search_type``: see ``search``. ``search_kwargs``: keywords of the search. ``name``, ``tags`` and
                ``metadata`` for traces.

        Raises:
            InvalidInputError: the retriever, or its search, does not know a name.
        """
        types = (*LANGCHAINS_TYPES, *OWN_TYPES)
        for_searches = {name: name for search_type in types for name in self._known_to(search_type)}
        for_searches |= translations_to(for_searches)
        advice = {name: f"put {ours!r} into search_kwargs" for name, ours in for_searches.items()}
        settings = set(VectorStoreRetriever.model_fields) - {"vectorstore"}
        refuse_unknown("MuveraVectorStore.as_retriever", kwargs, settings, advice)
        search_type = require_choice("search_type", kwargs.get("search_type", "similarity"), types)
        self._refuse_unknown("search_kwargs", search_type, kwargs.get("search_kwargs") or {})
        tags = kwargs.pop("tags", None) or self._get_retriever_tags()
        return MuveraStoreRetriever(vectorstore=self, tags=[*tags], **kwargs)

    def _known_to(self, search_type: str) -> list[str]:
        """The keywords that the search of a search type knows."""
        if search_type in OWN_TYPES:
            call, fixed = OWN_TYPES[search_type]
            return [name for name in names_of(getattr(self, call)) if name not in fixed]
        if search_type == "mmr":
            return names_of(self.max_marginal_relevance_search)
        with_threshold = ["score_threshold"] if search_type == "similarity_score_threshold" else []
        return [*names_of(self.similarity_search), *with_threshold]

    def _refuse_unknown(self, owner: str, search_type: str, given: Iterable[str]) -> None:
        fixed = OWN_TYPES[search_type][1] if search_type in OWN_TYPES else {}
        advice = dict.fromkeys(fixed, f"leave it out, because search_type={search_type!r} sets it")
        refuse_unknown(owner, given, self._known_to(search_type), advice)

    @property
    def embeddings(self) -> None:
        """None, because a text has no single vector here. ``index.encoder`` encodes texts."""
        return


def _drawn(ids: Iterable[str | None] | None) -> Iterable[str] | None:
    """The ids, with a random one in place of each None."""
    if ids is None or isinstance(ids, str):
        return ids
    return [uuid.uuid4().hex if id is None else id for id in ids]


def _with_scores(documents: list[Document]) -> list[tuple[Document, float]]:
    return [(document, document.relevance) for document in documents if isinstance(document, ScoredDocument)]


def _unpack(
    name: str, add: Callable[..., Any], documents: Iterable[Document], kwargs: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """The texts of documents, and the keywords with which ``add`` adds them.

    Args:
        name: the call that was given the documents.
        add: the call that adds texts.
        documents: the documents.
        kwargs: keywords of the call. ``ids`` replace the documents' own ids.
    """
    refuse_unknown(f"MuveraVectorStore.{name}", kwargs, set(names_of(add)) - {"texts", "embedding", "metadatas"})
    documents = list(documents)
    ids = kwargs.get("ids")
    if ids is None:
        ids = [document.id or None for document in documents]
    metadatas = [document.metadata for document in documents]
    return [document.page_content for document in documents], {**kwargs, "ids": ids, "metadatas": metadatas}
