"""Stage one of a search: a set encoder's vectors of all documents, in a flat scan or a graph.

Everything here is derived from the stored documents. The writer stages documents as they arrive and publishes them when
they are committed. Slow work is done without the lock that searches take.
"""

from __future__ import annotations

import math
import threading
import time

import numpy as np

from muvera_core.set_encoders import DocumentEncoder, SetEncoder
from muvera_core.stage_one.candidates import Candidates
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.graph_parameters import DEFAULT_GRAPH
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.stage_one.settings import Tuning
from muvera_core.stage_one.view import StageOneView
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, unit_length

# Candidates per hit, and the least number of them, without a tuning. Reranking 400 short passages takes 3 ms.
CANDIDATES_PER_HIT = 10
MIN_CANDIDATES = 400
# Up to this many documents a scan takes little longer than a graph search, finds more, and needs no building.
FLAT_LIMIT = 100_000
# Up to this share of deleted entries a graph is not rebuilt: it is as good as new, and building one is slow.
_FEW_DELETED = 0.05
# Documents that are encoded and added to the graph at a time.
_BATCH = 32
# Searches wait while documents are added to the graph. If there was a search in so many seconds, only as many documents
# are added at a time as this time allows, at least one. Then the writer pauses: without a pause it would take the lock
# again before a waiting search does.
_RECENT = 1.0
_LONGEST_HOLD = 4e-3
_PAUSE = 5e-5


def default_candidates(k: int) -> int:
    """Number of candidates to rerank for ``k`` hits in an index that was not optimized."""
    return max(MIN_CANDIDATES, CANDIDATES_PER_HIT * k)


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
            lock: held while what searches see is changed. Searches hold it, too.
            candidates: the vectors to start with.
            tuning: number of candidates to rerank, and parameters of the graph and its search. None takes the defaults.
            document_encoder: gives the same encodings as ``encoder``, for example on a GPU. None takes ``encoder``.
        """
        self.encoder, self.tuning = encoder, tuning
        self._document_encoder = document_encoder or encoder
        self.ef = HnswCandidates.DEFAULT_EF if tuning is None else tuning.ef
        self.graph = DEFAULT_GRAPH if tuning is None else tuning.graph
        self._lock = lock or threading.RLock()
        self._n_publications = 0
        self._latest_search = -math.inf
        self._added_together = 1  # documents that are added to a graph in one hold of the lock, beside searches
        self.candidates: Candidates = candidates or FlatCandidates(encoder.output_dimension)
        if isinstance(self.candidates, HnswCandidates):
            self.candidates.ef = self.ef

    def n_candidates(self, k: int) -> int:
        """Number of candidates to rerank for ``k`` hits if the caller gives none."""
        if self.tuning is None:
            return default_candidates(k)
        return -(-self.tuning.n_candidates * max(k, self.tuning.k) // self.tuning.k)

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """The vectors of documents, float32, shape (documents, output dimension), of unit length.

        A shorter document has a longer encoding, and so a larger inner product with any query. Vectors of unit length
        find far more (docs/benchmarks.md).
        """
        return unit_length(self._document_encoder.encode_documents(embeddings))

    def stage(self, keys: IntArray, embeddings: TokenEmbeddings) -> None:
        """Encode documents and stage them. See ``stage_vectors``."""
        for start in range(0, len(keys), _BATCH):
            end = min(start + _BATCH, len(keys))
            self.stage_vectors(keys[start:end], self.encode_documents(embeddings.part(start, end)))

    def stage_vectors(self, keys: IntArray, vectors: FloatArray) -> None:
        """Take in documents that are encoded. ``publish`` makes them visible. This is fast for a vector that is there.

        Above ``FLAT_LIMIT`` documents, all move into a graph.

        Args:
            keys: new keys, int64.
            vectors: what ``encode_documents`` gave for these documents.
        """
        for start in range(0, len(keys), _BATCH):
            batch = slice(start, start + _BATCH)
            flat = self.candidates
            if isinstance(flat, FlatCandidates) and len(flat) + flat.n_staged + len(keys[batch]) > FLAT_LIMIT:
                graph = HnswCandidates.from_vectors(flat.keys(), flat.vectors(flat.keys()), self.ef, self.graph)
                graph.stage(*flat.staged)
                with self._lock:
                    self.candidates = graph
            self._add(keys[batch], vectors[batch])

    def _add(self, keys: IntArray, vectors: FloatArray) -> None:
        if isinstance(self.candidates, FlatCandidates):
            self.candidates.stage(keys, vectors)  # searches read what is published, wherever it is
            return
        start = 0
        while start < len(keys):
            beside_searches = time.monotonic() < self._latest_search + _RECENT
            end = min(start + self._added_together, len(keys)) if beside_searches else len(keys)
            with self._lock:
                began = time.perf_counter()
                self.candidates.stage(keys[start:end], vectors[start:end])
                seconds = time.perf_counter() - began
            self._added_together = max(1, min(_BATCH, int((end - start) * _LONGEST_HOLD / max(seconds, 1e-6))))
            if beside_searches:
                time.sleep(_PAUSE)
            start = end

    def publish(self, removed: IntArray) -> None:
        """Make the staged documents visible to searches, and hide ``removed``."""
        with self._lock:
            self._n_publications += 1
            self.candidates.publish(removed)

    def discard(self) -> None:
        """Drop the staged documents."""
        with self._lock:
            self.candidates.discard()

    def compact(self, *, thoroughly: bool = False) -> None:
        """Drop deleted entries if there are many; with ``thoroughly``, if they exceed 5 %. A graph is built anew.

        Call it after each write, because it does work that ``publish`` leaves, a little at a time.
        """
        more = True
        while more:
            with self._lock:
                more = self.candidates.tidy()
        more_than_few = self.candidates.n_deleted > _FEW_DELETED * len(self.candidates)
        if self.candidates.is_wasteful or (thoroughly and more_than_few):
            compacted = self.candidates.compacted()
            with self._lock:
                self.candidates = compacted

    def search(self, vector: FloatArray, n_candidates: int, allowed: IntArray | None = None) -> IntArray:
        """Keys of the ``n_candidates`` documents of highest inner product, best first, int64. See ``Candidates``."""
        self._latest_search = time.monotonic()
        with self._lock:
            candidates = self.candidates
            if not isinstance(candidates, FlatCandidates):
                return candidates.search(vector, n_candidates, allowed)
            candidates = candidates.frozen()
        return candidates.search(vector, n_candidates, allowed)

    def view(self) -> StageOneView:
        """What is published now, to be searched without the lock. Take it under the lock, together with a snapshot."""
        self._latest_search = time.monotonic()
        with self._lock:
            candidates, n = self.candidates, self._n_publications
            return StageOneView(
                candidates, self._lock, lambda: self.candidates is candidates and self._n_publications == n
            )

    def difference(self, keys: IntArray) -> tuple[IntArray, IntArray]:
        """The stored ``keys`` that are missing here, and the keys here that are not stored."""
        here = self.candidates.keys()
        return np.setdiff1d(keys, here, assume_unique=True), np.setdiff1d(here, keys, assume_unique=True)
