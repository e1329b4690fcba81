"""Searches by words, and by words and meaning together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from muvera_core import MuveraIndex, StageClock, TokenEmbeddings
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import InvalidInputError, ReadOnlyIndexError
from muvera_core.filters import compile_filter
from muvera_core.lexical import LexicalConfig, parse_query
from muvera_core.search import SearchMode
from muvera_core.search.fusion import Terms, fuse_ranks, fuse_scores, weight_of_words

# One of the documents is in Chinese, which the encoder does not know.
pytestmark = pytest.mark.filterwarnings("ignore::muvera_core.errors.UnknownTextWarning")

TEXTS = {
    "disk": "The error ERR-4012 means that the disk is full. Delete old files.",
    "network": "The error ERR-4013 means that the network is down. Check the cable.",
    "login": "Call parse_json_lines after you have logged in with your password.",
    "owl": "Owls hunt at night and sleep during the day.",
    "ant": "Ants live in colonies and work together.",
    "bat": "Bats fly after dark and find insects by their echoes.",
    "part": "The pump needs gasket 77-AX-301, which the supplier sells in boxes of ten.",
    "chinese": "蒸汽机用煤作为燃料。",
}
KINDS = {"disk": "manual", "network": "manual", "login": "manual", "part": "parts"}
MODES: tuple[SearchMode, ...] = ("late", "hybrid", "lexical")


def add_texts(index: MuveraIndex) -> None:
    metadatas = [{"kind": KINDS.get(id, "nature"), "title": id} for id in TEXTS]
    index.add(list(TEXTS.values()), ids=list(TEXTS), metadatas=metadatas)


@pytest.fixture(scope="module")
def index() -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None) as index:
        add_texts(index)
        yield index


# What is found


@pytest.mark.parametrize(
    ("query", "id"),
    [
        ("ERR-4012", "disk"),
        ("what does err 4013 mean?", "network"),
        ("parse_json_lines", "login"),
        ("77-AX-301", "part"),
        ('"find insects by their echoes"', "bat"),
        ("煤作为燃料", "chinese"),
    ],
)
@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_identifiers_and_phrases_are_found(query: str, id: str, mode: SearchMode, index: MuveraIndex) -> None:
    assert index.search(query, 1, mode=mode)[0].id == id


def test_hybrid_finds_by_meaning_what_words_do_not(index: MuveraIndex) -> None:
    question = "What means a nocturnal bird of prey?"
    assert "owl" not in [hit.id for hit in index.search(question, mode="lexical")]
    assert index.search(question, 1, mode="hybrid")[0].id == "owl"


def test_lexical_returns_only_documents_with_a_word_of_the_query(index: MuveraIndex) -> None:
    assert [hit.id for hit in index.search("gasket", mode="lexical")] == ["part"]
    assert index.search("zygote", mode="lexical") == []
    assert index.search("?!", mode="lexical") == []


def test_a_question_whose_words_no_document_has_is_answered_by_meaning_alone(index: MuveraIndex) -> None:
    question = "zygotes"
    assert index.search(question, mode="hybrid") == [
        hit.__class__(**{**hit.__dict__, "lexical_score": 0.0}) for hit in index.search(question)
    ]


def test_a_document_that_stage_one_misses_is_found_by_its_words() -> None:
    """Its token vector points away from the query's, so that it isn't among the candidates."""
    rng = np.random.default_rng(0)
    query = np.eye(1, 16, dtype=np.float32)
    near = [query + 0.1 * rng.normal(size=(1, 16)).astype(np.float32) for _ in range(60)]

    class Encoder(PrecomputedEmbeddings):
        def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
            return TokenEmbeddings.from_list([query for _ in texts])

    with MuveraIndex.create(None, Encoder(16, "test")) as index:
        texts = [f"number {i}" for i in range(60)]
        index.add_embeddings([*near, -query], ids=[*map(str, range(60)), "far"], texts=[*texts, "serendipity"])
        found = index.search("serendipity", 3, 5, mode="hybrid", lexical_weight=0.9)
        assert found[0].id == "far"
        assert "far" not in [hit.id for hit in index.search("serendipity", 3, 5)]
        (exact,) = index.search("serendipity", 1, exact=True, mode="hybrid", lexical_weight=0.9)
        assert exact.id == "far"


@pytest.mark.parametrize("mode", MODES)
def test_filter_ids_and_min_score_apply_in_every_mode(mode: SearchMode, index: MuveraIndex) -> None:
    query = "the error means that the disk is full"
    manual = index.search(query, mode=mode, filter={"kind": "manual"})
    assert {hit.id for hit in manual} <= {"disk", "network", "login"}
    assert manual[0].id == "disk"
    assert [hit.id for hit in index.search(query, mode=mode, ids=["network", "unknown"])] == ["network"]
    best, *others = index.search(query, mode=mode)
    least = (best.relevance + others[0].relevance) / 2
    assert index.search(query, mode=mode, min_score=least) == [best]


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_gives_what_single_searches_give(mode: SearchMode, index: MuveraIndex) -> None:
    queries = ["ERR-4012", "", "Which animals live together?", "zygote"]
    together = index.search_batch(queries, 3, mode=mode)
    assert [[hit.id for hit in hits] for hits in together] == [
        [hit.id for hit in index.search(query, 3, mode=mode)] for query in queries
    ]


def test_hits_name_their_scores(index: MuveraIndex) -> None:
    late, hybrid, lexical = (index.search("the disk is full", mode=mode)[0] for mode in MODES)
    assert late.lexical_score is None
    assert lexical.score == lexical.lexical_score == pytest.approx(hybrid.lexical_score)
    assert 0 < lexical.normalized_score < 1
    assert hybrid.normalized_score == hybrid.relevance


@pytest.mark.parametrize("mode", MODES)
def test_scores_fall(mode: SearchMode, index: MuveraIndex) -> None:
    scores = [hit.score for hit in index.search("the error means that animals sleep at night", mode=mode)]
    assert len(scores) > 2
    assert scores == sorted(scores, reverse=True)


def test_a_weight_of_0_is_late_interaction_and_1_is_led_by_words(index: MuveraIndex) -> None:
    query = "Which bird hunts insects after dark?"
    late, lexical = ([hit.id for hit in index.search(query, mode=mode)] for mode in ("late", "lexical"))
    assert [hit.id for hit in index.search(query, mode="hybrid", lexical_weight=0)] == late
    assert [hit.id for hit in index.search(query, mode="hybrid", lexical_weight=1)][: len(lexical)] == lexical


def test_fusion_by_ranks_is_selectable(index: MuveraIndex) -> None:
    hits = index.search("the disk is full", mode="hybrid", fusion="ranks")
    assert hits[0].id == "disk"
    assert hits[0].score == pytest.approx(1)


def test_lexical_searches_encode_nothing(index: MuveraIndex) -> None:
    clock = StageClock()
    index.search("disk", mode="lexical", clock=clock)
    assert set(clock.seconds) == {"words", "fetch"}


def test_plans_say_what_a_mode_does(index: MuveraIndex) -> None:
    assert index.plan(mode="lexical").path == "words"
    assert index.plan(mode="hybrid").path == "every document"


@pytest.mark.parametrize("precision", ["8bit", "4bit", "float16"])
def test_every_precision_answers_hybrid_searches(precision: str) -> None:
    with MuveraIndex.create(None, token_precision=precision) as index:  # type: ignore[arg-type]
        add_texts(index)
        assert index.search("ERR-4013 network", 1, mode="hybrid")[0].id == "network"


def test_fields_are_searched_and_weighted() -> None:
    with MuveraIndex.create(None, lexical=LexicalConfig(fields=("title",), field_weight=5)) as index:
        index.add(["It hunts at night.", "An owl, once mentioned."], ids=["a", "b"], metadatas=[{"title": "owl"}, None])
        assert [hit.id for hit in index.search("owl", mode="lexical")] == ["a", "b"]


def test_diverse_searches_take_a_mode(index: MuveraIndex) -> None:
    assert index.search_diverse("ERR-4012", 2, mode="hybrid")[0].id == "disk"
    assert [hit.id for hit in index.search_diverse("gasket", 3, mode="lexical")] == ["part"]
    with pytest.raises(InvalidInputError, match="n_neighbors"):
        index.search_diverse("ERR-4012", 2, mode="hybrid", n_neighbors=2)


def test_added_and_deleted_documents_change_the_words(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index") as index:
        add_texts(index)
        with MuveraIndex.open(tmp_path / "index", read_only=True, refresh_interval=0) as reader:
            index.add(["A quokka smiles."], ids=["quokka"])
            assert [hit.id for hit in reader.search("quokka", mode="lexical")] == ["quokka"]
            index.delete(["quokka"])
            assert reader.search("quokka", mode="lexical") == []


def test_accents_do_not_matter_in_english() -> None:
    with MuveraIndex.create(None) as index:
        index.add(["The cliché of the résumé.", "A protege."], ids=["a", "b"])
        assert [hit.id for hit in index.search("cliche resume", mode="lexical")] == ["a"]
        assert [hit.id for hit in index.search("protégé", mode="lexical")] == ["b"]


def test_common_words_count_where_others_find_too_few() -> None:
    tokens, n = [np.eye(1, 16, dtype=np.float32)] * 1200, 1200
    with MuveraIndex.create(None, PrecomputedEmbeddings(16, "test")) as index:
        texts = ["owl barn" if i == 5 else "owl tree" if i % 3 else "ant" for i in range(n)]
        index.add_embeddings(tokens, ids=list(map(str, range(n))), texts=texts, metadatas=[{"n": i} for i in range(n)])
        store, snapshot = index.engine.collection.store, index.engine.collection.snapshot()
        query = parse_query(LexicalConfig(), "owl barn")
        keys, bm25 = store.lexical_search(snapshot, query, 3)
        assert [store.documents(snapshot, [key])[0].text for key in keys] == ["owl barn", "owl tree", "owl tree"]
        assert bm25[0] > bm25[1] == bm25[2] > 0
        admitted = store.matching(snapshot, compile_filter({"n": {"$gt": 5}}))
        assert len(store.lexical_search(snapshot, query, 3, admitted)[0]) == 3


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "semantic"}, "mode must be one of 'late', 'hybrid', 'lexical', got 'semantic'"),
        ({"fusion": "sum", "mode": "hybrid"}, "fusion must be one of"),
        ({"fusion": "ranks"}, "fusion is for mode='hybrid'"),
        ({"lexical_weight": 0.2}, "lexical_weight is for mode='hybrid'"),
        ({"lexical_weight": 2, "mode": "hybrid"}, "lexical_weight must be a number between 0 and 1"),
        ({"n_candidates": 5, "mode": "lexical"}, "reranks no candidates"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: dict[str, object], message: str, index: MuveraIndex) -> None:
    with pytest.raises(InvalidInputError, match=message):
        index.search("disk", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
def test_an_index_without_words_says_what_to_do(mode: SearchMode) -> None:
    with MuveraIndex.create(None, lexical=False) as index:
        index.add(["Owls hunt at night."])
        with pytest.raises(InvalidInputError, match="no word index"):
            index.search("owls", mode=mode)
        index.set_lexical(True)
        assert len(index.search("owls", mode=mode)) == 1


# How scores are joined


def test_bm25_is_brought_to_the_scale_of_maxsim() -> None:
    maxsim, bm25 = np.array([8, 6, 4], np.float32), np.array([0, 5, 10], np.float32)
    assert fuse_scores(maxsim, bm25, 0.5, 10).tolist() == [6, 6, 6]
    assert fuse_scores(maxsim, bm25, 1, 10).tolist() == [4, 6, 8]
    assert fuse_scores(maxsim, np.zeros(3, np.float32), 0.5, 10).tolist() == [8, 6, 4]


def test_bm25_decides_between_documents_that_maxsim_does_not_tell_apart() -> None:
    fused = fuse_scores(np.full(3, 5, np.float32), np.array([0, 1, 2], np.float32), 0.1, 10)
    assert (np.diff(fused) > 0).all()


def test_only_the_best_documents_give_the_range() -> None:
    """A thousand poor candidates don't change what BM25 is worth beside MaxSim."""
    maxsim = np.concatenate([np.linspace(10, 8, 200), np.zeros(1000)]).astype(np.float32)
    bm25 = np.zeros(1200, np.float32)
    bm25[100] = 7
    few, many = fuse_scores(maxsim[:200], bm25[:200], 0.3, 10), fuse_scores(maxsim, bm25, 0.3, 10)
    np.testing.assert_allclose(few, many[:200])


