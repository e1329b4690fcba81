from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from muvera_core import Evaluation, MuveraIndex
from muvera_core.errors import InvalidInputError, MissingExtraError
from muvera_core.evaluation.collections import read_beir, read_queries
from muvera_core.evaluation.measures import mrr_at_k, ndcg_at_k, recall_at_k
from muvera_core.evaluation.report import CurvePoint

NQ = Path(__file__).parents[2] / "examples" / "data" / "nq-gold"


def test_recall_counts_what_was_expected() -> None:
    assert recall_at_k(["a", "b", "c"], {"a", "c", "x", "y"}) == 0.5
    assert recall_at_k(["a", "b", "c"], {"c"}, k=2) == 0
    assert recall_at_k([], set()) == 1


def test_ndcg_discounts_by_rank() -> None:
    assert ndcg_at_k(["a"], {"a": 1}) == 1
    assert ndcg_at_k(["x", "a"], {"a": 1}) == pytest.approx(1 / math.log2(3))
    assert ndcg_at_k(["b", "a"], {"a": 2, "b": 1}) == pytest.approx((1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3)))
    assert ndcg_at_k(["x"] * 10 + ["a"], {"a": 1}) == 0
    assert ndcg_at_k(["a"], {}) == 0


def test_mrr_is_one_over_the_rank_of_the_first_relevant_id() -> None:
    assert mrr_at_k(["a"], {"a": 1}) == 1
    assert mrr_at_k(["x", "y", "a", "b"], {"a": 1, "b": 3}) == pytest.approx(1 / 3)
    assert mrr_at_k(["x", "a"], {"a": 0.5}, k=1) == 0
    assert mrr_at_k(["a", "b"], {"a": 0, "b": 2}) == 0.5
    assert mrr_at_k([], {"a": 1}) == mrr_at_k(["a"], {}) == 0


def test_a_collection_is_read_in_beirs_format() -> None:
    collection = read_beir(NQ)
    assert len(collection.ids) == len(set(collection.ids)) == len(collection.texts) == 2588
    assert len(collection.queries) == 2655
    assert collection.texts[1].startswith("Deadpool 2 Deadpool 2 is scheduled")
    assert collection.relevance["q1"] == {"nq-1": 1.0}


def test_plain_files_are_read_and_lines_are_checked(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": 1, "text": "one"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "?"}\n{"_id": "unjudged", "text": "?"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\nq\t2\t0\n")
    collection = read_beir(tmp_path)
    assert (collection.ids, collection.texts, collection.queries) == (["1"], ["one"], {"q": "?"})
    assert collection.relevance == {"q": {"1": 1.0}}
    (tmp_path / "corpus.jsonl").write_text("{\n")
    with pytest.raises(InvalidInputError, match="line 1 is not JSON"):
        read_beir(tmp_path)
    (tmp_path / "corpus.jsonl").unlink()
    with pytest.raises(InvalidInputError, match=r"neither corpus\.jsonl nor"):
        read_beir(tmp_path)


# Evaluation of an index


@pytest.fixture(scope="module")
def asked(nq_questions: dict[str, str]) -> dict[str, str]:
    return dict(list(nq_questions.items())[:12])


@pytest.fixture(scope="module")
def relevant(nq_index: MuveraIndex, asked: dict[str, str]) -> list[dict[str, float]]:
    """Documents that exact MaxSim ranks low. Stage one misses some of them."""
    ranked = [[hit.id for hit in nq_index.search(query, 5, exact=True)] for query in asked.values()]
    return [{ids[3]: 2.0, ids[4]: 1.0} for ids in ranked]


@pytest.fixture(scope="module")
def evaluation(nq_index: MuveraIndex, asked: dict[str, str], relevant: list[dict[str, float]]) -> Evaluation:
    return nq_index.evaluate(list(asked.values()), relevant, k=5, n_candidates=8)


