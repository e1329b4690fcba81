"""Hits that together cover what a query asks and what its candidates say, by a submodular objective.

MMR asks how a hit differs from the others as a whole. Coverage asks what a hit adds: which of the query's tokens it
matches better than all hits chosen before. So a question with two parts gets passages for both.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from muvera_core.hits import Hit
from muvera_core.search.diversity import HitFeatures, with_features
from muvera_core.token_embeddings import FloatArray, IntArray

# What covering the query's tokens counts, relative to covering the candidates' meaning. With it a relevance weight of
# 0.5 is near the best on both collections that were measured; see docs/benchmarks.md.
_TOKENS_COUNT = 3.0


def cover(hits: Sequence[Hit], features: HitFeatures, k: int, relevance_weight: float) -> list[Hit]:
    """Choose ``k`` hits by ``choose_covering``.

    Args:
        hits: to choose from.
        features: of the hits. Those without are left out.
        k: number of hits to choose.
        relevance_weight: 1 looks at relevance only, 0 at coverage only.
    """
    present = with_features(hits, features)
    if not present:
        return []
    relevance = np.array([hit.normalized_score for hit in present], dtype=np.float32)
    aspects = coverage_aspects(features.matches, features.similarities)
    surplus = relevance - relevance.min()
    chosen = choose_covering(relevance_weight * surplus, (1 - relevance_weight) * aspects, k)
    return [present[i] for i in chosen]


def coverage_aspects(matches: FloatArray, similarity: FloatArray) -> FloatArray:
    """What a choice of candidates should cover, and how well each candidate covers it.

    An aspect is a token of the query, covered by the candidates that match it, or a candidate, covered by those that
    are similar. An aspect that all candidates cover equally does not matter. A query token weighs as much as the square
    of how far the best candidate's match stands out from the mean: a marker, or a mask, matches all candidates alike.

    Args:
        matches: of query tokens with candidates, float32, shape (query tokens, candidates).
        similarity: of candidates, float32, shape (candidates, candidates).

    Returns:
        float32, shape (query tokens + candidates, candidates), at least 0.
    """
    n = matches.shape[1]
    standing_out = (matches.max(axis=1) - matches.mean(axis=1)) ** 2
    share = standing_out / max(float(standing_out.sum()), np.finfo(np.float32).tiny)
    above_least = matches - matches.min(axis=1, keepdims=True)
    of_tokens = _TOKENS_COUNT * share[:, None] * above_least
    of_candidates = (similarity - similarity.min()) / n
    aspects: FloatArray = np.concatenate([of_tokens, of_candidates]).astype(np.float32, copy=False)
    return aspects


def choose_covering(relevance: FloatArray, aspects: FloatArray, k: int) -> IntArray:
    """Choose ``k`` items one by one, each the one that adds most to the value of the choice.

    The value of a set is the sum of its items' relevance, and for each aspect the cover by its best item. It is
    monotone and submodular, so that the value of the greedy choice is at least 1 - 1/e, or 63 %, of the best possible
    choice of ``k`` items (Nemhauser, Wolsey and Fisher: An Analysis of Approximations for Maximizing Submodular Set
    Functions, 1978). What an item adds only falls while others are chosen, so it is computed again only for the item
    that may be next (Minoux: Accelerated Greedy Algorithms, 1978): the choice is the same.

    Args:
        relevance: of each item, at least 0, float32, shape (items,).
        aspects: how well each item covers each aspect, at least 0, float32, shape (aspects, items).
        k: number of items to choose, at most all.

    Returns:
        Places of the chosen items in the order of choice, int64, shape (min(k, items),). Ties go to the first item.
    """
    covers = np.ascontiguousarray(aspects.T, dtype=np.float64)
    covered = np.zeros(covers.shape[1])
    chosen: list[int] = []
    # What an item adds, negative; the item; the number of items that were chosen when that was computed.
    queue = [(-float(gain), i, 0) for i, gain in enumerate(relevance + covers.sum(axis=1))]
    heapq.heapify(queue)
    while queue and len(chosen) < k:
        _, item, n_chosen = heapq.heappop(queue)
        if n_chosen < len(chosen):
            gain = float(relevance[item]) + float(np.maximum(covers[item] - covered, 0).sum())
            heapq.heappush(queue, (-gain, item, len(chosen)))
        else:
            chosen.append(item)
            covered = np.maximum(covered, covers[item])
    return np.array(chosen, dtype=np.int64)
