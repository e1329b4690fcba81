"""Searches by words, by words and meaning, for coverage, with passages and with a cross-encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.retrievers.muvera import MaxSimRerank, MuveraRetriever, MuveraVectorStore, NoEmbedding

from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.lexical import LexicalConfig
from muvera_core.search import QueryReduction

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
LONG = "Pumps need care. " * 40 + "The red lamp means that the tank is empty. " + "Valves need oil. " * 40


def nodes() -> list[TextNode]:
    return [TextNode(id_=id, text=text) for id, text in TEXTS.items()]


@pytest.fixture(scope="module")
def store(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    with MuveraIndex.create(None, encoder) as index:
        made = MuveraVectorStore(index)
        made.add(nodes())
        yield made


@pytest.fixture
def long_store(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    with MuveraIndex.create(None, encoder) as index:
        made = MuveraVectorStore(index)
        made.add([TextNode(id_="manual", text=LONG, metadata={"title": "Manual of the machine"})])
        yield made


def vector_index(store: MuveraVectorStore) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex([], storage_context=context, embed_model=NoEmbedding())


def length_of_text(pairs: list[tuple[str, str]]) -> list[float]:
    return [len(text) for _, text in pairs]


# Modes


@pytest.mark.parametrize(
    ("asked", "searched"),
    [("default", "late"), ("hybrid", "hybrid"), ("text_search", "lexical"), ("sparse", "lexical")],
)
async def test_each_query_mode_is_one_of_the_index(store: MuveraVectorStore, asked: Any, searched: Any) -> None:
    hits = store.client.search(CODE, 3, mode=searched)
    query = VectorStoreQuery(query_str=CODE, similarity_top_k=3, mode=VectorStoreQueryMode(asked))
    for result in (store.query(query), await store.aquery(query)):
        assert result.ids == [hit.id for hit in hits]
        assert result.similarities == [hit.relevance for hit in hits]
    retriever = vector_index(store).as_retriever(similarity_top_k=3, vector_store_query_mode=asked)
    assert [(n.node_id, n.score) for n in retriever.retrieve(CODE)] == [(hit.id, hit.relevance) for hit in hits]
    own = MuveraRetriever(store.client, 3, mode=searched)
    assert [(n.node_id, n.score) for n in own.retrieve(CODE)] == [(hit.id, hit.relevance) for hit in hits]
    assert hits[0].id == "pump"


def test_words_alone_leave_out_what_has_none_of_them(store: MuveraVectorStore) -> None:
    query = VectorStoreQuery(query_str="ERR-4077", similarity_top_k=9, mode=VectorStoreQueryMode.TEXT_SEARCH)
    assert (store.query(query).ids or [])[0] == "valve"
    assert "owl" not in (store.query(query).ids or [])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_is_the_share_of_late_interaction(store: MuveraVectorStore, alpha: float) -> None:
    hits = store.client.search(CODE, 4, mode="hybrid", lexical_weight=1 - alpha)
    query = VectorStoreQuery(
        query_str=CODE, similarity_top_k=2, hybrid_top_k=4, mode=VectorStoreQueryMode.HYBRID, alpha=alpha
    )
    assert store.query(query).similarities == [hit.relevance for hit in hits]
    if alpha == 1:
        assert store.query(query).ids == [hit.id for hit in store.client.search(CODE, 4)]


def test_options_of_hybrid_searches_reach_the_index(store: MuveraVectorStore) -> None:
    query = VectorStoreQuery(query_str=CODE, similarity_top_k=3, mode=VectorStoreQueryMode.HYBRID)
    options: dict[str, Any] = {"lexical_weight": 0.9, "fusion": "ranks", "query_reduction": QueryReduction(0.7)}
    expected = [hit.relevance for hit in store.client.search(CODE, 3, mode="hybrid", **options)]
    assert store.query(query, **options).similarities == expected
    retriever = MuveraRetriever(store.client, 3, mode="hybrid", **options)
    assert [node.score for node in retriever.retrieve(CODE)] == expected
    with pytest.raises(InvalidInputError, match="leave one of the two out"):
        store.query(VectorStoreQuery(query_str=CODE, mode=VectorStoreQueryMode.HYBRID, alpha=0.5), lexical_weight=0.5)
    with pytest.raises(InvalidInputError, match="alpha must be"):
        store.query(VectorStoreQuery(query_str=CODE, mode=VectorStoreQueryMode.HYBRID, alpha=2))
    with pytest.raises(InvalidInputError, match="lexical_weight is for mode='hybrid'"):
        MuveraRetriever(store.client, lexical_weight=0.5).retrieve(CODE)


def test_words_need_a_word_index(encoder: BundledEncoder) -> None:
    retriever = MuveraRetriever.from_nodes(nodes()[:2], encoder=encoder, lexical=False, mode="hybrid")
    with retriever.index, pytest.raises(InvalidInputError, match="set_lexical"):
        retriever.retrieve(CODE)


def test_the_words_of_a_metadata_field_and_of_the_embedded_text_are_searched(encoder: BundledEncoder) -> None:
    titled = [
        TextNode(id_="body", text="Zebras are mentioned here.", metadata={"title": "Rivers"}),
        TextNode(id_="title", text="Stripes confuse flies.", metadata={"title": "Zebras"}),
        TextNode(id_="secret", text="Lions.", metadata={"note": "zebras"}, excluded_embed_metadata_keys=["note"]),
    ]
    retriever = MuveraRetriever.from_nodes(
        titled, encoder=encoder, lexical=LexicalConfig(fields=("title",)), keep_tokens=0.75, mode="lexical"
    )
    with retriever.index as index:
        assert index.lexical == LexicalConfig(fields=("title",))
        assert [node.node_id for node in retriever.retrieve("zebras")] == ["title", "body"]


# Relevance


def test_a_calibrated_index_gives_probabilities_as_scores(encoder: BundledEncoder) -> None:
    with MuveraRetriever.from_nodes(nodes(), encoder=encoder).index as index:
        before = [node.score for node in MuveraRetriever(index, 3).retrieve("Which bird hunts at night?")]
        assert before == [hit.normalized_score for hit in index.search("Which bird hunts at night?", 3)]
        index.calibrate()
        found = MuveraRetriever(index, 3).retrieve("Which bird hunts at night?")
        hits = index.search("Which bird hunts at night?", 3)
        assert [node.score for node in found] == [hit.relevance for hit in hits] != before
        kept = SimilarityPostprocessor(similarity_cutoff=hits[0].relevance).postprocess_nodes(found)
        assert [node.node_id for node in kept] == ["owl"]
        limited = MuveraRetriever(index, 3, min_score=hits[0].relevance).retrieve("Which bird hunts at night?")
        assert [node.node_id for node in limited] == ["owl"]


# Diverse


def test_diverse_queries_take_a_method_neighbours_and_a_mode(store: MuveraVectorStore) -> None:
    question = "How do owls hunt and where do salmon go?"
    query = VectorStoreQuery(query_str=question, similarity_top_k=3, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.2)
    for options in ({"method": "coverage", "n_neighbors": 2}, {"method": "coverage", "mode": "hybrid"}, {}):
        chosen: dict[str, Any] = dict(options)
        hits = store.client.search_diverse(question, 3, relevance_weight=0.2, **chosen)
        assert store.query(query, **chosen).ids == [hit.id for hit in hits]
    with pytest.raises(InvalidInputError, match="method must be one of"):
        store.query(query, method="clusters")
    retriever = vector_index(store).as_retriever(
        similarity_top_k=2, vector_store_query_mode="mmr", vector_store_kwargs={"method": "coverage"}
    )
    assert {node.node_id for node in retriever.retrieve(question)} == {"owl", "salmon"}


# Passages


@pytest.mark.parametrize("way", ["retriever", "store"])
def test_a_passage_is_put_into_the_metadata_or_becomes_the_text(long_store: MuveraVectorStore, way: str) -> None:
    def ask(passage: Any) -> TextNode:
        if way == "retriever":
            found = MuveraRetriever(long_store.client, passage=passage).retrieve("red lamp")[0].node
        else:
            found = (long_store.query(VectorStoreQuery(query_str="red lamp"), passage=passage).nodes or [])[0]
        assert isinstance(found, TextNode)
        return found

    (stored,) = long_store.get_nodes()
    assert ask(None) == stored
    marked, shown = ask("metadata"), ask("text")
    passage = marked.metadata["passage"]
    assert "The red lamp means that the tank is empty." in passage
    found = long_store.client.search("red lamp", 1, with_passages=True)[0].passage
    assert found is not None
    assert found.text == passage
    assert LONG[marked.metadata["passage_start"] : marked.metadata["passage_end"]] == passage
    assert (marked.text, shown.text) == (LONG, passage)
    for node in (marked, shown):
        assert node.node_id == "manual"
        assert node.metadata["title"] == "Manual of the machine"
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert "passage" not in node.get_content(metadata_mode=mode)
    assert marked.get_content(MetadataMode.EMBED) == stored.get_content(MetadataMode.EMBED)
    assert marked.hash != stored.hash
    assert long_store.get_nodes() == [stored]


def test_the_passage_of_a_short_text_is_all_of_it_without_its_metadata(encoder: BundledEncoder) -> None:
    node = TextNode(id_="owl", text="  Owls hunt at night.\n", metadata={"title": "Birds"})
    retriever = MuveraRetriever.from_nodes([node], encoder=encoder, passage="text")
    with retriever.index:
        found = retriever.retrieve("Who hunts at night?")[0]
    assert found.text.strip() == "Owls hunt at night."
    start, end = found.metadata["passage_start"], found.metadata["passage_end"]
    assert node.text[start:end] == found.text


def test_passages_come_with_every_mode_and_only_as_they_are_known(store: MuveraVectorStore) -> None:
    for mode in ("default", "hybrid", "text_search", "sparse"):
        query = VectorStoreQuery(query_str="ERR-4012", similarity_top_k=1, mode=VectorStoreQueryMode(mode))
        assert (store.query(query, passage="metadata").nodes or [])[0].metadata["passage"] == TEXTS["pump"]
    with pytest.raises(InvalidInputError, match="passage must be one of 'metadata', 'text'"):
        store.query(VectorStoreQuery(query_str=CODE), passage="yes")


# A cross-encoder


async def test_a_cross_encoder_has_the_last_word(store: MuveraVectorStore) -> None:
    found = store.search_with_cross_encoder(CODE, length_of_text, 3)
    longest = sorted(TEXTS, key=lambda id: -len(TEXTS[id]))[:3]
    assert [(node.node_id, node.score) for node in found] == [(id, len(TEXTS[id])) for id in longest]
    assert await store.asearch_with_cross_encoder(CODE, length_of_text, 3) == found
    assert MuveraRetriever(store.client, 3, cross_encoder=length_of_text).retrieve(CODE) == found
    only = store.search_with_cross_encoder(CODE, length_of_text, 3, node_ids=["owl", "ant"], filters={})
    assert {node.node_id for node in only} == {"owl", "ant"}


def test_it_judges_no_more_nodes_than_it_may(store: MuveraVectorStore) -> None:
    judged: list[str] = []

    def note(pairs: list[tuple[str, str]]) -> list[float]:
        judged.extend(text for _, text in pairs)
        return length_of_text(pairs)

    found = MuveraRetriever(store.client, 6, cross_encoder=note, n_calls=4).retrieve(CODE)
    assert len(judged) == len(set(judged)) == 4
    assert [node.score is None for node in found] == [False] * 4 + [True] * 2


def test_it_reads_the_text_that_is_matched(encoder: BundledEncoder) -> None:
    texts: list[str] = []

    def note(pairs: list[tuple[str, str]]) -> list[float]:
        texts.extend(text for _, text in pairs)
        return [0.0] * len(pairs)

    node = TextNode(text="Owls.", metadata={"title": "Birds", "file": "a.txt"}, excluded_embed_metadata_keys=["file"])
    retriever = MuveraRetriever.from_nodes([node], encoder=encoder, cross_encoder=note)
    with retriever.index:
        retriever.retrieve("owls")
    assert texts == [node.get_content(MetadataMode.EMBED)]


def test_a_node_postprocessor_can_be_the_cross_encoder(store: MuveraVectorStore, encoder: BundledEncoder) -> None:
    found = store.search_with_cross_encoder(CODE, MaxSimRerank(encoder, top_n=8), 3)
    expected = MaxSimRerank(encoder, top_n=3).postprocess_nodes(
        [NodeWithScore(node=node) for node in nodes()], query_str=CODE
    )
    assert [node.node_id for node in found] == [node.node_id for node in expected]
    assert [node.score for node in found] == pytest.approx([node.score for node in expected], abs=1e-5)


class Shouting(BaseNodePostprocessor):
    """Returns the nodes in another order, as rerankers do."""

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return [NodeWithScore(node=each.node, score=float(len(each.text))) for each in reversed(nodes)]


def test_its_scores_are_matched_by_node(store: MuveraVectorStore) -> None:
    by_nodes = store.search_with_cross_encoder(CODE, Shouting(), 5)
    assert by_nodes == store.search_with_cross_encoder(CODE, length_of_text, 5)


def test_a_postprocessor_that_leaves_nodes_out_is_refused(store: MuveraVectorStore, encoder: BundledEncoder) -> None:
    with pytest.raises(InvalidInputError, match=r"MaxSimRerank returned 2 nodes of 8.*set its top_n to 8"):
        store.search_with_cross_encoder(CODE, MaxSimRerank(encoder, top_n=2))
    with pytest.raises(InvalidInputError, match="cross_encoder must be a function"):
        store.search_with_cross_encoder(CODE, "a model")  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", [{"mode": "hybrid"}, {"min_score": 0.5}, {"passage": "text"}])
def test_settings_that_it_would_ignore_are_refused(store: MuveraVectorStore, setting: dict[str, Any]) -> None:
    retriever = MuveraRetriever(store.client, cross_encoder=length_of_text, **setting)
    with pytest.raises(InvalidInputError, match="has no meaning with a cross_encoder"):
        retriever.retrieve(CODE)
    with pytest.raises(InvalidInputError, match="n_calls is for a cross_encoder"):
        MuveraRetriever(store.client, n_calls=3).retrieve(CODE)


def test_creation_settings_reach_the_index(tmp_path: Any, encoder: BundledEncoder) -> None:
    german = LexicalConfig(language="german")
    made = MuveraVectorStore.open_or_create(tmp_path / "a", encoder, lexical=german, keep_tokens=0.5)
    assert (made.client.lexical, made.client.keep_tokens) == (german, 0.5)
    made.client.close()
    retriever = MuveraRetriever.open_or_create(tmp_path / "b", encoder, lexical=False)
    assert retriever.index.lexical is None
    retriever.index.close()
    with pytest.raises(InvalidInputError, match="keep_tokens"):
        MuveraRetriever.open_or_create(tmp_path / "b", encoder, keep_tokens=0.5)
