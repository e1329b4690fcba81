from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from muvera_core import MuveraIndex, StageClock, TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import EncoderError, InvalidInputError
from muvera_core.hits import Hit
from muvera_core.search.cross_encoder import scoring_function

QUESTION = "who got the first nobel prize in physics"
Pairs = list[tuple[str, str]]


class Judge:
    """A cross-encoder that looks its scores up and remembers what it was asked."""

    def __init__(self, score_of: dict[str, float]) -> None:
        self.score_of = score_of
        self.asked: list[Pairs] = []

    def __call__(self, pairs: Pairs) -> list[float]:
        self.asked.append(pairs)
        return [self.score_of[text] for _, text in pairs]

    @property
    def texts(self) -> list[str]:
        return [text for pairs in self.asked for _, text in pairs]


@pytest.fixture(scope="module")
def ranked(nq_index: MuveraIndex) -> list[Hit]:
    """All documents in MaxSim's order."""
    return nq_index.search(QUESTION, 300, exact=True)


@pytest.fixture
def by_maxsim(ranked: list[Hit]) -> Judge:
    return Judge({hit.text or "": hit.score for hit in ranked})


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def test_a_judge_that_scores_as_maxsim_does_gives_its_order(
    nq_index: MuveraIndex, ranked: list[Hit], by_maxsim: Judge
) -> None:
    hits = nq_index.search_with_cross_encoder(QUESTION, by_maxsim, 10, n_calls=30)
    assert ids(hits) == ids(ranked[:10])
    for hit, expected in zip(hits, ranked, strict=False):
        assert hit.judged_score == by_maxsim.score_of[hit.text or ""]
        assert hit.score == pytest.approx(expected.score, abs=1e-4)  # the index's own scores stay what they are
        assert hit.normalized_score == pytest.approx(expected.normalized_score, abs=1e-4)
        assert hit.metadata == expected.metadata


@pytest.mark.parametrize(("n_calls", "batch_size"), [(1, 8), (7, 3), (10, 8), (25, 8), (50, 100), (299, 16)])
def test_no_more_pairs_are_judged_than_were_allowed(
    nq_index: MuveraIndex, by_maxsim: Judge, n_calls: int, batch_size: int
) -> None:
    hits = nq_index.search_with_cross_encoder(QUESTION, by_maxsim, 5, n_calls=n_calls, batch_size=batch_size)
    assert len(hits) == 5
    assert len(by_maxsim.texts) == len(set(by_maxsim.texts)) == n_calls
    assert all(len(pairs) <= batch_size for pairs in by_maxsim.asked)
    assert {question for pairs in by_maxsim.asked for question, _ in pairs} == {QUESTION}


def test_all_are_judged_if_there_are_no_more_than_calls(nq_index: MuveraIndex, ranked: list[Hit]) -> None:
    judge = Judge({hit.text or "": -hit.score for hit in ranked})
    hits = nq_index.search_with_cross_encoder(QUESTION, judge, 300, n_calls=300)
    assert len(judge.texts) == 300
    assert all(hit.judged_score is not None for hit in hits)
    assert [hit.judged_score for hit in hits] == sorted((hit.judged_score or 0 for hit in hits), reverse=True)
    few = Judge(judge.score_of)
    found = nq_index.search_with_cross_encoder(QUESTION, few, 3, n_calls=50, n_candidates=20)
    assert set(few.texts) == {hit.text for hit in nq_index.search(QUESTION, 20, 20)}
    assert found[0].judged_score == max(few.score_of[text] for text in few.texts)


def test_hits_that_were_not_judged_come_last(nq_index: MuveraIndex, by_maxsim: Judge, ranked: list[Hit]) -> None:
    hits = nq_index.search_with_cross_encoder(QUESTION, by_maxsim, 40, n_calls=15)
    assert len(hits) == len({hit.id for hit in hits}) == 40
    assert [hit.judged_score is None for hit in hits] == [False] * 15 + [True] * 25
    assert len(set(ids(hits)) & set(ids(ranked[:40]))) >= 35  # predicted from judgements that follow MaxSim


