"""LangChain classes for muvera indexes."""

from __future__ import annotations

from langchain_muvera.retrievers import MuveraRetriever

__all__ = ["MuveraRetriever"]
