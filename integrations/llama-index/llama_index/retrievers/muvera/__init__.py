"""LlamaIndex classes for late-interaction retrieval with muvera."""

from __future__ import annotations

from llama_index.retrievers.muvera.base import MuveraRetriever
from llama_index.retrievers.muvera.embedding import MuveraEmbedding
from llama_index.retrievers.muvera.no_embedding import NoEmbedding
from llama_index.retrievers.muvera.rerank import MaxSimRerank
from llama_index.retrievers.muvera.vector_store import MuveraVectorStore

__all__ = ["MaxSimRerank", "MuveraEmbedding", "MuveraRetriever", "MuveraVectorStore", "NoEmbedding"]
