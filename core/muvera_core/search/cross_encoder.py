"""Adapts what users call a cross-encoder: a function, or an object of sentence-transformers or LangChain."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from muvera_core.errors import EncoderError, InvalidInputError
from muvera_core.validation import counted, shown

Pair: TypeAlias = tuple[str, str]
Scores: TypeAlias = npt.NDArray[np.float64]


class HasPredict(Protocol):
    """``CrossEncoder`` of sentence-transformers."""

    @property
    def predict(self) -> Callable[[list[Pair]], Any]:
        """Scores pairs."""


class HasScore(Protocol):
    """``BaseCrossEncoder`` of LangChain."""

    @property
    def score(self) -> Callable[[list[Pair]], Any]:
        """Scores pairs."""


# It gets pairs of a question and a text, and returns a number for each: the higher, the more relevant.
CrossEncoder: TypeAlias = Callable[[list[Pair]], Any] | HasPredict | HasScore


def scoring_function(cross_encoder: CrossEncoder) -> Callable[[str, Sequence[str]], Scores]:
    """A function that scores a question's texts with a cross-encoder, and checks what it returns.

    ``predict`` is looked for first, then ``score``: torch's modules, which have one of them, can be called, too.

    Returns:
        A function of a question and its texts. It returns float64, shape (texts,), raises EncoderError if the
        cross-encoder did not return one finite number per pair, and lets through what the cross-encoder raises.

    Raises:
        InvalidInputError: ``cross_encoder`` has no such method and cannot be called.
    """
    predict = getattr(cross_encoder, "predict", None) or getattr(cross_encoder, "score", None) or cross_encoder
    if not callable(predict) or isinstance(cross_encoder, type):
        raise InvalidInputError(
            "cross_encoder must be a function of a list of (question, text) pairs, or an object with predict(pairs) or "
            f"score(pairs), got {shown(cross_encoder)}"
        )

    def score(question: str, texts: Sequence[str]) -> Scores:
        return _require_scores(predict([(question, text) for text in texts]), len(texts))

    return score


def _require_scores(returned: Any, n: int) -> Scores:
    """The scores of ``n`` pairs. A column, as models with one output give it, counts as a list."""
    wanted = f"it must return one number per pair, got {counted(n, 'pair')}"
    if callable(getattr(returned, "detach", None)):  # a tensor of torch, which may be on a GPU and have a gradient
        returned = returned.detach().cpu().tolist()
    if isinstance(returned, (str, bytes, Mapping, AbstractSet)) or returned is None or inspect.isawaitable(returned):
        raise EncoderError(f"the cross-encoder returned {shown(returned)}: {wanted}")
    try:
        # Also lists of tensors or of NumPy's scalars.
        values = [value.tolist() if hasattr(value, "tolist") else value for value in returned]
        scores = np.array(values) if values else np.empty(0)
        if scores.dtype.kind not in "fiu":
            raise TypeError(f"values of type {scores.dtype}")
    except (TypeError, ValueError) as error:
        raise EncoderError(f"the cross-encoder returned what cannot be used ({error}): {wanted}") from error
    if scores.shape not in ((n,), (n, 1)):
        raise EncoderError(f"the cross-encoder returned numbers of shape {scores.shape}: {wanted}")
    scores = scores.reshape(n).astype(np.float64)
    if not np.isfinite(scores).all():
        place = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise EncoderError(f"the cross-encoder returned {scores[place]} for pair {place}: scores must be finite")
    return scores
