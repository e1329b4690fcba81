"""Recall over a sample of queries, and what it says about the queries that users will ask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muvera_core.token_embeddings import IntArray

# 95 % of a normal distribution are above its mean minus this many standard deviations.
_CONFIDENCE = 1.645


@dataclass(frozen=True)
class Recall:
    """The share of exact MaxSim's best documents that are found.

    Attributes:
        mean: its mean over the queries of the sample.
        assured: with a confidence of 95 %, its mean over all queries of that kind is at least this.
    """

    mean: float
    assured: float

    @classmethod
    def over(cls, shares: npt.NDArray[np.floating]) -> Recall:
        """Of the shares that were found for each query, shape (queries,)."""
        mean = float(shares.mean())
        # The standard error of a mean. All documents of one query are found or missed together, more or less, so the
        # queries are the sample and not their documents.
        error = float(shares.std()) / math.sqrt(max(1, len(shares) - 1))
        return cls(mean, mean - _CONFIDENCE * error)


def recall_at(n: int, ranks: IntArray) -> Recall:
    """The recall of the first ``n`` candidates.

    Args:
        n: number of candidates.
        ranks: the number of candidates before each of a query's best documents, shape (queries, k).
    """
    return Recall.over((ranks < n).mean(axis=1))


def n_candidates_for(target: float, ranks: IntArray, most: int) -> int:
    """The smallest number of candidates whose assured recall is ``target``; ``most`` if no smaller number reaches it.

    Args:
        target: the recall to reach.
        ranks: see ``recall_at``.
        most: the largest number to return.
    """
    numbers = np.unique(ranks[ranks < most]) + 1
    return next((int(n) for n in numbers if recall_at(n, ranks).assured >= target), most)
