"""The index over precomputed embeddings: everything but the encoding of text."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera_core import FDEConfig, MuveraIndex, StageClock, TokenEmbeddings, maxsim
from muvera_core.collection import Collection, writer
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import (
    CorruptIndexError,
    DimensionMismatchError,
    EncoderError,
    EncoderMismatchError,
    IndexClosedError,
    IndexExistsError,
    IndexLockedError,
    InvalidInputError,
    NotAnIndexError,
    ReadOnlyIndexError,
    UnsupportedFormatError,
)
from muvera_core.maintenance import read_info
from muvera_core.stage_one import stage_one
from muvera_core.storage import manifest
from muvera_core.storage.manifest import Manifest
from muvera_core.storage.token_codec import TokenPrecision

D = 16
ENCODER = PrecomputedEmbeddings(D, "random")
FDE = FDEConfig(dimension=D, num_repetitions=8, num_simhash_projections=3, projection_dimension=8)


def random_tokens(seed: int, n_texts: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((rng.integers(1, 12), D)).astype(np.float32) for _ in range(n_texts)]
    return [array / np.linalg.norm(array, axis=1, keepdims=True) for array in arrays]


def ids(n: int, first: int = 0) -> list[str]:
    return [f"d{i}" for i in range(first, first + n)]


def create(path: Path | None, **options: Any) -> MuveraIndex:
    return MuveraIndex.create(path, ENCODER, FDE, **options)


@pytest.fixture(params=["memory", "folder"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MuveraIndex]:
    with create(None if request.param == "memory" else tmp_path / "index") as made:
        yield made


def answers(index: MuveraIndex, n_queries: int = 5, **options: Any) -> list[list[tuple[str, float]]]:
    queries = random_tokens(99, n_queries)
    return [[(hit.id, hit.score) for hit in index.search_embeddings(query, **options)] for query in queries]


# Search


def test_hits_are_ranked_by_maxsim_over_the_stored_tokens(index: MuveraIndex) -> None:
    tokens = random_tokens(0, 300)
    index.add_embeddings(tokens, ids=ids(300))
    for query in random_tokens(1, 10):
        scores = maxsim(query, TokenEmbeddings.from_list(tokens))
        hits = index.search_embeddings(query, k=10, exact=True)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            assert hit.score == pytest.approx(scores[int(hit.id[1:])], abs=0.02 * len(query))
            assert hit.normalized_score == pytest.approx(min(1, max(0, hit.score / len(query))))
        assert {hit.id for hit in hits} >= {f"d{i}" for i in np.argsort(-scores)[:5]}


def test_default_search_equals_exact_search_where_all_documents_are_candidates(index: MuveraIndex) -> None:
    index.add_embeddings(random_tokens(0, 150), ids=ids(150))
    assert answers(index) == answers(index, exact=True)


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"n_candidates": 20}, {"exact": True, "filter": {"n": 1}}])
def test_questions_asked_together_are_answered_as_one_by_one(index: MuveraIndex, options: dict[str, Any]) -> None:
    index.add_embeddings(random_tokens(0, 150), ids=ids(150), metadatas=[{"n": i % 3} for i in range(150)])
    queries = [*random_tokens(5, 90), np.concatenate(random_tokens(6, 100))]  # the last alone has 500 tokens or more
    together = index.search_embeddings_batch(queries, k=4, **options)
    assert index.search_embeddings_batch(TokenEmbeddings.from_list(queries), k=4, **options) == together
    for query, hits in zip(queries, together, strict=True):
        alone = index.search_embeddings(query, k=4, **options)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in alone], rtol=1e-5)
    assert index.search_embeddings_batch([]) == []
    with pytest.raises(InvalidInputError, match="query_tokens must be a list"):
        index.search_embeddings_batch("a question")


def test_more_candidates_find_more(index: MuveraIndex) -> None:
    index.add_embeddings(random_tokens(0, 600), ids=ids(600))
    exact = [{id for id, _ in hits} for hits in answers(index, 30, exact=True)]

    def recall(n: int) -> float:
        found = [{id for id, _ in hits} for hits in answers(index, 30, n_candidates=n)]
        return sum(len(a & b) for a, b in zip(exact, found, strict=True)) / 300

    recalls = [recall(n) for n in (10, 60, 600)]
    assert recalls == sorted(recalls)
    assert 0.05 < recalls[0] < recalls[1] < recalls[2] == 1


def test_float16_tokens_score_closer_than_int8() -> None:
    tokens, query = random_tokens(0, 50), random_tokens(1, 1)[0]
    errors = {}
    for precision in ("int8", "float16"):
        with create(None, token_precision=precision) as index:
            index.add_embeddings(tokens, ids=ids(50))
            found = {hit.id: hit.score for hit in index.search_embeddings(query, k=50)}
        exact = maxsim(query, TokenEmbeddings.from_list(tokens))
        errors[precision] = max(abs(found[f"d{i}"] - exact[i]) for i in range(50))
    assert errors["float16"] < errors["int8"] < 0.02 * len(query)


def test_equal_scores_keep_the_order_of_insertion(index: MuveraIndex) -> None:
    index.add_embeddings([np.eye(1, D)] * 20, ids=ids(20))
    assert [hit.id for hit in index.search_embeddings(np.eye(1, D), k=20)] == ids(20)


def test_k_beyond_the_corpus_returns_all(index: MuveraIndex) -> None:
    index.add_embeddings(random_tokens(0, 3), ids=ids(3))
    assert len(index.search_embeddings(random_tokens(1, 1)[0], k=50)) == 3
    assert len(index.search_embeddings(random_tokens(1, 1)[0], k=50, exact=True)) == 3


def test_an_empty_index_finds_nothing(index: MuveraIndex) -> None:
    query = random_tokens(1, 1)[0]
    assert index.search_embeddings(query) == []
    assert index.search_embeddings(query, exact=True) == []
    assert len(index) == 0
    assert "d0" not in index


def test_fewer_candidates_than_k_still_give_k_hits(index: MuveraIndex) -> None:
    index.add_embeddings(random_tokens(0, 50), ids=ids(50))
    assert len(index.search_embeddings(random_tokens(1, 1)[0], k=20, n_candidates=1)) == 20


def test_the_clock_names_every_stage(index: MuveraIndex) -> None:
    index.add_embeddings(random_tokens(0, 5))
    clock = StageClock()
    index.search_embeddings(random_tokens(1, 1)[0], clock=clock)
    assert set(clock.seconds) == {"candidates", "rerank", "fetch"}
    assert all(seconds > 0 for seconds in clock.seconds.values())


# Adding, replacing, deleting


def test_documents_come_back_as_they_were_added(index: MuveraIndex) -> None:
    metadatas = [{"page": 1, "tags": ["a", "ü"], "nested": {"x": None}}, None]
    returned = index.add_embeddings(random_tokens(0, 2), ids=["a", "b"], texts=["one", "zwei 🦉"], metadatas=metadatas)
    assert returned == ["a", "b"]
    b, a = index.get(["b", "missing", "a"])
    assert (a.id, a.text, a.metadata) == ("a", "one", metadatas[0])
    assert (b.id, b.text, b.metadata) == ("b", "zwei 🦉", {})
    assert index.get("a") == [a]
    hit = next(hit for hit in index.search_embeddings(random_tokens(1, 1)[0]) if hit.id == "a")
    assert (hit.text, hit.metadata) == ("one", metadatas[0])


def test_ids_are_made_where_none_are_given(index: MuveraIndex) -> None:
    made = index.add_embeddings(random_tokens(0, 3))
    assert len(set(made)) == 3
    assert all(id in index for id in made)
    assert index.get(made)[0].text is None


def test_the_same_id_replaces(index: MuveraIndex) -> None:
    index.add_embeddings(random_tokens(0, 30), ids=ids(30), texts=["old"] * 30)
    new = np.eye(1, D, dtype=np.float32)
    index.add_embeddings([new], ids=["d7"], texts=["new"])
    assert len(index) == 30
    hits = index.search_embeddings(new, k=30)
    assert hits[0].id == "d7"
    assert hits[0].text == "new"
    assert hits[0].score == pytest.approx(1)
    assert sorted(hit.id for hit in hits) == sorted(ids(30))


def test_deleted_documents_are_gone(index: MuveraIndex) -> None:
    index.add_embeddings(random_tokens(0, 40), ids=ids(40))
    assert index.delete(["d3", "d4", "never there", "d3"]) == 2
    assert index.delete("d5") == 1
    assert index.delete(["d3"]) == 0
    assert index.delete([]) == 0
    assert len(index) == 37
    assert "d3" not in index
    for exact in (False, True):
        found = {hit.id for hit in index.search_embeddings(random_tokens(1, 1)[0], k=40, exact=exact)}
        assert found == set(ids(40)) - {"d3", "d4", "d5"}


@pytest.mark.parametrize("wrong", [3, [3], [None], {"a"}, b"a"], ids=repr)
def test_what_cannot_be_an_id_is_refused(index: MuveraIndex, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="ids"):
        index.delete(wrong)
    with pytest.raises(InvalidInputError, match="ids"):
        index.get(wrong)
    with pytest.raises(InvalidInputError, match="id must be a string"):
        index.explain("a question", wrong)


def test_adding_nothing_is_nothing(index: MuveraIndex) -> None:
    assert index.add([]) == []
    assert index.add_embeddings([]) == []
    assert index.search_batch([]) == []
    assert len(index) == 0


def test_more_documents_than_one_sql_statement_takes(index: MuveraIndex) -> None:
    index.add_embeddings([np.eye(1, D)] * 2000, ids=ids(2000))
    assert len(index.get(ids(2000))) == 2000
    assert index.delete(ids(2000)) == 2000


# Bad input leaves everything as it was

NAN = np.full((1, D), np.nan)
GOOD = [np.eye(1, D), np.eye(1, D)]
BAD_ADDS = [
    pytest.param({"token_embeddings": [NAN, NAN]}, InvalidInputError, "NaN or infinity", id="nan"),
    pytest.param({"token_embeddings": [np.full((1, D), np.inf)] * 2}, InvalidInputError, "infinity", id="infinity"),
    pytest.param({"token_embeddings": [np.eye(1, 7)] * 2}, DimensionMismatchError, "got 7-d", id="dimension"),
    pytest.param({"token_embeddings": [np.empty((0, D))] * 2}, InvalidInputError, "at least one token", id="no tokens"),
    pytest.param({"ids": ["a", "a"]}, InvalidInputError, "id 'a' occurs more than once", id="double id"),
    pytest.param({"ids": ["a"]}, InvalidInputError, "ids has length 1, expected 2", id="too few ids"),
    pytest.param({"ids": "ab"}, InvalidInputError, "must be a list, got str", id="ids as text"),
    pytest.param({"ids": ["a", 1]}, InvalidInputError, r"ids\[1\] must be a string, got int", id="number as id"),
    pytest.param({"ids": ["a", ""]}, InvalidInputError, r"ids\[1\] is empty", id="empty id"),
    pytest.param({"texts": ["x"]}, InvalidInputError, "texts has length 1, expected 2", id="too few texts"),
    pytest.param({"metadatas": [{}]}, InvalidInputError, "metadatas has length 1, expected 2", id="too few metadatas"),
    pytest.param({"metadatas": [{}, {"x": object()}]}, InvalidInputError, r"metadatas\[1\]", id="object"),
    pytest.param({"metadatas": [{}, {"x": float("inf")}]}, InvalidInputError, "JSON", id="infinity in metadata"),
    pytest.param({"metadatas": [{}, {1: 2, "1": 3}]}, InvalidInputError, "equal as text", id="keys equal as text"),
    pytest.param({"metadatas": [{}, "x"]}, InvalidInputError, "mapping", id="text as metadata"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ADDS)
def test_bad_documents_are_refused_and_change_nothing(
    index: MuveraIndex, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    index.add_embeddings(random_tokens(0, 20), ids=ids(20))
    before = answers(index)
    with pytest.raises(error, match=message):
        index.add_embeddings(**{"token_embeddings": GOOD, **arguments})
    assert answers(index) == before
    assert len(index) == 20
    index.add_embeddings(GOOD, ids=["x", "y"])
    assert len(index) == 22


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"k": 0}, InvalidInputError),
        ({"k": -1}, InvalidInputError),
        ({"k": 2.5}, InvalidInputError),
        ({"k": True}, InvalidInputError),
        ({"n_candidates": 0}, InvalidInputError),
        ({"n_candidates": -3}, InvalidInputError),
        ({"query_tokens": NAN}, InvalidInputError),
        ({"query_tokens": np.eye(1, 5)}, DimensionMismatchError),
        ({"query_tokens": np.ones(D)}, InvalidInputError),
        ({"query_tokens": np.empty((0, D))}, InvalidInputError),
        ({"query_tokens": TokenEmbeddings.from_list(GOOD)}, InvalidInputError),
    ],
    ids=str,
)
def test_bad_questions_are_refused(index: MuveraIndex, arguments: dict[str, Any], error: type[Exception]) -> None:
    index.add_embeddings(GOOD)
    with pytest.raises(error):
        index.search_embeddings(**{"query_tokens": np.eye(1, D), **arguments})


def test_text_needs_an_encoder(index: MuveraIndex) -> None:
    with pytest.raises(InvalidInputError, match="use add_embeddings"):
        index.add(["some text"])
    with pytest.raises(InvalidInputError, match="use add_embeddings"):
        index.search("a question")
    assert len(index) == 0


class Unreliable(PrecomputedEmbeddings):
    """Encodes each text as its length; what goes wrong is up to the test."""

    broken: str = ""

    def encode_documents(self, texts: Any) -> TokenEmbeddings:
        if self.broken == "raises" and "fail" in texts:
            raise RuntimeError("out of memory")
        if self.broken == "interrupts" and "fail" in texts:
            raise KeyboardInterrupt
        if self.broken == "drops":
            texts = texts[1:]
        if self.broken == "narrows":
            return TokenEmbeddings.from_list([np.eye(1, 3)] * len(texts))
        if self.broken == "lists":
            return [np.eye(1, D)] * len(texts)  # type: ignore[return-value]
        return TokenEmbeddings.from_list([np.full((1, D), float(len(text))) for text in texts], D)


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("raises", RuntimeError),
        ("interrupts", KeyboardInterrupt),
        ("drops", EncoderError),
        ("narrows", EncoderError),
        ("lists", EncoderError),
    ],
)
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_an_encoder_that_fails_half_way_leaves_the_index_as_it_was(
    broken: str, error: type[BaseException], where: str, tmp_path: Path
) -> None:
    encoder = Unreliable(D, "unreliable")
    with MuveraIndex.create(None if where == "memory" else tmp_path / "index", encoder, FDE) as index:
        index.add(["one", "three"], ids=["a", "b"])
        before = answers(index)
        encoder.broken = broken
        with pytest.raises(error):
            index.add(["x", "yy", "fail", "zzzz"], ids=["a", "c", "d", "e"], batch_size=2)
        assert len(index) == 2
        assert answers(index) == before
        encoder.broken = ""
        index.add(["four more"], ids=["c"])
        assert len(index) == 3
        if where == "folder":
            # Two committed rows, and two of the failed call, of which the new document overwrites one.
            assert (tmp_path / "index" / "tokens-0.bin").stat().st_size <= 4 * (D + 4)


@pytest.mark.parametrize("how_often", [1, 2], ids=["once", "and again while making it good"])
def test_an_interruption_after_the_commit_leaves_what_was_committed(index: MuveraIndex, how_often: int) -> None:
    index.add_embeddings(random_tokens(0, 10), ids=ids(10))
    publish, left = stage_one.StageOne.publish, [how_often]

    def interrupt(self: stage_one.StageOne, removed: np.ndarray) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise KeyboardInterrupt
        publish(self, removed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_one.StageOne, "publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            index.add_embeddings(random_tokens(1, 5), ids=ids(5, 8))
    assert {id for id, _ in answers(index, 1, k=14)[0]} == set(ids(13))
    assert len(index) == 13
    index.add_embeddings(random_tokens(2, 1), ids=["last"])
    assert {id for id, _ in answers(index, 1, k=14)[0]} == {*ids(13), "last"}
    assert (
        index.engine.collection.stage_one.candidates.keys().tolist()
        == index.engine.collection.store.snapshot.keys.tolist()
    )


# Folders


def test_a_reopened_index_gives_the_same_answers(tmp_path: Path) -> None:
    with create(tmp_path / "index") as index:
        index.add_embeddings(random_tokens(0, 200), ids=ids(200), metadatas=[{"n": i} for i in range(200)])
        index.delete(["d5"])
        before = answers(index, n_candidates=30)
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert answers(index, n_candidates=30) == before
        assert index.get("d7")[0].metadata == {"n": 7}
        assert len(index) == 199


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_a_copy_gives_the_same_answers(tmp_path: Path, precision: TokenPrecision) -> None:
    with MuveraIndex.create(None, ENCODER, FDE, token_precision=precision) as index:
        index.add_embeddings(random_tokens(0, 300), ids=ids(300), metadatas=[{"n": i} for i in range(300)])
        index.add_embeddings(random_tokens(1, 1), ids=["with text"], texts=["a text"])
        index.delete(ids(10))
        before = answers(index, n_candidates=30)
        index.copy_to(tmp_path / "copy")
        with pytest.raises(IndexExistsError):
            index.copy_to(tmp_path / "copy")
        documents = index.find()
    with MuveraIndex.open(tmp_path / "copy", ENCODER) as copy:
        assert answers(copy, n_candidates=30) == before
        assert copy.find() == documents
        copy.clear()
        copy.copy_to(tmp_path / "empty")
    with MuveraIndex.open(tmp_path / "empty", ENCODER) as empty:
        assert len(empty) == 0


def test_a_relative_path_survives_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    index = create(Path("index"))
    index.add_embeddings(random_tokens(0, 5))
    monkeypatch.chdir(tmp_path / "elsewhere")
    index.add_embeddings(random_tokens(1, 5))
    index.close()
    with MuveraIndex.open("../index", ENCODER) as index:
        assert len(index) == 10
    shutil.move(tmp_path / "index", tmp_path / "moved")
    with MuveraIndex.open(tmp_path / "moved", ENCODER) as index:
        assert len(index) == 10


@pytest.mark.parametrize("victim", [".json", ".keys", ".scales", ".codes"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_stage_one_is_derived_again_where_its_files_are_lost_or_damaged(
    tmp_path: Path, victim: str, damage: str
) -> None:
    with create(tmp_path / "index") as index:
        index.add_embeddings(random_tokens(0, 100), ids=ids(100))
        before = answers(index, n_candidates=20)
    (path,) = (tmp_path / "index").glob(f"stage_one*{victim}")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + (b"" if damage == "cut" else content[:middle:-1] + b"x"))
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert answers(index, n_candidates=20) == before


def test_another_indexs_stage_one_is_not_used(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        with create(tmp_path / name) as index:
            index.add_embeddings(random_tokens(seed, 100), ids=ids(100))
            before = answers(index, n_candidates=20)
    for path in (tmp_path / "a").glob("stage_one*"):
        shutil.copy(path, tmp_path / "b" / path.name)
    with MuveraIndex.open(tmp_path / "b", ENCODER) as index:
        assert answers(index, n_candidates=20) == before


def test_stage_one_of_other_settings_is_not_used(tmp_path: Path) -> None:
    """As after an upgrade of NumPy that draws other matrices from the same seed."""
    with create(tmp_path / "index") as index:
        index.add_embeddings(random_tokens(0, 100), ids=ids(100))
    settings = Manifest.read(tmp_path / "index")
    replace(settings, fde=replace(settings.fde, seed=settings.fde.seed + 1)).write(tmp_path / "index")
    found = []
    for _ in range(2):
        with MuveraIndex.open(tmp_path / "index", ENCODER, read_only=True) as index:
            found.append(answers(index, n_candidates=20))
        for file in (tmp_path / "index").glob("stage_one*"):
            file.unlink()
    assert found[0] == found[1]


def test_a_graph_takes_over_from_the_flat_scan_and_survives_reopening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_one, "FLAT_LIMIT", 100)
    with create(tmp_path / "index") as index:
        index.add_embeddings(random_tokens(0, 100), ids=ids(100))
        assert index.engine.collection.stage_one.candidates.kind == "flat"
        index.add_embeddings(random_tokens(1, 300), ids=ids(300, 100))
        assert index.engine.collection.stage_one.candidates.kind == "hnsw"
        index.delete(ids(50))
        exact, found = answers(index, exact=True), answers(index, n_candidates=200)
    overlap = sum(len({a for a, _ in x} & {b for b, _ in y}) for x, y in zip(exact, found, strict=True))
    assert overlap >= 45
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert index.engine.collection.stage_one.candidates.kind == "hnsw"
        assert answers(index, n_candidates=200) == found
    (tmp_path / "index" / "stage_one.hnsw").write_bytes(b"nonsense")
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert len(answers(index, 1, k=350)[0]) == 350


KILLED = """
import os, signal, sys
import numpy as np
from muvera_core import FDEConfig, MuveraIndex
from muvera_core.encoders import PrecomputedEmbeddings
sys.path.insert(0, {here!r})
from test_index import ENCODER, FDE, ids, random_tokens
index = MuveraIndex.open({path!r}, ENCODER)
index.add_embeddings(random_tokens(1, 50), ids=ids(50, 80))
index.delete(["d0", "d1"])
if {inside}:
    def batches(texts):
        os.kill(os.getpid(), signal.SIGKILL)
    index._encoder.encode_documents = batches
    index.add(["a text that is never committed"], ids=["d2"])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("inside", [False, True], ids=["after an add", "in the middle of an add"])
