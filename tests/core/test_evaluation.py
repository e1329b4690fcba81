from __future__ import annotations

import gzip
import importlib.util
import json
import math
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from muvera_core import Evaluation, MuveraIndex
from muvera_core.errors import InvalidInputError, MissingExtraError
from muvera_core.evaluation.collections import read_beir, read_queries
from muvera_core.evaluation.measures import (
    LABEL_MEASURES,
    fidelity_at_k,
    hit_rate_at_k,
    map_at_k,
    mrr_at_k,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
)
from muvera_core.evaluation.report import CurvePoint

NQ = Path(__file__).parents[2] / "examples" / "data" / "nq-gold"


def test_fidelity_counts_what_was_expected() -> None:
    assert fidelity_at_k(["a", "b", "c"], {"a", "c", "x", "y"}) == 0.5
    assert fidelity_at_k(["a", "b", "c"], {"c"}, k=2) == 0
    assert fidelity_at_k([], set()) == 1


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


def test_precision_recall_and_average_precision_count_relevant_ids() -> None:
    grades = {"a": 2.0, "b": 1.0, "c": 1.0, "zero": 0.0}
    found = ["a", "x", "c", "zero", "b"]
    assert precision_at_k(found, grades, 4) == 2 / 4
    assert precision_at_k(["a"], grades, 4) == 1 / 4  # places that nothing fills count
    assert recall_at_k(found, grades, 4) == 2 / 3
    assert map_at_k(found, grades, 4) == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert map_at_k(["a", "b"], {str(i): 1.0 for i in range(8)} | grades, 2) == 2 / 11  # not over min(k, relevant)
    assert (hit_rate_at_k(found, grades, 1), hit_rate_at_k(["x", "zero"], grades, 2)) == (1, 0)
    for measure in (precision_at_k, recall_at_k, map_at_k, hit_rate_at_k):
        assert measure(found, {"zero": 0.0}, 3) == measure([], grades, 3) == 0


@pytest.mark.parametrize("k", [1, 3, 10])
def test_measures_are_those_of_trec_eval(k: int) -> None:
    trec_eval = pytest.importorskip("pytrec_eval", reason="pytrec-eval-terrier is not installed")
    rng = np.random.default_rng(7)
    ids = [f"d{i:02}" for i in range(30)]
    names = {
        "ndcg": f"ndcg_cut_{k}",
        "hit_rate": f"success_{k}",
        "precision": f"P_{k}",
        "recall": f"recall_{k}",
        "map": f"map_cut_{k}",
        "mrr": "recip_rank",
    }
    families = {"ndcg_cut", "success", "P", "recall", "map_cut"}
    qrels = {str(q): {id: int(rng.integers(4)) for id in rng.choice(ids, rng.integers(1, 25))} for q in range(60)}
    for grades in qrels.values():
        grades[ids[0]] = 1  # trec_eval leaves out questions without a relevant document
    runs = {q: [str(id) for id in rng.permutation(ids)[: rng.integers(1, 25)]] for q in qrels}
    evaluator = trec_eval.RelevanceEvaluator(qrels, {f"{family}.{k}" for family in families} | {"recip_rank"})
    for q, found in runs.items():
        cut = found[:k] if k < len(found) else found
        expected = evaluator.evaluate({q: {id: 1 / rank for rank, id in enumerate(cut, 1)}})[q]
        for name, of_trec in names.items():
            measured = LABEL_MEASURES[name](found, qrels[q], k)
            assert measured == pytest.approx(expected[of_trec], abs=1e-9), (name, found, qrels[q])


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
    fidelities, measures = [], []
    for query, grades in zip(asked.values(), relevant, strict=True):
        found = [hit.id for hit in nq_index.search(query, 5, n_candidates=8)]
        exact = [hit.id for hit in nq_index.search(query, 5, exact=True)]
        fidelities.append(len(set(found) & set(exact)) / 5)
        for ids in (found, exact):
            first = next((rank for rank, one in enumerate(ids, 1) if one in grades), None)
            measures.append((ndcg_at_k(ids, grades, 5), 1 / first if first else 0))
    assert 0 < evaluation.fidelity < 1
    assert evaluation.fidelity == pytest.approx(sum(fidelities) / 12)
    assert evaluation.ndcg is not None
    assert evaluation.mrr is not None
    for measured, of in ((evaluation.ndcg, 0), (evaluation.mrr, 1)):
        assert measured[0] == pytest.approx(sum(measure[of] for measure in measures[::2]) / 12)
        assert measured[1] == pytest.approx(sum(measure[of] for measure in measures[1::2]) / 12)
        assert measured[0] != measured[1]
    assert (evaluation.k, evaluation.n_queries, evaluation.n_documents, evaluation.n_candidates) == (5, 12, 300, 8)


