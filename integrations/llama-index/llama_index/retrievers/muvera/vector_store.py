"""A LlamaIndex vector store over a muvera index."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.simple import DEFAULT_VECTOR_STORE
from llama_index.core.vector_stores.types import (
    DEFAULT_PERSIST_DIR,
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.retrievers.muvera.filters import to_filter
from llama_index.retrievers.muvera.nodes import REF_DOC_ID_FIELD, is_plain, to_node, to_record
from llama_index.retrievers.muvera.persistence import open_persisted, write_pointer

from muvera_core import Hit, MuveraIndex, TokenEncoder
from muvera_core.errors import InvalidInputError

logger = logging.getLogger(__name__)

_MMR_FETCH_K = 50
_MMR_FETCH_PER_HIT = 4


class MuveraVectorStore(BasePydanticVectorStore):
    """Stores nodes in a ``MuveraIndex`` and finds them by late interaction.

    A node's similarity is the normalized score: the mean per query token, clipped to [0, 1]. It can be compared between
    queries, so a cutoff is meaningful. Every method has an async version, which runs in a thread.

    The index makes its own token vectors and ignores the embeddings of nodes and queries. Pass ``NoEmbedding()``
    wherever LlamaIndex asks for an ``embed_model``.

    Every change is on disk when the call returns. ``persist`` only writes where the index is.

    Examples:
        ```python
        from llama_index.core import Document, StorageContext, VectorStoreIndex
        from llama_index.retrievers.muvera import MuveraVectorStore, NoEmbedding
        from muvera_core import MuveraIndex

        store = MuveraVectorStore(MuveraIndex.create("birds.muvera"))
        index = VectorStoreIndex.from_documents(
            [Document(text="Owls hunt at night.")],
            storage_context=StorageContext.from_defaults(vector_store=store),
            embed_model=NoEmbedding(),
        )
        index.as_retriever().retrieve("Which bird is active after dark?")
        ```
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    _index: MuveraIndex = PrivateAttr()

    def __init__(self, index: MuveraIndex) -> None:
        """Store nodes in ``index``. The caller closes it."""
        super().__init__(stores_text=True, is_embedding_query=False)
        self._index = index

    @classmethod
    def class_name(cls) -> str:
        """The name of the class in LlamaIndex."""
        return "MuveraVectorStore"

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str | os.PathLike[str] = DEFAULT_PERSIST_DIR,
        namespace: str = DEFAULT_VECTOR_STORE,
        encoder: TokenEncoder | None = None,
        read_only: bool = False,
        device: str = "cpu",
    ) -> MuveraVectorStore:
        """Open an index that is on disk. See ``MuveraIndex.open``.

        Args:
            persist_dir: the folder that was given to ``StorageContext.persist``, or the index's own folder.
            namespace: the store's name in the storage context.
            encoder: the encoder that the index was made with. None takes the bundled encoder.
            read_only: refuse changes. Any number of processes can read an index.
            device: the device to search on.

        Raises:
            NotAnIndexError: the folder holds no index, or points to one outside the folder.
            CorruptIndexError: files are missing or damaged.
            IndexFolderError: the same cases as for ``MuveraIndex.open``.
        """
        index = open_persisted(persist_dir, namespace=namespace, encoder=encoder, read_only=read_only, device=device)
        return cls(index)

    @property
    def client(self) -> MuveraIndex:
        """The index."""
        return self._index

    def add(self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any) -> list[str]:
        """Encode and add nodes, all or none. A node replaces the one with the same id.

        A node that has neither text nor metadata to match is left out.

        Returns:
            The ids of the nodes that were stored, in order.

        Raises:
            InvalidInputError: JSON cannot hold a node, or its metadata uses the reserved key.
        """
        distinct = {node.node_id: node for node in nodes}
        records = [to_record(node) for node in distinct.values() if _content(node).strip()]
        if len(records) < len(distinct):
            logger.warning("left out %d nodes without text", len(distinct) - len(records))
        if not records:
            return []
        return self._index.add(
            [record.text for record in records],
            ids=[record.id for record in records],
            metadatas=[record.metadata for record in records],
            show_progress=show_progress,
        )

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete all nodes of a document. A node without a source counts as a document."""
        self._index.delete(filter={REF_DOC_ID_FIELD: ref_doc_id})
        if any(is_plain(document) for document in self._index.get([ref_doc_id])):
            self._index.delete([ref_doc_id])

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, by metadata, or by both.

        Args:
            node_ids: the ids. Unknown ids are skipped.
            filters: conditions on metadata. With ``node_ids`` too, a node is deleted if it has one of the ids and the
                filters admit it.
            **delete_kwargs: ignored.

        Raises:
            InvalidInputError: neither argument is given, or a filter is invalid. ``clear`` deletes everything.
        """
        if node_ids is None and (filters is None or not filters.filters):
            raise InvalidInputError("delete_nodes needs node_ids or filters; to delete every node call clear()")
        self._index.delete(node_ids, filter=to_filter(filters))

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes that have one of these ids and that the filters admit.

        Args:
            node_ids: the ids. Unknown ids are skipped. None admits every id.
            filters: conditions on metadata. None admits every node.

        Returns:
            The nodes in the order of the ids, or, without ids, in the order in which they were added.
        """
        condition = to_filter(filters)
        if node_ids is None:
            return [to_node(document) for document in self._index.find(condition)]
        wanted = self._index.get(list(dict.fromkeys(node_ids)))
        if condition is not None:
            matching = {document.id for document in self._index.find(condition)}
            wanted = [document for document in wanted if document.id in matching]
        return [to_node(document) for document in wanted]

    def clear(self) -> None:
        """Delete all nodes."""
        self._index.clear()

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes that match a query best, best first, each with its normalized score. See ``MuveraIndex.search``.

        Args:
            query: its ``query_str`` is searched for. ``mode`` is DEFAULT or MMR (maximal marginal relevance). In MMR,
                ``mmr_threshold`` goes from 0, which looks at diversity only, to 1, which looks at relevance only.
            **kwargs: ``n_candidates`` and ``exact`` in the default mode. In MMR ``mmr_threshold``, and
                ``mmr_prefetch_k``, the number of best nodes to choose from.

        Raises:
            InvalidInputError: ``query_str`` is None or empty, the mode is not supported, or another argument is
                invalid.
        """
        if query.query_str is None:
            raise InvalidInputError("the query has no query_str: late interaction needs the query as text")
        condition = to_filter(query.filters, node_ids=query.node_ids, ref_doc_ids=query.doc_ids)
        if query.mode == VectorStoreQueryMode.DEFAULT:
            options = {name: kwargs[name] for name in ("n_candidates", "exact") if name in kwargs}
            hits = self._index.search(query.query_str, k=query.similarity_top_k, filter=condition, **options)
        elif query.mode == VectorStoreQueryMode.MMR:
            hits = self._search_diverse(query, condition, kwargs)
        else:
            raise InvalidInputError(f"query mode {query.mode.value!r} is not supported: use 'default' or 'mmr'")
        return VectorStoreQueryResult(
            nodes=[to_node(hit) for hit in hits],
            similarities=[hit.normalized_score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    def _search_diverse(
        self, query: VectorStoreQuery, condition: dict[str, Any] | None, options: dict[str, Any]
    ) -> list[Hit]:
        threshold = options.get("mmr_threshold", query.mmr_threshold)
        return self._index.search_diverse(
            query.query_str or "",
            k=query.similarity_top_k,
            fetch_k=options.get("mmr_prefetch_k", max(_MMR_FETCH_K, _MMR_FETCH_PER_HIT * query.similarity_top_k)),
            relevance_weight=0.5 if threshold is None else threshold,
            filter=condition,
        )

    def persist(self, persist_path: str, fs: AbstractFileSystem | None = None) -> None:
        """Write a small file that says where the index is, in the folder of ``persist_path``.

        The documents are on disk already. An index in memory is copied to that folder first.

        Raises:
            InvalidInputError: ``fs`` is not the local file system.
        """
        if fs is not None and not isinstance(fs, LocalFileSystem):
            raise InvalidInputError(f"an index needs a local disk, got {type(fs).__name__}: leave fs out")
        write_pointer(self._index, persist_path)

    # The same in a thread, so that the event loop is not blocked

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """See ``add``."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """See ``delete``."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """See ``delete_nodes``."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """See ``get_nodes``."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aclear(self) -> None:
        """See ``clear``."""
        await asyncio.to_thread(self.clear)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """See ``query``."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _content(node: BaseNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.EMBED)
