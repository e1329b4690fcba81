"""Stage one as a LlamaIndex embedding model, for vector stores that hold one vector per node."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from muvera_core import FDEConfig, TextEncoder, TokenEncoder


class MuveraEmbedding(BaseEmbedding):
    """MUVERA encodings of texts: one vector each, so that any LlamaIndex vector store can find candidates.

    Give the candidates to a ``MaxSimRerank``: alone, the order of these vectors is a rough one. Questions and documents
    are encoded differently, so never compare vectors of two documents with each other: that rules out the store's own
    MMR and semantic splitters.

    **Which metric.** The plain encodings (``normalize=False``) are made for inner product, and for a store that is set
    to it. By default all vectors are of unit length, so that cosine (``SimpleVectorStore`` and most stores' default),
    inner product and Euclidean distance give one and the same order.

    Examples:
        ```python
        from llama_index.core import Document, VectorStoreIndex
        from llama_index.retrievers.muvera import MaxSimRerank, MuveraEmbedding

        index = VectorStoreIndex.from_documents([Document(text="Owls hunt at night.")], embed_model=MuveraEmbedding())
        retriever = index.as_retriever(similarity_top_k=100)
        question = "Which bird is active after dark?"
        MaxSimRerank(top_n=5).postprocess_nodes(retriever.retrieve(question), query_str=question)
        ```
    """

    normalize: bool = Field(default=True, description="Whether vectors are scaled to unit length.")
    _text_encoder: TextEncoder = PrivateAttr()

    def __init__(
        self,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        """Encode with a token encoder and an FDE.

        Args:
            encoder: makes token vectors; None takes the bundled one.
            fde: settings of the encoding; None takes the defaults. Its dimension must be the encoder's, and
                ``center`` can't be set, since there is no corpus to take a mean from.
            normalize: see above.
            **kwargs: what LlamaIndex's ``BaseEmbedding`` takes, such as ``embed_batch_size``.

        Raises:
            InvalidInputError: ``fde`` is for vectors of another width, or has ``center`` set.
        """
        text_encoder = TextEncoder(encoder, fde, normalize=normalize)
        # LlamaIndex caches what a pipeline computes by the model's fields, so the name has to tell settings apart.
        super().__init__(**{**kwargs, "normalize": normalize, "model_name": text_encoder.fingerprint})
        self._text_encoder = text_encoder

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex knows it by."""
        return "MuveraEmbedding"

    @property
    def dimension(self) -> int:
        """Width of a vector, which some vector stores have to be told."""
        return self._text_encoder.output_dimension

    def _get_query_embedding(self, query: str) -> list[float]:
        embedding: list[float] = self._text_encoder.encode_queries([query])[0].tolist()
        return embedding

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        embeddings: list[list[float]] = self._text_encoder.encode_documents(texts).tolist()
        return embeddings

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
