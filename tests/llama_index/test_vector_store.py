"""MuveraVectorStore by itself. tests/llama_index/test_flows.py has it at work in LlamaIndex."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.retrievers.muvera import MuveraRetriever, MuveraVectorStore

from muvera_core import MuveraIndex, TokenEncoder
from muvera_core.errors import CorruptIndexError, InvalidInputError, NotAnIndexError, SkippedTextWarning


def _node(id: str, text: str, source: str | None = None, **metadata: Any) -> TextNode:
    relationships = {} if source is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)}
    return TextNode(id_=id, text=text, metadata=metadata, relationships=relationships)


BIRDS = [
    _node("owl", "owls hunt at night", "night", legs=2),
    _node("bat", "bats hunt at night", "night", legs=2, tags=["mammal"]),
    _node("ant", "ants live in colonies", "day", legs=6),
]
TWO_LEGS = MetadataFilters(filters=[MetadataFilter(key="legs", value=2)])


@pytest.fixture
def filled(store: MuveraVectorStore) -> MuveraVectorStore:
    assert store.add(BIRDS) == ["owl", "bat", "ant"]
    return store


def _ids(store: MuveraVectorStore, text: str = "owls hunt", k: int = 10, **query: Any) -> list[str]:
    return store.query(VectorStoreQuery(query_str=text, similarity_top_k=k, **query)).ids or []


def test_class() -> None:
    assert BasePydanticVectorStore.__name__ in [base.__name__ for base in MuveraVectorStore.__mro__]


def test_it_says_what_it_is(store: MuveraVectorStore) -> None:
    assert (store.stores_text, store.is_embedding_query) == (True, False)
    assert store.class_name() == "MuveraVectorStore"
    assert isinstance(store.client, MuveraIndex)


def test_a_query_gives_nodes_ids_and_the_cores_scores(filled: MuveraVectorStore) -> None:
    result = filled.query(VectorStoreQuery(query_str="owls hunt", similarity_top_k=2))
    hits = filled.client.search("owls hunt", k=2)
    assert result.ids == [hit.id for hit in hits] == ["owl", "bat"]
    assert result.similarities == [hit.normalized_score for hit in hits]
    assert list(result.nodes or []) == BIRDS[:2]


def test_a_query_can_be_restricted(filled: MuveraVectorStore) -> None:
    assert _ids(filled, filters=TWO_LEGS) == ["owl", "bat"]
    assert _ids(filled, node_ids=["ant", "bat"]) == ["bat", "ant"]
    assert _ids(filled, doc_ids=["day"]) == ["ant"]
    assert _ids(filled, doc_ids=["night"], node_ids=["bat", "ant"], filters=TWO_LEGS) == ["bat"]
    assert _ids(filled, node_ids=[], doc_ids=[]) == ["owl", "bat", "ant"]


def test_options_of_a_query_reach_the_index(filled: MuveraVectorStore) -> None:
    query = VectorStoreQuery(query_str="owls hunt", similarity_top_k=3)
    assert filled.query(query, n_candidates=3, exact=True).ids == ["owl", "bat", "ant"]
    with pytest.raises(InvalidInputError, match="n_candidates must be"):
        filled.query(query, n_candidates=0)


def test_nodes_below_a_score_are_left_out(filled: MuveraVectorStore) -> None:
    query = VectorStoreQuery(query_str="owls hunt", similarity_top_k=3)
    for mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
        query.mode = mode
        assert filled.query(query, min_score=0.9).ids == ["owl"]
        with pytest.raises(InvalidInputError, match="min_score must be"):
            filled.query(query, min_score=2)
    retriever = MuveraRetriever(filled.client, similarity_top_k=3, min_score=0.4)
    assert [node.node_id for node in retriever.retrieve("owls hunt")] == ["owl", "bat"]
    retriever.min_score = 0.9
    assert [node.node_id for node in retriever.retrieve("owls hunt")] == ["owl"]


def test_documents_that_were_not_added_as_nodes_can_be_asked_for(filled: MuveraVectorStore) -> None:
    filled.client.add(["owls by day", "owls by night"], ids=["first", "second"])
    assert _ids(filled, node_ids=["second", "ant"]) == ["second", "ant"]
    assert _ids(filled, doc_ids=["day", "first"]) == ["first", "ant"]
    assert _ids(filled, doc_ids=["day", "first"], node_ids=["ant"]) == ["ant"]
    assert _ids(filled, doc_ids=["day", "first"], node_ids=["bat"]) == []


def test_stored_nodes_can_be_ranked_and_counted(filled: MuveraVectorStore) -> None:
    ranked = filled.rerank("owls hunt", ["ant", "owl", "gone"])
    assert [(node.node_id, node.node) for node in ranked] == [("owl", BIRDS[0]), ("ant", BIRDS[2])]
    assert ranked[0].score == pytest.approx(1, abs=2e-3)
    assert len(filled.rerank("owls hunt", ["ant", "owl"], 1)) == len(
        filled.rerank("owls", ["ant", "owl"], min_score=0.9)
    )
    with pytest.raises(InvalidInputError, match="top_n must be"):
        filled.rerank("owls", ["owl"], 0)
    assert (filled.count(), filled.count(TWO_LEGS), filled.count({"legs": 6})) == (3, 2, 1)


def test_metadata_can_be_changed(filled: MuveraVectorStore) -> None:
    assert filled.update_metadata("bat", {"tags": "mammal", "legs": 2}) == 1
    assert filled.get_nodes(["bat"])[0].metadata == {"legs": 2, "tags": "mammal"}
    # LlamaIndex's filters tell a list from a single value.
    assert _ids(filled, filters=MetadataFilters(filters=[MetadataFilter(key="tags", value="mammal")])) == ["bat"]
    assert filled.update_metadata(["owl", "ant", "gone"], [{"kind": "predator"}, {}, {}], replace=True) == 2
    assert [node.metadata for node in filled.get_nodes(["owl", "ant"])] == [{"kind": "predator"}, {}]
    assert _ids(filled, "predator", k=1) == ["owl"]  # metadata is part of the text that is matched
    with pytest.raises(InvalidInputError, match="metadatas has length 1"):
        filled.update_metadata(["owl", "ant"], [{}])


def test_metadata_of_a_document_that_is_not_a_node_stay_out_of_its_text(filled: MuveraVectorStore) -> None:
    filled.client.add(["owls by day"], ids=["plain"], metadatas=[{"page": 1}])
    assert filled.update_metadata(["plain", "owl", "ant"], {"seen": "camels"}) == 3
    (plain,) = filled.client.get("plain")
    assert (plain.text, plain.metadata) == ("owls by day", {"page": 1, "seen": "camels"})
    assert "camels" in (filled.client.get("owl")[0].text or "")
    assert filled.update_metadata(["gone", "plain"], {"seen": "camels"}) == 0


def test_mmr_trades_relevance_for_diversity(store: MuveraVectorStore) -> None:
    store.add([_node("a", "owls hunt mice"), _node("b", "owls hunt mice"), _node("c", "owls sing")])
    mode = VectorStoreQueryMode.MMR
    assert _ids(store, "owls hunt", 2, mode=mode, mmr_threshold=1.0) == ["a", "b"]
    assert _ids(store, "owls hunt", 2, mode=mode, mmr_threshold=0.1) == ["a", "c"]
    query = VectorStoreQuery(query_str="owls hunt", similarity_top_k=2, mode=mode)
    assert store.query(query, mmr_threshold=0.1).ids == ["a", "c"]
    assert store.query(query, mmr_threshold=0.1, mmr_prefetch_k=2).ids == ["a", "b"]


def test_what_cannot_be_answered_is_refused(filled: MuveraVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="neither query_str nor query_embedding"):
        filled.query(VectorStoreQuery(similarity_top_k=1))
    with pytest.raises(InvalidInputError, match="'svm' is not supported"):
        _ids(filled, mode=VectorStoreQueryMode.SVM)


def test_k_beyond_the_corpus_and_an_empty_store(store: MuveraVectorStore) -> None:
    assert _ids(store, k=1000) == []
    assert store.get_nodes() == []
    assert store.add([]) == []
    store.add(BIRDS)
    assert len(_ids(store, k=1000)) == 3


def test_adding_again_replaces(filled: MuveraVectorStore) -> None:
    filled.add([_node("owl", "owls sleep by day", "night")])
    assert len(filled.client) == 3
    assert filled.get_nodes(["owl"])[0].get_content() == "owls sleep by day"


def test_of_two_nodes_with_one_id_the_last_stays(store: MuveraVectorStore) -> None:
    assert store.add([_node("x", "first"), _node("x", "second")]) == ["x", "x"]
    assert store.get_nodes(["x"])[0].get_content() == "second"


@pytest.mark.parametrize("text", ["", " \n", "\u200b\ufeff"], ids=["empty", "blank", "zero width"])
def test_a_node_without_visible_text_is_skipped_with_a_warning(store: MuveraVectorStore, text: str) -> None:
    with pytest.warns(SkippedTextWarning, match="'blank page'"):
        assert store.add([_node("blank page", text), _node("owl", "owls")]) == ["blank page", "owl"]
    assert [node.node_id for node in store.get_nodes()] == ["owl"]


def test_a_node_without_text_is_matched_by_its_metadata(store: MuveraVectorStore) -> None:
    store.add([_node("image", "", caption="owls at night"), _node("ant", "ants live in colonies")])
    assert _ids(store, k=1) == ["image"]


def test_halves_of_surrogate_pairs_are_replaced(store: MuveraVectorStore) -> None:
    node = _node("owl", "owls \ud83e hunt", title="\udd89 night")
    assert store.add([node]) == ["owl"]
    (stored,) = store.get_nodes()
    assert stored.get_content() == "owls \ufffd hunt"
    assert stored.metadata == {"title": "\ufffd night"}
    assert _ids(store, "owls \ud83e") == ["owl"]


@pytest.mark.parametrize("question", ["", " ", "\u200b"])
def test_an_empty_question_finds_what_the_restrictions_admit(filled: MuveraVectorStore, question: str) -> None:
    assert _ids(filled, question) == []
    assert _ids(filled, question, filters=TWO_LEGS) == ["owl", "bat"]
    assert _ids(filled, question, k=1, node_ids=["ant", "bat"]) == ["bat"]
    assert _ids(filled, question, doc_ids=["day"]) == ["ant"]
    assert _ids(filled, question, mode=VectorStoreQueryMode.MMR, filters=TWO_LEGS) == ["owl", "bat"]
    assert MuveraRetriever(filled.client).retrieve(question) == []
    found = MuveraRetriever(filled.client, filters=TWO_LEGS).retrieve(question)
    assert [(node.node_id, node.score) for node in found] == [("owl", 0), ("bat", 0)]


def test_deleting_a_document_deletes_its_nodes_only(filled: MuveraVectorStore) -> None:
    filled.delete("night")
    filled.delete("nothing")
    filled.delete("ant")  # the id of a node, whose document is another
    assert [node.node_id for node in filled.get_nodes()] == ["ant"]


def test_a_node_without_a_source_is_a_document_of_its_own(store: MuveraVectorStore) -> None:
    store.add([_node("alone", "owls")])
    store.client.add(["bats"], ids=["through the core"])
    store.delete("alone")
    store.delete("through the core")
    assert len(store.client) == 0


def test_nodes_by_id_and_filter(filled: MuveraVectorStore) -> None:
    assert filled.get_nodes(["ant", "gone", "owl", "ant"]) == [BIRDS[2], BIRDS[0]]
    assert filled.get_nodes(filters=TWO_LEGS) == BIRDS[:2]
    assert filled.get_nodes(["ant", "owl"], TWO_LEGS) == [BIRDS[0]]
    assert filled.get_nodes([]) == []


def test_deleting_nodes_by_id_and_filter(filled: MuveraVectorStore) -> None:
    filled.delete_nodes([])
    filled.delete_nodes(["ant", "owl"], TWO_LEGS)
    assert [node.node_id for node in filled.get_nodes()] == ["bat", "ant"]
    filled.delete_nodes(["ant", "gone"])
    filled.delete_nodes(filters=TWO_LEGS)
    assert len(filled.client) == 0
    with pytest.raises(InvalidInputError, match=r"call clear\(\)"):
        filled.delete_nodes()


def test_filters_without_a_condition_delete_nothing(filled: MuveraVectorStore) -> None:
    nothing = MetadataFilters(filters=[])
    either = MetadataFilters(filters=[nothing, nothing], condition=FilterCondition.OR)
    conditions: list[Any] = [nothing, MetadataFilters(filters=[nothing]), either, {}]
    for filters in conditions:
        with pytest.raises(InvalidInputError, match=r"call clear\(\)"):
            filled.delete_nodes(filters=filters)
    assert filled.count() == 3


def test_one_id_stands_for_a_list_of_it(filled: MuveraVectorStore) -> None:
    assert filled.get_nodes("owl") == [BIRDS[0]]  # type: ignore[arg-type]
    assert _ids(filled, node_ids="ant") == _ids(filled, doc_ids="day") == ["ant"]
    filled.delete_nodes("owl")  # type: ignore[arg-type]
    assert filled.get_nodes() == BIRDS[1:]


def test_nodes_come_from_any_iterable_and_nothing_else_is_taken(store: MuveraVectorStore) -> None:
    assert store.add(iter(BIRDS)) == ["owl", "bat", "ant"]  # type: ignore[arg-type]
    assert store.get_nodes() == BIRDS
    wrong: list[Any] = [BIRDS[0], ["owls hunt"], None, 3]
    for given in wrong:
        for call in (store.add, MuveraRetriever.from_nodes):
            with pytest.raises(InvalidInputError, match="must be a"):
                call(given)
    assert store.get_nodes() == BIRDS


def test_clear(filled: MuveraVectorStore) -> None:
    filled.clear()
    assert filled.get_nodes() == []


async def test_async_twins_do_the_same(store: MuveraVectorStore) -> None:
    assert await store.async_add(BIRDS) == ["owl", "bat", "ant"]
    query = VectorStoreQuery(query_str="owls hunt", similarity_top_k=2)
    assert await store.aquery(query) == store.query(query)
    assert await store.aget_nodes(["owl"]) == [BIRDS[0]]
    assert await store.arerank("owls", ["owl", "ant"], 1) == store.rerank("owls", ["owl", "ant"], 1)
    assert await store.aupdate_metadata("ant", {"seen": 1}) == 1
    assert await store.acount({"seen": 1}) == 1
    await store.adelete("day")
    await store.adelete_nodes(["owl"])
    assert [node.node_id for node in await store.aget_nodes()] == ["bat"]
    await store.aclear()
    assert len(store.client) == 0


async def test_async_twins_run_beside_the_event_loop(store: MuveraVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ran_in: list[int] = []
    for name in ("add", "delete", "find", "clear", "search"):
        inner = getattr(MuveraIndex, name)

        def spy(self: MuveraIndex, *args: Any, _inner: Any = inner, **kwargs: Any) -> Any:
            ran_in.append(threading.get_ident())
            return _inner(self, *args, **kwargs)

        monkeypatch.setattr(MuveraIndex, name, spy)
    await store.async_add(BIRDS)
    await store.aquery(VectorStoreQuery(query_str="owls", similarity_top_k=1))
    await store.aget_nodes()
    await store.adelete("night")
    await store.adelete_nodes(["ant"])
    await store.aclear()
    assert len(ran_in) >= 6
    assert threading.get_ident() not in ran_in


# Persisting


def test_a_persisted_folder_names_an_index_elsewhere_but_does_not_lead_there(
    tmp_path: Path, words: TokenEncoder
) -> None:
    with MuveraIndex.create(tmp_path / "elsewhere", words) as index:
        MuveraVectorStore(index).persist(str(tmp_path / "storage" / "default__vector_store.json"))
    where = re.escape(f"MuveraIndex.open({str(tmp_path / 'elsewhere')!r})")
    with pytest.raises(NotAnIndexError, match=where):
        MuveraVectorStore.from_persist_dir(tmp_path / "storage", encoder=words)
    pointer = tmp_path / "storage" / "default__muvera.json"
    (tmp_path / "storage" / "link").symlink_to(tmp_path / "elsewhere")
    for path in ("../elsewhere", "link"):
        pointer.write_text(json.dumps({"muvera_index": path}))
        with pytest.raises(NotAnIndexError, match="not in the persisted folder"):
            MuveraVectorStore.from_persist_dir(tmp_path / "storage", encoder=words)


def test_a_storage_folder_with_its_index_can_be_moved(tmp_path: Path, words: TokenEncoder) -> None:
    with MuveraIndex.create(tmp_path / "storage" / "index", words) as index:
        store = MuveraVectorStore(index)
        store.add(BIRDS)
        store.persist(str(tmp_path / "storage" / "other__vector_store.json"))
    (tmp_path / "storage").rename(tmp_path / "moved")
    reloaded = MuveraVectorStore.from_persist_dir(tmp_path / "moved", "other", words, read_only=True)
    assert reloaded.get_nodes() == BIRDS
    reloaded.client.close()


def test_an_indexs_own_folder_can_be_opened(tmp_path: Path, words: TokenEncoder) -> None:
    with MuveraIndex.create(tmp_path / "index", words) as index:
        MuveraVectorStore(index).add(BIRDS)
    retriever = MuveraRetriever.from_persist_dir(tmp_path / "index", encoder=words, similarity_top_k=1)
    assert [found.node_id for found in retriever.retrieve("owls hunt")] == ["owl"]
    retriever.index.close()


def test_an_index_in_memory_is_copied_when_it_is_persisted(
    tmp_path: Path, filled: MuveraVectorStore, words: TokenEncoder
) -> None:
    before = {node.node_id for node in filled.get_nodes()}
    filled.persist(str(tmp_path / "default__vector_store.json"))
    removed = before.pop()
    filled.delete_nodes([removed])
    filled.persist(str(tmp_path / "default__vector_store.json"))
    loaded = MuveraVectorStore.from_persist_dir(tmp_path, encoder=words)
    assert {node.node_id for node in loaded.get_nodes()} == before
    loaded.client.close()


def test_what_cannot_be_persisted_or_opened_says_so(tmp_path: Path, store: MuveraVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="local disk"):
        store.persist("default__vector_store.json", fs=MemoryFileSystem())
    with pytest.raises(NotAnIndexError):
        MuveraVectorStore.from_persist_dir(tmp_path)
    (tmp_path / "default__muvera.json").write_text("[]", encoding="utf-8")
    with pytest.raises(CorruptIndexError, match="persist again"):
        MuveraVectorStore.from_persist_dir(tmp_path)


def test_filters_of_all_kinds_work_in_a_query(filled: MuveraVectorStore) -> None:
    mammals = MetadataFilters(filters=[MetadataFilter(key="tags", value="mammal", operator=FilterOperator.CONTAINS)])
    assert _ids(filled, filters=mammals) == ["bat"]
    assert _ids(filled, filters=MetadataFilters(filters=[TWO_LEGS, mammals], condition="not")) == ["ant"]  # type: ignore[arg-type]
