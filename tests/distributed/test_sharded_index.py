"""An index over shards gives what one index gives. The shards are in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from muvera_core import Hit, MuveraIndex, TokenEmbeddings
from muvera_core.distributed import LocalScatter, Shard, ShardedEngine, ShardWriteError, shard_of
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import (
    IndexClosedError,
    InvalidInputError,
    PartialResultWarning,
    PartialWriteError,
    ReadOnlyIndexError,
    ServiceTimeoutError,
    ShardUnavailableError,
)
from muvera_core.evaluation.collections import BeirCollection
from muvera_core.hits import Hits
from muvera_core.index import IndexCalls
from muvera_core.search import StageClock

N = 400
N_SHARDS = 3


class LocalIndex(IndexCalls):
    """The calls of an index over shards in this process."""


def over(shards: Sequence[MuveraIndex], scatter: Any = None, **options: Any) -> LocalIndex:
    scatter = LocalScatter([Shard(index) for index in shards]) if scatter is None else scatter
    return LocalIndex(ShardedEngine(scatter, shards[0].encoder, **options), shards[0].encoder)


def fill(index: Any, nq: BeirCollection, nq_tokens: TokenEmbeddings) -> None:
    metadatas = [{"n": i, "even": i % 2 == 0} for i in range(N)]
    index.add_embeddings(
        TokenEmbeddings.from_list([nq_tokens[i] for i in range(N)]), nq.ids[:N], nq.texts[:N], metadatas
    )


@pytest.fixture(scope="module")
def one(encoder: BundledEncoder, nq: BeirCollection, nq_tokens: TokenEmbeddings) -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None, encoder) as index:
        fill(index, nq, nq_tokens)
        yield index


@pytest.fixture(scope="module")
def sharded(encoder: BundledEncoder, nq: BeirCollection, nq_tokens: TokenEmbeddings) -> Iterator[LocalIndex]:
    with over([MuveraIndex.create(None, encoder) for _ in range(N_SHARDS)]) as index:
        fill(index, nq, nq_tokens)
        yield index


@pytest.fixture(scope="module")
def questions(nq: BeirCollection) -> list[str]:
    answered = {next(iter(relevant)): nq.queries[query] for query, relevant in nq.relevance.items()}
    return [answered[id] for id in nq.ids[:N] if id in answered][:25]


def described(hits: Sequence[Hit]) -> list[tuple[Any, ...]]:
    return [(h.id, h.text, h.metadata, h.score, h.normalized_score, h.relevance, h.lexical_score) for h in hits]


SEARCHES: list[dict[str, Any]] = [
    {"exact": True},
    {"exact": True, "k": 37},
    {"exact": True, "filter": {"even": True}},
    {"exact": True, "filter": {"n": {"$lt": 5}}},
    {"exact": True, "ids": ["no such id"]},
    {"exact": True, "min_score": 0.6},
    {"exact": True, "with_passages": True},
]


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_exact_searches_find_the_same(
    one: MuveraIndex, sharded: LocalIndex, questions: list[str], options: dict[str, Any]
) -> None:
    for question in questions[:8]:
        expected, got = one.search(question, **options), sharded.search(question, **options)
        assert described(got) == described(expected)
        assert [hit.passage for hit in got] == [hit.passage for hit in expected]


@pytest.mark.parametrize(
    "options", [{"exact": True}, {"exact": True, "fusion": "ranks"}, {"lexical_weight": 0.4}], ids=str
)
def test_hybrid_searches_find_the_same(
    one: MuveraIndex, sharded: LocalIndex, questions: list[str], options: dict[str, Any]
) -> None:
    """The mean length of documents, which BM25 uses, is that of a shard. So scores differ a little."""
    for question in questions:
        expected = one.search(question, mode="hybrid", **options)
        got = sharded.search(question, mode="hybrid", **options)
        assert len({h.id for h in expected} & {h.id for h in got}) >= 8
        assert got[0].score == pytest.approx(expected[0].score, rel=0.02)


def test_lexical_searches_know_how_rare_words_are_in_all_shards(
    one: MuveraIndex, sharded: LocalIndex, questions: list[str]
) -> None:
    for question in questions:
        expected, got = one.search(question, mode="lexical"), sharded.search(question, mode="lexical")
        assert got[0].id == expected[0].id
        by_id = {hit.id: hit for hit in got}
        for hit in expected:
            if hit.id in by_id:
                assert by_id[hit.id].score == pytest.approx(hit.score, rel=0.1)
                assert by_id[hit.id].normalized_score == pytest.approx(hit.normalized_score, rel=0.1)


def test_usual_searches_find_what_exact_ones_do(sharded: LocalIndex, questions: list[str]) -> None:
    for question in questions:
        exact = {hit.id for hit in sharded.search(question, exact=True)}
        assert len(exact & {hit.id for hit in sharded.search(question)}) >= 9


def test_a_batch_finds_what_single_searches_do(sharded: LocalIndex, questions: list[str]) -> None:
    batch = sharded.search_batch([*questions[:5], "  "], 4, exact=True)
    assert [[hit.id for hit in hits] for hits in batch[:5]] == [
        [hit.id for hit in sharded.search(question, 4, exact=True)] for question in questions[:5]
    ]
    assert batch[5] == []


def test_documents_are_read_as_from_one_index(one: MuveraIndex, sharded: LocalIndex, nq: BeirCollection) -> None:
    ids = [nq.ids[i] for i in (7, 3, 200, 3)]
    assert sharded.get([*ids, "no such id"]) == one.get([*ids, "no such id"])
    assert len(sharded) == len(one)
    assert sharded.n_tokens == one.n_tokens
    assert sharded.count({"even": True}) == one.count({"even": True})
    assert nq.ids[5] in sharded
    assert "no such id" not in sharded
    assert {d.id for d in sharded.find({"n": {"$gte": 390}})} == {d.id for d in one.find({"n": {"$gte": 390}})}
    assert sorted(d.id for d in sharded.iterate(batch_size=50)) == sorted(nq.ids[:N])
    every = [d.id for d in sharded.find()]
    assert [d.id for d in sharded.find(limit=20, offset=130)] == every[130:150]
    got, expected = sharded.get_embeddings(ids), one.get_embeddings(ids)
    assert list(got) == list(expected)
    for id in got:
        np.testing.assert_array_equal(got[id], expected[id])


def test_pages_give_what_is_iterated_over(one: MuveraIndex, sharded: LocalIndex) -> None:
    for index in (one, sharded):
        for filter in (None, {"even": True}, {"n": -1}):
            given, after = [], None
            while True:
                page = index.page(filter, after=after, limit=37)
                assert len(page.documents) <= 37
                given += page.documents
                after = page.next
                if after is None:
                    break
            assert given == list(index.iterate(filter))
    for wrong in ("", "x", "1", "-1.0.0", "1.2.3.4", "\u0663.0.0"):
        with pytest.raises(InvalidInputError, match="next"):
            sharded.page(after=wrong)
    with pytest.raises(ShardUnavailableError, match="resharded"):
        sharded.page(after="99.0.0")


def test_other_searches_work_over_shards(one: MuveraIndex, sharded: LocalIndex, questions: list[str]) -> None:
    question = questions[0]
    best = sharded.search(question, 3)
    assert sharded.explain(question, best[0].id) == one.explain(question, best[0].id)
    ids = [hit.id for hit in one.search(question, 20)]
    assert described(sharded.rerank(question, ids)) == described(one.rerank(question, ids))
    for method in ("mmr", "coverage"):
        expected = [hit.id for hit in one.search_diverse(question, 5, method=method, fetch_k=30)]
        assert [hit.id for hit in sharded.search_diverse(question, 5, method=method, fetch_k=30)] == expected
    assert len(sharded.search_diverse(question, 5, n_neighbors=3)) == 5
    plan = sharded.plan(5)
    assert (plan.n_documents, plan.n_admitted) == (N, N)
    assert f"{N_SHARDS} shards" in plan.reason

    def judge(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [float(len(text)) for _, text in pairs]

    judged = sharded.search_with_cross_encoder(question, judge, 5, n_calls=30, n_candidates=N)
    again = one.search_with_cross_encoder(question, judge, 5, n_calls=30, n_candidates=N)
    assert judged[0].judged_score == again[0].judged_score


def test_a_vector_is_searched_for_in_all_shards(one: MuveraIndex, sharded: LocalIndex, questions: list[str]) -> None:
    from muvera_core import TextEncoder

    (vector,) = TextEncoder(one.encoder).encode_queries([questions[0]])
    expected, got = one.search_by_vector(vector, 7), sharded.search_by_vector(vector, 7)
    assert [hit.id for hit in got] == [hit.id for hit in expected]
    assert [hit.score for hit in got] == pytest.approx([hit.score for hit in expected])


def test_evaluation_measures_a_sharded_index(sharded: LocalIndex, questions: list[str]) -> None:
    evaluation = sharded.evaluate(questions[:8], k=5)
    assert evaluation.n_documents == N
    assert evaluation.fidelity > 0.9


def test_times_of_stages_are_collected(sharded: LocalIndex, questions: list[str]) -> None:
    clock = StageClock()
    sharded.search(questions[0], mode="hybrid", clock=clock)
    assert {"encode", "candidates", "words", "rerank", "merge", "fetch"} <= clock.seconds.keys()


def test_an_unknown_document_is_not_explained(sharded: LocalIndex) -> None:
    with pytest.raises(InvalidInputError, match="no document with id 'nobody'"):
        sharded.explain("owls", "nobody")


# Writing


@pytest.fixture
def shards(encoder: BundledEncoder) -> list[MuveraIndex]:
    return [MuveraIndex.create(None, encoder) for _ in range(N_SHARDS)]


@pytest.fixture
def index(shards: list[MuveraIndex]) -> Iterator[LocalIndex]:
    with over(shards) as sharded_index:
        yield sharded_index


def test_documents_go_to_the_shard_of_their_id(index: LocalIndex, shards: list[MuveraIndex]) -> None:
    texts = [f"Animal {i} eats plant {i}." for i in range(12)]
    ids = index.add(texts, ids=[f"a{i}" for i in range(12)], metadatas=[{"i": i} for i in range(12)])
    for id in ids:
        assert [id in shard for shard in shards] == [shard_of(id, N_SHARDS) == n for n in range(N_SHARDS)]
    assert index.update_metadata("a3", {"seen": True}) == 1
    assert index.get("a3")[0].metadata == {"i": 3, "seen": True}
    assert index.delete(["a1", "a2", "nobody"]) == 2
    assert index.delete(filter={"i": {"$gt": 9}}) == 2
    assert index.delete(["a4", "a5"], filter={"i": 4}) == 1
    assert len(index) == 7
    assert index.clear() == 7
    assert index.search("plant") == []


def test_unchanged_texts_are_not_encoded_again(index: LocalIndex, shards: list[MuveraIndex]) -> None:
    index.add(["Owls hunt."], ids=["owl"])
    key = [shard.engine.collection.snapshot().keys.tolist() for shard in shards]
    index.add(["Owls hunt."], ids=["owl"])
    assert [shard.engine.collection.snapshot().keys.tolist() for shard in shards] == key
    index.add(["Owls hunt."], ids=["owl"], force=True)
    assert [shard.engine.collection.snapshot().keys.tolist() for shard in shards] != key


def test_settings_of_words_are_changed_in_all_shards(index: LocalIndex) -> None:
    index.add(["Owls hunt at night.", "Ants live in colonies.", "Bees make honey."], ids=["owl", "ant", "bee"])
    index.set_lexical(False)
    assert index.lexical is None
    with pytest.raises(InvalidInputError, match="no word index"):
        index.search("owls", mode="lexical")
    index.set_lexical(True)
    assert [hit.id for hit in index.search("owls", mode="lexical")] == ["owl"]


class BrokenScatter(LocalScatter):
    """Some shards do not answer."""

    def __init__(self, shards: Sequence[Shard], broken: Mapping[int, Exception]) -> None:
        super().__init__(shards)
        self.broken = dict(broken)

    def read(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        return super().read(name, {shard: given for shard, given in arguments.items() if shard not in self.broken})

    def write(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        done = super().write(name, {shard: given for shard, given in arguments.items() if shard not in self.broken})
        failed = {shard: self.broken[shard] for shard in arguments if shard in self.broken}
        if failed:
            raise ShardWriteError(done, failed)
        return done


def broken_index(shards: list[MuveraIndex], broken: Mapping[int, Exception]) -> LocalIndex:
    return over(shards, BrokenScatter([Shard(index) for index in shards], broken))


def ids_of_each_shard(n: int) -> list[list[str]]:
    ids: list[list[str]] = [[] for _ in range(N_SHARDS)]
    for id in (f"d{i}" for i in range(600)):
        if len(ids[shard_of(id, N_SHARDS)]) < n:
            ids[shard_of(id, N_SHARDS)].append(id)
    return ids


def test_a_partial_result_says_what_is_missing(shards: list[MuveraIndex]) -> None:
    whole, ids = over(shards), ids_of_each_shard(2)
    whole.add([f"Owl number {id}." for some in ids for id in some], ids=[id for some in ids for id in some])
    partial = broken_index(shards, {1: ServiceTimeoutError("silent")})
    with pytest.warns(PartialResultWarning, match="of 3 shards these do not answer: 1"):
        hits = partial.search("owl", 6)
    assert isinstance(hits, Hits)
    assert hits.missing_shards == (1,)
    assert {hit.id for hit in hits} == {*ids[0], *ids[2]}
    with pytest.warns(PartialResultWarning):
        assert len(partial) == 4
    with pytest.raises(ShardUnavailableError) as error:
        broken_index(shards, dict.fromkeys(range(3), ServiceTimeoutError("silent"))).search("owl")
    assert error.value.shards == (0, 1, 2)


def test_a_write_that_some_shards_did_not_acknowledge_says_which(shards: list[MuveraIndex]) -> None:
    ids = ids_of_each_shard(2)
    index = broken_index(shards, {0: InvalidInputError("too long"), 2: ServiceTimeoutError("silent")})
    every = [id for some in ids for id in some]
    with pytest.raises(PartialWriteError, match="1 of 3 shards acknowledged") as error:
        index.add([f"Text of {id}" for id in every], ids=every)
    assert error.value.acknowledged == tuple(ids[1])
    assert error.value.failed == {0: "too long", 2: "silent"}
    assert error.value.unknown == tuple(ids[2])
    assert [id in shards[1] for id in every] == [id in ids[1] for id in every]
    whole = over(shards)  # all shards answer again, and the same call completes the change
    whole.add([f"Text of {id}" for id in every], ids=every)
    assert all(id in whole for id in every)


def test_an_error_of_all_shards_is_raised_as_it_is(shards: list[MuveraIndex]) -> None:
    index = broken_index(shards, dict.fromkeys(range(3), ReadOnlyIndexError("read-only")))
    with pytest.raises(ReadOnlyIndexError):
        index.delete(filter={"a": 1})
    with pytest.raises(ServiceTimeoutError):
        broken_index(shards, {0: ServiceTimeoutError("silent")}).delete(ids_of_each_shard(1)[0])


def test_a_reader_and_a_closed_index_refuse(shards: list[MuveraIndex]) -> None:
    reader = over(shards, read_only=True)
    with pytest.raises(ReadOnlyIndexError):
        reader.add(["text"])
    reader.close()
    with pytest.raises(IndexClosedError):
        reader.search("text")


# Learning


def test_optimize_chooses_one_encoding_for_all_shards(
    encoder: BundledEncoder, nq: BeirCollection, nq_tokens: TokenEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from muvera_core.set_encoders import LearnedSetEncoder
    from muvera_core.tuning import choose, encodings

    monkeypatch.setattr(encodings, "_SETTINGS", {"num_anchors": 256, "num_features": 256, "num_query_tokens": 512})
    monkeypatch.setattr(choose, "best", lambda choices, target: choices[-1])
    monkeypatch.setattr(choose, "_could_be_faster", lambda *_: True)
    shards = [MuveraIndex.create(None, encoder) for _ in range(2)]
    with over(shards) as index:
        index.add_embeddings(
            TokenEmbeddings.from_list([nq_tokens[i] for i in range(600)]), nq.ids[:600], nq.texts[:600]
        )
        tuning = index.optimize(0.9, n_queries=40)
        encoders = [shard.engine.collection.stage_one.encoder for shard in shards]
        assert all(isinstance(each, LearnedSetEncoder) for each in encoders)
        assert len({each.fingerprint for each in encoders}) == 1
        assert tuning.measured["recall"] >= 0.9
        assert tuning.measured["n_documents"] == 600
        questions = list(nq.queries.values())[:40]
        assert index.evaluate(questions).fidelity > 0.85


def test_optimize_with_few_documents_changes_nothing(index: LocalIndex) -> None:
    from muvera_core.errors import NothingToOptimizeWarning

    index.add([f"Animal {i} eats plant {i}." for i in range(30)])
    with pytest.warns(NothingToOptimizeWarning):
        index.optimize(n_queries=20)


def test_relevance_is_learned_from_all_shards(
    encoder: BundledEncoder, nq: BeirCollection, nq_tokens: TokenEmbeddings, questions: list[str]
) -> None:
    with over([MuveraIndex.create(None, encoder) for _ in range(2)]) as index, MuveraIndex.create(None, encoder) as one:
        fill(index, nq, nq_tokens)
        fill(one, nq, nq_tokens)
        report = index.calibrate(n_queries=60)
        assert "late" in index.calibration
        one.engine.writer.learn(index._engine.learned)
        for question in questions[:5]:
            got, expected = index.search(question, exact=True), one.search(question, exact=True)
            assert [hit.relevance for hit in got] == pytest.approx([hit.relevance for hit in expected], abs=1e-6)
            assert [hit.relevance for hit in got] != [hit.normalized_score for hit in got]
        assert report.calibration == index.calibration["late"]
        assert index.remove_calibration()
        assert not index.calibration


def test_a_share_of_words_is_learned_by_labels(sharded: LocalIndex, nq: BeirCollection) -> None:
    judged = {q: rel for q, rel in nq.relevance.items() if set(rel) <= set(nq.ids[:N])}
    queries, relevant = [nq.queries[q] for q in judged][:20], list(judged.values())[:20]
    from muvera_core.errors import NothingToOptimizeWarning

    with pytest.warns(NothingToOptimizeWarning):
        tuning = sharded.optimize(0.9, queries, relevant)
    assert tuning.measured["hybrid_ndcg"] > 0.5
