"""LlamaIndex's classes over an index behind a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from awaited_index import NoThreads
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.retrievers.muvera import MuveraRetriever, MuveraVectorStore, NoEmbedding
from local_service import serving

from muvera_core import MuveraIndex
from muvera_core.remote import RemoteMuveraIndex

TEXTS = {f"{animal} {i}": f"{animal} number {i} lives here" for animal in ("owl", "ant", "bat") for i in range(10)}


@pytest.fixture(scope="module")
def local(words: Any) -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None, words) as index:
        yield index


@pytest.fixture(scope="module")
def url(local: MuveraIndex) -> Iterator[str]:
    with serving(local) as address:
        yield address


@pytest.fixture
async def store(url: str) -> AsyncIterator[MuveraVectorStore]:
    """A store with nodes, over an index behind a service. Its asynchronous calls must not use a thread."""
    async with RemoteMuveraIndex(url) as index:
        asyncio.get_running_loop().set_default_executor(NoThreads())
        store = MuveraVectorStore(index)
        await store.aclear()
        await store.async_add(
            [
                TextNode(
                    id_=id,
                    text=text,
                    metadata={"kind": id.split()[0]},
                    excluded_embed_metadata_keys=["kind"],
                    relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"book of {id.split()[0]}s")},
                )
                for id, text in TEXTS.items()
            ]
        )
        yield store


async def test_a_retriever_finds_the_same_as_beside_the_index(store: MuveraVectorStore, local: MuveraIndex) -> None:
    settings: list[dict[str, Any]] = [{"similarity_top_k": 3}, {"mode": "hybrid"}, {"filters": {"kind": "ant"}}]
    for one in settings:
        expected = MuveraRetriever(local, **one).retrieve("owl number 3")
        assert expected
        assert MuveraRetriever(store.client, **one).retrieve("owl number 3") == expected
        assert await MuveraRetriever(store.client, **one).aretrieve("owl number 3") == expected


async def test_many_questions_at_once(store: MuveraVectorStore) -> None:
    retriever = MuveraRetriever(store.client, similarity_top_k=1)
    found = await asyncio.gather(*(retriever.aretrieve(text) for text in TEXTS.values()))
    assert [node.node.node_id for [node] in found] == list(TEXTS)


async def test_a_store_answers_every_mode(store: MuveraVectorStore, local: MuveraIndex) -> None:
    for mode in ("default", "hybrid", "text_search", "mmr"):
        query = VectorStoreQuery(query_str="bat number 7", mode=VectorStoreQueryMode(mode), doc_ids=["book of bats"])
        expected = MuveraVectorStore(local).query(query)
        found = await store.aquery(query)
        assert (found.ids, found.similarities, found.nodes) == (expected.ids, expected.similarities, expected.nodes)
        assert found.ids


async def test_nodes_are_changed_and_deleted(store: MuveraVectorStore) -> None:
    assert await store.aupdate_metadata("owl 1", {"kind": "eagle owl"}) == 1
    [node] = await store.aget_nodes(["owl 1"], {"kind": "eagle owl"})
    assert node.metadata == {"kind": "eagle owl"}
    await store.adelete("book of owls")
    await store.adelete_nodes(filters={"kind": "ant"})
    assert await store.acount() == 10
    assert {node.metadata["kind"] for node in await store.aget_nodes()} == {"bat"}


async def test_llama_indexs_own_index_works_over_it(store: MuveraVectorStore) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex([], storage_context=context, embed_model=NoEmbedding())
    await index.ainsert_nodes([TextNode(id_="crow", text="crows are clever")])
    [found] = await index.as_retriever(similarity_top_k=1).aretrieve("clever crows")
    assert found.node.node_id == "crow"
