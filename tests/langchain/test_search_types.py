"""Searches by words, by words and meaning, for coverage, with passages and with a cross-encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_muvera import MuveraRetriever, MuveraVectorStore, ScoredDocument
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.lexical import LexicalConfig
from muvera_core.search import QueryReduction

try:
    from langchain_core.cross_encoders import BaseCrossEncoder
except ModuleNotFoundError:  # an older langchain-core, where any object with ``score`` is one
    BaseCrossEncoder = object  # type: ignore[assignment,misc]

TEXTS = {
    "pump": "The pump has stopped. Its display shows ERR-4012 until the filter is cleaned.",
    "valve": "The valve leaks. Its display shows ERR-4077 until the seal is replaced.",
    "owl": "Owls hunt at night and hear better than they see.",
    "ant": "Ants live in colonies and follow trails of scent.",
    "camel": "Camels store fat in their humps, not water.",
    "salmon": "Salmon return to the river where they hatched.",
    "bat": "Bats find insects by the echo of their own calls.",
    "frog": "Frogs breathe through their skin when they are under water.",
    "gecko": "Geckos climb glass, because their toes have millions of tiny hairs.",
    "beaver": "Beavers build dams, and lodges with entrances under water.",
}
CODE = "what does ERR-4012 mean"
NIGHT = "Which bird hunts at night?"
TWO_PARTS = "How do owls hunt and where do salmon go?"
LONG = "Pumps need care. " * 40 + "The red lamp means that the tank is empty. " + "Valves need oil. " * 40


@pytest.fixture(scope="module")
def store(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    with MuveraVectorStore.from_texts(list(TEXTS.values()), ids=list(TEXTS), encoder=encoder) as made:
        yield made


class LengthOfText(BaseCrossEncoder):
    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        return [float(len(text)) for _, text in text_pairs]


LONGEST = sorted(TEXTS, key=lambda id: -len(TEXTS[id]))


def ids_of(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


def scored(documents: list[Document]) -> list[tuple[str | None, float, float]]:
    return [(each.id, each.score, each.relevance) for each in documents if isinstance(each, ScoredDocument)]


# Modes and search types


@pytest.mark.parametrize(
    ("search_type", "mode"), [("similarity", "late"), ("hybrid", "hybrid"), ("lexical", "lexical")]
)
async def test_a_mode_is_the_same_everywhere(store: MuveraVectorStore, search_type: str, mode: Any) -> None:
    expected = [(hit.id, hit.score, hit.relevance) for hit in store.index.search(CODE, 3, mode=mode)]
    assert expected[0][0] == "pump"
    through_store = store.as_retriever(search_type=search_type, search_kwargs={"k": 3})
    own = MuveraRetriever(index=store.index, k=3, mode=mode)
    for found in (
        store.similarity_search(CODE, 3, mode=mode),
        [document for document, _ in store.similarity_search_with_score(CODE, 3, mode=mode)],
        store.search(CODE, search_type, k=3),
        await store.asearch(CODE, search_type, k=3),
        through_store.invoke(CODE),
        await through_store.ainvoke(CODE),
        own.invoke(CODE),
        await own.ainvoke(CODE),
        MuveraRetriever(index=store.index).invoke(CODE, k=3, mode=mode),
    ):
        assert scored(found) == expected


async def test_coverage_is_a_search_type(store: MuveraVectorStore) -> None:
    hits = store.index.search_diverse(TWO_PARTS, 2, method="coverage", fetch_k=20)
    assert {hit.id for hit in hits} == {"owl", "salmon"}
    retriever = store.as_retriever(search_type="coverage", search_kwargs={"k": 2})
    for found in (
        store.max_marginal_relevance_search(TWO_PARTS, 2, method="coverage"),
        store.search(TWO_PARTS, "coverage", k=2),
        retriever.invoke(TWO_PARTS),
        await retriever.ainvoke(TWO_PARTS),
    ):
        assert ids_of(found) == [hit.id for hit in hits]


def test_diverse_searches_take_neighbours_and_a_mode(store: MuveraVectorStore) -> None:
    for given in ({"n_neighbors": 2, "method": "coverage"}, {"mode": "hybrid"}, {"mode": "lexical"}):
        options: dict[str, Any] = dict(given)
        hits = store.index.search_diverse(CODE, 3, fetch_k=4, relevance_weight=0.2, **options)
        found = store.max_marginal_relevance_search(CODE, 3, fetch_k=4, lambda_mult=0.2, **options)
        assert scored(found) == [(hit.id, hit.score, hit.relevance) for hit in hits]
    near = store.max_marginal_relevance_search(CODE, 2, fetch_k=2, lambda_mult=0, n_neighbors=9)
    assert ids_of(near) != ids_of(store.max_marginal_relevance_search(CODE, 2, fetch_k=2, lambda_mult=0))
    with pytest.raises(InvalidInputError, match="method must be one of"):
        store.max_marginal_relevance_search(CODE, method="clusters")  # type: ignore[arg-type]


def test_options_of_hybrid_searches_reach_the_index(store: MuveraVectorStore) -> None:
    options: dict[str, Any] = {"lexical_weight": 0.9, "fusion": "ranks", "query_reduction": QueryReduction(0.7)}
    expected = [(hit.id, hit.score, hit.relevance) for hit in store.index.search(CODE, 3, mode="hybrid", **options)]
    assert scored(store.similarity_search(CODE, 3, mode="hybrid", **options)) == expected
    assert scored(store.as_retriever(search_type="hybrid", search_kwargs={"k": 3, **options}).invoke(CODE)) == expected
    retriever = MuveraRetriever(index=store.index, k=3, mode="hybrid", **options)
    assert scored(retriever.invoke(CODE)) == expected
    assert ids_of(retriever.invoke(CODE, mode="late")) == [hit.id for hit in store.index.search(CODE, 3)]
    with pytest.raises(InvalidInputError, match="lexical_weight is for mode='hybrid'"):
        store.similarity_search(CODE, lexical_weight=0.5)
    with pytest.raises(InvalidInputError, match="mode must be one of"):
        MuveraRetriever(index=store.index).invoke(CODE, mode="dense")
    with pytest.raises(InvalidInputError, match=r"search_type must be one of 'similarity'.*'coverage'"):
        store.search(CODE, "nearest")


def test_a_call_in_another_mode_does_without_settings_that_have_no_meaning_in_it(store: MuveraVectorStore) -> None:
    reduction = QueryReduction(ball_threshold=0.7)
    retriever = MuveraRetriever(index=store.index, k=1, n_candidates=50, query_reduction=reduction)
    assert ids_of(retriever.invoke(CODE, mode="lexical")) == ["pump"]
    with pytest.raises(InvalidInputError, match="n_candidates"):
        retriever.invoke(CODE, mode="lexical", n_candidates=5)


def test_words_of_a_field_are_searched_and_words_need_a_word_index(encoder: BundledEncoder) -> None:
    texts, metadatas = (
        ["Zebras are mentioned here.", "Stripes confuse flies."],
        [{"title": "River"}, {"title": "Zebra"}],
    )
    words = LexicalConfig(fields=("title",))
    with MuveraVectorStore.from_texts(
        texts, metadatas=metadatas, ids=["body", "title"], encoder=encoder, lexical=words, keep_tokens=0.75
    ) as store:
        assert (store.index.lexical, store.index.keep_tokens) == (words, 0.75)
        assert ids_of(store.search("zebras", "lexical")) == ["title", "body"]
        store.index.set_lexical(False)
        with pytest.raises(InvalidInputError, match="set_lexical"):
            store.search("zebras", "hybrid")


def test_creation_settings_reach_the_index(tmp_path: Path, encoder: BundledEncoder) -> None:
    german = LexicalConfig(language="german")
    with MuveraVectorStore.open_or_create(tmp_path, encoder, lexical=german, keep_tokens=0.5) as store:
        assert (store.index.lexical, store.index.keep_tokens) == (german, 0.5)
    with pytest.raises(InvalidInputError, match="lexical="):
        MuveraVectorStore.open_or_create(tmp_path, encoder, lexical=False)
    with MuveraVectorStore.from_documents([Document("Owls.")], encoder=encoder, lexical=False) as store:
        assert store.index.lexical is None


# Relevance


def test_a_calibrated_index_gives_probabilities_as_relevance_scores(encoder: BundledEncoder) -> None:
    with MuveraVectorStore.from_texts(list(TEXTS.values()), ids=list(TEXTS), encoder=encoder) as store:
        before = store.similarity_search_with_score(NIGHT, 3)
        assert [score for _, score in before] == [hit.normalized_score for hit in store.index.search(NIGHT, 3)]
        store.index.calibrate()
        hits = store.index.search(NIGHT, 3)
        expected = [(hit.id, hit.relevance) for hit in hits]
        for pairs in (
            store.similarity_search_with_score(NIGHT, 3),
            store.similarity_search_with_relevance_scores(NIGHT, 3),
        ):
            assert [(document.id, score) for document, score in pairs] == expected
        assert [score for _, score in before] != [hit.relevance for hit in hits]
        threshold = hits[0].relevance
        for found in (
            store.similarity_search(NIGHT, min_score=threshold),
            store.as_retriever(
                search_type="similarity_score_threshold", search_kwargs={"score_threshold": threshold}
            ).invoke(NIGHT),
            MuveraRetriever(index=store.index, min_score=threshold).invoke(NIGHT),
        ):
            assert ids_of(found) == ["owl"]


def test_a_document_carries_all_its_scores(store: MuveraVectorStore) -> None:
    (document,), (hit,) = store.search(CODE, "hybrid", k=1), store.index.search(CODE, 1, mode="hybrid")
    assert isinstance(document, ScoredDocument)
    scores = (document.score, document.normalized_score, document.relevance, document.lexical_score)
    assert scores == (hit.score, hit.normalized_score, hit.relevance, hit.lexical_score)
    assert document.judged_score is None
    assert "lexical_score=" in repr(document)
    assert document == store.get_by_ids(["pump"])[0]
    assert ScoredDocument("x", score=1, normalized_score=0.5).relevance == 0.5


# Passages


def test_a_passage_is_put_into_the_metadata_or_becomes_the_text(encoder: BundledEncoder) -> None:
    with MuveraVectorStore.from_texts([LONG], metadatas=[{"page": 3}], ids=["manual"], encoder=encoder) as store:
        retriever = MuveraRetriever(index=store.index)
        through_store = store.as_retriever(search_kwargs={"passage": "metadata"})
        (stored,) = store.get_by_ids(["manual"])
        marked, *others = [
            found[0]
            for found in (
                retriever.invoke("red lamp", passage="metadata"),
                retriever.model_copy(update={"passage": "metadata"}).invoke("red lamp"),
                store.similarity_search("red lamp", passage="metadata"),
                store.similarity_search_with_score("red lamp", passage="metadata")[0],
                through_store.invoke("red lamp"),
            )
        ]
        assert others == [marked] * 4
        passage = marked.metadata["passage"]
        assert "The red lamp means that the tank is empty." in passage
        assert len(passage) <= 500
        assert LONG[marked.metadata["passage_start"] : marked.metadata["passage_end"]] == passage
        assert (marked.id, marked.page_content, marked.metadata["page"]) == ("manual", LONG, 3)
        (shown,) = retriever.invoke("red lamp", passage="text")
        assert (shown.page_content, shown.metadata) == (passage, marked.metadata)
        assert retriever.invoke("red lamp") == [stored] == store.get_by_ids(["manual"])
        assert marked != stored
        with pytest.raises(InvalidInputError, match="passage must be one of 'metadata', 'text'"):
            store.similarity_search("red lamp", passage="yes")  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="passage must be one of 'metadata', 'text'"):
            retriever.invoke("red lamp", passage="yes")


# A cross-encoder


async def test_a_cross_encoder_has_the_last_word(store: MuveraVectorStore) -> None:
    retriever = MuveraRetriever(index=store.index, k=3, cross_encoder=LengthOfText())
    for found in (
        store.search_with_cross_encoder(CODE, LengthOfText(), 3),
        await store.asearch_with_cross_encoder(CODE, LengthOfText().score, 3),
        retriever.invoke(CODE),
        await retriever.ainvoke(CODE),
    ):
        assert ids_of(found) == LONGEST[:3]
        judged = [document.judged_score for document in found if isinstance(document, ScoredDocument)]
        assert judged == [len(TEXTS[id]) for id in LONGEST[:3]]
    only = store.search_with_cross_encoder(CODE, LengthOfText(), ids=["owl", "ant"], filter={})
    assert set(ids_of(only)) == {"owl", "ant"} == set(ids_of(retriever.invoke(CODE, ids=["owl", "ant"])))


def test_it_judges_no_more_documents_than_it_may(store: MuveraVectorStore) -> None:
    judged: list[str] = []

    def note(pairs: list[tuple[str, str]]) -> list[float]:
        judged.extend(text for _, text in pairs)
        return LengthOfText().score(pairs)

    found = MuveraRetriever(index=store.index, k=6, cross_encoder=note).invoke(CODE, n_calls=4)
    assert len(judged) == len(set(judged)) == 4
    scores = [document.judged_score for document in found if isinstance(document, ScoredDocument)]
    assert [score is None for score in scores] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("setting", [{"mode": "hybrid"}, {"min_score": 0.5}, {"passage": "text"}])
def test_settings_that_it_would_ignore_are_refused(store: MuveraVectorStore, setting: dict[str, Any]) -> None:
    for retriever, given in (
        (MuveraRetriever(index=store.index, cross_encoder=LengthOfText(), **setting), {}),
        (MuveraRetriever(index=store.index, cross_encoder=LengthOfText()), setting),
    ):
        with pytest.raises(InvalidInputError, match="has no meaning with a cross_encoder"):
            retriever.invoke(CODE, **given)
    with pytest.raises(InvalidInputError, match="n_calls is for a cross_encoder"):
        MuveraRetriever(index=store.index).invoke(CODE, n_calls=3)
    with pytest.raises(InvalidInputError, match="cross_encoder must be a function"):
        store.search_with_cross_encoder(CODE, "a model")  # type: ignore[arg-type]
