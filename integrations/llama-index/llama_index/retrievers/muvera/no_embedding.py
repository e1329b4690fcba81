"""A placeholder for the embedding model that LlamaIndex asks for but a ``MuveraVectorStore`` does not need."""

from __future__ import annotations

from llama_index.core.base.embeddings.base import BaseEmbedding

_PLACEHOLDER = [0.0]


class NoEmbedding(BaseEmbedding):
    """Takes the place of an embedding model for a ``MuveraVectorStore``, which makes its own token vectors.

    ``VectorStoreIndex`` embeds every node that is inserted, and an ``IngestionPipeline`` drops nodes without an
    embedding. This class gives every text the same placeholder, at no cost. Do not use it with another vector store.
    """

    model_name: str = "none"

    @classmethod
    def class_name(cls) -> str:
        """The name of the class in LlamaIndex."""
        return "NoEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return list(_PLACEHOLDER)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return list(_PLACEHOLDER)

    def _get_text_embedding(self, text: str) -> list[float]:
        return list(_PLACEHOLDER)
