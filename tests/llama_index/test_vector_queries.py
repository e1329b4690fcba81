"""Parts of LlamaIndex that ask with a vector alone are answered from stage one, if the vector is of its kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Document, DocumentSummaryIndex, StorageContext
from llama_index.core.graph_stores import SimplePropertyGraphStore
from llama_index.core.graph_stores.types import EntityNode, Relation
from llama_index.core.indices.property_graph import VectorContextRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.retrievers.muvera import MuveraEmbedding, MuveraVectorStore, NoEmbedding

from muvera_core import FDEConfig, MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError

TEXTS = {
    "otter": "Otters swim in rivers and catch fish.",
    "camel": "Camels cross deserts without drinking.",
    "violin": "A violin has four strings and a bow.",
}
QUESTION = "Which animal catches fish?"


@pytest.fixture
def bundled(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    with MuveraIndex.create(None, encoder) as index:
        yield MuveraVectorStore(index)


@pytest.fixture
def animals(bundled: MuveraVectorStore) -> MuveraVectorStore:
    bundled.add([TextNode(id_=id, text=text, metadata={"legs": 4}) for id, text in TEXTS.items()])
    return bundled


def _by_vector(model: Any, **fields: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_embedding=model.get_query_embedding(QUESTION), similarity_top_k=2, **fields)


def test_a_vector_of_the_same_settings_gives_stage_ones_order(
    animals: MuveraVectorStore, encoder: BundledEncoder
) -> None:
    query = _by_vector(MuveraEmbedding(encoder))
    result = animals.query(query)
    hits = animals.client.search_by_vector(query.query_embedding or [], 2)
    assert hits[0].id == "otter"
    assert result.ids == [hit.id for hit in hits]
    assert result.similarities == [hit.normalized_score for hit in hits]
    restricted = _by_vector(MuveraEmbedding(encoder), node_ids=["camel", "violin"], filters={"legs": 4})
    assert set(animals.query(restricted).ids or []) == {"camel", "violin"}


def test_a_vector_of_another_kind_is_refused(animals: MuveraVectorStore, encoder: BundledEncoder) -> None:
    for model in (NoEmbedding(), MuveraEmbedding(encoder, FDEConfig(num_repetitions=2))):
        with pytest.raises(InvalidInputError, match=r"embed_model=MuveraEmbedding\(\)"):
            animals.query(_by_vector(model))


def test_what_needs_the_text_is_refused_without_it(animals: MuveraVectorStore, encoder: BundledEncoder) -> None:
    model = MuveraEmbedding(encoder)
    with pytest.raises(InvalidInputError, match="needs query_str"):
        animals.query(_by_vector(model, mode=VectorStoreQueryMode.MMR))
    with pytest.raises(InvalidInputError, match="does not know 'min_score'"):
        animals.query(_by_vector(model), min_score=0.5)
    with pytest.raises(InvalidInputError, match=r"store\.is_embedding_query = True"):
        animals.query(VectorStoreQuery(similarity_top_k=2))


@pytest.mark.parametrize("assign", [False, True], ids=["constructor", "assignment"])
def test_a_document_summary_index(encoder: BundledEncoder, bundled: MuveraVectorStore, assign: bool) -> None:
    store = bundled if assign else MuveraVectorStore(bundled.client, is_embedding_query=True)
    if assign:
        store.is_embedding_query = True
    index = DocumentSummaryIndex.from_documents(
        [Document(id_=id, text=text) for id, text in TEXTS.items()],
        llm=MockLLM(),  # a summary is the prompt, with the text in it
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=MuveraEmbedding(encoder),
    )
    retriever = index.as_retriever(retriever_mode="embedding", similarity_top_k=1)
    assert [node.node.ref_doc_id for node in retriever.retrieve(QUESTION)] == ["otter"]
    index.delete_ref_doc("otter")
    assert retriever.retrieve(QUESTION)[0].node.ref_doc_id != "otter"


def test_the_vector_retriever_of_a_property_graph(bundled: MuveraVectorStore, encoder: BundledEncoder) -> None:
    graph = SimplePropertyGraphStore()
    graph.upsert_nodes([EntityNode(name=name) for name in [*TEXTS, "water"]])
    graph.upsert_relations([Relation(label="NEEDS", source_id=id, target_id="water") for id in TEXTS])
    bundled.add([TextNode(id_=id, text=text) for id, text in TEXTS.items()])
    retriever = VectorContextRetriever(
        graph, vector_store=bundled, embed_model=MuveraEmbedding(encoder), similarity_top_k=1, include_text=False
    )
    assert [node.text for node in retriever.retrieve(QUESTION)] == ["otter -> NEEDS -> water"]
