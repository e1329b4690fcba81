"""LangChain classes for late-interaction retrieval with muvera."""

from __future__ import annotations

from langchain_muvera.compressors import MaxSimReranker
from langchain_muvera.documents import ScoredDocument
from langchain_muvera.embeddings import MuveraEmbeddings
from langchain_muvera.retrievers import MuveraRetriever
from langchain_muvera.self_query import MuveraTranslator
from langchain_muvera.vectorstores import MuveraVectorStore

__all__ = [
    "MaxSimReranker",
    "MuveraEmbeddings",
    "MuveraRetriever",
    "MuveraTranslator",
    "MuveraVectorStore",
    "ScoredDocument",
]
