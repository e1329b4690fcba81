"""Stage one of a search: a set encoder's vectors of all documents, in a flat scan or a graph.

Everything here is derived from the stored documents. The writer stages documents as they come and publishes them when
they are committed. What takes long is done without the lock that searches take.
"""

from __future__ import annotations

import threading

import numpy as np

from muvera_core.set_encoders import DocumentEncoder, SetEncoder
from muvera_core.stage_one.candidates import Candidates
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.graph_parameters import DEFAULT_GRAPH
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.stage_one.settings import Tuning
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, unit_length

# Per hit asked for, and at least, without a tuning. Reranking 400 short passages takes 3 ms.
CANDIDATES_PER_HIT = 10
MIN_CANDIDATES = 400
# Up to this many documents a scan takes no longer than a graph search, finds more, and needs no building.
FLAT_LIMIT = 10_000
# The cost of each document that a filtered graph search visits, as a share of the cost of reranking one.
VISIT_COST = 0.5
# Below this share of deleted entries a graph is as good as new, and building it anew is slow.
_FEW_DELETED = 0.05
# Documents that are encoded and put into the graph at a time: a search waits for no more than that.
_BATCH = 32


class StageOne:
    """Finds candidate documents for a query's token set."""

    def __init__(
        self,
        encoder: SetEncoder,
        lock: threading.RLock | None = None,
        candidates: Candidates | None = None,
        tuning: Tuning | None = None,
        document_encoder: DocumentEncoder | None = None,
    ) -> None:
        """Start with ``candidates``, or empty.

        Args:
            encoder: makes the vectors.
            lock: held whenever what a search sees is changed. Searches hold it, too.
            candidates: the vectors that are there already.
            tuning: says how many candidates to rerank, and how a graph is made and searched. None takes the defaults.
            document_encoder: encodes documents as ``encoder`` does, on a GPU for example. None takes ``encoder``.
        """
        self.encoder, self.tuning = encoder, tuning
        self._document_encoder = document_encoder or encoder
        self._ef = HnswCandidates.DEFAULT_EF if tuning is None else tuning.ef
        self.graph = DEFAULT_GRAPH if tuning is None else tuning.graph
        self._lock = lock or threading.RLock()
        self.candidates: Candidates = candidates or FlatCandidates(encoder.output_dimension)
        if isinstance(self.candidates, HnswCandidates):
            self.candidates.ef = self._ef

    def n_candidates(self, k: int) -> int:
        """How many candidates to rerank for ``k`` hits, unless the caller says."""
        if self.tuning is None:
            return max(MIN_CANDIDATES, CANDIDATES_PER_HIT * k)
        return -(-self.tuning.n_candidates * max(k, self.tuning.k) // self.tuning.k)

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """The vectors of documents, float32, shape (documents, output dimension), of unit length.

        A shorter document has a longer encoding, and so a larger inner product with any query. Vectors of unit length
        find far more (docs/benchmarks.md).
        """
        return unit_length(self._document_encoder.encode_documents(embeddings))

    def encode_query(self, tokens: FloatArray) -> FloatArray:
        """The vector to ``search`` for, float32, shape (output dimension,)."""
        vectors = self.encoder.encode_queries(TokenEmbeddings.from_list([tokens]))
        return vectors.reshape(-1)

    def stage(self, keys: IntArray, embeddings: TokenEmbeddings) -> None:
        """Encode documents. ``publish`` makes them visible. Above ``FLAT_LIMIT`` all move into a graph."""
        for start in range(0, len(keys), _BATCH):
            end = min(start + _BATCH, len(keys))
            low, high = embeddings.offsets[start], embeddings.offsets[end]
            some = TokenEmbeddings(embeddings.vectors[low:high], embeddings.offsets[start : end + 1] - low)
            vectors = self.encode_documents(some)
            held = self.candidates
            if isinstance(held, FlatCandidates) and len(held) + len(held.staged[0]) + len(some) > FLAT_LIMIT:
                graph = HnswCandidates.holding(held.keys(), held.vectors(held.keys()), self._ef, self.graph)
                graph.stage(*held.staged)
                with self._lock:
                    self.candidates = graph
            with self._lock:
                self.candidates.stage(keys[start:end], vectors)

    def publish(self, removed: IntArray) -> None:
        """Make what was staged visible to searches, and hide ``removed``."""
        with self._lock:
            self.candidates.publish(removed)

    def discard(self) -> None:
        """Forget what was staged."""
        with self._lock:
            self.candidates.discard()

    def compact(self, *, thoroughly: bool = False) -> None:
        """Drop deleted entries if there are many; with ``thoroughly``, if there are some. A graph is built anew."""
        some = self.candidates.n_deleted > _FEW_DELETED * len(self.candidates)
        if self.candidates.is_wasteful or (thoroughly and some):
            compacted = self.candidates.compacted()
            with self._lock:
                self.candidates = compacted

    def search(self, vector: FloatArray, n_candidates: int, allowed: IntArray | None = None) -> IntArray:
        """Keys of the documents of highest inner product, best first; at most ``n_candidates``, all ``allowed``."""
        with self._lock:
            return self.candidates.search(vector, n_candidates, allowed)

    def is_worth_it(self, n_allowed: int, n_candidates: int) -> bool:
        """Whether finding candidates among so many documents and reranking them is faster than reranking all."""
        if n_allowed <= n_candidates:
            return False
        if isinstance(self.candidates, FlatCandidates):
            return True
        # A filtered graph search passes over what the filter refuses, so a narrower filter makes it longer.
        visits = n_candidates * len(self.candidates) / n_allowed
        return visits * VISIT_COST + n_candidates < n_allowed

    def difference(self, keys: IntArray) -> tuple[IntArray, IntArray]:
        """Which of the stored ``keys`` are missing here, and which keys are held here that are not stored."""
        held = self.candidates.keys()
        return np.setdiff1d(keys, held, assume_unique=True), np.setdiff1d(held, keys, assume_unique=True)
