"""What to hand LlamaIndex where it asks for an embedding model and none is needed."""

from __future__ import annotations

from llama_index.core.base.embeddings.base import BaseEmbedding

_PLACEHOLDER = [0.0]


class NoEmbedding(BaseEmbedding):
    """Stands in for an embedding model beside a ``MuveraVectorStore``, which makes its own token vectors.

    ``VectorStoreIndex`` embeds what is inserted, and an ``IngestionPipeline`` drops nodes that have no embedding.
    This gives every text the same placeholder at no cost. Don't use it with another vector store.
    """

    model_name: str = "none"

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex knows it by."""
        return "NoEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return list(_PLACEHOLDER)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return list(_PLACEHOLDER)

    def _get_text_embedding(self, text: str) -> list[float]:
        return list(_PLACEHOLDER)