def test_a_killed_writer_loses_nothing_that_was_added(tmp_path: Path, inside: bool) -> None:
    with create(tmp_path / "index") as index:
        index.add_embeddings(random_tokens(0, 100), ids=ids(100))
    script = KILLED.format(path=str(tmp_path / "index"), here=str(Path(__file__).parent), inside=inside)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with create(None) as expected:
        expected.add_embeddings(random_tokens(0, 100), ids=ids(100))
        expected.add_embeddings(random_tokens(1, 50), ids=ids(50, 80))
        expected.delete(["d0", "d1"])
        with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
            assert len(index) == len(expected) == 128
            assert answers(index, n_candidates=30) == answers(expected, n_candidates=30)


def test_rows_left_by_an_interrupted_write_are_overwritten(tmp_path: Path) -> None:
    with create(tmp_path / "index") as index:
        index.add_embeddings(random_tokens(0, 10), ids=ids(10))
        before = answers(index)
    with (tmp_path / "index" / "tokens-0.bin").open("ab") as file:
        file.write(b"\x7f" * 1001)
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert answers(index) == before
        index.add_embeddings(random_tokens(1, 1), ids=["x"])
        assert index.n_tokens == sum(map(len, random_tokens(0, 10))) + len(random_tokens(1, 1)[0])
        after = answers(index)
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert answers(index) == after


