"""What the scores of one query say about its documents: three numbers for each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# The best documents of a query from which its lead is read. A search ranks so many at least, so that a hit's
# probability does not depend on the number of hits that were asked for.
N_LEADING = 10
# Second documents are left out of the lead: two that answer alike, or two copies of one, hide no lead over the others.
N_PEERS = 2
_LEAST_TO_DECAY = 6
Float64Array = npt.NDArray[np.float64]


def features(scores: npt.ArrayLike, n_query_tokens: int, typical_lead: float, further: float = 0.0) -> Float64Array:
    """The features of the best documents of one query.

    1. The score per query token: how similar the document is.
    2. The same, less that of the best document: at most 0. It tells apart documents that compete for one query.
    3. The query's lead: how far its best document stands out from the third to the tenth, as the mean square root of
       the differences per token. The square root makes the first small difference count most.

    None of them needs a long tail of other documents, which few candidates would change. But the more documents there
    are, the smaller is the lead by chance. Scores fall about evenly with the logarithm of the rank, so ``further``
    corrects for that.

    Args:
        scores: MaxSim of the best documents, best first. Ten of them, or all that there are, decide on the lead.
        n_query_tokens: number of query tokens.
        typical_lead: stands in for the lead if there are fewer than three documents.
        further: how much further the others would be behind, per token, with the usual number of documents. Below 0 if
            they would be nearer.

    Returns:
        float64, shape (documents, 3).
    """
    per_token = np.asarray(scores, dtype=np.float64) / n_query_tokens
    if not len(per_token):
        return np.empty((0, 3))
    behind = per_token[0] - per_token
    others = behind[N_PEERS:N_LEADING] + further
    lead = float(np.sqrt(np.maximum(0.0, others)).mean()) if len(others) else typical_lead
    return np.column_stack([per_token, -behind, np.full(len(per_token), lead)])


def decay_of(scores: npt.ArrayLike, n_query_tokens: int) -> float | None:
    """How much the score per token falls when the rank grows e-fold. None if too few documents tell.

    Args:
        scores: MaxSim of the best documents, best first.
        n_query_tokens: number of query tokens.
    """
    others = np.asarray(scores, dtype=np.float64)[N_PEERS:] / n_query_tokens
    if len(others) < _LEAST_TO_DECAY:
        return None
    ranks = np.log(np.arange(N_PEERS + 1, N_PEERS + 1 + len(others)))
    centred = ranks - ranks.mean()
    return max(0.0, -float(centred @ others / (centred @ centred)))
