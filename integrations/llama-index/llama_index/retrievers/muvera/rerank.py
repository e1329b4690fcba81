"""A LlamaIndex node postprocessor that ranks nodes by late interaction."""

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

from muvera_core import TokenEncoder, score_texts
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError

dispatcher = get_dispatcher(__name__)


class MaxSimRerank(BaseNodePostprocessor):
    """Ranks nodes by exact MaxSim between the question's and their own token vectors, from any retriever.

    The token vectors are those of a real late-interaction encoder, projected and of unit length, with its markers.
    A node's text is what LlamaIndex would embed: metadata that isn't excluded is part of it. Scores are the mean over
    query tokens of the best match, in [0, 1], as ``MuveraRetriever`` gives them, but for its index's rounding of token
    vectors; a node without text scores 0. The nodes passed in keep theirs: what comes back are copies.

    Every node is encoded for every question, 10 to 40 ms each with the bundled encoder: rerank tens of nodes, not
    thousands. A ``MuveraVectorStore`` encodes each only once.

    Examples:
        ```python
        from llama_index.core import VectorStoreIndex
        from llama_index.retrievers.muvera import MaxSimRerank

        engine = index.as_query_engine(similarity_top_k=50, node_postprocessors=[MaxSimRerank(top_n=5)])
        ```
    """

    top_n: int = Field(default=5, ge=1, description="How many nodes to return.")
    batch_size: int = Field(default=64, ge=1, description="Texts per call of the encoder.")
    keep_retrieval_score: bool = Field(
        default=False, description="Whether to note the retriever's score in metadata['retrieval_score']."
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
            encoder: makes token vectors; None takes the bundled one.
            top_n: how many nodes to return.
            batch_size: texts per call of the encoder.
            keep_retrieval_score: note the retriever's score in ``metadata["retrieval_score"]``.
            **kwargs: what LlamaIndex's ``BaseNodePostprocessor`` takes: callback_manager.
        """
        encoder = BundledEncoder() if encoder is None else encoder
        fields = {
            "top_n": top_n,
            "batch_size": batch_size,
            "keep_retrieval_score": keep_retrieval_score,
            "model": encoder.fingerprint,
        }
        super().__init__(**{**kwargs, **fields})
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex knows it by."""
        return "MaxSimRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidInputError("there is no question to rank by: pass query_str or query_bundle")
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
            _, scores = score_texts(self._encoder, query_bundle.query_str, texts, batch_size=self.batch_size)
            # Stable, so that equals stay in the retriever's order.
            best = np.argsort(-scores, kind="stable")[: self.top_n]
            reranked = [self._rescored(nodes[i], float(scores[i])) for i in best]
            event.on_end(payload={EventPayload.NODES: reranked})
        dispatcher.event(ReRankEndEvent(nodes=reranked))
        return reranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)

    def _rescored(self, node: NodeWithScore, score: float) -> NodeWithScore:
        inner = node.node
        if self.keep_retrieval_score:
            inner = inner.model_copy(update={"metadata": {**inner.metadata, "retrieval_score": node.score}})
        return NodeWithScore(node=inner, score=score)
