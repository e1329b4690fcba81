"""A LangChain retriever over a muvera index."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field

from langchain_muvera.documents import to_scored_document
from muvera_core import MuveraIndex


class MuveraRetriever(BaseRetriever):
    """Finds the documents of a ``MuveraIndex`` that match a query best, by late interaction.

    ``invoke`` and ``ainvoke`` also take ``k``, ``n_candidates``, ``filter`` and ``score_threshold``, for one call:
    ``retriever.invoke(query, k=3)``. The retriever's own value is used for each that is missing or None.

    Each document has its id, its metadata, and two scores in ``metadata``. ``maxsim_score`` is the score, the raw
    MaxSim sum. ``relevance_score`` is the normalized score: the mean per query token, clipped to [0, 1]. It can be
    compared between queries. In the returned documents the scores replace metadata of the same name. The index keeps
    that metadata.

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

    model_config = ConfigDict(arbitrary_types_allowed=True)

    index: MuveraIndex
    """The index to search."""
    k: int = Field(default=4, ge=1)
    """Number of documents to return. If fewer match, all of them are returned."""
    n_candidates: int | None = Field(default=None, ge=1)
    """Number of candidates to rerank by exact MaxSim. None leaves it to the index."""
    filter: dict[str, Any] | None = None
    """Conditions on metadata, such as ``{"year": {"$gte": 2020}}``. Pass ``{}`` to search without them in one call."""
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    """Smallest normalized score of a returned document. Pass 0 to search without a threshold in one call."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        n_candidates: int | None = None,
        filter: dict[str, Any] | None = None,
        score_threshold: float | None = None,
    ) -> list[Document]:
        return self._search(query, k, n_candidates, filter, score_threshold)

    # LangChain passes the keywords of a call to one of the two methods, so both must name them.
    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        n_candidates: int | None = None,
        filter: dict[str, Any] | None = None,
        score_threshold: float | None = None,
    ) -> list[Document]:
        return await run_in_executor(None, self._search, query, k, n_candidates, filter, score_threshold)

    def _search(
        self,
        query: str,
        k: int | None,
        n_candidates: int | None,
        filter: dict[str, Any] | None,
        score_threshold: float | None,
    ) -> list[Document]:
        threshold = self.score_threshold if score_threshold is None else score_threshold
        hits = self.index.search(
            query,
            k=self.k if k is None else k,
            n_candidates=self.n_candidates if n_candidates is None else n_candidates,
            filter=self.filter if filter is None else filter,
        )
        return [to_scored_document(hit) for hit in hits if threshold is None or hit.normalized_score >= threshold]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """Describe the index and its encoder for traces."""
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = type(self.index).__name__
        params["ls_embedding_provider"] = type(self.index.encoder).__name__
        params["ls_embedding_model"] = self.index.encoder.fingerprint
        return params
