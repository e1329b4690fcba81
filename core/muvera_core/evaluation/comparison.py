"""Tells whether two evaluations differ by more than the choice of questions explains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.errors import InvalidInputError
from muvera_core.evaluation.report import Evaluation
from muvera_core.validation import counted, require_choice, require_count

# Differences that are drawn at a time, which bounds the memory.
_DRAWN_TOGETHER = 1_000_000

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The difference of two evaluations in one measure, over the same questions.

    Attributes:
        measure: name of the measure, such as "ndcg".
        k: number of hits that it looks at.
        n_questions: number of questions.
        means: the measure's mean in either evaluation.
        difference: the second mean less the first: above 0 if the second is better.
        interval: 95 % interval of the difference over other questions of the same kind.
        p_value: how probable it is that a difference of this size, in either direction, comes from the choice of
            questions alone.
        n_better: number of questions for which the second is better.
        n_worse: number of questions for which the second is worse.
    """

    measure: str
    k: int
    n_questions: int
    means: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    p_value: float
    n_better: int
    n_worse: int

    def __str__(self) -> str:
        (first, second), (low, high) = self.means, self.interval
        return (
            f"{self.measure}@{self.k}: {first:.4f} → {second:.4f}, difference {self.difference:+.4f} "
            f"(95 %: {low:+.4f} to {high:+.4f}), p = {self.p_value:.4f}; "
            f"better for {self.n_better} of {counted(self.n_questions, 'question')}, worse for {self.n_worse}"
        )


def compare(a: Evaluation, b: Evaluation, measure: str = "ndcg", n_samples: int = 10_000, seed: int = 0) -> Comparison:
    """The difference between two evaluations of the same questions, and whether it is more than chance.

    Questions are drawn anew, with replacement, ``n_samples`` times. The interval is Efron's percentile interval of the
    mean difference. The p-value is that of the paired bootstrap test of Sakai, "Evaluating evaluation metrics based on
    the bootstrap", SIGIR 2006, section 3.1, with the studentized mean; it is at least ``1 / (n_samples + 1)``. Both say
    too much if there are fewer than some 30 questions.

    Args:
        a: the first evaluation.
        b: the second one, of the same questions in the same order, with the same number of hits.
        measure: what to compare: "fidelity", or with labels "ndcg", "mrr", "hit_rate", "precision", "recall" or "map".
        n_samples: number of times that questions are drawn.
        seed: the same seed gives the same result.

    Raises:
        InvalidInputError: the evaluations differ in their questions or in ``k``, or have not measured this.
    """
    for name, one in (("a", a), ("b", b)):
        if not isinstance(one, Evaluation):
            raise InvalidInputError(f"{name} must be an Evaluation, got {type(one).__name__}")
    n_samples, seed = require_count("n_samples", n_samples), require_count("seed", seed, 0)
    if a.k != b.k:
        raise InvalidInputError(f"the evaluations look at {a.k} and {b.k} hits: evaluate both with the same k")
    if [each.question for each in a.by_question] != [each.question for each in b.by_question]:
        raise InvalidInputError(
            f"the evaluations are of different questions ({len(a.by_question)} and {len(b.by_question)} of them): "
            "evaluate both with the same list"
        )
    if len(a.by_question) < 2:
        raise InvalidInputError(f"got {counted(len(a.by_question), 'question')}, expected at least 2 to compare")
    values = np.array([_values(one, measure) for one in (a, b)])
    differences = values[1] - values[0]
    means, p_value = _bootstrap(differences, n_samples, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    first, second = values.mean(axis=1).tolist()
    return Comparison(
        measure=measure,
        k=a.k,
        n_questions=len(differences),
        means=(first, second),
        difference=float(differences.mean()),
        interval=(float(low), float(high)),
        p_value=p_value,
        n_better=int((differences > 0).sum()),
        n_worse=int((differences < 0).sum()),
    )


def _values(evaluation: Evaluation, measure: Any) -> list[float]:
    """The measure's value for each question."""
    measure = require_choice("measure", measure, list(evaluation.by_question[0].measures))
    return [each.measures[measure] for each in evaluation.by_question]


def _bootstrap(differences: _Floats, n_samples: int, seed: int) -> tuple[_Floats, float]:
    """The mean of each sample of the differences, and the p-value of their mean."""
    if not differences.any():
        return np.zeros(n_samples), 1.0
    observed = abs(_studentized(differences[None])[0])
    means, n_as_far = [], 0
    for drawn in _samples(differences, n_samples, seed):
        means.append(drawn.mean(axis=1))
        # Under the hypothesis that there is no difference, the samples' mean is 0.
        n_as_far += int((np.abs(_studentized(drawn - differences.mean())) >= observed).sum())
    return np.concatenate(means), (n_as_far + 1) / (n_samples + 1)


def _samples(differences: _Floats, n_samples: int, seed: int) -> Iterator[_Floats]:
    rng, n = np.random.default_rng(seed), len(differences)
    together = max(1, _DRAWN_TOGETHER // n)
    for start in range(0, n_samples, together):
        yield differences[rng.integers(n, size=(min(together, n_samples - start), n))]


def _studentized(samples: _Floats) -> _Floats:
    """The mean of each row in units of its standard error. Infinite if all values of a row are equal, and not 0."""
    means, errors = samples.mean(axis=1), samples.std(axis=1, ddof=1) / np.sqrt(samples.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled: _Floats = np.where(means == 0, 0.0, means / errors)
    return scaled
