"""The search types of a ``MuveraVectorStore``: LangChain's own, and three more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStoreRetriever

LANGCHAINS_TYPES = ("similarity", "similarity_score_threshold", "mmr")
# For each of ours the call that it stands for, and the keywords that it sets.
OWN_TYPES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "hybrid": ("similarity_search", {"mode": "hybrid"}),
    "lexical": ("similarity_search", {"mode": "lexical"}),
    "coverage": ("max_marginal_relevance_search", {"method": "coverage"}),
}


class MuveraStoreRetriever(VectorStoreRetriever):
    """LangChain's retriever over a store, with the search types "hybrid", "lexical" and "coverage", too."""

    allowed_search_types: ClassVar[Collection[str]] = (*LANGCHAINS_TYPES, *OWN_TYPES)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        if self.search_type in OWN_TYPES:
            return self.vectorstore.search(query, self.search_type, **{**self.search_kwargs, **kwargs})
        return super()._get_relevant_documents(query, run_manager=run_manager, **kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        if self.search_type in OWN_TYPES:
            return await self.vectorstore.asearch(query, self.search_type, **{**self.search_kwargs, **kwargs})
        return await super()._aget_relevant_documents(query, run_manager=run_manager, **kwargs)
