"""A LlamaIndex retriever over a muvera index."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from muvera_core import Hit, MuveraIndex

_SCORE_KEY = "maxsim_score"


class MuveraRetriever(BaseRetriever):
    """Finds the passages of a ``MuveraIndex`` that match a question best, by late interaction.

    Each node carries its id, text and metadata. Its ``score`` is in [0, 1] and comparable between questions, so
    that cut-offs mean something; the raw sum of the best match of each query token is in
    ``metadata["maxsim_score"]``, which language models and embedding models don't get to see.

    Examples:
        ```python
        from llama_index.retrievers.muvera import MuveraRetriever
        from muvera_core import MuveraIndex

        index = MuveraIndex.create(None)
        index.add(["Ants live in colonies.", "Owls hunt at night."])
        retriever = MuveraRetriever(index, similarity_top_k=1)
        retriever.retrieve("Which bird is active after dark?")
        ```
    """

    def __init__(
        self,
        index: MuveraIndex,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        n_candidates: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Search an index.

        Args:
            index: the index to search.
            similarity_top_k: how many nodes to return; all of them where the index holds fewer.
            n_candidates: how many documents to rerank by exact MaxSim; None leaves it to the index.
            **kwargs: what LlamaIndex's ``BaseRetriever`` takes: callback_manager, object_map, objects, verbose.
        """
        self._index = index
        self.similarity_top_k = similarity_top_k
        self.n_candidates = n_candidates
        super().__init__(**kwargs)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._index.search(query_bundle.query_str, k=self.similarity_top_k, n_candidates=self.n_candidates)
        return [_to_node(hit) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # The base class would call _retrieve on the event loop and block it.
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _to_node(hit: Hit) -> NodeWithScore:
    node = TextNode(
        id_=hit.id,
        text=hit.text or "",
        metadata={**hit.metadata, _SCORE_KEY: hit.score},
        excluded_llm_metadata_keys=[_SCORE_KEY],
        excluded_embed_metadata_keys=[_SCORE_KEY],
    )
    return NodeWithScore(node=node, score=hit.normalized_score)