def test_ranks_are_joined_by_their_reciprocals() -> None:
    fused = fuse_ranks(np.array([3, 2, 1], np.float32), np.array([0, 1, 2], np.float32), 0.5)
    np.testing.assert_allclose(fused, [0.5, (61 / 62 + 61 / 62) / 2, (61 / 63 + 1) / 2], rtol=1e-6)


def test_rare_words_and_clear_matches_weigh_more() -> None:
    rng = np.random.default_rng(1)
    maxsim, bm25 = rng.normal(5, 1, 300).astype(np.float32), np.abs(rng.normal(0, 1, 300)).astype(np.float32)
    rare, common = Terms(10_000, np.array([1])), Terms(10_000, np.array([3_000]))
    assert weight_of_words(maxsim, bm25, rare) > weight_of_words(maxsim, bm25, common)
    clear = bm25.copy()
    clear[0] = 30
    assert weight_of_words(maxsim, clear, common) > weight_of_words(maxsim, bm25, common)
    assert weight_of_words(maxsim, np.zeros(300, np.float32), rare) == 0


def test_no_document_exceeds_the_highest_bm25(index: MuveraIndex) -> None:
    for query in [*TEXTS.values(), "error error disk", "ERR-4012"]:
        assert all(0 < hit.normalized_score <= 1 for hit in index.search(query, mode="lexical"))


