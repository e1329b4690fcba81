"""The documents on which tuning measures: those of one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from muvera_core.collection import ENCODED_TOGETHER, Collection, RerankRequest
from muvera_core.encoders import TokenEncoder, unreported
from muvera_core.errors import InvalidInputError
from muvera_core.maxsim import Ranking
from muvera_core.search import rerank
from muvera_core.set_encoders import SetEncoder
from muvera_core.storage import Snapshot
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, unit_length
from muvera_core.validation import require_encoded


@dataclass(frozen=True, eq=False)
class Corpus:
    """The documents of a snapshot.

    Attributes:
        collection: the index.
        snapshot: the snapshot to tune for.
        encoder: encodes texts as queries. None if only token embeddings are known.
    """

    collection: Collection
    snapshot: Snapshot
    encoder: TokenEncoder | None

    @property
    def keys(self) -> IntArray:
        """Keys of all documents, int64, ascending."""
        return self.snapshot.keys

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self.collection.store.codec.dimension

    def embeddings(self, keys: IntArray) -> TokenEmbeddings:
        """Token embeddings of documents."""
        return self.collection.store.embeddings(self.snapshot, keys)

    def texts(self, keys: IntArray) -> list[str | None]:
        """Texts of documents. None for a document without a text."""
        return [document.text for document in self.collection.store.documents(self.snapshot, keys)]

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token embeddings of parts of documents as queries."""
        assert self.encoder is not None
        with unreported():
            return require_encoded(self.encoder.encode_queries(texts), len(texts), self.encoder.dimension)

    def rank(self, queries: Sequence[FloatArray], keys: IntArray) -> list[Ranking]:
        """Documents by falling MaxSim, for each query."""
        return rerank(self.collection, [RerankRequest(query, self.snapshot, keys) for query in queries])

    def sample(self, n_tokens: int) -> TokenEmbeddings:
        """Documents that are drawn at random until they have ``n_tokens`` tokens together."""
        keys = np.random.default_rng(0).permutation(self.keys)
        parts: list[TokenEmbeddings] = []
        for start in range(0, len(keys), ENCODED_TOGETHER):
            if sum(len(part.vectors) for part in parts) >= n_tokens:
                break
            parts.append(self.embeddings(np.sort(keys[start : start + ENCODED_TOGETHER])))
        return TokenEmbeddings.concatenate(parts)

    def encode_all(self, encoder: SetEncoder, show_progress: bool, *, scale: bool = True) -> FloatArray:
        """The vectors of all documents, float32, shape (documents, output dimension); of unit length if ``scale``."""
        document_encoder = self.collection.stage_one_source.document_encoder(encoder)
        vectors = np.empty((len(self.keys), encoder.output_dimension), dtype=np.float32)
        with tqdm(total=len(vectors), desc=encoder.fingerprint[:16], unit="doc", disable=not show_progress) as bar:
            for start in range(0, len(vectors), ENCODED_TOGETHER):
                keys = self.keys[start : start + ENCODED_TOGETHER]
                encoded = document_encoder.encode_documents(self.embeddings(keys))
                vectors[start : start + len(keys)] = unit_length(encoded) if scale else encoded
                bar.update(len(keys))
        return vectors

    def require_enough(self, k: int) -> None:
        """Raise InvalidInputError unless there are more than ``k`` documents."""
        if len(self.keys) <= k:
            raise InvalidInputError(
                f"optimize needs more than k={k} documents, got {len(self.keys)}: add documents first"
            )