def test_missing_tokens_are_reported(tmp_path: Path) -> None:
    with create(tmp_path / "index") as index:
        index.add_embeddings(random_tokens(0, 10), ids=ids(10))
    tokens = tmp_path / "index" / "tokens-0.bin"
    tokens.write_bytes(tokens.read_bytes()[:-100])
    with pytest.raises(CorruptIndexError, match="token vectors, but the documents refer to"):
        MuveraIndex.open(tmp_path / "index", ENCODER)
    tokens.unlink()
    with pytest.raises(CorruptIndexError, match=r"tokens-0\.bin is missing"):
        MuveraIndex.open(tmp_path / "index", ENCODER)


@pytest.mark.parametrize("content", [None, b"", b"not a database at all" * 100])
def test_a_missing_or_damaged_database_is_reported(tmp_path: Path, content: bytes | None) -> None:
    with create(tmp_path / "index") as index:
        index.add_embeddings(random_tokens(0, 10), ids=ids(10))
    database = tmp_path / "index" / "documents.sqlite"
    database.unlink()
    if content is not None:
        database.write_bytes(content)
    with pytest.raises(CorruptIndexError, match=r"documents\.sqlite"):
        MuveraIndex.open(tmp_path / "index", ENCODER)


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", Path(__file__)):
        with pytest.raises(NotAnIndexError, match="is not a muvera index"):
            MuveraIndex.open(path, ENCODER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format_version": 6}, UnsupportedFormatError),
        ({"format_version": None}, UnsupportedFormatError),
        ({"format": "something else"}, NotAnIndexError),
        ({"fde": {"dimension": -1}}, CorruptIndexError),
        ({"fde": {"unknown": 1}}, CorruptIndexError),
        ({"token_precision": "int2"}, CorruptIndexError),
        ({"pool_factor": 0}, CorruptIndexError),
        ({"encoder": 3}, CorruptIndexError),
        (None, CorruptIndexError),
    ],
    ids=str,
)
def test_a_manifest_that_cannot_be_used_is_refused(
    tmp_path: Path, change: dict[str, Any] | None, error: type[Exception]
) -> None:
    create(tmp_path / "index").close()
    path = tmp_path / "index" / "manifest.json"
    if change is None:
        path.write_text("{")
    else:
        changed = {**json.loads(path.read_text()), **change}
        path.write_text(json.dumps({**changed, "checksum": manifest._checksum(changed)}))
    with pytest.raises(error):
        MuveraIndex.open(tmp_path / "index", ENCODER)


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    create(tmp_path / "index").close()
    with pytest.raises(EncoderMismatchError, match="made with encoder 'precomputed-random-16'"):
        MuveraIndex.open(tmp_path / "index", PrecomputedEmbeddings(D, "other"))


