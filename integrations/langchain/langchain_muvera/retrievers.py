"""A LangChain retriever over a muvera index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import Field, field_validator

from langchain_muvera.documents import PassageUse, require_passage, to_scored_document
from langchain_muvera.keywords import StrictModel, refuse_unknown
from muvera_core import Hit, IndexCalls
from muvera_core.errors import InvalidInputError
from muvera_core.index import IndexCall, Steps, awaited, stepwise
from muvera_core.search import Fusion, QueryReduction, SearchMode, scoring_function

# What the retriever and a call may set: keywords of the index's search.
_HYBRIDS: dict[str, Any] = {"lexical_weight": None, "fusion": "scores"}  # with what they are in other modes
_SETTINGS = ("k", "n_candidates", "filter", "min_score", "mode", *_HYBRIDS, "query_reduction")
_OF_CROSS_ENCODER = ("k", "n_candidates", "filter", "n_calls")


class MuveraRetriever(StrictModel, BaseRetriever):
    """Finds the documents of an index that match a query best, by late interaction.

    ``invoke`` and ``ainvoke`` also take each setting but ``index`` and ``cross_encoder``, for one call:
    ``retriever.invoke(query, k=3)``. The retriever's own value is used for each that is missing or None. They also take
    ``ids``, which admits only documents with these ids. Unknown names and invalid values are refused, also in an
    assignment such as ``retriever.k = 0``.

    Each document is a ``ScoredDocument`` with the id, the text and the metadata that were stored. It has a ``score``,
    the raw MaxSim sum; a ``normalized_score``: the mean per query token, clipped to [0, 1]; and a ``relevance``: the
    probability that it is relevant, if the index was calibrated, or else the normalized score. The last two can be
    compared between queries. The scores do not count when documents are compared.

    Example:
        .. code-block:: python

            from langchain_muvera import MuveraRetriever
            from muvera_core import MuveraIndex

            index = MuveraIndex.create(None)
            index.add(["Ants live in colonies.", "Owls hunt at night."], metadatas=[{"legs": 6}, {"legs": 2}])
            retriever = MuveraRetriever(index=index, k=1)
            retriever.invoke("Which bird is active after dark?")
            retriever.invoke("Which animal is social?", filter={"legs": {"$gte": 4}})
    """

    index: IndexCalls
    """The index to search: a ``MuveraIndex``, a ``ShardedMuveraIndex`` or a ``RemoteMuveraIndex``."""
    k: int = Field(default=4, ge=1)
    """Number of documents to return. If fewer match, all of them are returned."""
    n_candidates: int | None = Field(default=None, ge=1)
    """Number of candidates to rerank by exact MaxSim. None leaves it to the index."""
    filter: dict[str, Any] | None = None
    """Conditions on metadata, such as ``{"year": {"$gte": 2020}}``. Pass ``{}`` to search without them in one call."""
    min_score: float | None = Field(default=None, ge=0, le=1)
    """Smallest relevance of a returned document. Pass 0 to search without a limit in one call."""
    mode: SearchMode = "late"
    """What ranks documents: "late" late interaction, "lexical" the words alone (BM25), "hybrid" both."""
    lexical_weight: float | None = Field(default=None, ge=0, le=1)
    """BM25's share in mode "hybrid". None lets the index choose."""
    fusion: Fusion = "scores"
    """How mode "hybrid" joins the two: by "scores" or by "ranks"."""
    query_reduction: QueryReduction | None = None
    """Makes the query shorter for the choice of a shortlist; see ``MuveraIndex.search``."""
    passage: PassageUse | None = None
    """What to do with the part of a text that matched best. "metadata" puts it into the metadata, as "passage", with
    its place in the text, "passage_start" and "passage_end". "text" also makes it the ``page_content``. Both make
    another document of it for each query, so retrievers that join the results of several queries return it several
    times. None leaves documents as they were stored."""
    cross_encoder: Any = None
    """Ranks the documents; see ``MuveraVectorStore.search_with_cross_encoder``. None leaves it to MaxSim."""
    n_calls: int | None = Field(default=None, ge=1)
    """Number of documents that the cross-encoder judges, at most. None takes 50."""

    @field_validator("cross_encoder")
    @classmethod
    def _can_score(cls, cross_encoder: Any) -> Any:
        if cross_encoder is not None:
            scoring_function(cross_encoder)
        return cross_encoder

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self._search(query, kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await awaited(self._search, query, kwargs)

    @stepwise
    def _search(self, query: str, given: Mapping[str, Any]) -> Steps[list[Document]]:
        # LangChain's ``invoke`` reads ``verbose``, and passes it on.
        known = [*_SETTINGS, "passage", "n_calls", "ids", "verbose"]
        refuse_unknown(f"{type(self).__name__}.invoke", given, known)
        # A call in another mode does without those of the retriever's own settings that have no meaning in it.
        other = {} if given.get("mode") in (None, "hybrid") else _HYBRIDS
        if given.get("mode") == "lexical":
            other = {**other, "n_candidates": None, "query_reduction": None}
        names = (*_SETTINGS, "passage", "n_calls")
        own = {name: other[name] if name in other else getattr(self, name) for name in names}
        settings = {name: own[name] if given.get(name) is None else given[name] for name in names}
        passage = require_passage(settings["passage"])
        hits: list[Hit] = yield self._call(query, given.get("ids"), settings)
        return [to_scored_document(hit, passage) for hit in hits]

    def _call(self, query: str, ids: Any, settings: Mapping[str, Any]) -> IndexCall:
        """The call of the index that finds the documents."""
        if self.cross_encoder is None:
            if settings["n_calls"] is not None:
                raise InvalidInputError("n_calls is for a cross_encoder: set the retriever's, or leave n_calls out")
            options = {name: settings[name] for name in _SETTINGS}
            with_passages = settings["passage"] is not None
            return IndexCall(IndexCalls.search, query, ids=ids, with_passages=with_passages, **options)
        usual = {**_HYBRIDS, "min_score": None, "mode": "late", "query_reduction": None, "passage": None}
        for name, value in usual.items():
            if settings[name] != value and not (name == "min_score" and settings[name] == 0):
                raise InvalidInputError(
                    f"{name}={settings[name]!r} has no meaning with a cross_encoder, which ranks by its own scores: "
                    f"leave {name} out"
                )
        options = {name: settings[name] for name in _OF_CROSS_ENCODER if settings[name] is not None}
        return IndexCall(IndexCalls.search_with_cross_encoder, query, self.cross_encoder, ids=ids, **options)

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """Describe the index and its encoder for traces. A service is not asked for its encoder."""
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = type(self.index).__name__
        if hasattr(self.index, "acall"):
            return params
        params["ls_embedding_provider"] = type(self.index.encoder).__name__
        params["ls_embedding_model"] = self.index.encoder.fingerprint
        return params
