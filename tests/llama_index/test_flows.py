"""The classes at work in LlamaIndex: ingesting, asking, persisting, deleting, refreshing."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import IndexNode, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from llama_index.retrievers.muvera import MuveraRetriever, MuveraVectorStore, NoEmbedding

from muvera_core import MuveraIndex, TokenEncoder

# Two sentences a node, so that a document has several.
SPLITTER = SentenceSplitter(chunk_size=24, chunk_overlap=0)
OWLS = "Owls hunt at night. They see very well in the dark. Their feathers make no noise at all when they fly."
ANTS = "Ants live in colonies. Every colony has at least one queen. Workers look for food and defend the nest."


def _document(id: str, text: str, **metadata: str) -> Document:
    return Document(id_=id, text=text, metadata=metadata)


def _texts(store: MuveraVectorStore) -> str:
    return " ".join(node.get_content() for node in store.get_nodes())


def test_the_life_of_a_vector_store_index(tmp_path: Path, words: TokenEncoder) -> None:
    storage = str(tmp_path / "storage")
    documents = [_document("owls", OWLS, kind="bird"), _document("ants", ANTS, kind="insect")]
    with MuveraIndex.create(tmp_path / "storage" / "muvera", words) as muvera:
        store = MuveraVectorStore(muvera)
        index = VectorStoreIndex.from_documents(
            documents,
            storage_context=StorageContext.from_defaults(vector_store=store),
            embed_model=NoEmbedding(),
            transformations=[SPLITTER],
        )
        assert len(store.get_nodes()) == 4
        response = index.as_query_engine(llm=MockLLM(), similarity_top_k=1).query("Which animals hunt at night?")
        assert response.source_nodes[0].node.ref_doc_id == "owls"
        assert "Owls hunt at night." in str(response)  # MockLLM repeats its prompt
        index.storage_context.persist(storage)

    store = MuveraVectorStore.from_persist_dir(storage, encoder=words)
    index = load_index_from_storage(  # type: ignore[assignment]
        StorageContext.from_defaults(vector_store=store, persist_dir=storage),
        embed_model=NoEmbedding(),
        transformations=[SPLITTER],
    )
    filters = MetadataFilters(filters=[MetadataFilter(key="kind", value="insect")])
    found = index.as_retriever(similarity_top_k=10, filters=filters).retrieve("owls")
    assert {node.node.ref_doc_id for node in found} == {"ants"}

    index.delete_ref_doc("owls", delete_from_docstore=True)
    assert {node.ref_doc_id for node in store.get_nodes()} == {"ants"}

    changed = [_document("ants", "Ants sleep.", kind="insect"), _document("bats", "Bats hunt.", kind="mammal")]
    assert index.refresh_ref_docs(changed) == [True, True]
    assert _texts(store) == "Ants sleep. Bats hunt."
    assert index.refresh_ref_docs(changed) == [False, False]
    store.client.close()


async def test_the_same_through_async_calls(store: MuveraVectorStore) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex([], storage_context=context, embed_model=NoEmbedding(), transformations=[SPLITTER])
    await index.ainsert(_document("owls", OWLS))
    await index.ainsert_nodes([TextNode(id_="n", text="Ants live in colonies.")])
    response = await index.as_query_engine(llm=MockLLM(), similarity_top_k=1).aquery("Where do ants live?")
    assert [node.node_id for node in response.source_nodes] == ["n"]
    await index.adelete_ref_doc("owls")
    assert _texts(store) == "Ants live in colonies."


@pytest.mark.parametrize("strategy", [DocstoreStrategy.UPSERTS, DocstoreStrategy.UPSERTS_AND_DELETE])
@pytest.mark.parametrize("split", [True, False], ids=["split", "whole documents"])
def test_a_pipeline_run_twice_leaves_no_orphan(
    store: MuveraVectorStore, strategy: DocstoreStrategy, split: bool
) -> None:
    pipeline = IngestionPipeline(
        transformations=[SPLITTER, NoEmbedding()] if split else [NoEmbedding()],
        docstore=SimpleDocumentStore(),
        vector_store=store,
        docstore_strategy=strategy,
    )
    pipeline.run(documents=[_document("owls", OWLS), _document("ants", ANTS), _document("bats", "Bats hunt.")])
    before = {node.ref_doc_id or node.node_id: node.node_id for node in store.get_nodes()}
    assert set(before) == {"owls", "ants", "bats"}

    pipeline.run(documents=[_document("owls", "Owls sleep."), _document("ants", ANTS)])
    nodes = store.get_nodes()
    gone = strategy == DocstoreStrategy.UPSERTS_AND_DELETE
    assert {node.ref_doc_id or node.node_id for node in nodes} == {"owls", "ants"} | (set() if gone else {"bats"})
    assert "Owls sleep." in _texts(store)
    assert "Owls hunt" not in _texts(store)
    assert before["ants"] in [node.node_id for node in nodes]  # unchanged, so left alone

    pipeline.run(documents=[_document("owls", "Owls sleep."), _document("ants", ANTS)])
    assert store.get_nodes() == nodes


async def test_a_pipeline_run_asynchronously_leaves_no_orphan(store: MuveraVectorStore) -> None:
    pipeline = IngestionPipeline(
        transformations=[SPLITTER, NoEmbedding()],
        docstore=SimpleDocumentStore(),
        vector_store=store,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    await pipeline.arun(documents=[_document("owls", OWLS), _document("ants", ANTS)])
    await pipeline.arun(documents=[_document("owls", "Owls sleep.")])
    assert _texts(store) == "Owls sleep."


def test_a_pipeline_drops_nodes_when_no_embedding_stands_in(
    store: MuveraVectorStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Why ``NoEmbedding`` has to be the last transformation. The first search says so."""
    IngestionPipeline(transformations=[SPLITTER], vector_store=store).run(documents=[_document("owls", OWLS)])
    assert store.get_nodes() == []
    index = VectorStoreIndex.from_vector_store(store, embed_model=NoEmbedding())
    for retriever in (index.as_retriever(), MuveraRetriever(store.client)):
        caplog.clear()
        assert retriever.retrieve("owls") == []
        assert "put NoEmbedding() last" in caplog.text
    IngestionPipeline(transformations=[SPLITTER, NoEmbedding()], vector_store=store).run(
        documents=[_document("a", ANTS)]
    )
    caplog.clear()
    assert index.as_retriever().retrieve("owls") != []
    assert caplog.text == ""


