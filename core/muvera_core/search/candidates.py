"""The candidates of a search by late interaction: what stage one finds, or all documents that are admitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvera_core.collection import Collection, RerankRequest
from muvera_core.search.moment import Moment, take_moment
from muvera_core.search.plan import SearchOptions
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings


def find_candidates(
    collection: Collection, queries: Sequence[FloatArray], options: SearchOptions
) -> tuple[Moment, list[RerankRequest]]:
    """The candidates of each query, and the moment that they are of, with the plan that was followed.

    Raises:
        StaleError: a write has replaced the snapshot meanwhile.
    """
    moment = take_moment(collection, collection.snapshot(), options)
    plan, snapshot = moment.plan, moment.snapshot
    if plan.reranks_all:
        return moment, [RerankRequest(query, snapshot, moment.admitted) for query in queries]
    vectors = moment.stage_one.encoder.encode_queries(TokenEmbeddings.from_list(list(queries)))
    found = _search_on_gpu(collection, moment, vectors) if plan.path == "GPU scan" else None
    if found is None:
        found = moment.search(vectors, plan.n_candidates)
    return moment, [RerankRequest(query, snapshot, np.sort(keys)) for query, keys in zip(queries, found, strict=True)]


def _search_on_gpu(collection: Collection, moment: Moment, vectors: FloatArray) -> list[IntArray] | None:
    """The keys of each query's candidates; None if the GPU leaves the work to the CPU."""
    gpu = collection.accelerator
    return None if gpu is None else gpu.search(moment.stage_one, moment.snapshot, vectors, moment.plan.n_candidates)
