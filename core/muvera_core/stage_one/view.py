"""Stage one as it was published at one moment, so that a search needs no lock, or holds it for one query at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from muvera_core.stage_one.candidates import Candidates
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.token_embeddings import FloatArray, IntArray


class StageOneView:
    """What stage one had published when ``StageOne.view`` was called. It is taken together with a snapshot."""

    def __init__(self, candidates: Candidates, lock: threading.RLock, is_current: Callable[[], bool]) -> None:
        """Take a view. The caller holds ``lock``.

        Args:
            candidates: the vectors.
            lock: held while a graph is changed.
            is_current: whether the published vectors are still the same.
        """
        self._candidates = candidates.frozen() if isinstance(candidates, FlatCandidates) else candidates
        self._codes = candidates.codes if isinstance(candidates, HnswCandidates) else None
        self._lock, self._is_current = lock, is_current

    def search_many(self, queries: FloatArray, k: int, allowed: IntArray | None = None) -> list[IntArray] | None:
        """For each query the keys of the ``k`` documents of highest inner product. See ``Candidates.search``.

        The caller holds no lock. A scan takes none, because the vectors of a view do not change. A graph search, which
        only a search among all documents is, takes the lock for one query at a time.

        Args:
            queries: float32, shape (queries, dimension).
            k: number of keys for each query.
            allowed: keys to choose from, int64. None allows all.

        Returns:
            One int64 array for each query. None if other vectors have been published meanwhile, which happens to graphs
            only: take a new snapshot and a new view.
        """
        if self._codes is None:
            return self._candidates.search_many(queries, k, allowed)
        if allowed is not None:
            return self._codes.search_many(queries, k, allowed)
        found = []
        for query in queries:
            with self._lock:
                if not self._is_current():
                    return None
                found.append(self._candidates.search(query, k))
        return found
