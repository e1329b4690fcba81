"""Recall over a sample of queries, and how far that of all such queries may be from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muvera_core.token_embeddings import IntArray

# 95 % of a normal distribution are within this many standard deviations of its mean.
_INTERVAL = 1.96


@dataclass(frozen=True)
class Recall:
    """The share of exact MaxSim's best documents that are found.

    Attributes:
        mean: its mean over the queries of the sample.
        margin: with a confidence of 95 %, its mean over all queries of that kind is no further away than this.
    """

    mean: float
    margin: float

    @classmethod
    def over(cls, shares: npt.NDArray[np.floating]) -> Recall:
        """Of the shares that were found for each query, shape (queries,)."""
        # The standard error of a mean. All documents of one query are found or missed together, more or less, so the
        # queries are the sample and not their documents.
        error = float(shares.std()) / math.sqrt(max(1, len(shares) - 1))
        return cls(float(shares.mean()), _INTERVAL * error)


def recall_at(n: int, ranks: IntArray) -> Recall:
    """The recall of the first ``n`` candidates.

    Args:
        n: number of candidates.
        ranks: the number of candidates before each of a query's best documents, shape (queries, k).
    """
    return Recall.over((ranks < n).mean(axis=1))


def n_candidates_for(target: float, ranks: IntArray, most: int) -> int:
    """The smallest number of candidates whose mean recall is ``target``; ``most`` if no smaller number reaches it.

    The mean is aimed at, and not the lower end of its interval: that would give every user more candidates than asked
    for, and a busier index, to make up for a small sample.

    Args:
        target: the recall to reach.
        ranks: see ``recall_at``.
        most: the largest number to return.
    """
    in_order = np.sort(ranks, axis=None)
    needed = math.ceil(target * in_order.size - 1e-9)  # documents to find, over all queries
    return min(most, 1 + int(in_order[needed - 1])) if needed else 1
