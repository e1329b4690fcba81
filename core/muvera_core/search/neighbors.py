"""The documents that are nearest to some documents: candidates that share a subject, not the words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvera_core.collection import Collection
from muvera_core.search.moment import take_moment
from muvera_core.search.plan import SearchOptions
from muvera_core.storage import Snapshot, StaleError
from muvera_core.token_embeddings import FloatArray


def stage_one_vectors(collection: Collection, ids: Sequence[str]) -> FloatArray:
    """Stage-one vectors of the documents that are there, float32, shape (documents, output dimension)."""

    def read(snapshot: Snapshot) -> FloatArray:
        keys = np.array(list(collection.store.keys_of(snapshot, ids).values()), dtype=np.int64)
        with collection.locks.state:
            if collection.snapshot() is not snapshot:
                raise StaleError
            vectors: FloatArray = collection.stage_one.candidates.vectors(keys)
        return vectors

    return collection.read_with_retry(read)


def nearest_documents(collection: Collection, vectors: FloatArray, options: SearchOptions, n: int) -> list[str]:
    """Ids of the ``n`` documents of highest inner product with each stage-one vector, among those that are admitted.

    Returns:
        Each id once. Nothing if the vectors are of another width, because stage one was replaced.
    """

    def read(snapshot: Snapshot) -> list[str]:
        moment = take_moment(collection, snapshot, options)
        if not len(vectors) or vectors.shape[1] != moment.stage_one.encoder.output_dimension:
            return []
        found = np.unique(np.concatenate(moment.search(vectors, n)))
        return [document.id for document in collection.store.documents(snapshot, found)]

    return collection.read_with_retry(read)


def neighbors_of(collection: Collection, ids: Sequence[str], options: SearchOptions, n: int) -> list[str]:
    """Ids of the ``n`` nearest documents of each of these documents, which may be among them.

    Args:
        collection: the documents.
        ids: documents whose neighbours are asked for.
        options: of a search. Neighbours have to fulfil them.
        n: number of neighbours of each.
    """
    # A document is its own nearest neighbour.
    return nearest_documents(collection, stage_one_vectors(collection, ids), options, n + 1)
