from __future__ import annotations

import math
from pathlib import Path

import pytest

from muvera_core.errors import InvalidInputError
from muvera_core.evaluation import ndcg_at_k, read_beir, recall_at_k

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


def test_a_collection_is_read_from_beirs_form() -> None:
    collection = read_beir(NQ)
    assert len(collection.ids) == len(set(collection.ids)) == len(collection.texts) == 2588
    assert len(collection.queries) == 2655
    assert collection.texts[1].startswith("Deadpool 2 Deadpool 2 is scheduled")
    assert collection.relevance["q1"] == {"nq-1": 1.0}


def test_plain_files_will_do_and_lines_are_checked(tmp_path: Path) -> None:
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