def test_the_curve_goes_from_k_to_four_times_the_candidates(evaluation: Evaluation) -> None:
    assert [point.n_candidates for point in evaluation.curve] == [5, 8, 16, 32]
    fidelities = [point.fidelity for point in evaluation.curve]
    assert fidelities == sorted(fidelities)
    assert fidelities[1] == evaluation.fidelity
    assert all(point.milliseconds > 0 for point in evaluation.curve)


def test_every_stage_is_timed_and_every_part_is_weighed(evaluation: Evaluation, nq_index: MuveraIndex) -> None:
    assert list(evaluation.milliseconds) == ["encode", "candidates", "rerank", "fetch", "total"]
    assert all(0 < median <= slow for median, slow in evaluation.milliseconds.values())
    medians = {name: median for name, (median, _) in evaluation.milliseconds.items()}
    assert max(medians, key=lambda name: medians[name]) == "total"
    assert evaluation.n_bytes == nq_index.sizes()
    assert set(evaluation.n_bytes) == {"stage one in memory", "directory in memory"}
    assert evaluation.n_bytes["stage one in memory"] > 300 * 4 * 100


def test_without_judgements_only_fidelity_is_measured(nq_index: MuveraIndex, asked: dict[str, str]) -> None:
    found = nq_index.evaluate(list(asked.values())[:2])
    assert {getattr(found, name) for name in LABEL_MEASURES} == {None}
    assert [list(each.measures) for each in found.by_question] == [["fidelity"]] * 2
    assert found.n_candidates == nq_index.default_candidates() == 400
    assert found.fidelity == 1  # of 300 documents
    assert [point.n_candidates for point in found.curve] == [50, 100, 200, 300]
    assert "nDCG" not in str(found)


def test_means_are_those_of_the_questions(
    evaluation: Evaluation, nq_index: MuveraIndex, asked: dict[str, str], relevant: list[dict[str, float]]
) -> None:
    assert [each.question for each in evaluation.by_question] == list(asked.values())
    for each, grades in zip(evaluation.by_question, relevant, strict=True):
        assert list(each.found) == [hit.id for hit in nq_index.search(each.question, 5, n_candidates=8)]
        assert each.measures["recall"] == len(set(each.found) & set(grades)) / 2
        assert each.measures["precision"] == len(set(each.found) & set(grades)) / 5
    assert evaluation.fidelity == fmean(each.measures["fidelity"] for each in evaluation.by_question)
    for name in LABEL_MEASURES:
        of_index, of_exact = getattr(evaluation, name)
        assert of_index == fmean(each.measures[name] for each in evaluation.by_question)
        assert 0 < of_index < of_exact
    assert evaluation.recall is not None
    assert evaluation.recall[1] == 1  # the exact search finds both within 5


