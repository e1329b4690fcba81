"""The map from one query's scores to probabilities."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.calibration.features import features
from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import require_count, shown

_WEIGHTS = ("intercept", "similarity", "closeness", "lead", "typical_lead", "decay")
# Weights of encoders whose similarities hardly differ are large, but not larger than this.
_MOST = 1e6
# Beyond this, a probability cannot be told from 0 or 1 in float32.
_STEEPEST = 60.0


@dataclass(frozen=True)
class Calibration:
    """Turns the scores of one query into the probability that each document is relevant.

    The logit of the probability is ``intercept + similarity * score per token + closeness * (score per token, less that
    of the best document) + lead * lead of the query``. ``features.py`` describes these.

    Attributes:
        intercept: the logit at 0.
        similarity: weight of the score per query token, at least 0.
        closeness: weight of the difference to the best document's, at least 0.
        lead: weight of how far the best document stands out, at least 0.
        typical_lead: the mean lead, which stands in if there are fewer than three documents.
        decay: how much scores per token fall, on average, when the rank grows e-fold, at least 0.
        n_documents: number of documents that it was learned among. 0 if that is unknown.
        n_judged: number of judged questions behind it.
        n_made: number of questions behind it that were made of documents.

    Raises:
        InvalidInputError: a weight is not a number, is too large, or would make the probability rise when the score
            falls.
    """

    intercept: float
    similarity: float
    closeness: float
    lead: float
    typical_lead: float
    decay: float = 0.0
    n_documents: int = 0
    n_judged: int = 0
    n_made: int = 0

    def __post_init__(self) -> None:
        for name in _WEIGHTS:
            value = getattr(self, name)
            if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > _MOST:
                raise InvalidInputError(f"{name} must be a number up to {_MOST}, got {shown(value)}")
            if name != "intercept" and value < 0:
                raise InvalidInputError(f"{name} must be at least 0, got {value}")
        for name in ("n_documents", "n_judged", "n_made"):
            require_count(name, getattr(self, name), 0)

    def relevance(self, scores: npt.ArrayLike, n_query_tokens: int, n_documents: int | None = None) -> FloatArray:
        """The probability that each of a query's best documents is relevant.

        Args:
            scores: MaxSim of the documents, best first, shape (documents,): the best ten at least, or all.
            n_query_tokens: number of query tokens, at least 1.
            n_documents: number of documents that the search could have found. It corrects for a filter that admits few,
                and for an index that has grown. None takes as many as the calibration was learned among.

        Returns:
            float32, shape (documents,), from 0 to 1, falling.
        """
        further = 0.0
        if n_documents and self.n_documents:
            further = self.decay * math.log(n_documents / self.n_documents)
        of_each = features(scores, n_query_tokens, self.typical_lead, further)
        logits = self.intercept + of_each @ np.array([self.similarity, self.closeness, self.lead])
        probabilities: FloatArray = (1 / (1 + np.exp(-np.clip(logits, -_STEEPEST, _STEEPEST)))).astype(np.float32)
        return probabilities

    def as_json(self) -> dict[str, Any]:
        """The calibration in JSON's types."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Calibration:
        """Parse what ``as_json`` made.

        Raises:
            InvalidInputError: it is damaged.
        """
        try:
            return cls(**content)
        except TypeError as error:
            raise InvalidInputError(f"a calibration is damaged ({error}): calibrate again") from None
