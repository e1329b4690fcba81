from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from muvera_core import Evaluation, MuveraIndex
from muvera_core.errors import InvalidInputError
from muvera_core.evaluation import Comparison, QuestionResult, compare


def evaluation(values: Sequence[float], k: int = 10, measure: str = "ndcg") -> Evaluation:
    """An evaluation whose questions have these values."""
    results = [QuestionResult(f"question {i}", (), {measure: value}) for i, value in enumerate(values)]
    return Evaluation(
        k=k,
        n_queries=len(values),
        n_documents=1,
        n_candidates=1,
        fidelity=1,
        ndcg=None,
        mrr=None,
        hit_rate=None,
        precision=None,
        recall=None,
        map=None,
        milliseconds={},
        n_bytes={},
        curve=(),
        by_question=tuple(results),
    )


def compared(differences: Sequence[float], **options: Any) -> Comparison:
    before = np.linspace(0.2, 0.8, len(differences))
    return compare(evaluation(before.tolist()), evaluation((before + differences).tolist()), **options)


def test_the_difference_is_that_of_the_means() -> None:
    found = compare(evaluation([0.5, 0.25, 0.0]), evaluation([0.5, 0.75, 0.25]))
    assert found.means == (0.25, 0.5)
    assert found.difference == 0.25
    assert (found.n_better, found.n_worse, found.n_questions, found.k, found.measure) == (2, 0, 3, 10, "ndcg")
    assert found.interval[0] <= 0.25 <= found.interval[1]


def test_the_interval_and_the_p_value_are_those_of_students_test_if_differences_are_normal() -> None:
    rng = np.random.default_rng(3)
    for shift in (0, 0.02, 0.05):
        differences = rng.normal(shift, 0.2, 200)
        found = compared(differences.tolist())
        error = differences.std(ddof=1) / np.sqrt(200)
        t = abs(differences.mean()) / error
        assert found.interval == pytest.approx(
            (differences.mean() - 1.96 * error, differences.mean() + 1.96 * error), abs=0.12 * error
        )
        drawn = np.abs(np.random.default_rng(0).standard_t(199, 100_000))
        assert found.p_value == pytest.approx((drawn >= t).mean(), abs=0.02)


def test_without_a_real_difference_few_comparisons_find_one() -> None:
    rng = np.random.default_rng(11)
    p_values = [compared(rng.normal(0, 0.3, 40).tolist(), n_samples=500).p_value for _ in range(300)]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09


def test_a_few_changed_questions_among_many_are_no_evidence() -> None:
    few = compared([0.5, 0.5] + [0.0] * 298)
    assert few.p_value > 0.1
    assert few.interval[0] == 0
    many = compared([0.5] * 20 + [0.0] * 280)
    assert many.p_value < 0.001
    assert many.interval[0] > 0


def test_equal_evaluations_do_not_differ() -> None:
    found = compared([0.0] * 5)
    assert (found.difference, found.interval, found.p_value) == (0, (0, 0), 1)


def test_the_order_of_the_two_decides_the_sign_only() -> None:
    a, b = evaluation([0.1, 0.5, 0.9, 0.3]), evaluation([0.3, 0.4, 1.0, 0.6])
    there, back = compare(a, b), compare(b, a)
    assert there.difference == -back.difference
    assert there.p_value == back.p_value
    assert (there.n_better, there.n_worse) == (back.n_worse, back.n_better)


def test_the_seed_decides_what_is_drawn() -> None:
    rng = np.random.default_rng(5)
    differences = rng.normal(0.02, 0.2, 60).tolist()
    assert compared(differences) == compared(differences)
    assert compared(differences, seed=1).interval != compared(differences).interval
    assert compared(differences, n_samples=1).p_value in (0.5, 1)


def test_many_questions_are_drawn_in_parts() -> None:
    differences = np.random.default_rng(2).normal(0.01, 0.1, 6000)
    found = compared(differences.tolist(), n_samples=400)
    assert found.interval[0] < differences.mean() < found.interval[1]


@pytest.mark.parametrize(
    ("b", "options", "said"),
    [
        (evaluation([0.5, 0.5], k=5), {}, "10 and 5 hits"),
        (evaluation([0.5, 0.5, 0.5]), {}, r"different questions \(2 and 3"),
        (replace(evaluation([0.5, 0.5]), by_question=evaluation([0.5, 0.5]).by_question[::-1]), {}, "different"),
        (evaluation([0.5, 0.5]), {"measure": "mrr"}, "measure must be one of 'ndcg', got 'mrr'"),
        (evaluation([0.5, 0.5], measure="mrr"), {}, "measure must be one of 'mrr'"),
        (evaluation([0.5, 0.5]), {"measure": None}, "measure must be"),
        (evaluation([0.5, 0.5]), {"n_samples": 0}, "n_samples must be at least 1"),
        (evaluation([0.5, 0.5]), {"seed": -1}, "seed must be at least 0"),
        (0.5, {}, "b must be an Evaluation, got float"),
    ],
)
def test_what_cannot_be_compared_is_refused(b: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        compare(evaluation([0.5, 0.75]), b, **options)


def test_one_question_cannot_be_compared() -> None:
    with pytest.raises(InvalidInputError, match="got 1 question, expected at least 2"):
        compare(evaluation([0.5]), evaluation([0.75]))


def test_two_settings_of_an_index_are_compared(nq_index: MuveraIndex, nq_questions: dict[str, str]) -> None:
    queries = list(nq_questions.values())[:30]
    thirds = [[nq_index.search(query, 3, exact=True)[2].id] for query in queries]  # few candidates miss some of them
    few, many = (nq_index.evaluate(queries, thirds, k=3, n_candidates=n) for n in (3, 60))
    for measure in ("fidelity", "ndcg", "hit_rate", "precision", "recall", "map"):
        found = compare(few, many, measure)
        assert found.difference > 0
        assert found.n_better > found.n_worse
    text = str(compare(few, many, "fidelity"))
    assert text.startswith("fidelity@3: 0.")
    assert "of 30 questions" in text