def test_measures_equal_those_computed_by_hand(
    evaluation: Evaluation, nq_index: MuveraIndex, asked: dict[str, str], relevant: list[dict[str, float]]
) -> None:
    recalls, measures = [], []
    for query, grades in zip(asked.values(), relevant, strict=True):
        found = [hit.id for hit in nq_index.search(query, 5, n_candidates=8)]
        exact = [hit.id for hit in nq_index.search(query, 5, exact=True)]
        recalls.append(len(set(found) & set(exact)) / 5)
        for ids in (found, exact):
            first = next((rank for rank, one in enumerate(ids, 1) if one in grades), None)
            measures.append((ndcg_at_k(ids, grades, 5), 1 / first if first else 0))
    assert 0 < evaluation.recall < 1
    assert evaluation.recall == pytest.approx(sum(recalls) / 12)
    assert evaluation.ndcg is not None
    assert evaluation.mrr is not None
    for measured, of in ((evaluation.ndcg, 0), (evaluation.mrr, 1)):
        assert measured[0] == pytest.approx(sum(measure[of] for measure in measures[::2]) / 12)
        assert measured[1] == pytest.approx(sum(measure[of] for measure in measures[1::2]) / 12)
        assert measured[0] != measured[1]
    assert (evaluation.k, evaluation.n_queries, evaluation.n_documents, evaluation.n_candidates) == (5, 12, 300, 8)


def test_the_curve_goes_from_k_to_four_times_the_candidates(evaluation: Evaluation) -> None:
    assert [point.n_candidates for point in evaluation.curve] == [5, 8, 16, 32]
    recalls = [point.recall for point in evaluation.curve]
    assert recalls == sorted(recalls)
    assert recalls[1] == evaluation.recall
    assert all(point.milliseconds > 0 for point in evaluation.curve)


def test_every_stage_is_timed_and_every_part_is_weighed(evaluation: Evaluation, nq_index: MuveraIndex) -> None:
    assert list(evaluation.milliseconds) == ["encode", "candidates", "rerank", "fetch", "total"]
    assert all(0 < median <= slow for median, slow in evaluation.milliseconds.values())
    medians = {name: median for name, (median, _) in evaluation.milliseconds.items()}
    assert max(medians, key=lambda name: medians[name]) == "total"
    assert evaluation.n_bytes == nq_index.sizes()
    assert set(evaluation.n_bytes) == {"stage one in memory", "directory in memory"}
    assert evaluation.n_bytes["stage one in memory"] > 300 * 4 * 100


def test_without_judgements_only_recall_is_measured(nq_index: MuveraIndex, asked: dict[str, str]) -> None:
    found = nq_index.evaluate(list(asked.values())[:2])
    assert (found.ndcg, found.mrr) == (None, None)
    assert found.n_candidates == nq_index.default_candidates() == 400
    assert found.recall == 1  # of 300 documents
    assert [point.n_candidates for point in found.curve] == [50, 100, 200, 300]
    assert "nDCG" not in str(found)


