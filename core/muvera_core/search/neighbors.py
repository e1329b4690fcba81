"""Adds to hits the documents that are nearest to the best of them: candidates that share a subject, not the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from muvera_core.collection import Collection
from muvera_core.hits import Hit
from muvera_core.search.modes import Question
from muvera_core.search.moment import take_moment
from muvera_core.search.pipeline import search
from muvera_core.search.plan import SearchOptions
from muvera_core.search.stage_clock import StageClock
from muvera_core.storage import Snapshot, StaleError
from muvera_core.token_embeddings import FloatArray


def with_neighbors(
    collection: Collection, query: FloatArray, hits: Sequence[Hit], options: SearchOptions, n_best: int, n: int
) -> list[Hit]:
    """The hits and the neighbours of the best of them, ranked together by exact MaxSim.

    A document's neighbours are those of the highest inner product of stage-one vectors, among the documents that the
    search admits.

    Args:
        collection: the documents.
        query: the query's token vectors, float32, shape (query tokens, dimension).
        hits: best first.
        options: of the search that found them. Neighbours have to fulfil them, too.
        n_best: number of hits whose neighbours are added.
        n: number of neighbours of each.
    """
    if not hits or n == 0:
        return list(hits)

    def neighbors(snapshot: Snapshot) -> list[str]:
        moment = take_moment(collection, snapshot, options)
        keys = np.array(list(collection.store.keys_of(snapshot, [hit.id for hit in hits[:n_best]]).values()), np.int64)
        if not len(keys):
            return []
        with collection.locks.state:
            if collection.snapshot() is not snapshot or collection.stage_one is not moment.stage_one:
                raise StaleError
            vectors = moment.stage_one.candidates.vectors(keys)
        found = np.unique(np.concatenate(moment.search(vectors, n + 1)))  # a document is its own nearest neighbour
        return [document.id for document in collection.store.documents(snapshot, found)]

    ids = dict.fromkeys([*(hit.id for hit in hits), *collection.read_with_retry(neighbors)])
    together = replace(options, ids=tuple(ids), k=len(ids), exact=True)
    return search(collection, [Question(query)], together, StageClock())[0]