def test_terms_without_documents_are_not_rare() -> None:
    assert Terms(100, np.array([0, 50])).rarity < 0.3
    assert Terms(100, np.array([0])).rarity == 0
    assert Terms(0, np.empty(0, np.int64)).highest_bm25 == 0
    assert math.isclose(Terms(100, np.array([1])).rarity, 1)


# The share that judged questions choose


def test_optimize_chooses_the_share_of_words_by_judged_questions(tmp_path: Path) -> None:
    """The questions name documents by a code that means nothing, so that words alone find them."""
    codes = [f"{a}{b}{n}" for a in "qxz" for b in "kvw" for n in range(10, 16)]
    texts = [f"Item {code} is stored in the warehouse, shelf {i}." for i, code in enumerate(codes)]
    with MuveraIndex.create(tmp_path / "index") as index:
        index.add(texts, ids=codes)
        with pytest.warns(UserWarning, match="optimize leaves stage one"):
            tuning = index.optimize(
                queries=[f"Where is {code}?" for code in codes], relevant=[[code] for code in codes]
            )
        assert tuning.measured["hybrid_ndcg"] >= tuning.measured["hybrid_ndcg_by_question"]
        chosen = index.engine.collection.learned.lexical_weight
        assert chosen == tuning.measured.get("lexical_weight")
    with MuveraIndex.open(tmp_path / "index", read_only=True) as reader:
        assert reader.engine.collection.learned.lexical_weight == chosen
        with pytest.raises(ReadOnlyIndexError):
            reader.optimize(queries=["Where is qk10?"], relevant=[["qk10"]])


