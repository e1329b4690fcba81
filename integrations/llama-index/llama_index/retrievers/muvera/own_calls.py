"""What a ``MuveraVectorStore`` can do beyond LlamaIndex's vector stores."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.schema import NodeWithScore
from llama_index.retrievers.muvera.filters import Filters, to_filter
from llama_index.retrievers.muvera.names import one_or_more
from llama_index.retrievers.muvera.nodes import is_plain, to_node, to_scored_node
from llama_index.retrievers.muvera.threads import ThreadedVectorStore

from muvera_core import MuveraIndex
from muvera_core.metadata import normalize_metadata
from muvera_core.validation import require_count, require_length


class OwnCalls(ThreadedVectorStore):
    """Changes metadata, ranks and counts stored nodes."""

    @property
    @abstractmethod
    def client(self) -> MuveraIndex:
        """The index."""

    def update_metadata(
        self,
        node_ids: str | Sequence[str],
        metadatas: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        replace: bool = False,
    ) -> int:
        """Change the metadata of nodes, all or none; after them, that of documents that were not added as nodes.

        A node is encoded again only if the metadata that changes is part of the text that is matched, which it is
        unless its keys are among the node's ``excluded_embed_metadata_keys``.

        Args:
            node_ids: one or more ids. Unknown ids are skipped.
            metadatas: one mapping for all nodes, or one for each id.
            replace: replace the present metadata. Otherwise the mapping's keys are added to it, or replaced in it.

        Returns:
            The number of nodes whose metadata changed.

        Raises:
            InvalidInputError: metadata cannot be stored, or lengths differ.
        """
        ids = one_or_more(node_ids)
        each = [metadatas] * len(ids) if isinstance(metadatas, Mapping) else list(metadatas)
        require_length("metadatas", each, len(ids), "node")
        given = {id: normalize_metadata(metadata) for id, metadata in zip(ids, each, strict=True)}
        changed, not_nodes = [], {}
        for document in self.client.get(list(given)):
            if is_plain(document):  # its metadata is no part of its text
                not_nodes[document.id] = given[document.id]
                continue
            node = to_node(document)
            metadata = given[node.node_id] if replace else {**node.metadata, **given[node.node_id]}
            if metadata != node.metadata:
                changed.append(node.model_copy(update={"metadata": metadata}))
        n = len(self.add(changed))
        return n + self.client.update_metadata(list(not_nodes), list(not_nodes.values()), replace=replace)

    def rerank(
        self, query_str: str, node_ids: Sequence[str], top_n: int | None = None, *, min_score: float | None = None
    ) -> list[NodeWithScore]:
        """Rank stored nodes that another search has found, such as BM25, by exact MaxSim. Nothing is encoded again.

        Args:
            query_str: the query's text.
            node_ids: the nodes' ids. Unknown ids are skipped.
            top_n: number of nodes. None returns all.
            min_score: smallest normalized score of a node, from 0 to 1.
        """
        top_n = None if top_n is None else require_count("top_n", top_n)
        return [to_scored_node(hit) for hit in self.client.rerank(query_str, node_ids, top_n, min_score=min_score)]

    def count(self, filters: Filters | None = None) -> int:
        """The number of nodes that the filters admit."""
        return self.client.count(to_filter(filters))

    async def aupdate_metadata(
        self,
        node_ids: str | Sequence[str],
        metadatas: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        replace: bool = False,
    ) -> int:
        """See ``update_metadata``."""
        return await asyncio.to_thread(self.update_metadata, node_ids, metadatas, replace=replace)

    async def arerank(
        self, query_str: str, node_ids: Sequence[str], top_n: int | None = None, *, min_score: float | None = None
    ) -> list[NodeWithScore]:
        """See ``rerank``."""
        return await asyncio.to_thread(self.rerank, query_str, node_ids, top_n, min_score=min_score)

    async def acount(self, filters: Filters | None = None) -> int:
        """See ``count``."""
        return await asyncio.to_thread(self.count, filters)
