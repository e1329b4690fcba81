"""Reranks the nodes of any retriever by exact MaxSim."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.retrievers.muvera.names import Check, assign, fixed, own_errors, refuse_unknown
from llama_index.retrievers.muvera.travel import reduced, require_fingerprint

from muvera_core import TokenEncoder, score_texts
from muvera_core.encoders import default_encoder, require_encoder
from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_count

dispatcher = get_dispatcher(__name__)

_CHECKS: dict[str, Check] = {
    "top_n": require_count,
    "batch_size": require_count,
    "model": fixed("it is the encoder's fingerprint; make another MaxSimRerank"),
}


class MaxSimRerank(BaseNodePostprocessor):
    """Reranks nodes that another retriever found by exact MaxSim, and keeps the best.

    Returns copies, best first; the given nodes keep their scores. ``NodeWithScore.score`` is the normalized score: the
    mean per query token, clipped to [0, 1]. It can be compared between queries. ``MuveraRetriever`` returns the same
    score, except that its index rounds token vectors. Nodes with equal scores keep their order. A node without text
    matches nothing and scores 0.

    The text of a node is the text that LlamaIndex would embed: its text and its metadata without the excluded keys. The
    token vectors are those of a late-interaction encoder: projected, of unit length, with query and document markers.

    Every node is encoded again for every query, which takes 10 to 40 ms with the bundled encoder. So rerank tens of
    nodes, not thousands. A ``MuveraVectorStore`` encodes each node only once.

    Examples:
        ```python
        from llama_index.core import VectorStoreIndex
        from llama_index.retrievers.muvera import MaxSimRerank

        engine = index.as_query_engine(similarity_top_k=50, node_postprocessors=[MaxSimRerank(top_n=5)])
        ```
    """

    top_n: int = Field(default=5, ge=1, description="Number of nodes to keep.")
    batch_size: int = Field(default=64, ge=1, description="Texts per call of the encoder.")
    keep_retrieval_score: bool = Field(
        default=False, description="Whether to keep the retriever's score in metadata['retrieval_score']."
    )
    model: str = Field(description="Fingerprint of the encoder.")
    _encoder: TokenEncoder = PrivateAttr()

    def __init__(
        self,
        encoder: TokenEncoder | None = None,
        *,
        top_n: int = 5,
        batch_size: int = 64,
        keep_retrieval_score: bool = False,
        **kwargs: Any,
    ) -> None:
        """Rerank with an encoder.

        Args:
            encoder: turns text into token vectors. None takes the bundled encoder.
            top_n: number of nodes to keep.
            batch_size: texts per call of the encoder.
            keep_retrieval_score: keep the retriever's score in ``metadata["retrieval_score"]`` of the returned copies.
                That is LlamaIndex's convention. It changes ``node.hash``, by which LlamaIndex's fusion recognizes a
                node, so leave it off if something after the reranker compares nodes.
            **kwargs: arguments of LlamaIndex's ``BaseNodePostprocessor``: callback_manager.

        Raises:
            InvalidInputError: an argument is unknown or invalid.
        """
        refuse_unknown("MaxSimRerank", kwargs, MaxSimRerank.__init__, *type(self).model_fields)
        encoder = default_encoder(str(kwargs.get("model"))) if encoder is None else require_encoder(encoder)
        require_fingerprint("model", kwargs.get("model"), encoder.fingerprint, "encoder=")
        own = {
            "top_n": require_count("top_n", top_n),
            "batch_size": require_count("batch_size", batch_size),
            "keep_retrieval_score": keep_retrieval_score,
            "model": encoder.fingerprint,
        }
        with own_errors("MaxSimRerank"):
            super().__init__(**{**kwargs, **own})
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """The name of the class in LlamaIndex."""
        return "MaxSimRerank"

    def __setattr__(self, name: str, value: Any) -> None:
        assign(self, name, value, _CHECKS, super().__setattr__)

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self, self._encoder)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidInputError("there is no query to rank by: pass query_str or query_bundle")
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
            _, normalized_scores = score_texts(self._encoder, query_bundle.query_str, texts, batch_size=self.batch_size)
            # A stable sort keeps nodes with equal scores in the retriever's order.
            best = np.argsort(-normalized_scores, kind="stable")[: self.top_n]
            reranked = [self._rescored(nodes[i], float(normalized_scores[i])) for i in best]
            event.on_end(payload={EventPayload.NODES: reranked})
        dispatcher.event(ReRankEndEvent(nodes=reranked))
        return reranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)

    def _rescored(self, node: NodeWithScore, normalized_score: float) -> NodeWithScore:
        inner = node.node
        if self.keep_retrieval_score:
            inner = inner.model_copy(update={"metadata": {**inner.metadata, "retrieval_score": node.score}})
        return NodeWithScore(node=inner, score=normalized_score)
