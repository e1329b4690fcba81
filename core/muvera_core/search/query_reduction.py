"""Fewer query tokens for the choice of a shortlist. The hits themselves are ranked by all of them.

Ball carving, as in MUVERA (arXiv 2405.19504, section 3): query tokens that point nearly the same way find nearly the
same document tokens, so that the sum of their best inner products is nearly the best inner product of their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import FloatArray, unit_length
from muvera_core.validation import require_share


@dataclass(frozen=True)
class QueryReduction:
    """How the query is made shorter for the choice of a shortlist.

    A search then compares the candidates with the shorter query first. It reranks the best of them by all tokens of the
    query, so that each hit's score is its exact MaxSim.

    Attributes:
        ball_threshold: query tokens whose cosine with the first token of their ball is at least this become one: their
            sum. From 0 to 1; .7 is a good start. The lower, the fewer are left. None carves no balls.

    Raises:
        InvalidInputError: the threshold is not a number from 0 to 1.
    """

    ball_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.ball_threshold is not None:
            object.__setattr__(self, "ball_threshold", require_share("ball_threshold", self.ball_threshold))

    @property
    def keeps_all(self) -> bool:
        """Whether the query stays as it is."""
        return self.ball_threshold is None

    def apply(self, query: FloatArray) -> FloatArray:
        """The shorter query, float32, shape (balls, dimension), from one of shape (tokens, dimension)."""
        return query if self.ball_threshold is None else carve_balls(query, self.ball_threshold)


def carve_balls(query: FloatArray, threshold: float) -> FloatArray:
    """Sum up the query tokens of each ball.

    The first token that is in no ball yet becomes the centre of one. It takes all tokens left whose cosine with it is
    at least the threshold.

    Args:
        query: float32, shape (tokens, dimension).
        threshold: the least cosine, from 0 to 1.

    Returns:
        float32, shape (balls, dimension), in the order of the balls' centres.
    """
    units = unit_length(query)
    is_near = units @ units.T >= threshold
    is_left = np.ones(len(query), dtype=np.bool_)
    balls = []
    for centre in range(len(query)):
        if is_left[centre]:
            members = is_near[centre] & is_left
            members[centre] = True  # a token of zeros is near nothing, not even itself
            is_left &= ~members
            balls.append(query[members].sum(axis=0))
    return np.array(balls, dtype=np.float32).reshape(-1, query.shape[1])


def require_query_reduction(value: object) -> QueryReduction | None:
    """A ``QueryReduction``, or None where it keeps all tokens. Raises InvalidInputError for anything else."""
    if value is None:
        return None
    if not isinstance(value, QueryReduction):
        raise InvalidInputError(
            f"query_reduction must be a QueryReduction, such as QueryReduction(ball_threshold=.7), "
            f"got {type(value).__name__}"
        )
    return None if value.keeps_all else value
