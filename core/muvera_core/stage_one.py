"""Stage one of a search: a set encoder's vectors of all documents, in whichever holder suits their number.

All of it is derived from the store. It is saved beside the store to make opening fast; what is missing from the
saved files is encoded again, and files that belong to other documents or settings are not used.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from muvera_core.candidates import KINDS, Candidates, FlatCandidates, HnswCandidates
from muvera_core.errors import CorruptIndexError
from muvera_core.fde import SetEncoder, unit_length
from muvera_core.manifest import write_json
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

DESCRIPTION_NAME = "stage_one.json"
# How vectors are made of encodings: files that were made in another way are not used.
VECTORS = "unit length"
# Up to here a scan of all vectors takes no longer than a walk through the graph, finds more, and needs no building.
FLAT_LIMIT = 10_000
# What a document that a filtered walk through the graph visits costs, as a share of what reranking one costs.
VISIT_COST = 0.5


class StageOne:
    """Finds candidate documents for a query's token set."""

    def __init__(self, encoder: SetEncoder, candidates: Candidates | None = None) -> None:
        self._encoder = encoder
        self.candidates: Candidates = candidates or FlatCandidates(encoder.output_dimension)

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """The vectors to ``add`` for documents, float32, shape (documents, output dimension), of unit length.

        The shorter a document, the longer its encoding, and the larger its inner product with any query: of unit
        length, the vectors find far more (docs/benchmarks.md).
        """
        return unit_length(self._encoder.encode_documents(embeddings))

    def encode_query(self, tokens: FloatArray) -> FloatArray:
        """The vector to ``search`` for, float32, shape (output dimension,)."""
        vectors = self._encoder.encode_queries(TokenEmbeddings.from_list([tokens]))
        return vectors.reshape(-1)

    def add(self, keys: IntArray, vectors: FloatArray) -> None:
        """Add documents' vectors. Beyond ``FLAT_LIMIT`` documents they move into a graph."""
        if isinstance(self.candidates, FlatCandidates) and len(self.candidates) + len(keys) > FLAT_LIMIT:
            graph, held = HnswCandidates(self._encoder.output_dimension), self.candidates.keys()
            graph.add(held, self.candidates.vectors(held))
            self.candidates = graph
        self.candidates.add(keys, vectors)

    def remove(self, keys: IntArray) -> None:
        """Remove documents; unknown keys are passed over."""
        self.candidates.remove(keys)

    def search(self, vector: FloatArray, n_candidates: int, allowed: IntArray | None = None) -> IntArray:
        """Keys of the most promising documents, best first; all that are ``allowed`` where there are fewer."""
        return self.candidates.search(vector, n_candidates, allowed)

    def is_worth_it(self, n_allowed: int, n_candidates: int) -> bool:
        """Whether finding candidates among so many documents and reranking them beats reranking all of them."""
        if n_allowed <= n_candidates:
            return False
        if isinstance(self.candidates, FlatCandidates):
            return True
        # A filtered walk passes over what the filter refuses, so it gets longer as the filter gets narrower.
        visits = n_candidates * len(self.candidates) / n_allowed
        return visits * VISIT_COST + n_candidates < n_allowed

    def difference(self, keys: IntArray) -> tuple[IntArray, IntArray]:
        """Which of the store's ``keys`` are lacking here, and which keys are held that the store doesn't have."""
        held = self.candidates.keys()
        return np.setdiff1d(keys, held, assume_unique=True), np.setdiff1d(held, keys, assume_unique=True)

    def save(self, folder: Path, index_id: str) -> None:
        """Write the vectors to ``folder``. The description is written last and removed first."""
        (folder / DESCRIPTION_NAME).unlink(missing_ok=True)
        paths = self.candidates.save(folder)
        write_json(
            folder / DESCRIPTION_NAME,
            {
                "index_id": index_id,
                "encoder": self._encoder.fingerprint,
                "vectors": VECTORS,
                "kind": self.candidates.kind,
                "files": {path.name: _checksum(path) for path in paths},
            },
        )

    @classmethod
    def load(cls, folder: Path, index_id: str, encoder: SetEncoder) -> StageOne:
        """Read what ``save`` wrote, or start empty where it can't be used: it can all be derived again."""
        try:
            description = json.loads((folder / DESCRIPTION_NAME).read_text(encoding="utf-8"))
            usable = (
                description["index_id"] == index_id
                and description["encoder"] == encoder.fingerprint
                and description["vectors"] == VECTORS
            )
            if not usable or any(_checksum(folder / Path(n).name) != c for n, c in description["files"].items()):
                return cls(encoder)
            return cls(encoder, KINDS[description["kind"]].load(folder, encoder.output_dimension))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, CorruptIndexError):
            return cls(encoder)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
