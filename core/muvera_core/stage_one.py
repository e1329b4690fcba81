"""Stage one of a search: a set encoder's vectors of all documents, in whichever holder suits their number.

All of it is derived from the store. It is saved beside the store to make opening fast; what is missing from the
saved files is encoded again, and files that belong to other documents or settings are not used.

The writer stages documents as they come and publishes them when they are committed. What takes long is done outside
of the lock that searches take.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core.candidates import KINDS, Candidates, FlatCandidates, HnswCandidates
from muvera_core.checksums import file_checksum
from muvera_core.errors import CorruptIndexError
from muvera_core.fde import EncodeDocuments, SetEncoder, encode_on_host, unit_length
from muvera_core.files import is_plain_file, read_small, storage_errors, write_json
from muvera_core.graph_parameters import DEFAULT_GRAPH
from muvera_core.manifest import Tuning
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

# Per hit asked for, and at least, where no tuning says how many. Reranking 400 short passages takes 3 ms.
CANDIDATES_PER_HIT = 10
MIN_CANDIDATES = 400
DESCRIPTION_NAME = "stage_one.json"
_DESCRIPTION_LIMIT = 1 << 16
# How vectors are made of encodings: files that were made in another way are not used.
VECTORS = "unit length"
# Up to here a scan of all vectors takes no longer than a walk through the graph, finds more, and needs no building.
FLAT_LIMIT = 10_000
# What a document that a filtered walk through the graph visits costs, as a share of what reranking one costs.
VISIT_COST = 0.5
# A graph with this share of deleted entries is as good as new, and building it anew is slow.
_SOME = 0.05
# Documents that are encoded, and then put into the graph, at a time: a search waits for no more than that.
_BATCH = 32


class StageOne:
    """Finds candidate documents for a query's token set."""

    def __init__(
        self,
        encoder: SetEncoder,
        lock: threading.RLock | None = None,
        candidates: Candidates | None = None,
        tuning: Tuning | None = None,
        encode: EncodeDocuments = encode_on_host,
    ) -> None:
        """Start with ``candidates``, or empty.

        Args:
            encoder: makes the vectors.
            lock: held whenever what a search sees is changed; searches hold it, too.
            candidates: what is there already.
            tuning: says how many candidates to rerank, and how a graph is made and searched; None takes the defaults.
            encode: has the encoder encode documents, there where that is fastest.
        """
        self.encoder, self.tuning, self._encode = encoder, tuning, encode
        self._beam = HnswCandidates.BEAM if tuning is None else tuning.beam
        self._graph = DEFAULT_GRAPH if tuning is None else tuning.graph
        self._lock = lock or threading.RLock()
        self.candidates: Candidates = candidates or FlatCandidates(encoder.output_dimension)
        if isinstance(self.candidates, HnswCandidates):
            self.candidates.beam = self._beam

    def n_candidates(self, k: int) -> int:
        """How many candidates to rerank for ``k`` hits, where nobody says."""
        if self.tuning is None:
            return max(MIN_CANDIDATES, CANDIDATES_PER_HIT * k)
        return -(-self.tuning.n_candidates * max(k, self.tuning.k) // self.tuning.k)

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """The vectors of documents, float32, shape (documents, output dimension), of unit length.

        The shorter a document, the longer its encoding, and the larger its inner product with any query: of unit
        length, the vectors find far more (docs/benchmarks.md).
        """
        return unit_length(self._encode(self.encoder, embeddings))

    def encode_query(self, tokens: FloatArray) -> FloatArray:
        """The vector to ``search`` for, float32, shape (output dimension,)."""
        vectors = self.encoder.encode_queries(TokenEmbeddings.from_list([tokens]))
        return vectors.reshape(-1)

    def stage(self, keys: IntArray, embeddings: TokenEmbeddings) -> None:
        """Encode documents, which ``publish`` lets be found. Beyond ``FLAT_LIMIT`` they move into a graph."""
        for start in range(0, len(keys), _BATCH):
            end = min(start + _BATCH, len(keys))
            low, high = embeddings.offsets[start], embeddings.offsets[end]
            some = TokenEmbeddings(embeddings.vectors[low:high], embeddings.offsets[start : end + 1] - low)
            vectors = self.encode_documents(some)
            held = self.candidates
            if isinstance(held, FlatCandidates) and len(held) + len(held.staged[0]) + len(some) > FLAT_LIMIT:
                graph = HnswCandidates.holding(held.keys(), held.vectors(held.keys()), self._beam, self._graph)
                graph.stage(*held.staged)
                with self._lock:
                    self.candidates = graph
            with self._lock:
                self.candidates.stage(keys[start:end], vectors)

    def publish(self, removed: IntArray) -> None:
        """Let what was staged be found, and ``removed`` no longer."""
        with self._lock:
            self.candidates.publish(removed)

    def discard(self) -> None:
        """Forget what was staged."""
        with self._lock:
            self.candidates.discard()

    def compact(self, *, thoroughly: bool = False) -> None:
        """Drop deleted entries where there are many; ``thoroughly``, where there are some. A graph is built anew."""
        some = self.candidates.n_deleted > _SOME * len(self.candidates)
        if self.candidates.is_wasteful or (thoroughly and some):
            compacted = self.candidates.compacted()
            with self._lock:
                self.candidates = compacted

    def search(self, vector: FloatArray, n_candidates: int, allowed: IntArray | None = None) -> IntArray:
        """Keys of the most promising documents, best first; all that are ``allowed`` where there are fewer."""
        with self._lock:
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
        """Write the vectors to ``folder``. The description is written last and removed first.

        Raises:
            StorageError: they can't be written.
        """
        with storage_errors(folder):
            (folder / DESCRIPTION_NAME).unlink(missing_ok=True)
            self.candidates.save(folder)
            write_json(
                folder / DESCRIPTION_NAME,
                {
                    "index_id": index_id,
                    "encoder": self.encoder.fingerprint,
                    "vectors": VECTORS,
                    "kind": self.candidates.kind,
                    "files": {name: file_checksum(folder / name) for name in self.candidates.file_names},
                },
            )

    @classmethod
    def load(
        cls,
        folder: Path,
        index_id: str,
        encoder: SetEncoder,
        lock: threading.RLock,
        tuning: Tuning | None = None,
        encode: EncodeDocuments = encode_on_host,
    ) -> StageOne:
        """Read what ``save`` wrote, or start empty where it can't be used: it can all be derived again."""
        empty = cls(encoder, lock, tuning=tuning, encode=encode)
        try:
            description = read_description(folder)
            expected = {"index_id": index_id, "encoder": encoder.fingerprint, "vectors": VECTORS}
            if description.items() >= expected.items():
                candidates: Candidates
                if description["kind"] == FlatCandidates.kind:
                    candidates = FlatCandidates.load(folder, encoder.output_dimension)
                else:
                    candidates = HnswCandidates.load(folder, encoder.output_dimension, empty._graph)
                if read_description(folder, compare=False) == description:  # else a writer has saved others meanwhile
                    return cls(encoder, lock, candidates, tuning, encode)
        except (OSError, CorruptIndexError):
            pass
        return empty


def read_description(folder: Path, *, compare: bool = True) -> dict[str, Any]:
    """What is saved, after a look (``compare``) at whether the files are those that were saved.

    Raises:
        CorruptIndexError: they aren't, or the description is damaged.
        OSError: it can't be read.
    """
    path = folder / DESCRIPTION_NAME
    try:
        description: dict[str, Any] = json.loads(read_small(path, _DESCRIPTION_LIMIT))
        checksums = {folder / name: description["files"][name] for name in KINDS[description["kind"]].file_names}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptIndexError(f"{path} is damaged ({error!r}): it is derived from the documents again") from error
    for file, checksum in checksums.items() if compare else ():
        if not is_plain_file(file) or file_checksum(file) != checksum:
            raise CorruptIndexError(f"{file} isn't as it was saved: it is derived from the documents again")
    return description