def test_documents_far_down_in_maxsims_order_are_found(
    nq_index: MuveraIndex, nq_tokens: TokenEmbeddings, ranked: list[Hit]
) -> None:
    contents = np.stack([nq_tokens[i].mean(axis=0) for i in range(300)])
    contents -= contents.mean(axis=0)
    contents /= np.linalg.norm(contents, axis=1, keepdims=True)
    place = {hit.id: i for i, hit in enumerate(nq_index.iterate())}
    texts = {hit.id: hit.text or "" for hit in ranked}
    found = by_rank = 0
    for liked in ranked[:12]:  # the judge wants what resembles one of the best
        likeness = contents @ contents[place[liked.id]]
        judge = Judge({texts[id]: float(likeness[place[id]]) for id in place})
        best = {id for id in place if (likeness > likeness[place[id]]).sum() < 10}
        hits = nq_index.search_with_cross_encoder(QUESTION, judge, 10, n_calls=40)
        found += len(best & set(ids(hits)))
        by_rank += len(best & set(ids(ranked[:40])))
    assert found > 1.4 * by_rank


def test_the_same_search_gives_the_same_hits(nq_index: MuveraIndex, by_maxsim: Judge) -> None:
    again = Judge(by_maxsim.score_of)
    hits = nq_index.search_with_cross_encoder(QUESTION, by_maxsim, 30, n_calls=20)
    assert nq_index.search_with_cross_encoder(QUESTION, again, 30, n_calls=20) == hits
    assert by_maxsim.asked == again.asked


def test_a_judge_without_an_opinion_leaves_maxsims_order(nq_index: MuveraIndex, ranked: list[Hit]) -> None:
    hits = nq_index.search_with_cross_encoder(QUESTION, lambda pairs: [0.0] * len(pairs), 12, n_calls=20)
    assert ids(hits) == ids(ranked[:12])


def test_a_filter_and_ids_restrict_what_is_judged(nq_index: MuveraIndex, by_maxsim: Judge, ranked: list[Hit]) -> None:
    wanted = ids(ranked[100:140])
    hits = nq_index.search_with_cross_encoder(QUESTION, by_maxsim, 40, n_calls=15, ids=wanted)
    assert set(ids(hits)) == set(wanted)
    title = ranked[7].metadata["title"]
    hits = nq_index.search_with_cross_encoder(QUESTION, by_maxsim, 5, filter={"title": title})
    assert {hit.metadata["title"] for hit in hits} == {title}


def test_documents_without_text_are_left_out(encoder: BundledEncoder) -> None:
    judge = Judge({"Owls hunt at night.": 1.0, "Ants live in colonies.": 2.0})
    with MuveraIndex.create(None, encoder) as index:
        assert index.search_with_cross_encoder("owls", judge) == []
        index.add(list(judge.score_of), ids=["owl", "ant"])
        index.add_embeddings([encoder.encode_documents(["Owls hunt."])[0]], ids=["tokens"])
        assert ids(index.search_with_cross_encoder("owls", judge)) == ["ant", "owl"]
        assert [hit.judged_score for hit in index.search_with_cross_encoder("owls", judge)] == [2, 1]


def test_an_empty_question_judges_nothing(nq_index: MuveraIndex, by_maxsim: Judge) -> None:
    assert nq_index.search_with_cross_encoder(" \u200b", by_maxsim) == []
    assert len(nq_index.search_with_cross_encoder("", by_maxsim, 3, ids=["nq-1", "nq-2"])) == 2
    assert by_maxsim.asked == []


def test_every_stage_is_timed(nq_index: MuveraIndex, by_maxsim: Judge) -> None:
    clock = StageClock()
    nq_index.search_with_cross_encoder(QUESTION, by_maxsim, n_calls=20, clock=clock)
    stages = ["encode", "candidates", "rerank", "fetch", "features", "predict", "cross-encoder"]
    assert list(clock.seconds) == stages


# What can be passed as a cross-encoder


def length(pairs: Pairs) -> list[float]:
    return [float(len(text)) for _, text in pairs]


class WithPredict:
    """As of sentence-transformers, whose CrossEncoder can be called like every module, but not with pairs."""

    def predict(self, pairs: Pairs, batch_size: int = 32) -> np.ndarray:
        return np.array(length(pairs), dtype=np.float32)

    def __call__(self, features: dict[str, Any]) -> None:
        raise AssertionError("called as a module")


class WithScore:
    def score(self, text_pairs: Pairs) -> list[float]:
        return length(text_pairs)


