"""A LangChain retriever over a muvera index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables import run_in_executor
from pydantic import Field

from langchain_muvera.documents import to_scored_document
from langchain_muvera.keywords import StrictModel, refuse_unknown
from muvera_core import MuveraIndex

# What the retriever and a call may set: keywords of the index's search.
_SETTINGS = ("k", "n_candidates", "filter", "min_score")


class MuveraRetriever(StrictModel, BaseRetriever):
    """Finds the documents of a ``MuveraIndex`` that match a query best, by late interaction.

    ``invoke`` and ``ainvoke`` also take ``k``, ``n_candidates``, ``filter`` and ``min_score``, for one call:
    ``retriever.invoke(query, k=3)``. The retriever's own value is used for each that is missing or None. They also take
    ``ids``, which admits only documents with these ids. Unknown names and invalid values are refused, also in an
    assignment such as ``retriever.k = 0``.

    Each document is a ``ScoredDocument`` with the id, the text and the metadata that were stored. It has a ``score``,
    the raw MaxSim sum, and a ``normalized_score``: the mean per query token, clipped to [0, 1], which can be compared
    between queries. The scores do not count when documents are compared.

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

    index: MuveraIndex
    """The index to search."""
    k: int = Field(default=4, ge=1)
    """Number of documents to return. If fewer match, all of them are returned."""
    n_candidates: int | None = Field(default=None, ge=1)
    """Number of candidates to rerank by exact MaxSim. None leaves it to the index."""
    filter: dict[str, Any] | None = None
    """Conditions on metadata, such as ``{"year": {"$gte": 2020}}``. Pass ``{}`` to search without them in one call."""
    min_score: float | None = Field(default=None, ge=0, le=1)
    """Smallest normalized score of a returned document. Pass 0 to search without a limit in one call."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self._search(query, kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await run_in_executor(None, self._search, query, kwargs)

    def _search(self, query: str, given: Mapping[str, Any]) -> list[Document]:
        # LangChain's ``invoke`` reads ``verbose``, and passes it on.
        refuse_unknown(f"{type(self).__name__}.invoke", given, [*_SETTINGS, "ids", "verbose"])
        settings = {name: getattr(self, name) if given.get(name) is None else given[name] for name in _SETTINGS}
        return [to_scored_document(hit) for hit in self.index.search(query, ids=given.get("ids"), **settings)]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """Describe the index and its encoder for traces."""
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = type(self.index).__name__
        params["ls_embedding_provider"] = type(self.index.encoder).__name__
        params["ls_embedding_model"] = self.index.encoder.fingerprint
        return params
