"""Nothing that a user names is silently ignored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.retrievers.muvera import MaxSimRerank, MuveraEmbedding, MuveraRetriever, MuveraVectorStore, NoEmbedding

from muvera_core import TokenEncoder
from muvera_core.errors import InvalidInputError

NODES = [
    TextNode(id_="heron", text="herons wait", metadata={"legs": 2}, excluded_embed_metadata_keys=["legs"]),
    TextNode(id_="otter", text="otters swim", metadata={"legs": 4}, excluded_embed_metadata_keys=["legs"]),
]
FOUR_LEGS = MetadataFilters(filters=[MetadataFilter(key="legs", value=4)])


@pytest.fixture
def filled(store: MuveraVectorStore) -> MuveraVectorStore:
    store.add(NODES)
    return store


def _query(**fields: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_str="swim", similarity_top_k=2, **fields)


def _vector_index(store: MuveraVectorStore) -> VectorStoreIndex:
    return VectorStoreIndex.from_vector_store(store, embed_model=NoEmbedding())


MISNAMED: dict[str, tuple[Callable[[MuveraVectorStore], object], str]] = {
    "retriever's filter": (lambda s: MuveraRetriever(s.client, filter=FOUR_LEGS), "'filters'"),
    "retriever's top_k": (lambda s: MuveraRetriever(s.client, top_k=1), "'similarity_top_k'"),
    "retriever's typo": (lambda s: MuveraRetriever(s.client, n_candidate=1), "'n_candidates'"),
    "from_index": (lambda s: MuveraRetriever.from_index(s.client, where=FOUR_LEGS), "'filters'"),
    "from_nodes": (lambda s: MuveraRetriever.from_nodes(NODES, path="x"), "'persist_dir'"),
    "from_documents": (lambda s: MuveraRetriever.from_documents([], embed_model=NoEmbedding()), "'encoder'"),
    "store": (lambda s: MuveraVectorStore(s.client, collection_name="x"), "collection_name"),
    "add": (lambda s: s.add(NODES, batchsize=1), "'batch_size'"),
    "add through LlamaIndex": (lambda s: _vector_index(s).insert_nodes([NODES[0]], batchsize=1), "'batch_size'"),
    "delete": (lambda s: s.delete("otter", filter=FOUR_LEGS), "call delete_nodes(filters"),
    "delete_nodes": (lambda s: s.delete_nodes(["otter"], where=FOUR_LEGS), "'filters'"),
    "query's where": (lambda s: s.query(_query(), where=FOUR_LEGS), "set filters of the VectorStoreQuery"),
    "query's top_k": (lambda s: s.query(_query(), top_k=1), "set similarity_top_k of the VectorStoreQuery"),
    "query's typo": (lambda s: s.query(_query(), candidates=1), "'n_candidates'"),
    "query in another mode": (lambda s: s.query(_query(), mmr_prefetch_k=2), "mode 'default'"),
    "vector_store_kwargs": (
        lambda s: _vector_index(s).as_retriever(vector_store_kwargs={"filter": FOUR_LEGS}).retrieve("swim"),
        "set filters of the VectorStoreQuery",
    ),
    "query's share": (lambda s: s.query(_query(), lexical_weight=0.3), "one of"),
    "query's mode": (lambda s: s.query(_query(), mode="hybrid"), "set mode of the VectorStoreQuery"),
    "query's alpha": (lambda s: s.query(_query(mode="hybrid"), alpha=0.3), "set alpha of the VectorStoreQuery"),
    "diverse passages": (lambda s: s.query(_query(mode="mmr"), passage="text"), "mode 'mmr'"),
    "retriever's alpha": (lambda s: MuveraRetriever(s.client, alpha=0.3), "which is 1 - alpha"),
    "retriever's search_mode": (lambda s: MuveraRetriever(s.client, search_mode="hybrid"), "'mode'"),
    "retriever's bm25_weight": (lambda s: MuveraRetriever(s.client, bm25_weight=0.3), "'lexical_weight'"),
    "reranker's top_k": (lambda s: MaxSimRerank(s.client.encoder, top_k=1), "'top_n'"),
    "embedding's typo": (lambda s: MuveraEmbedding(normalise=False), "'normalize'"),
    "embedding's FDE": (lambda s: MuveraEmbedding(fde={"dims": 128, "reps": 2}), "dimension"),
    "placeholder": (lambda s: NoEmbedding(batch_size=1), "'embed_batch_size'"),
}


@pytest.mark.parametrize("case", list(MISNAMED))
def test_a_wrong_name_is_refused_and_the_right_one_suggested(filled: MuveraVectorStore, case: str) -> None:
    call, suggestion = MISNAMED[case]
    with pytest.raises(InvalidInputError, match="does not know") as caught:
        call(filled)
    assert suggestion in str(caught.value)
    assert filled.get_nodes() == NODES


@pytest.mark.parametrize(
    "fields",
    [
        {"alpha": 0.0},
        {"sparse_top_k": 1},
        {"hybrid_top_k": 1},
        {"output_fields": ["text"]},
        {"embedding_field": "title"},
        {"mmr_threshold": 0.5},
        {"alpha": 0.5, "mode": "sparse"},
        {"hybrid_top_k": 1, "mode": "mmr"},
        {"sparse_top_k": 1, "mode": "hybrid"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_field_of_a_query_that_has_no_meaning_here_is_refused(
    filled: MuveraVectorStore, fields: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError, match=f"sets {next(iter(fields))}"):
        filled.query(_query(**fields))


@pytest.mark.parametrize("mode", ["svm", "everything", VectorStoreQueryMode.SEMANTIC_HYBRID, None])
def test_a_mode_that_cannot_be_searched_in_is_refused(filled: MuveraVectorStore, mode: Any) -> None:
    with pytest.raises(InvalidInputError, match="use 'default', 'hybrid', 'text_search', 'sparse' or 'mmr'"):
        filled.query(_query(mode=mode))
    assert filled.query(_query(mode="default")).ids == filled.query(_query(mode="mmr")).ids


def test_what_llama_index_itself_passes_is_accepted(filled: MuveraVectorStore) -> None:
    index = _vector_index(filled)
    for retriever in (
        index.as_retriever(similarity_top_k=1, filters=FOUR_LEGS, doc_ids=[]),
        index.as_retriever(similarity_top_k=1, vector_store_query_mode="mmr", vector_store_kwargs={"mmr_threshold": 1}),
        index.as_retriever(similarity_top_k=1, vector_store_kwargs={"n_candidates": 2, "exact": True}),
    ):
        assert [node.node_id for node in retriever.retrieve("swim")] == ["otter"]
    index.insert_nodes([TextNode(id_="camel", text="camels rest")], batch_size=1)
    index.delete_nodes(["camel"], delete_from_docstore=True)
    index.delete_ref_doc("otter", delete_from_docstore=True)
    assert [node.node_id for node in filled.get_nodes()] == ["heron"]


# Assigning


RETRIEVER_VALUES = {
    "similarity_top_k": 0,
    "n_candidates": 1.5,
    "filters": [MetadataFilter(key="legs", value=4)],
    "mode": "dense",
    "lexical_weight": 2,
    "fusion": "rrf",
    "query_reduction": 0.7,
    "passage": "highlight",
    "cross_encoder": "a model",
    "n_calls": 0,
}


@pytest.mark.parametrize("name", list(RETRIEVER_VALUES))
def test_a_retriever_checks_its_settings_whenever_they_are_set(filled: MuveraVectorStore, name: str) -> None:
    bad: dict[str, Any] = {name: RETRIEVER_VALUES[name]}
    with pytest.raises(InvalidInputError, match=f"{name} must be"):
        MuveraRetriever(filled.client, **bad)
    retriever = MuveraRetriever(filled.client)
    before = getattr(retriever, name)
    with pytest.raises(InvalidInputError, match=f"{name} must be"):
        setattr(retriever, name, bad[name])
    assert getattr(retriever, name) == before


@pytest.mark.parametrize(
    "filters",
    [
        {"legs": {"$above": 3}},
        MetadataFilters(filters=[MetadataFilter(key="legs", value=4, operator=FilterOperator.IN)]),
    ],
    ids=["dictionary", "metadata filters"],
)
def test_a_filter_that_cannot_be_used_is_refused_when_it_is_set(filled: MuveraVectorStore, filters: Any) -> None:
    with pytest.raises(InvalidInputError):
        MuveraRetriever(filled.client, filters=filters)


def test_a_retriever_has_no_other_attributes_than_its_own_and_the_frameworks(filled: MuveraVectorStore) -> None:
    retriever = MuveraRetriever(filled.client, similarity_top_k=1)
    with pytest.raises(InvalidInputError, match="does not know 'filter': did you mean 'filters'"):
        retriever.filter = FOUR_LEGS
    with pytest.raises(InvalidInputError, match="did you mean 'similarity_top_k'"):
        retriever.top_k = 1
    retriever.filters = {"legs": 2}
    retriever.callback_manager = CallbackManager([])
    retriever.object_map = {}
    assert [node.node_id for node in retriever.retrieve("swim")] == ["heron"]


def test_a_subclass_may_have_attributes_of_its_own(filled: MuveraVectorStore) -> None:
    class OfOneTenant(MuveraRetriever):
        def __init__(self, tenant: str, **kwargs: Any) -> None:
            super().__init__(filled.client, **kwargs)
            self.tenant = tenant

    assert OfOneTenant("a", similarity_top_k=1).tenant == "a"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("top_n", 0, "top_n must be at least 1"),
        ("batch_size", True, "batch_size must be a whole number"),
        ("model", "other", "make another MaxSimRerank"),
        ("top_k", 1, "did you mean 'top_n'"),
    ],
)
def test_a_reranker_checks_its_settings_whenever_they_are_set(
    words: TokenEncoder, name: str, value: Any, message: str
) -> None:
    rerank = MaxSimRerank(words)
    with pytest.raises(InvalidInputError, match=message):
        setattr(rerank, name, value)
    if name != "model":
        with pytest.raises(InvalidInputError, match=message):
            MaxSimRerank(words, **{name: value})
    rerank.top_n = 1
    nodes = [NodeWithScore(node=node) for node in NODES]
    assert [node.node_id for node in rerank.postprocess_nodes(nodes, query_str="swim")] == ["otter"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("embed_batch_size", 0, "embed_batch_size: .* got 0"),
        ("normalize", False, "make another MuveraEmbedding"),
        ("model_name", "other", "make another MuveraEmbedding"),
        ("encoder", None, "does not know 'encoder'"),
    ],
)
def test_an_embedding_checks_its_settings_whenever_they_are_set(
    words: TokenEncoder, name: str, value: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        setattr(MuveraEmbedding(words), name, value)


def test_settings_of_embeddings_are_checked_when_they_are_made(words: TokenEncoder) -> None:
    for make in (lambda: MuveraEmbedding(words, embed_batch_size=0), lambda: NoEmbedding(embed_batch_size=0)):
        with pytest.raises(InvalidInputError, match=r"embed_batch_size: .* got 0"):
            make()
    with pytest.raises(InvalidInputError, match=r"model_name is 'x'.*pass encoder= and fde="):
        MuveraEmbedding(words, model_name="x")
    placeholder = NoEmbedding()
    placeholder.embed_batch_size = 3
    with pytest.raises(InvalidInputError, match="does not know 'batch_size'"):
        placeholder.batch_size = 3


def test_a_store_has_no_settings_to_assign(store: MuveraVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="does not know 'filters'"):
        store.filters = FOUR_LEGS
    with pytest.raises(InvalidInputError, match="stores_text cannot be set"):
        store.stores_text = False
    with pytest.raises(InvalidInputError, match="is_embedding_query: "):
        store.is_embedding_query = 3  # type: ignore[assignment]
    with pytest.raises(InvalidInputError, match="is_embedding_query: "):
        MuveraVectorStore(store.client, is_embedding_query=3)  # type: ignore[arg-type]


def test_an_index_of_another_kind_is_refused(filled: MuveraVectorStore, tmp_path: Path) -> None:
    for index in (_vector_index(filled), tmp_path, None):
        for kind in (MuveraVectorStore, MuveraRetriever):
            with pytest.raises(InvalidInputError, match="index must be a MuveraIndex"):
                kind(index)  # type: ignore[arg-type]


# A dictionary as filter


def test_a_dictionary_is_a_filter_of_the_core(filled: MuveraVectorStore) -> None:
    assert filled.query(_query(filters={"legs": {"$lt": 3}})).ids == ["heron"]
    assert filled.get_nodes(filters={"legs": 4}) == [NODES[1]]
    retriever = _vector_index(filled).as_retriever(similarity_top_k=2, filters={"legs": 2})
    assert [node.node_id for node in retriever.retrieve("swim")] == ["heron"]
    filled.delete_nodes(filters={"legs": 4})
    assert filled.get_nodes(filters={}) == [NODES[0]]
    with pytest.raises(InvalidInputError, match=r"call clear\(\)"):
        filled.delete_nodes(filters={})


@pytest.mark.parametrize("filters", [[], "legs = 4", MetadataFilter(key="legs", value=4)], ids=type)
def test_anything_else_is_refused_as_filter(filled: MuveraVectorStore, filters: Any) -> None:
    for call in (
        lambda: filled.query(_query(filters=filters)),
        lambda: filled.get_nodes(filters=filters),
        lambda: filled.delete_nodes(filters=filters),
        lambda: MuveraRetriever(filled.client, filters=filters),
    ):
        with pytest.raises(InvalidInputError, match="MetadataFilters or a dictionary"):
            call()
    assert filled.get_nodes() == NODES


def test_a_storage_context_takes_the_store(filled: MuveraVectorStore) -> None:
    context = StorageContext.from_defaults(vector_store=filled)
    assert VectorStoreIndex([], storage_context=context, embed_model=NoEmbedding()).vector_store is filled
