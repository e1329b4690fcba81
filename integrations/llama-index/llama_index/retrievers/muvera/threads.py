"""The asynchronous calls of a vector store: the same in a thread, so that the event loop is not blocked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery, VectorStoreQueryResult
from llama_index.retrievers.muvera.filters import Filters


class ThreadedVectorStore(BasePydanticVectorStore):
    """A vector store whose asynchronous calls run the others in a thread. LlamaIndex's would run on the event loop."""

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """See ``add``."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """See ``delete``."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: Filters | None = None, **delete_kwargs: Any
    ) -> None:
        """See ``delete_nodes``."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)  # type: ignore[arg-type]

    async def aget_nodes(self, node_ids: list[str] | None = None, filters: Filters | None = None) -> list[BaseNode]:
        """See ``get_nodes``."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)  # type: ignore[arg-type]

    async def aclear(self) -> None:
        """See ``clear``."""
        await asyncio.to_thread(self.clear)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """See ``query``."""
        return await asyncio.to_thread(self.query, query, **kwargs)
