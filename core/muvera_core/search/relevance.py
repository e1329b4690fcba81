"""The relevance of hits: a calibrated probability or, without a calibration, the normalized score."""

from __future__ import annotations

from muvera_core.calibration import N_LEADING, Calibration
from muvera_core.maxsim import normalize_scores
from muvera_core.search.plan import SearchOptions, SearchPlan
from muvera_core.token_embeddings import FloatArray

# Among so many candidates the best ten by MaxSim are nearly complete (docs/benchmarks.md).
_LEAST_CANDIDATES = 50


def least_candidates(calibration: Calibration | None) -> int:
    """The smallest number of candidates: among fewer, some of the best ten are missing too often."""
    return 1 if calibration is None else _LEAST_CANDIDATES


def n_ranked(k: int, calibration: Calibration | None) -> int:
    """The number of documents to rank for ``k`` hits: a calibration reads the scores of the best ten."""
    return k if calibration is None else max(k, N_LEADING)


def n_competing(plan: SearchPlan, options: SearchOptions) -> int:
    """The number of documents from which the best come.

    Documents that another search has found, which are reranked by their ids, are the best of all.
    """
    return plan.n_documents if options.exact and options.ids is not None else plan.n_admitted


def relevance_of(
    scores: FloatArray, n_query_tokens: int, n_documents: int, calibration: Calibration | None
) -> FloatArray:
    """The relevance of one query's documents, float32, from 0 to 1, shape (documents,).

    Args:
        scores: of ``n_ranked`` documents at least, or of all that there are, best first.
        n_query_tokens: number of query tokens.
        n_documents: see ``n_competing``.
        calibration: that of the mode of search. None if there is none.
    """
    if calibration is None:
        return normalize_scores(scores, n_query_tokens)
    return calibration.relevance(scores, n_query_tokens, n_documents)
