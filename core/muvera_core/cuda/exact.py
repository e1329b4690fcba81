"""Exact search of all documents for several queries, with half of the matrix products that scoring them takes.

Each number of a query is split into a coarse and a fine one, and the product with a document's number takes two. With
the coarse numbers alone, scores differ by at most a bound B, for which ``exact.cu`` has the proof. So the k best
documents have coarse scores of at least the k-th best coarse score minus 2 B. These documents are scored in full. The
same kernel computes the same scores for them as for all documents, bit by bit, and the same k are selected.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from muvera_core.cuda.gpu_data import Documents, PreparedQueries
from muvera_core.cuda.launch import THREADS, launch
from muvera_core.cuda.selection import FEW, Scores, Selected, look_up
from muvera_core.cuda.session import CudaSession

# Whether coarse scores come first. On an H200, 1,000,000 passages of 120 tokens (int8) take 4.7 ms for one chunk of 32
# query tokens, which is the time of reading them, and 3.3 ms for each of many chunks, which is that of the products. So
# there must be more than two chunks. Selecting, counting and collecting take some .2 ms (an estimate), in which 60,000
# pairs of a chunk and a document are scored: there must be some times as many.
MIN_CHUNKS = 3
MIN_PAIRS = 1 << 18
# Documents that have to be scored again may be this share of all pairs of a query and a document. They are read once
# for each query, and not once for all.
MAX_SHARE = 0.25
# If a try did not pay, that many searches do without. The next ones are likely to be like it: one very long vector, for
# example, makes the bound large for good.
SKIPPED = 15
# Scores that a block looks through.
_SEGMENT = 8192
_BLOCK = 256


class Dead(NamedTuple):
    """Documents that have been deleted, and must not be found.

    Attributes:
        at: address on the GPU of their places, int32.
        n: their number.
    """

    at: int
    n: int


NONE_DEAD = Dead(0, 0)


def best_of_all(
    session: CudaSession, queries: PreparedQueries, documents: Documents, k: int | None, dead: Dead = NONE_DEAD
) -> Selected:
    """Select the ``k`` documents of highest MaxSim for each query. Of equal ones, the first are taken.

    Coarse scores come first where that pays. Places and scores are the same either way.

    Args:
        session: a session of the engine.
        queries: prepared queries.
        documents: the documents.
        k: number of documents to select. None selects all.
        dead: documents that must not be selected.
    """
    n_live = len(documents) - dead.n
    k = n_live if k is None else min(k, n_live)
    if pays(session, queries, len(documents), k):
        engine = session.engine
        selected = None if engine.n_to_skip else _best_by_coarse_scores(session, queries, documents, k, dead)
        if selected is not None:
            return selected
        engine.n_to_skip = engine.n_to_skip - 1 if engine.n_to_skip else SKIPPED
    scores = session.score_all(queries, documents)
    _bury(session, scores, dead)
    return session.select(scores, k)


def pays(session: CudaSession, queries: PreparedQueries, n_documents: int, k: int) -> bool:
    """Whether to begin with coarse scores."""
    chunk = session.layout.chunk
    n_chunks = int((-(-np.diff(queries.offsets) // chunk)).sum())
    return k <= min(FEW, MAX_SHARE * n_documents) and n_chunks >= MIN_CHUNKS and n_chunks * n_documents >= MIN_PAIRS


def _best_by_coarse_scores(
    session: CudaSession, queries: PreparedQueries, documents: Documents, k: int, dead: Dead
) -> Selected | None:
    """See ``best_of_all``. None if too many documents have to be scored again; the GPU memory is then free again."""
    workspace, engine = session.workspace, session.engine
    used = workspace.used
    coarse = session.score_all(queries, documents, is_coarse=True)
    _bury(session, coarse, dead)
    least_at = _least_scores(session, queries, session.select(coarse, k))
    n_queries, n_segments = len(coarse.lists) - 1, -(-len(documents) // _SEGMENT)
    grid, common = (n_segments, n_queries), (coarse.values_at, least_at, len(documents), _SEGMENT)

    counts = np.empty((n_queries, n_segments), dtype=np.int32)
    counts_at = workspace.allocate(counts.nbytes)
    launch(engine.collect, grid, *common, counts_at, 0, 0, n_threads=_BLOCK)
    workspace.fetch(counts_at, counts)
    starts = np.zeros(counts.size + 1, dtype=np.int64)
    np.cumsum(counts.reshape(-1), out=starts[1:])
    if starts[-1] > MAX_SHARE * n_queries * len(documents):
        workspace.free_from(used)
        return None
    places_at = workspace.allocate(4 * int(starts[-1]))
    (starts_at,) = workspace.send(starts)
    launch(engine.collect, grid, *common, 0, starts_at, places_at, n_threads=_BLOCK)

    scores = session.score_lists(queries, documents, places_at, starts[::n_segments])
    selected = session.select(scores, k)
    look_up(engine, selected, scores.lists_on_gpu(workspace), places_at)
    return selected


def _least_scores(session: CudaSession, queries: PreparedQueries, best: Selected) -> int:
    """Address of the least coarse score of documents that may be among the best, float32, for each query."""
    least_at = session.workspace.allocate(4 * best.n)
    launch(
        session.engine.least_scores,
        (best.n,),
        *session.query_addresses(queries),
        queries.n_chunks * session.layout.chunk,
        session.layout.query_row_bytes,
        int(session.engine.largest_length.data.ptr),
        best.values_at,
        best.k,
        least_at,
    )
    return least_at


def _bury(session: CudaSession, scores: Scores, dead: Dead) -> None:
    """Give dead documents scores of minus infinity, for every query."""
    n_queries, n_documents = len(scores.lists) - 1, scores.longest
    if dead.n:
        grid = (-(-n_queries * dead.n // THREADS),)
        launch(session.engine.bury, grid, dead.at, dead.n, n_queries, n_documents, scores.values_at)
