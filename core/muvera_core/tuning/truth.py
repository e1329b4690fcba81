"""Which documents exact MaxSim ranks best for each query, among a pool of those that any stage one finds.

Exact MaxSim over all documents would take longer than everything else that ``optimize`` does. A document that is in
nobody's pool counts as not among the best: docs/benchmarks.md has how seldom that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from muvera_core.token_embeddings import FloatArray, IntArray
from muvera_core.tuning.corpus import Corpus
from muvera_core.tuning.queries import Queries


class Truth:
    """The best documents of each query among those that were looked at so far."""

    def __init__(self, corpus: Corpus, queries: Queries, k: int) -> None:
        """Look at no document yet.

        Args:
            corpus: the documents.
            queries: the queries. The document that a query was made of does not count.
            k: number of documents of each query, less than there are.
        """
        self._corpus, self._queries, self._k = corpus, queries, k
        self._seen: list[IntArray] = [np.empty(0, dtype=np.int64)] * len(queries.tokens)
        self._scores: list[FloatArray] = [np.empty(0, dtype=np.float32)] * len(queries.tokens)

    def look_at(self, pools: Sequence[IntArray], show_progress: bool) -> None:
        """Score the documents of each query's pool that were not looked at before.

        Args:
            pools: keys of documents for each query.
            show_progress: show a bar on standard error.
        """
        for i, pool in enumerate(tqdm(pools, desc="exact", disable=not show_progress)):
            new = np.setdiff1d(pool, self._seen[i])
            if len(new):
                ((keys, scores),) = self._corpus.rank([self._queries.tokens[i]], new)
                self._seen[i] = np.concatenate([self._seen[i], keys])
                self._scores[i] = np.concatenate([self._scores[i], scores])

    def best(self) -> IntArray:
        """Keys of the ``k`` documents of highest MaxSim, int64, shape (queries, k)."""
        best = np.empty((len(self._seen), self._k), dtype=np.int64)
        for i, (keys, scores) in enumerate(zip(self._seen, self._scores, strict=True)):
            order = np.lexsort((keys, -scores))[: self._k + 1]
            made_of = self._queries.made_of
            others = keys[order] if made_of is None else keys[order][keys[order] != made_of[i]]
            best[i] = others[: self._k]
        return best