def test_ids_of_relevant_documents_count_as_grade_one(nq_index: MuveraIndex, asked: dict[str, str]) -> None:
    queries = list(asked.values())[:4]
    as_ids = nq_index.evaluate(queries, [{id} for id in list(asked)[:4]], n_candidates=3)
    as_grades = nq_index.evaluate(queries, [{id: 1} for id in list(asked)[:4]], n_candidates=3)
    assert (as_ids.ndcg, as_ids.mrr) == (as_grades.ndcg, as_grades.mrr)
    assert as_ids.n_candidates == as_ids.k == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"queries": []},
        {"queries": "one"},
        {"queries": ["a query", ""]},
        {"relevant": []},
        {"relevant": [["nq-1"], ["nq-2"]]},
        {"relevant": ["nq-1"]},
        {"relevant": "nq-1"},
        {"k": 0},
        {"n_candidates": 0},
    ],
    ids=str,
)
def test_bad_arguments_are_refused(nq_index: MuveraIndex, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        nq_index.evaluate(**{"queries": ["a query"], **wrong})


def test_relevant_ids_are_given_per_query(nq_index: MuveraIndex) -> None:
    with pytest.raises(InvalidInputError, match="relevant has length 2, expected 1: give one per query"):
        nq_index.evaluate(["a query"], [["nq-1"], ["nq-2"]])


def test_an_empty_index_is_not_evaluated() -> None:
    with MuveraIndex.create(None) as index, pytest.raises(InvalidInputError, match="one document, got 1 and 0"):
        index.evaluate(["a query"])


SMALL = Evaluation(
    k=10,
    n_queries=3,
    n_documents=1234,
    n_candidates=50,
    recall=0.95,
    ndcg=(0.5, 0.625),
    mrr=(0.25, 0.75),
    milliseconds={"rerank": (1.5, 12.25), "total": (2, 100)},
    n_bytes={"stage one in memory": 2_500_000},
    curve=(CurvePoint(25, 0.9, 1), CurvePoint(50, 0.95, 1.75)),
)


def test_it_is_printed_as_a_table() -> None:
    assert str(SMALL).splitlines() == [
        "1234 documents, 3 questions, 50 candidates",
        "recall@10 against exact MaxSim: 0.9500",
        "nDCG@10: 0.5000 (exact MaxSim 0.6250)",
        "MRR@10: 0.2500 (exact MaxSim 0.7500)",
        "                median      95 %",
        "rerank         1.50 ms  12.25 ms",
        "total          2.00 ms 100.00 ms",
        "stage one in memory: 2.5 MB",
        "  candidates    recall    search",
        "          25    0.9000   1.00 ms",
        "          50    0.9500   1.75 ms",
    ]


def test_it_is_given_as_json() -> None:
    content = json.loads(json.dumps(SMALL.as_json()))
    assert content["curve"][1] == {"n_candidates": 50, "recall": 0.95, "milliseconds": 1.75}
    assert content["ndcg"] == [0.5, 0.625]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_a_curve_is_drawn(tmp_path: Path) -> None:
    SMALL.plot(tmp_path / "curve.svg")
    assert "<svg" in (tmp_path / "curve.svg").read_text()
    for wrong in ("curve.unknown", "nowhere/curve.svg"):
        with pytest.raises(InvalidInputError, match="plot cannot be written"):
            SMALL.plot(tmp_path / wrong)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'muvera-core\[plot\]'"):
        SMALL.plot(tmp_path / "curve.svg")


def test_queries_are_read_with_and_without_judgements(tmp_path: Path) -> None:
    text, lines, judged = tmp_path / "q.txt", tmp_path / "q.jsonl", tmp_path / "qrels.tsv"
    text.write_text("one?\n\n  two?  \n")
    lines.write_text('{"_id": 1, "text": "one?"}\n{"_id": "b", "text": "two?"}\n{"_id": "c", "text": "three?"}\n')
    judged.write_text("query-id\tcorpus-id\tscore\nc\tx\t2\n1\ty\t1\n1\tz\t0\nb\tz\t0\n")
    assert read_queries(text) == (["one?", "two?"], None)
    assert read_queries(lines) == (["one?", "two?", "three?"], None)
    assert read_queries(lines, judged) == (["one?", "three?"], [{"y": 1.0}, {"x": 2.0}])
    for arguments, said in [
        ((text, judged), "use a .jsonl file"),
        ((tmp_path / "q.csv",), "must end in .txt"),
        ((tmp_path / "nowhere.txt",), "neither"),
    ]:
        with pytest.raises(InvalidInputError, match=said):
            read_queries(*arguments)
    text.write_text(" \n")
    with pytest.raises(InvalidInputError, match="no questions"):
        read_queries(text)
    lines.write_text('{"_id": "other", "text": "?"}')
    with pytest.raises(InvalidInputError, match="no questions with a relevant document"):
        read_queries(lines, judged)