def test_objects_behind_index_nodes_are_followed(store: MuveraVectorStore) -> None:
    inner = MuveraRetriever(store.client, similarity_top_k=1)
    store.add([TextNode(id_="owl", text="Owls hunt at night.")])
    nodes = [IndexNode(id_="about", text="Everything about animals", index_id="animals", obj=inner)]
    outer = MuveraRetriever.from_nodes(nodes, encoder=store.client.encoder, similarity_top_k=1)
    assert [node.node_id for node in outer.retrieve("animals that hunt")] == ["owl"]
    outer.index.close()


def test_text_and_index_nodes_in_one_vector_store_index(store: MuveraVectorStore, words: TokenEncoder) -> None:
    inner = MuveraRetriever.from_nodes([TextNode(id_="owl", text="Owls hunt at night.")], encoder=words)
    index = VectorStoreIndex(
        [TextNode(id_="ant", text="Ants live in colonies.")],
        objects=[IndexNode(text="All about birds", index_id="birds", obj=inner)],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=NoEmbedding(),
    )
    found = MuveraRetriever.from_index(index).retrieve("birds and ants")
    assert {node.node_id for node in found} == {"owl", "ant"}
    # llama-index-core's own retriever asks for those nodes only that it keeps in its docstore: index nodes.
    assert {node.node_id for node in index.as_retriever().retrieve("birds and ants")} == {"owl"}
    inner.index.close()


def test_a_retriever_over_the_index_of_a_vector_store_index(store: MuveraVectorStore) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex([TextNode(id_="owl", text="owls")], storage_context=context, embed_model=NoEmbedding())
    retriever = MuveraRetriever.from_index(index, similarity_top_k=1)
    assert retriever.index is store.client
    assert [node.node_id for node in retriever.retrieve("owls")] == ["owl"]
