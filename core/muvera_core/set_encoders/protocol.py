"""The interface of a set encoder, which turns a set of token vectors into one vector."""

from __future__ import annotations

from typing import Protocol

from muvera_core.token_embeddings import FloatArray, TokenEmbeddings


class DocumentEncoder(Protocol):
    """Encodes documents: the part of a set encoder that can also run on a GPU."""

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """One vector per document, float32, shape (documents, output_dimension)."""


class SetEncoder(DocumentEncoder, Protocol):
    """Turns each set of token vectors into one vector. Inner products of these vectors approximate MaxSim."""

    @property
    def output_dimension(self) -> int:
        """Width of the vectors that the encoder returns."""

    @property
    def fingerprint(self) -> str:
        """Identifies the encoder: it changes with everything that changes the vectors."""

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """One vector per query, float32, shape (queries, output_dimension)."""
