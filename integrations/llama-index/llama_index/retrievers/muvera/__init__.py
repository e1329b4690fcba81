"""LlamaIndex classes for muvera indexes."""

from __future__ import annotations

from llama_index.retrievers.muvera.base import MuveraRetriever

__all__ = ["MuveraRetriever"]
