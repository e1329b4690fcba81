"""The asynchronous calls of a vector store, which do not block the event loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery, VectorStoreQueryResult
from llama_index.retrievers.muvera.filters import Filters

from muvera_core import IndexCalls
from muvera_core.index import awaited


class AsyncVectorStore(BasePydanticVectorStore):
    """A vector store whose asynchronous calls await its others. LlamaIndex's would run them on the event loop."""

    @property
    @abstractmethod
    def index(self) -> IndexCalls:
        """The index."""

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """See ``add``."""
        return await awaited(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """See ``delete``."""
        await awaited(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: Filters | None = None, **delete_kwargs: Any
    ) -> None:
        """See ``delete_nodes``."""
        await awaited(self.delete_nodes, node_ids, filters, **delete_kwargs)  # type: ignore[arg-type]

    async def aget_nodes(self, node_ids: list[str] | None = None, filters: Filters | None = None) -> list[BaseNode]:
        """See ``get_nodes``."""
        return await awaited(self.get_nodes, node_ids, filters)  # type: ignore[arg-type]

    async def aclear(self) -> None:
        """See ``clear``."""
        await awaited(self.clear)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """See ``query``."""
        return await awaited(self.query, query, **kwargs)
