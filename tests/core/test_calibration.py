"""Scores become probabilities: the map, what it is learned from, and what becomes of it in an index."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_format
import numpy as np
import pytest

from muvera_core import Calibration, MuveraIndex, TokenEmbeddings, check_index, repair_index
from muvera_core.calibration import JudgedRanking, fit_calibration, fitting, measure
from muvera_core.calibration.report import expected_calibration_error
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings
from muvera_core.errors import InvalidInputError, ReadOnlyIndexError, StorageError
from muvera_core.evaluation.collections import BeirCollection
from muvera_core.storage import LearnedSettings
from muvera_core.storage.change import Change
from muvera_core.tuning import Corpus, make_questions

N = 200
KNOWN = Calibration(-12.0, 11.0, 36.0, 12.0, 0.4, 0.045, N, n_judged=3, n_made=300)
OTHER = Calibration(-9.0, 5.0, 20.0, 6.0, 0.3)


def simulated(n: int, seed: int, n_relevant: int = 1) -> list[JudgedRanking]:
    """Rankings of questions whose relevant documents score about .75 per token, and others about .5."""
    rng = np.random.default_rng(seed)
    rankings = []
    for _ in range(n):
        n_tokens = int(rng.integers(6, 20))
        scores = np.concatenate([rng.normal(0.75, 0.06, n_relevant), rng.normal(0.5, 0.06, 40)]) * n_tokens
        order = np.argsort(-scores)
        rankings.append(JudgedRanking(scores[order], order < n_relevant, n_tokens, n_relevant))
    return rankings


def error_on(calibration: Calibration, rankings: list[JudgedRanking]) -> float:
    """The expected calibration error, if half of the questions have no answer."""
    every = rankings[::2] + [ranking.unanswered() for ranking in rankings[1::2]]
    probabilities = [calibration.relevance(r.scores, r.n_query_tokens)[:10] for r in every]
    relevant = np.concatenate([r.relevant[:10] for r in every])
    return expected_calibration_error(np.concatenate(probabilities).astype(np.float64), relevant)


# The map


def test_the_probability_falls_with_the_score_and_stays_within_0_and_1() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 7, 50):
        scores = np.sort(rng.normal(6, 3, n))[::-1]
        relevance = KNOWN.relevance(scores, 10)
        assert relevance.dtype == np.float32
        assert relevance.shape == (n,)
        assert (np.diff(relevance) <= 0).all()
        assert ((relevance >= 0) & (relevance <= 1)).all()
    assert KNOWN.relevance([], 10).shape == (0,)
    assert KNOWN.relevance([1e30, -1e30], 1).tolist() == pytest.approx([1, 0])


def test_the_probability_does_not_depend_on_documents_behind_the_tenth() -> None:
    scores = np.linspace(9, 4, 60)
    assert (KNOWN.relevance(scores, 12)[:10] == KNOWN.relevance(scores[:10], 12)).all()


def test_the_same_score_says_more_if_it_stands_out() -> None:
    alone, in_a_crowd = [8.0] + [5.0] * 9, [8.0] + [7.8] * 9
    assert KNOWN.relevance(alone, 10)[0] > KNOWN.relevance(in_a_crowd, 10)[0] + 0.3


def test_a_copy_of_the_best_document_leaves_it_relevant() -> None:
    once, twice = KNOWN.relevance([8.0] + [5.0] * 9, 10), KNOWN.relevance([8.0, 8.0] + [5.0] * 9, 10)
    assert twice[0] == twice[1] == pytest.approx(once[0], abs=0.01)


def test_with_fewer_than_three_documents_the_typical_lead_stands_in() -> None:
    assert KNOWN.relevance([8.0], 10)[0] == KNOWN.relevance([8.0, 1.0], 10)[0]
    assert KNOWN.relevance([8.0], 10)[0] == pytest.approx(KNOWN.relevance([8.0, 7.0] + [6.4] * 8, 10)[0], abs=1e-6)


def test_scores_of_few_documents_are_compared_with_those_of_as_many_as_usual() -> None:
    """Normally distributed, so that the best of a tenth lead by more than the best of all."""
    rng = np.random.default_rng(0)
    plain, corrected = [], []
    for _ in range(50):
        every = np.sort(rng.normal(0.45, 0.06, N))[::-1]
        some = np.concatenate([[every[0]], np.sort(rng.choice(every[1:], N // 10, replace=False))[::-1]])
        expected = KNOWN.relevance(every * 10, 10)[0]
        plain.append(KNOWN.relevance(some * 10, 10)[0] - expected)
        corrected.append(KNOWN.relevance(some * 10, 10, len(some))[0] - expected)
    assert np.abs(corrected).mean() < np.abs(plain).mean() / 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("similarity", -1.0),
        ("closeness", float("nan")),
        ("lead", "1"),
        ("intercept", float("inf")),
        ("intercept", True),
        ("typical_lead", 1e9),
        ("decay", -0.1),
        ("n_documents", -1),
        ("n_judged", -1),
        ("n_made", 1.5),
    ],
)
def test_impossible_weights_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name):
        Calibration.from_json(KNOWN.as_json() | {name: value})


def test_a_calibration_survives_json() -> None:
    assert Calibration.from_json(KNOWN.as_json()) == KNOWN
    damaged: Any
    for damaged in ({}, [], None, {**KNOWN.as_json(), "more": 1}):
        with pytest.raises(InvalidInputError, match="damaged"):
            Calibration.from_json(damaged)


# Fitting


def test_a_known_map_is_recovered() -> None:
    rng = np.random.default_rng(0)
    x, slopes, intercept = rng.normal(size=(20_000, 3)), np.array([2.0, 0.5, 1.0]), -1.0
    y = rng.random(len(x)) < 1 / (1 + np.exp(-(x @ slopes + intercept)))
    found, at_0 = fitting._rising_logistic(x, y.astype(np.float64), np.ones(len(x)), 1.0)
    assert found == pytest.approx(slopes, abs=0.1)
    assert at_0 == pytest.approx(intercept, abs=0.1)


def test_a_feature_that_would_fall_is_left_out_and_the_others_fit_again() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5_000, 3))
    y = (rng.random(len(x)) < 1 / (1 + np.exp(-(2 * x[:, 0] - 3 * x[:, 2])))).astype(np.float64)
    found, _ = fitting._rising_logistic(x, y, np.ones(len(x)), 1.0)
    assert found[2] == 0
    without, _ = fitting._rising_logistic(x[:, :2], y, np.ones(len(x)), 1.0)
    assert found[:2] == pytest.approx(without, abs=1e-6)


@pytest.mark.parametrize("n_relevant", [1, 4])
def test_probabilities_agree_with_shares_on_other_questions(n_relevant: int) -> None:
    fitted = fit_calibration(simulated(300, 0, n_relevant))
    assert error_on(fitted, simulated(400, 1, n_relevant)) < 0.02
    assert error_on(KNOWN, simulated(400, 1, n_relevant)) > error_on(fitted, simulated(400, 1, n_relevant))


@pytest.mark.parametrize("n", [1, 5, 50])
def test_few_questions_give_a_usable_map(n: int) -> None:
    assert error_on(fit_calibration(simulated(n, 0)), simulated(400, 1)) < 0.06


def test_questions_without_relevant_documents_alone_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="got 0 relevant ones and 20 others"):
        fit_calibration([simulated(1, 0)[0].unanswered()])
    with pytest.raises(InvalidInputError, match="0 others"):
        fit_calibration([JudgedRanking(np.array([5.0]), np.array([True]), 8, 1)])


def test_the_report_is_of_questions_that_were_held_out() -> None:
    rankings = simulated(60, 0)
    report = measure("late", rankings, [])
    assert (report.mode, report.n_judged, report.n_made) == ("late", 60, 0)
    assert report.calibration == fit_calibration(rankings, n_judged=60)
    assert report.expected_calibration_error < 0.03
    assert min(report.precision, report.recall, report.refused) > 0.85
    assert report.refused_95 <= report.refused or report.min_score_95 > 0.5
    assert report.as_json()["calibration"] == report.calibration.as_json()
    assert "60 judged questions" in str(report)
    made = measure("late", rankings[:1], rankings[1:])
    assert (made.n_judged, made.n_made) == (1, 59)
    assert "1 judged question," in str(made)


def test_the_error_is_0_for_right_probabilities_and_large_for_wrong_ones() -> None:
    relevant = np.array([True, False] * 50)
    assert expected_calibration_error(np.full(100, 0.5), relevant) == 0
    assert expected_calibration_error(np.full(100, 1.0), relevant) == 0.5
    assert expected_calibration_error(np.empty(0), np.empty(0, dtype=np.bool_)) == 0


# In an index


@pytest.fixture
def index(encoder: BundledEncoder, nq: BeirCollection, nq_tokens: TokenEmbeddings) -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None, encoder) as index:
        fill(index, nq, nq_tokens)
        yield index


def fill(index: MuveraIndex, nq: BeirCollection, nq_tokens: TokenEmbeddings, n: int = N) -> None:
    index.add_embeddings([nq_tokens[i] for i in range(n)], ids=nq.ids[:n], texts=nq.texts[:n])


@pytest.fixture
def folder(tmp_path: Path, encoder: BundledEncoder, nq: BeirCollection, nq_tokens: TokenEmbeddings) -> Path:
    with MuveraIndex.create(tmp_path / "index", encoder) as index:
        fill(index, nq, nq_tokens, 40)
    return tmp_path / "index"


@pytest.fixture
def question(nq: BeirCollection) -> str:
    return next(nq.queries[q] for q, relevant in nq.relevance.items() if set(relevant) <= set(nq.ids[:40]))


def learn(index: MuveraIndex, calibration: Calibration = KNOWN) -> None:
    with index.engine.collection.locks.writing:
        index.engine.writer.learn(LearnedSettings({"late": calibration}))


def relevance(index: MuveraIndex, question: str, **options: Any) -> dict[str, float]:
    return {hit.id: hit.relevance for hit in index.search(question, **options)}


def test_without_a_calibration_relevance_is_the_normalized_score(index: MuveraIndex, question: str) -> None:
    assert index.calibration == {}
    for hit in index.search(question):
        assert hit.relevance == hit.normalized_score
    assert index.remove_calibration() is False


def test_an_index_is_calibrated_without_a_judged_question(
    index: MuveraIndex, nq: BeirCollection, encoder: BundledEncoder
) -> None:
    """Judged on questions, half of which have no answer among its documents."""
    report = index.calibrate(n_queries=100)
    assert (report.n_judged, report.n_made) == (0, 100)
    assert index.calibration == {"late": report.calibration}
    assert report.expected_calibration_error < 0.03
    held = set(nq.ids[:N])
    answered = [(nq.queries[q], set(r)) for q, r in nq.relevance.items() if set(r) <= held][:60]
    unanswered = [nq.queries[q] for q, r in nq.relevance.items() if not set(r) & set(nq.ids[:600])][:60]
    found = index.search_batch([text for text, _ in answered], min_score=0.5)
    assert sum(bool({hit.id for hit in hits} & ids) for hits, (_, ids) in zip(found, answered, strict=True)) >= 50
    assert sum(len(hits) for hits in found) <= 75
    assert sum(not hits for hits in index.search_batch(unanswered, min_score=0.5)) >= 50


def test_a_question_without_an_answer_gets_nothing(index: MuveraIndex) -> None:
    index.calibrate(n_queries=100)
    assert index.search("How do I reset the password of my router?", min_score=0.5) == []
    assert len(index.search("How do I reset the password of my router?")) == 10


@pytest.mark.parametrize("n", [1, 5, 40])
def test_judged_questions_correct_the_map(index: MuveraIndex, nq: BeirCollection, n: int) -> None:
    answered = [(nq.queries[q], set(r)) for q, r in nq.relevance.items() if set(r) <= set(nq.ids[:N])][:n]
    queries, relevant = [text for text, _ in answered], [ids for _, ids in answered]
    report = index.calibrate(queries, relevant, n_queries=60)
    assert (report.n_judged, report.n_made) == (n, 60)
    assert report.calibration != index.calibrate(n_queries=60).calibration
    graded = index.calibrate(queries, [{nq.ids[N - 1]: 0, **dict.fromkeys(ids, 2)} for ids in relevant], n_queries=60)
    assert graded == report


def test_relevance_does_not_depend_on_the_way_of_searching(index: MuveraIndex, question: str) -> None:
    learn(index)
    expected = relevance(index, question, k=20)
    assert len(set(expected.values())) > 5
    tokens = index.encoder.encode_queries([question])[0]
    for hits in (
        index.search(question, 1),
        index.search(question, 3, n_candidates=3),
        index.search(question, 5, exact=True),
        index.search_batch([question, "ants"])[0],
        index.search_embeddings(tokens, 2),
        index.search_diverse(question, 4, fetch_k=20),
    ):
        assert hits
        for hit in hits:
            assert hit.relevance == pytest.approx(expected[hit.id], abs=0.05)
            assert hit.normalized_score == pytest.approx(hit.score / len(tokens), abs=1e-5)


def test_a_filter_changes_relevance_little_however_few_documents_it_admits(
    index: MuveraIndex, question: str, nq: BeirCollection
) -> None:
    learn(index)
    best, expected = next(iter(relevance(index, question).items()))
    for n in (0, 1, 2, 9, 60):
        admitted = [best, *[id for id in nq.ids[:N] if id != best][:n]]
        assert relevance(index, question, ids=admitted)[best] == pytest.approx(expected, abs=0.1)


def test_the_best_of_another_search_are_reranked_with_the_same_relevance(index: MuveraIndex, question: str) -> None:
    learn(index)
    found = relevance(index, question, k=20)
    assert {hit.id: hit.relevance for hit in index.rerank(question, list(found))} == pytest.approx(found, abs=1e-5)
    assert index.rerank(question, list(found), min_score=1.0) == []


def test_min_score_compares_with_the_probability(index: MuveraIndex, question: str) -> None:
    learn(index)
    found = relevance(index, question)
    best, second, *_ = found.values()
    between = (best + second) / 2
    assert list(relevance(index, question, min_score=between)) == list(found)[:1]
    learn(index, Calibration(-50.0, 1.0, 1.0, 1.0, 0.1))
    assert index.search(question, min_score=0.01) == []


def test_hits_that_are_fused_by_ranks_keep_the_normalized_score(index: MuveraIndex, question: str) -> None:
    learn(index)
    by_scores, by_ranks = (index.search(question, mode="hybrid", fusion=fusion) for fusion in ("scores", "ranks"))
    assert all(hit.relevance != hit.normalized_score for hit in by_scores)
    assert [hit.relevance for hit in by_ranks] == [hit.normalized_score for hit in by_ranks]


def test_searches_without_tokens_keep_the_normalized_score(index: MuveraIndex, nq: BeirCollection) -> None:
    learn(index)
    (blank,) = index.search(" ", 1, ids=[nq.ids[0]])
    assert (blank.score, blank.relevance) == (0, 0)
    vector = index.engine.collection.stage_one.candidates.vectors(np.array([1]))[0]
    for hit in index.search_by_vector(vector, 3):
        assert hit.relevance == hit.normalized_score


def test_token_vectors_without_an_encoder_are_calibrated_by_runs_of_tokens(nq_tokens: TokenEmbeddings) -> None:
    with MuveraIndex.create(None, PrecomputedEmbeddings(nq_tokens.dimension, "given")) as index:
        index.add_embeddings([nq_tokens[i] for i in range(100)])
        report = index.calibrate(n_queries=60)
        assert report.expected_calibration_error < 0.05
        assert report.calibration.similarity > 0


def test_copies_of_a_document_answer_what_is_made_of_it(nq: BeirCollection, encoder: BundledEncoder) -> None:
    texts = [text for text in nq.texts[:15] for _ in range(2)]
    with MuveraIndex.create(None, encoder) as index:
        index.add(texts)
        index.calibrate(n_queries=40)
        best, copy, *_ = index.search(nq.texts[3].split(".")[0])
        assert best.relevance == pytest.approx(copy.relevance, abs=0.05)
        assert copy.relevance > 0.5


def test_parts_of_texts_are_made_of_documents_with_a_text_only(index: MuveraIndex, nq_tokens: TokenEmbeddings) -> None:
    index.add_embeddings([nq_tokens[i] for i in range(N, N + 50)], ids=[f"bare {i}" for i in range(50)])
    corpus = Corpus(index.engine.collection, index.engine.collection.snapshot(), index.encoder)
    questions = make_questions(corpus, 60, 0)
    assert 0 < len(questions) <= 60
    for each in questions:
        assert each.words
        (document,) = index.get(each.id)
        assert document.text is not None
        assert each.words in " ".join(document.text.split())


# What becomes of it


def test_a_calibration_is_kept_copied_and_removed(
    folder: Path, tmp_path: Path, question: str, encoder: BundledEncoder
) -> None:
    with MuveraIndex.open(folder, encoder) as index:
        before = relevance(index, question)
        report = index.calibrate(n_queries=20)
        calibrated = relevance(index, question)
        assert calibrated != before
    with MuveraIndex.open(folder, encoder) as index:
        assert index.calibration == {"late": report.calibration}
        assert relevance(index, question) == calibrated
        index.copy_to(tmp_path / "copy")
        index.clear()
        assert index.calibration == {"late": report.calibration}
        assert index.remove_calibration() is True
        assert index.calibration == {}
    with MuveraIndex.open(folder, encoder) as index:
        assert index.calibration == {}
    with MuveraIndex.open(tmp_path / "copy", encoder, read_only=True) as copy:
        assert relevance(copy, question) == calibrated
        with pytest.raises(ReadOnlyIndexError):
            copy.calibrate(n_queries=20)
        with pytest.raises(ReadOnlyIndexError):
            copy.remove_calibration()


def test_a_reader_takes_in_a_calibration(folder: Path, question: str, encoder: BundledEncoder) -> None:
    with (
        MuveraIndex.open(folder, encoder) as index,
        MuveraIndex.open(folder, encoder, read_only=True, refresh_interval=None) as reader,
        MuveraIndex.open(folder, encoder, read_only=True, refresh_interval=0) as eager,
    ):
        before = relevance(reader, question)
        learn(index)
        assert relevance(reader, question) == before
        assert relevance(eager, question) == relevance(index, question) != before
        assert reader.refresh() is True
        assert reader.calibration == {"late": KNOWN}
        assert relevance(reader, question) == relevance(index, question)
        index.remove_calibration()
        reader.refresh()
        assert relevance(reader, question) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError], ids=["Ctrl-C", "full disk"])
@pytest.mark.parametrize("is_late", [False, True], ids=["before the commit", "after the commit"])
def test_an_interrupted_calibrate_leaves_the_old_state_or_the_new_one(
    folder: Path, encoder: BundledEncoder, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], is_late: bool
) -> None:
    commit = Change.commit

    def interrupted(change: Change) -> Any:
        if is_late:
            commit(change)
        raise error

    with MuveraIndex.open(folder, encoder) as index:
        learn(index)
        with monkeypatch.context() as patch:
            patch.setattr(Change, "commit", interrupted)
            with pytest.raises((error, StorageError)):
                index.calibrate(n_queries=20)
        after = dict(index.calibration)
        assert (after == {"late": KNOWN}) is not is_late
        index.add(["It is still written to."], ids=["new"])
    with MuveraIndex.open(folder, encoder, read_only=True, refresh_interval=None) as reader:
        assert reader.calibration == after
        assert "new" in reader
    assert check_index(folder).ok


@pytest.mark.parametrize(
    "value",
    ["{}", '{"calibrations": {"late": {}}}', "nonsense", 3, b"\xff", '{"calibrations": [], "lexical_weight": 2}'],
)
def test_a_damaged_calibration_is_left_out_and_repaired(
    folder: Path, question: str, encoder: BundledEncoder, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder_format.forge_state(folder, {"learned": value})
    with (
        caplog.at_level(logging.WARNING),
        MuveraIndex.open(folder, encoder, read_only=True, refresh_interval=None) as index,
    ):
        assert index.calibration == {}
        assert all(hit.relevance == hit.normalized_score for hit in index.search(question))
    assert "calibrated again" in caplog.text
    report = check_index(folder)
    assert [problem.derived for problem in report.problems] == [True]
    assert report.n_documents == 40
    assert repair_index(folder, encoder).n_documents == 40
    assert check_index(folder).ok


def test_a_repair_keeps_an_intact_calibration(folder: Path, encoder: BundledEncoder) -> None:
    with MuveraIndex.open(folder, encoder) as index:
        learn(index)
    (tokens,) = folder.glob("tokens-*.bin")
    with tokens.open("r+b") as file:
        file.seek(100)
        file.write(b"\0" * 64)
    assert not check_index(folder).ok
    repair_index(folder, encoder)
    with MuveraIndex.open(folder, encoder) as index:
        assert index.calibration == {"late": KNOWN}


def test_other_modes_and_a_lexical_weight_are_stored_beside_it() -> None:
    learned = LearnedSettings({"late": KNOWN}, 0.25).with_calibration("hybrid", OTHER)
    assert LearnedSettings.from_text(learned.as_text()) == learned
    assert learned.calibrations == {"late": KNOWN, "hybrid": OTHER}
    assert LearnedSettings.from_text(None) == LearnedSettings()
    for invalid in ({"lexical_weight": 2}, {"calibrations": {"late": 1}}):
        with pytest.raises(InvalidInputError):
            LearnedSettings(**invalid)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": ["a"]}, "calibrate needs relevant with queries"),
        ({"relevant": [["a"]]}, "calibrate needs queries with relevant"),
        ({"queries": [], "relevant": []}, "queries is empty"),
        ({"queries": ["a", "b"], "relevant": [["x"]]}, "relevant has length 1, expected 2"),
        ({"queries": ["a"], "relevant": ["x"]}, "collection of ids"),
        ({"queries": ["a"], "relevant": [["unknown"]]}, "no relevant document"),
        ({"n_queries": 19}, "n_queries must be at least 20"),
        ({"n_queries": 20.5}, "n_queries must be a whole number"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(index: MuveraIndex, arguments: Any, message: str) -> None:
    learn(index)
    with pytest.raises(InvalidInputError, match=message):
        index.calibrate(**arguments)
    assert index.calibration == {"late": KNOWN}


def test_too_few_documents_are_refused(nq_tokens: TokenEmbeddings, encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add_embeddings([nq_tokens[i] for i in range(9)])
        with pytest.raises(InvalidInputError, match="at least 10 documents, got 9"):
            index.calibrate()
        index.add_embeddings([nq_tokens[9]])
        assert index.calibrate(n_queries=20).n_made == 20