def test_other_modes_are_searched_by_text(
    nq_index: MuveraIndex, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, calls = list(asked.values())[:3], []
    search = nq_index.search

    def noted(query: str, *arguments: Any, **options: Any) -> Any:
        calls.append((query, *arguments, options["mode"], options["lexical_weight"]))
        return search(query, *arguments, **options)

    monkeypatch.setattr(nq_index, "search", noted)
    hybrid = nq_index.evaluate(queries, k=5, n_candidates=20, mode="hybrid", lexical_weight=0.3)
    assert calls[:3] == [(query, 5, 20, "hybrid", 0.3) for query in queries]
    assert (hybrid.mode, hybrid.n_candidates) == ("hybrid", 20)
    assert {"encode", "total"} < set(hybrid.milliseconds)
    assert hybrid.milliseconds["encode"][0] > 0
    assert len(hybrid.curve) > 1
    assert "mode hybrid" in str(hybrid)
    calls.clear()
    lexical = nq_index.evaluate(queries, k=5, mode="lexical")
    assert calls == [(query, 5, None, "lexical", None) for query in queries]
    assert (lexical.n_candidates, lexical.curve) == (0, ())
    assert "candidates" not in str(lexical).splitlines()[0]
    with pytest.raises(InvalidInputError, match="no curve to draw"):
        lexical.plot("curve.svg")
    calls.clear()
    nq_index.evaluate(queries, k=5)
    assert not calls  # by embeddings, so that no question is encoded twice


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
        {"mode": "dense"},
        {"mode": "hybrid", "lexical_weight": 2},
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
    fidelity=0.95,
    ndcg=(0.5, 0.625),
    mrr=(0.25, 0.75),
    hit_rate=(0.75, 1),
    precision=(0.125, 0.25),
    recall=(0.5, 0.75),
    map=(0.375, 0.5),
    milliseconds={"rerank": (1.5, 12.25), "total": (2, 100)},
    n_bytes={"stage one in memory": 2_500_000},
    curve=(CurvePoint(25, 0.9, 1), CurvePoint(50, 0.95, 1.75)),
)


def test_it_is_printed_as_a_table() -> None:
    assert str(SMALL).splitlines() == [
        "1234 documents, 3 questions, 50 candidates",
        "fidelity@10 to exact MaxSim: 0.9500",
        "nDCG@10: 0.5000 (exact MaxSim 0.6250)",
        "MRR@10: 0.2500 (exact MaxSim 0.7500)",
        "hit rate@10: 0.7500 (exact MaxSim 1.0000)",
        "precision@10: 0.1250 (exact MaxSim 0.2500)",
        "recall@10: 0.5000 (exact MaxSim 0.7500)",
        "MAP@10: 0.3750 (exact MaxSim 0.5000)",
        "                median      95 %",
        "rerank         1.50 ms  12.25 ms",
        "total          2.00 ms 100.00 ms",
        "stage one in memory: 2.5 MB",
        "  candidates  fidelity    search",
        "          25    0.9000   1.00 ms",
        "          50    0.9500   1.75 ms",
    ]


def test_it_is_given_as_json() -> None:
    content = json.loads(json.dumps(SMALL.as_json()))
    assert content["curve"][1] == {"n_candidates": 50, "fidelity": 0.95, "milliseconds": 1.75}
    assert content["ndcg"] == [0.5, 0.625]


def test_results_of_questions_are_given_as_json(evaluation: Evaluation) -> None:
    content = json.loads(json.dumps(evaluation.as_json()))
    for given, each in zip(content["by_question"], evaluation.by_question, strict=True):
        assert given == {"question": each.question, "found": list(each.found), "measures": dict(each.measures)}


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
    for file in (text, lines, judged):
        Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
    packed, packed_judged = tmp_path / "q.jsonl.gz", tmp_path / "qrels.tsv.gz"
    assert read_queries(tmp_path / "q.txt.gz") == (["one?", "two?"], None)
    assert read_queries(packed, packed_judged) == read_queries(packed, judged) == read_queries(lines, judged)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(InvalidInputError, match=r"q\.jsonl\.gz cannot be read"):
        read_queries(packed)
    assert read_queries(lines)[0] == ["one?", "two?", "three?"]  # the file that was named, not its twin
    with pytest.raises(InvalidInputError, match=r"no nowhere\.jsonl\.gz"):
        read_queries(tmp_path / "nowhere.jsonl.gz")
    with pytest.raises(InvalidInputError, match=r"must end in \.txt"):
        read_queries(tmp_path / "q.gz")
    text.write_text(" \n")
    with pytest.raises(InvalidInputError, match="no questions"):
        read_queries(text)
    lines.write_text('{"_id": "other", "text": "?"}')
    with pytest.raises(InvalidInputError, match="no questions with a relevant document"):
        read_queries(lines, judged)
