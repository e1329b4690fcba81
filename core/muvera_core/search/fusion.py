"""Joins a query's two rankings: exact MaxSim and BM25.

Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (2023), find that a convex combination of
normalized scores beats reciprocal rank fusion (Cormack, Clarke and Büttcher 2009), which forgets how far apart scores
lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muvera_core.token_embeddings import FloatArray, IntArray

# The best documents whose scores give the range that BM25 is brought to, and say how sure a ranking is.
N_NORMALIZED = 200
# The least range, per query token: of documents that MaxSim does not tell apart, BM25 still does.
_LEAST_RANGE = 1e-3
# Cormack, Clarke and Büttcher 2009, section 2.
_RANK_CONSTANT = 60
# The logit of BM25's weight: a constant; the logarithm of how much surer BM25 is of its best document than MaxSim is;
# and how rare the question's rarest word is. Fitted to questions of eight collections (docs/benchmarks.md).
_INTERCEPT, _SURER, _RARITY = -4.53, 3.75, 4.03
# BM25's factor of a term: ln(1 + (N - n + 0.5) / (n + 0.5)) in N documents, n of which have it (Lucene's).
_SATURATION = 2.2


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a question, and how many documents have them.

    Attributes:
        n_documents: number of documents of the index.
        frequencies: number of documents with each term, int64, shape (terms,).
    """

    n_documents: int
    frequencies: IntArray

    @property
    def highest_bm25(self) -> float:
        """The BM25 that no document can exceed: k1 + 1 = 2.2 times the sum of the terms' factors."""
        return _SATURATION * float(self._factors(self.frequencies).sum())

    @property
    def rarity(self) -> float:
        """How rare the rarest term is that any document has, from 0 to 1: 1 if one document has it."""
        found = self.frequencies[self.frequencies > 0]
        if not len(found):
            return 0.0
        most = float(self._factors(np.ones(1)).max())
        return min(1.0, float(self._factors(found).max()) / most)

    def _factors(self, frequencies: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        n = np.asarray(frequencies, dtype=np.float64)
        return np.log1p(np.maximum(self.n_documents - n + 0.5, 0) / (n + 0.5))


def fuse_scores(maxsim: FloatArray, bm25: FloatArray, weight: float, n_query_tokens: int) -> FloatArray:
    """A convex combination: ``(1 - weight) * maxsim + weight * bm25``, with BM25 brought to MaxSim's scale.

    A BM25 of 0 becomes the lowest of the 200 highest MaxSim scores, the highest BM25 becomes the highest of them. So
    the sum stays on the scale of MaxSim.

    Args:
        maxsim: of the query's candidates, float32, shape (candidates,).
        bm25: of the same, at least 0.
        weight: BM25's share, from 0 to 1.
        n_query_tokens: number of query tokens.
    """
    if not len(maxsim) or bm25.max() <= 0:
        return maxsim
    best = _highest(maxsim)
    low, span = float(best.min()), max(float(best.max() - best.min()), _LEAST_RANGE * n_query_tokens)
    fused: FloatArray = ((1 - weight) * maxsim + weight * (low + span * bm25 / bm25.max())).astype(np.float32)
    return fused


def fuse_ranks(maxsim: FloatArray, bm25: FloatArray, weight: float) -> FloatArray:
    """Weighted reciprocal rank fusion, from 0 to 1: 1 for a document that is first in both rankings.

    A document without any of the words has no rank by BM25, and gets nothing for it.
    """
    late, lexical = (_reciprocal_ranks(scores) for scores in (maxsim, bm25))
    fused: FloatArray = ((1 - weight) * late + weight * np.where(bm25 > 0, lexical, 0)).astype(np.float32)
    return fused


def weight_of_words(maxsim: FloatArray, bm25: FloatArray, terms: Terms) -> float:
    """BM25's share for this question, from 0 to 1.

    It is higher if the question has a rare word, such as a name or an identifier, and if BM25 tells its best document
    apart from the 200 best more clearly than MaxSim does. MaxSim tells none apart if the encoder does not know the
    words.

    Args:
        maxsim: of the query's candidates, float32, shape (candidates,).
        bm25: of the same, at least 0.
        terms: the question's terms.
    """
    if not len(bm25) or bm25.max() <= 0:
        return 0.0
    surer = math.log(_lead(bm25) / _lead(maxsim))
    return 1 / (1 + math.exp(-(_INTERCEPT + _SURER * surer + _RARITY * terms.rarity)))


def _lead(scores: FloatArray) -> float:
    """How many standard deviations the best document lies above the mean of the best. At least 0.1."""
    best = _highest(scores).astype(np.float64)
    spread = float(best.std())
    return max(0.1, float(best.max() - best.mean()) / spread) if spread > 0 else 0.1


def _highest(scores: FloatArray) -> FloatArray:
    if len(scores) <= N_NORMALIZED:
        return scores
    return np.partition(scores, len(scores) - N_NORMALIZED)[-N_NORMALIZED:]


def _reciprocal_ranks(scores: FloatArray) -> npt.NDArray[np.float64]:
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return (_RANK_CONSTANT + 1) / (_RANK_CONSTANT + 1 + ranks)
