"""The calls of a vector store that search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from langchain_muvera.documents import PassageUse, ScoredDocument, require_passage, to_scored_document
from langchain_muvera.keywords import names_of, refuse_unknown, refuses_unknown, translations_to
from langchain_muvera.search_types import LANGCHAINS_TYPES, OWN_TYPES, MuveraStoreRetriever
from muvera_core import IndexCalls
from muvera_core.index import IndexCall, Steps, awaited, steps_of, stepwise
from muvera_core.search import CrossEncoder, DiversityMethod, Fusion, QueryReduction, SearchMode
from muvera_core.validation import require_choice, require_share

Filter = Mapping[str, Any]


class StoreSearches(VectorStore):
    """Finds documents."""

    index: IndexCalls

    @stepwise
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
    ) -> Steps[list[Document]]:
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
        hits = yield IndexCall(
            IndexCalls.search,
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

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """See ``similarity_search``."""
        return await awaited(self.similarity_search, query, k, filter, **kwargs)

    @stepwise
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
    ) -> Steps[list[tuple[Document, float]]]:
        """The documents of ``similarity_search``, each with its relevance."""
        documents = yield from steps_of(
            self.similarity_search,
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
        return _with_scores(documents)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """See ``similarity_search_with_score``."""
        return await awaited(self.similarity_search_with_score, query, k, filter, **kwargs)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Leaves scores as they are: they are relevances already."""
        return lambda score: score

    @stepwise
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
    ) -> Steps[list[Document]]:
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
        hits = yield IndexCall(
            IndexCalls.search_diverse,
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

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """See ``max_marginal_relevance_search``."""
        return await awaited(self.max_marginal_relevance_search, query, k, fetch_k, lambda_mult, **kwargs)

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
        if self._is_langchains(search_type, kwargs):
            return super().search(query, search_type, **kwargs)
        call, fixed = OWN_TYPES[search_type]
        found: list[Document] = getattr(self, call)(query, **kwargs, **fixed)
        return found

    async def asearch(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """See ``search``."""
        if self._is_langchains(search_type, kwargs):
            return await super().asearch(query, search_type, **kwargs)
        call, fixed = OWN_TYPES[search_type]
        found: list[Document] = await getattr(self, f"a{call}")(query, **kwargs, **fixed)
        return found

    def _is_langchains(self, search_type: str, given: Mapping[str, Any]) -> bool:
        """Whether a search type is LangChain's. Of ours, the keywords are checked."""
        require_choice("search_type", search_type, (*LANGCHAINS_TYPES, *OWN_TYPES))
        if search_type in OWN_TYPES:
            self._refuse_unknown(f"search type {search_type!r}", search_type, given)
        return search_type not in OWN_TYPES

    @stepwise
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
    ) -> Steps[list[Document]]:
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
        hits = yield IndexCall(
            IndexCalls.search_with_cross_encoder,
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
        """See ``search_with_cross_encoder``."""
        return await awaited(self.search_with_cross_encoder, query, cross_encoder, k, **kwargs)

    @stepwise
    @refuses_unknown
    def rerank(
        self, query: str, ids: Sequence[str], k: int | None = None, *, min_score: float | None = None
    ) -> Steps[list[Document]]:
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
        hits = yield IndexCall(IndexCalls.rerank, query, ids, k, min_score=min_score)
        return [to_scored_document(hit) for hit in hits]

    async def arerank(self, query: str, ids: Sequence[str], k: int | None = None, **kwargs: Any) -> list[Document]:
        """See ``rerank``."""
        return await awaited(self.rerank, query, ids, k, **kwargs)

    @stepwise
    @refuses_unknown
    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Steps[list[Document]]:
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
        hits = yield IndexCall(IndexCalls.search_by_vector, embedding, k, filter=filter, ids=ids)
        return [to_scored_document(hit) for hit in hits]

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """See ``similarity_search_by_vector``."""
        return await awaited(self.similarity_search_by_vector, embedding, k, filter, **kwargs)

    @stepwise
    @refuses_unknown
    def similarity_search_with_score_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Steps[list[tuple[Document, float]]]:
        """The documents of ``similarity_search_by_vector``, each with the cosine, clipped to [0, 1]."""
        documents = yield from steps_of(self.similarity_search_by_vector, embedding, k, filter, ids=ids)
        return _with_scores(documents)

    async def asimilarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """See ``similarity_search_with_score_by_vector``."""
        return await awaited(self.similarity_search_with_score_by_vector, embedding, k, filter, **kwargs)

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


def _with_scores(documents: list[Document]) -> list[tuple[Document, float]]:
    return [(document, document.relevance) for document in documents if isinstance(document, ScoredDocument)]
