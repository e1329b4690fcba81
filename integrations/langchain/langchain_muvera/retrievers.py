"""A LangChain retriever over a muvera index."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field

from muvera_core import Hit, MuveraIndex


class MuveraRetriever(BaseRetriever):
    """Finds the passages of a ``MuveraIndex`` that match a question best, by late interaction.

    ``k`` and ``n_candidates`` can be given for a single call too: ``retriever.invoke(question, k=3)``.

    Each document carries its id, its metadata, and two scores in ``metadata``: ``relevance_score``, in [0, 1] and
    comparable between questions, and ``maxsim_score``, the raw sum of the best match of each query token.

    Example:
        .. code-block:: python

            from langchain_muvera import MuveraRetriever
            from muvera_core import MuveraIndex

            index = MuveraIndex.create(None)
            index.add(["Ants live in colonies.", "Owls hunt at night."])
            retriever = MuveraRetriever(index=index, k=1)
            retriever.invoke("Which bird is active after dark?")
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    index: MuveraIndex
    """The index to search."""
    k: int = Field(default=4, ge=1)
    """How many documents to return; all of them where the index holds fewer."""
    n_candidates: int | None = Field(default=None, ge=1)
    """How many documents to rerank by exact MaxSim; None leaves it to the index."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        n_candidates: int | None = None,
    ) -> list[Document]:
        return self._search(query, k, n_candidates)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        n_candidates: int | None = None,
    ) -> list[Document]:
        return await run_in_executor(None, self._search, query, k, n_candidates)

    def _search(self, query: str, k: int | None, n_candidates: int | None) -> list[Document]:
        hits = self.index.search(
            query,
            k=self.k if k is None else k,
            n_candidates=self.n_candidates if n_candidates is None else n_candidates,
        )
        return [_to_document(hit) for hit in hits]


def _to_document(hit: Hit) -> Document:
    metadata: dict[str, Any] = {
        **hit.metadata,
        "relevance_score": hit.normalized_score,
        "maxsim_score": hit.score,
    }
    return Document(id=hit.id, page_content=hit.text or "", metadata=metadata)
