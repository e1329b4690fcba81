"""A placeholder for the embedding model that LlamaIndex asks for but a ``MuveraVectorStore`` does not need."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict
from llama_index.retrievers.muvera.names import assign, own_errors, refuse_unknown

_PLACEHOLDER = [0.0]


class NoEmbedding(BaseEmbedding):
    """Takes the place of an embedding model for a ``MuveraVectorStore``, which makes its own token vectors.

    ``VectorStoreIndex`` embeds every node that is inserted, and an ``IngestionPipeline`` drops nodes without an
    embedding. This class gives every text the same placeholder, at no cost. Do not use it with another vector store.
    """

    model_config = ConfigDict(validate_assignment=True)
    model_name: str = "none"

    def __init__(self, **kwargs: Any) -> None:
        """Make a placeholder.

        Args:
            **kwargs: arguments of LlamaIndex's ``BaseEmbedding``, such as ``embed_batch_size``.

        Raises:
            InvalidInputError: an argument is unknown or invalid.
        """
        refuse_unknown("NoEmbedding", kwargs, *type(self).model_fields)
        with own_errors("NoEmbedding"):
            super().__init__(**kwargs)

    @classmethod
    def class_name(cls) -> str:
        """The name of the class in LlamaIndex."""
        return "NoEmbedding"

    def __setattr__(self, name: str, value: Any) -> None:
        assign(self, name, value, {}, super().__setattr__)

    def _get_query_embedding(self, query: str) -> list[float]:
        return list(_PLACEHOLDER)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return list(_PLACEHOLDER)

    def _get_text_embedding(self, text: str) -> list[float]:
        return list(_PLACEHOLDER)
