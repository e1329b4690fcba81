"""How questions are answered."""

from __future__ import annotations

from dataclasses import dataclass

from muvera_core.errors import InvalidInputError


@dataclass(frozen=True)
class AnsweringSettings:
    """How questions are answered.

    Attributes:
        n_sources: the largest number of passages that an answer is made from.
        min_relevance: smallest ``relevance`` of the best passage, from 0 to 1, in an index that is calibrated. Below it
            the question counts as not answered by the documents.
        min_score: the same for the ``normalized_score`` of the best passage, in an index that is not calibrated, as one
            of fewer than 20 documents. The default suits the bundled encoder.
        n_remembered: turns of the conversation that a model gets to see with a new question.
        max_question: most characters of a question. The rest is cut off.
    """

    n_sources: int = 5
    min_relevance: float = 0.1
    min_score: float = 0.55
    n_remembered: int = 4
    max_question: int = 2000

    def __post_init__(self) -> None:
        for name, least in (("n_sources", 1), ("n_remembered", 0), ("max_question", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInputError(f"{name} must be a whole number from {least} on, got {value!r}")
        for name in ("min_relevance", "min_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInputError(f"{name} must be from 0 to 1, got {getattr(self, name)!r}")