def test_create_never_touches_what_is_there(tmp_path: Path) -> None:
    create(tmp_path / "index").close()
    with pytest.raises(IndexExistsError, match="already holds an index: open it"):
        create(tmp_path / "index")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(IndexExistsError, match=r"thesis\.txt"):
        create(tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    with pytest.raises(IndexExistsError, match="is a file"):
        create(tmp_path / "full" / "thesis.txt")
    (tmp_path / "empty").mkdir()
    create(tmp_path / "empty").close()


def test_settings_for_another_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"FDEConfig\.for_dimension\(16\)"):
        MuveraIndex.create(tmp_path / "index", ENCODER, FDEConfig())
    assert not (tmp_path / "index").exists()


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    with create(tmp_path / "index") as index:
        index.add_embeddings(random_tokens(0, 10), ids=ids(10))
        before = answers(index)
        with pytest.raises(IndexLockedError, match="already open for writing in this process"):
            MuveraIndex.open(tmp_path / "index", ENCODER)
        with MuveraIndex.open(tmp_path / "index", ENCODER, read_only=True, refresh_interval=None) as reader:
            assert answers(reader) == before
        index.add_embeddings(random_tokens(1, 1), ids=["x"])
    MuveraIndex.open(tmp_path / "index", ENCODER).close()


