"""The word index of an index: what lexical searches find in it, and that it is in step with the documents."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from muvera_core import MuveraIndex, check_index, repair_index
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import CorruptIndexError, InvalidInputError
from muvera_core.lexical import LexicalConfig, LexicalQuery, parse_query, tokenize
from muvera_core.storage import StaleError, words

D = 16
ENCODER = PrecomputedEmbeddings(D, "random")
TEXTS = {
    "fox": "The quick brown fox jumps over the lazy dog",
    "owl": "Owls hunt at night, and foxes too",
    "code": "Error ERR-4012 means that the disk is full",
    "near": "4012 errors of the kind err were found",
}


@pytest.fixture(params=["memory", "folder"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None if request.param == "memory" else tmp_path / "index", ENCODER) as index:
        add(index, TEXTS)
        yield index


def add(index: MuveraIndex, texts: dict[str, str], metadata: dict[str, str] | None = None) -> None:
    tokens = [np.eye(1, D)] * len(texts)
    index.add_embeddings(tokens, list(texts), list(texts.values()), [metadata or {}] * len(texts))


def query(index: MuveraIndex, question: str) -> LexicalQuery:
    assert index.lexical is not None
    return parse_query(index.lexical, question)


def hits(index: MuveraIndex, question: str, n: int = 10, ids: list[str] | None = None) -> list[str]:
    store, snapshot = index.engine.collection.store, index.engine.collection.snapshot()
    admitted = None if ids is None else store.matching(snapshot, None, ids)
    keys, scores = store.lexical_search(snapshot, query(index, question), n, admitted)
    assert scores.dtype == np.float32
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_array_equal(scores, store.lexical_scores(snapshot, query(index, question), keys))
    return [document.id for document in store.documents(snapshot, keys)]


def test_scores_are_those_of_bm25(index: MuveraIndex) -> None:
    config = LexicalConfig()
    documents = [tokenize(config, text) for text in TEXTS.values()]
    mean = sum(map(len, documents)) / len(documents)
    expected = []
    for document in documents:
        score = 0.0
        for word in tokenize(config, "the fox night"):
            n, tf = sum(word in other for other in documents), document.count(word)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            score += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(document) / mean))
        expected.append(score)
    store, snapshot = index.engine.collection.store, index.engine.collection.snapshot()
    found = store.lexical_scores(snapshot, query(index, "the fox night"), snapshot.keys)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_question_finds_stems_phrases_and_nothing_else(index: MuveraIndex) -> None:
    assert hits(index, "fox") == ["owl", "fox"]
    assert hits(index, "ERR-4012")[0] == "code"
    assert hits(index, '"err 4012"')[0] == "code"
    assert hits(index, "zebra") == hits(index, "?!") == hits(index, "") == []
    assert hits(index, 'text:fox OR NEAR( "* ^') == hits(index, "text fox or near")


def test_the_best_admitted_documents_are_returned(index: MuveraIndex) -> None:
    assert hits(index, "fox", ids=["fox", "code"]) == ["fox"]
    assert hits(index, "fox", n=1) == ["owl"]
    assert hits(index, "fox", ids=[]) == []


def test_equal_documents_come_in_the_order_of_their_keys(index: MuveraIndex) -> None:
    add(index, {f"same{n}": "an albatross" for n in range(5)})
    assert hits(index, "albatross", n=3) == ["same0", "same1", "same2"]


def test_the_number_of_documents_with_each_term_is_told(index: MuveraIndex) -> None:
    store, snapshot = index.engine.collection.store, index.engine.collection.snapshot()
    assert store.word_statistics(snapshot, query(index, "fox zebra the")).frequencies.tolist() == [2, 0, 3]


def test_words_follow_every_change(index: MuveraIndex) -> None:
    index.delete("owl")
    assert hits(index, "fox") == ["fox"]
    add(index, {"fox": "an albatross"})
    assert (hits(index, "fox"), hits(index, "albatross")) == ([], ["fox"])
    index.update_metadata("fox", {"a": 1})
    assert hits(index, "albatross") == ["fox"]
    index.compact()
    assert hits(index, "albatross") == ["fox"]
    index.clear()
    assert hits(index, "albatross") == []


def test_settings_can_be_changed(index: MuveraIndex) -> None:
    index.update_metadata("owl", {"title": "Strix"})
    index.set_lexical(LexicalConfig("trigram", fields=("title",)))
    assert hits(index, "rix") == ["owl"]
    index.update_metadata("owl", {"title": "Bubo"})
    assert (hits(index, "trix"), hits(index, "bub")) == ([], ["owl"])
    index.set_lexical(False)
    assert index.lexical is None
    index.set_lexical(True)
    assert hits(index, "fox") == ["owl", "fox"]


def test_a_failed_change_of_settings_changes_nothing(index: MuveraIndex) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("muvera_core.storage.change.insert_words", interrupt)
        with pytest.raises(KeyboardInterrupt):
            index.set_lexical(LexicalConfig("trigram"))
    assert index.lexical == LexicalConfig()
    assert hits(index, "fox") == ["owl", "fox"]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_search_of_a_replaced_snapshot_is_stale(index: MuveraIndex) -> None:
    store, snapshot = index.engine.collection.store, index.engine.collection.snapshot()
    index.delete("owl")
    with pytest.raises(StaleError):
        store.lexical_search(snapshot, query(index, "fox"), 10)


def test_a_reader_and_a_copy_have_the_words_too(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", ENCODER) as index:
        add(index, TEXTS)
        with MuveraIndex.open(tmp_path / "index", ENCODER, read_only=True, refresh_interval=None) as reader:
            assert hits(reader, "fox") == ["owl", "fox"]
            index.set_lexical(LexicalConfig(language=None))
            assert reader.refresh()
            assert reader.lexical == LexicalConfig(language=None)
            assert hits(reader, "fox") == ["fox"]
        index.copy_to(tmp_path / "copy")
    with MuveraIndex.open(tmp_path / "copy", ENCODER) as copy:
        assert hits(copy, "fox") == ["fox"]
    assert check_index(tmp_path / "copy").ok


def test_an_index_is_opened_with_the_settings_that_it_has(tmp_path: Path) -> None:
    MuveraIndex.create(tmp_path / "index", ENCODER, lexical=False).close()
    MuveraIndex.open_or_create(tmp_path / "index", ENCODER).close()
    with pytest.raises(InvalidInputError, match="set_lexical"):
        MuveraIndex.open_or_create(tmp_path / "index", ENCODER, lexical=True)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM words WHERE rowid = 2",
        "INSERT INTO words (rowid, fields, text) VALUES (99, '', 'fox')",
        "UPDATE words SET text = 'forged' WHERE rowid = 2",
        "UPDATE words_data SET block = zeroblob(9) WHERE id > 10",
        "DELETE FROM words_data WHERE id > 10",
    ],
)
def test_a_damaged_word_index_is_found_and_made_again(tmp_path: Path, sql: str) -> None:
    with MuveraIndex.create(tmp_path / "index", ENCODER) as index:
        add(index, TEXTS)
    db = sqlite3.connect(tmp_path / "index" / "documents.sqlite")
    db.execute(sql)
    db.commit()
    db.close()
    report = check_index(tmp_path / "index")
    assert [problem.derived for problem in report.problems] == [True]
    assert report.n_documents == len(TEXTS)
    with MuveraIndex.open(tmp_path / "index", ENCODER, read_only=True) as index:
        assert len(index.search_embeddings(np.eye(1, D), k=4)) == 4
        if "DELETE FROM words_data" in sql or "99" in sql:
            with pytest.raises(CorruptIndexError, match="word index"):
                hits(index, "fox")
    assert repair_index(tmp_path / "index", ENCODER).n_documents == len(TEXTS)
    assert check_index(tmp_path / "index").ok
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert hits(index, "fox") == ["owl", "fox"]


def test_without_fts5_an_index_has_no_word_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (words, "muvera_core.storage.database"):
        name = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{name}.has_fts5", lambda: False)
    with pytest.raises(InvalidInputError, match="lexical=False"):
        MuveraIndex.create(tmp_path / "index", ENCODER)
    with MuveraIndex.create(tmp_path / "index", ENCODER, lexical=False) as index:
        add(index, TEXTS)
    assert check_index(tmp_path / "index").ok
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert len(index) == len(TEXTS)