@pytest.mark.parametrize(
    "cross_encoder",
    [
        length,
        WithPredict(),
        WithScore(),
        WithScore().score,
        lambda pairs: tuple(length(pairs)),
        lambda pairs: np.array(length(pairs), dtype=np.float16)[:, None],
        lambda pairs: [np.float32(score) for score in length(pairs)],
        lambda pairs: [int(score) for score in length(pairs)],
        lambda pairs: (score for score in length(pairs)),
    ],
    ids=["function", "predict", "score", "method", "tuple", "column", "scalars", "whole numbers", "generator"],
)
def test_all_kinds_of_cross_encoders_are_taken(cross_encoder: Any) -> None:
    scores = scoring_function(cross_encoder)("?", ["one", "three", ""])
    assert scores.dtype == np.float64
    assert scores.tolist() == [3, 5, 0]


def test_a_cross_encoder_of_langchain_is_taken(nq_index: MuveraIndex, ranked: list[Hit]) -> None:
    module = pytest.importorskip("langchain_core.cross_encoders", reason="langchain-core has no cross-encoders")

    class ByLength(module.BaseCrossEncoder):  # type: ignore[misc, name-defined, unused-ignore]
        def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
            return length(text_pairs)

    hits = nq_index.search_with_cross_encoder(QUESTION, ByLength(), 1, n_calls=300)
    assert hits[0].judged_score == max(len(hit.text or "") for hit in ranked)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_are_taken(dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    weight = torch.ones(1, dtype=getattr(torch, dtype), requires_grad=True)

    def score(pairs: Pairs) -> Any:
        return weight * torch.tensor(length(pairs), dtype=getattr(torch, dtype))

    assert scoring_function(score)("?", ["one", "three"]).tolist() == [3, 5]
    assert scoring_function(lambda pairs: list(score(pairs)))("?", ["one", "three"]).tolist() == [3, 5]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda n: [1.0] * (n - 1), r"shape \(9,\): it must return one number per pair, got 10 pairs"),
        (lambda n: [1.0] * (n + 1), r"shape \(11,\)"),
        (lambda n: np.zeros((n, 2)), r"shape \(10, 2\)"),
        (lambda n: 1.0, "cannot be used"),
        (lambda n: [1.0] * (n - 1) + [float("nan")], "returned nan for pair 9: scores must be finite"),
        (lambda n: [float("inf")] + [1.0] * (n - 1), "returned inf for pair 0"),
        (lambda n: ["high"] * n, "cannot be used"),
        (lambda n: ["1.0"] * n, "cannot be used"),
        (lambda n: "high", "returned 'high'"),
        (lambda n: None, "returned None"),
        (lambda n: dict.fromkeys(range(n), 1.0), "must return one number per pair"),
        (lambda n: [None] * n, "cannot be used"),
        (lambda n: [{"score": 1.0}] * n, "cannot be used"),
        (lambda n: [[1.0], [1.0, 2.0]] * (n // 2), "cannot be used"),
    ],
)
def test_a_cross_encoder_that_returns_something_else_is_named(
    nq_index: MuveraIndex, returned: Callable[[int], Any], said: str
) -> None:
    with pytest.raises(EncoderError, match=said):
        nq_index.search_with_cross_encoder(QUESTION, lambda pairs: returned(len(pairs)), n_calls=10, batch_size=10)


def test_what_a_cross_encoder_raises_is_passed_on(nq_index: MuveraIndex) -> None:
    def fails(pairs: Pairs) -> list[float]:
        raise TimeoutError("no answer")

    with pytest.raises(TimeoutError, match="no answer"):
        nq_index.search_with_cross_encoder(QUESTION, fails)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cross_encoder": "ms-marco"},
        {"cross_encoder": None},
        {"cross_encoder": WithPredict},
        {"cross_encoder": 3},
        {"n_calls": 0},
        {"n_calls": 2.5},
        {"n_candidates": 0},
        {"n_candidates": None},
        {"batch_size": 0},
        {"k": 0},
        {"query": None},
        {"filter": {"$bad": 1}},
    ],
    ids=str,
)
def test_bad_arguments_are_refused(nq_index: MuveraIndex, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        nq_index.search_with_cross_encoder(**{"query": QUESTION, "cross_encoder": length, **wrong})