def test_a_second_writer_in_another_process_is_refused(tmp_path: Path) -> None:
    script = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_index import ENCODER
        from muvera_core import MuveraIndex
        MuveraIndex.open({str(tmp_path / "index")!r}, ENCODER)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with create(tmp_path / "index"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "IndexLockedError" in done.stderr
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0


def test_an_index_opened_for_reading_refuses_changes(tmp_path: Path) -> None:
    with create(tmp_path / "index") as index:
        index.add_embeddings(random_tokens(0, 10), ids=ids(10))
    with MuveraIndex.open(tmp_path / "index", ENCODER, read_only=True) as reader:
        with pytest.raises(ReadOnlyIndexError, match="read_only=True"):
            reader.add_embeddings(GOOD)
        with pytest.raises(ReadOnlyIndexError):
            reader.delete(["d1"])
        assert len(reader) == 10


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[None]:
    """Run as someone whom file permissions stop, even where the tests run as root."""
    if os.name != "posix":
        pytest.skip("needs POSIX file permissions")
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder.parts[:2] == ("/", "tmp") and len(folder.parts) > 2:
            folder.chmod(0o755)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_without_write_permission_can_be_read(tmp_path: Path, unprivileged: None) -> None:
    folder = tmp_path / "index"
    with create(folder) as index:
        index.add_embeddings(random_tokens(0, 10), ids=ids(10))
        before = answers(index)
    (folder / "write.lock").unlink()
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with pytest.raises(ReadOnlyIndexError, match="open it with read_only=True"):
            MuveraIndex.open(folder, ENCODER)
        with MuveraIndex.open(folder, ENCODER, read_only=True) as reader:
            assert answers(reader) == before
        with pytest.raises(ReadOnlyIndexError, match="choose another folder"):
            create(folder / "inside")
    finally:
        folder.chmod(0o755)


def test_a_closed_index_refuses_everything(tmp_path: Path) -> None:
    index = create(tmp_path / "index")
    index.close()
    index.close()
    for call in (
        lambda: index.add_embeddings(GOOD),
        lambda: index.search_embeddings(GOOD[0]),
        lambda: index.search_batch(["x"]),
        lambda: index.search_embeddings_batch([]),
        lambda: index.get("x"),
        lambda: index.delete("x"),
        lambda: len(index),
        lambda: "x" in index,
    ):
        with pytest.raises(IndexClosedError):
            call()
    assert "closed" in repr(index)


# Threads


def test_searches_go_on_while_another_thread_writes(index: MuveraIndex) -> None:
    index.add_embeddings(random_tokens(0, 100), ids=ids(100))
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                for hits in answers(index, 3, k=20):
                    assert len(hits) == 20
                    assert len({id for id, _ in hits}) == 20
                    assert [score for _, score in hits] == sorted((score for _, score in hits), reverse=True)
        except BaseException as error:  # shown by the test
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for round_ in range(15):
        index.add_embeddings(random_tokens(round_, 40), ids=ids(40, 100 + 10 * round_))
        index.delete(ids(10, 100 + 10 * round_))
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


# Centring


def test_centring_freezes_the_mean_once_there_are_enough_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MIN_TOKENS_FOR_MEAN", 500)
    config = FDEConfig(dimension=D, num_repetitions=8, num_simhash_projections=3, projection_dimension=8, center=True)
    offset = np.full(D, 0.8, np.float32)
    crowded = [tokens * 0.3 + offset for tokens in random_tokens(0, 300)]
    with MuveraIndex.create(tmp_path / "index", ENCODER, config) as index:
        index.add_embeddings(crowded[:20], ids=ids(20))
        assert index.engine.collection.store.get_state("mean_token") is None
        index.add_embeddings(crowded[20:], ids=ids(280, 20))
        frozen = np.frombuffer(index.engine.collection.store.get_state("mean_token"), np.float32)
        np.testing.assert_allclose(frozen, np.concatenate(crowded).mean(axis=0), atol=0.01)
        index.add_embeddings([tokens + 1 for tokens in crowded[:50]], ids=ids(50, 300))
        assert (np.frombuffer(index.engine.collection.store.get_state("mean_token"), np.float32) == frozen).all()
        before = answers(index, n_candidates=20)
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert answers(index, n_candidates=20) == before


CENTRED = FDEConfig(dimension=D, num_repetitions=8, num_simhash_projections=3, projection_dimension=8, center=True)
CROWDED = [tokens * 0.3 + np.full(D, 0.8, np.float32) for tokens in random_tokens(0, 300)]


def stage_one_vectors(index: MuveraIndex) -> np.ndarray:
    """The vectors of all documents, by ascending key."""
    return index.engine.collection.stage_one.candidates.vectors(index.engine.collection.snapshot().keys)


@pytest.mark.parametrize("way", ["refresh", "by itself", "search", "copy"])
def test_a_reader_that_was_opened_before_the_mean_was_frozen_encodes_with_it(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MIN_TOKENS_FOR_MEAN", 500)
    folder = tmp_path / "index"
    interval = 0.0 if way == "by itself" else None
    with MuveraIndex.create(folder, ENCODER, CENTRED) as index:
        index.add_embeddings(CROWDED[:20], ids=ids(20))
        with MuveraIndex.open(folder, ENCODER, read_only=True, refresh_interval=interval) as reader:
            index.add_embeddings(CROWDED[20:], ids=ids(280, 20))
            if way == "refresh":
                assert reader.refresh()
            elif way == "search":
                index.delete("d0")
                reader.search_embeddings(CROWDED[0], exact=True)
            elif way == "copy":
                index.delete("d19")
                reader.copy_to(tmp_path / "copy")
                with MuveraIndex.open(tmp_path / "copy", ENCODER) as copy:
                    np.testing.assert_allclose(stage_one_vectors(copy), stage_one_vectors(index), atol=1e-6)
            else:
                reader.search_embeddings(CROWDED[0])
            np.testing.assert_allclose(stage_one_vectors(reader), stage_one_vectors(index), atol=1e-6)
            assert answers(reader, n_candidates=20) == answers(index, n_candidates=20)
            index.add_embeddings(CROWDED[:50], ids=ids(50, 300))
            assert reader.refresh() or way == "by itself"
            np.testing.assert_allclose(stage_one_vectors(reader), stage_one_vectors(index), atol=1e-6)


def test_documents_are_encoded_anew_at_the_next_write_if_that_failed_when_the_mean_was_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MIN_TOKENS_FOR_MEAN", 500)
    with MuveraIndex.create(tmp_path / "index", ENCODER, CENTRED) as index:

        def fail(*_: object) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(Collection, "adopt_stage_one", fail)
            index.add_embeddings(CROWDED, ids=ids(300))
        assert (index.engine.collection.stage_one.encoder.mean == 0).all()  # type: ignore[attr-defined]
        index.delete("d0")
        vectors = stage_one_vectors(index)
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        np.testing.assert_allclose(stage_one_vectors(index), vectors, atol=1e-6)


def test_info_takes_what_open_takes_for_a_path() -> None:
    with pytest.raises(InvalidInputError, match="path must be a path"):
        read_info(3)  # type: ignore[arg-type]
