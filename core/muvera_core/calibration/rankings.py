"""Rankings of which it is known which documents are relevant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from muvera_core.token_embeddings import FloatArray


@dataclass(frozen=True, eq=False)
class JudgedRanking:
    """The best documents of one query.

    Attributes:
        scores: MaxSim, best first, shape (documents,).
        relevant: whether each document is relevant, bool, shape (documents,).
        n_query_tokens: number of query tokens.
        n_relevant: number of relevant documents, found or not.
        weight: how much it counts.
    """

    scores: FloatArray
    relevant: npt.NDArray[np.bool_]
    n_query_tokens: int
    n_relevant: int
    weight: float = 1.0

    def unanswered(self) -> JudgedRanking:
        """The ranking if the relevant documents were not in the index."""
        others = ~self.relevant
        return replace(self, scores=self.scores[others], relevant=self.relevant[others], n_relevant=0)


def both_ways(rankings: Sequence[JudgedRanking]) -> list[JudgedRanking]:
    """Each answered ranking with and without its relevant documents, and the others, weighted.

    Judged questions have answers, and questions of users may have none. So those that have an answer in the index are
    half of all that is learned from, and measured with, by weight. The sum of the weights stays as it is.
    """
    answered = sum(ranking.weight for ranking in rankings if ranking.n_relevant)
    if not answered:
        return list(rankings)
    share = answered / sum(ranking.weight for ranking in rankings)
    found: list[JudgedRanking] = []
    for ranking in rankings:
        if ranking.n_relevant:
            found.append(replace(ranking, weight=ranking.weight / (2 * share)))
        found.append(replace(ranking.unanswered(), weight=ranking.weight / 2))
    return found