def test_optimize_refuses_judgements_that_do_not_fit(index: MuveraIndex) -> None:
    with pytest.raises(InvalidInputError, match="give queries"):
        index.optimize(relevant=[["disk"]])
    with pytest.raises(InvalidInputError, match="relevant"):
        index.optimize(queries=["a", "b"], relevant=[["disk"]])
    with pytest.raises(InvalidInputError, match="no relevant document of 1 question"):
        index.optimize(queries=["a"], relevant=[["unknown"]])
    for grade in ("1", None, math.inf, math.nan):
        with pytest.raises(InvalidInputError, match="grade of document 'disk' must be a finite number"):
            index.optimize(queries=["a"], relevant=[{"disk": grade}])


def test_a_calibration_for_late_serves_hybrid_and_its_own_replaces_it() -> None:
    with MuveraIndex.create(None) as index:
        add_texts(index)
        index.add([f"Fact {i} about numbers." for i in range(12)])
        index.calibrate(n_queries=20)
        calibration = index.engine.collection.learned
        assert calibration.calibration_of("hybrid") == calibration.calibrations["late"]
        assert calibration.calibration_of("lexical") is None
        index.calibrate(["ERR-4012", "owls"], [["disk"], ["owl"]], mode="hybrid", n_queries=20)
        assert set(index.calibration) == {"late", "hybrid"}
        assert 0 <= index.search("ERR-4012", 1, mode="hybrid")[0].relevance <= 1
        with pytest.raises(InvalidInputError, match="judged questions"):
            index.calibrate(mode="hybrid")
