"""A vector store and a retriever over any index: one that is awaited answers as one of this process does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from awaited_index import AwaitedIndex, NoThreads
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import BaseNode, NodeRelationship, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode, VectorStoreQueryResult
from llama_index.retrievers.muvera import MuveraEmbedding, MuveraRetriever, MuveraVectorStore, NoEmbedding

from muvera_core import IndexCalls, MuveraIndex
from muvera_core.distributed import LocalScatter, Shard, ShardedEngine
from muvera_core.errors import InvalidInputError

TEXTS = {"owl": "owls hunt at night", "ant": "ants live in colonies", "bat": "bats hunt moths at night"}
QUESTION = "who hunts at night"


def nodes() -> list[BaseNode]:
    legs = {"owl": 2, "ant": 6, "bat": 2}
    return [
        TextNode(
            id_=id,
            text=text,
            metadata={"legs": legs[id]},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"book of {id}s")},
        )
        for id, text in TEXTS.items()
    ]


@pytest.fixture
def filled(store: MuveraVectorStore) -> MuveraVectorStore:
    """A store over an index of this process."""
    store.add(nodes())
    return store


@pytest.fixture
async def away(filled: MuveraVectorStore) -> MuveraVectorStore:
    """A store over an index that is awaited, where nothing may use a thread."""
    assert isinstance(filled.client, MuveraIndex)
    asyncio.get_running_loop().set_default_executor(NoThreads())
    return MuveraVectorStore(AwaitedIndex(filled.client))


def awaited_by(store: MuveraVectorStore) -> list[str]:
    assert isinstance(store.client, AwaitedIndex)
    return store.client.awaited


def judge(pairs: list[tuple[str, str]]) -> list[int]:
    return [len(text) for _, text in pairs]


async def test_a_sharded_index_finds_the_same(filled: MuveraVectorStore, words: Any) -> None:
    shards = [Shard(MuveraIndex.create(None, words)) for _ in range(2)]
    with IndexCalls(ShardedEngine(LocalScatter(shards), words), words) as index:
        store = MuveraVectorStore(index)
        await store.async_add(nodes())
        expected = MuveraRetriever(filled.client).retrieve(QUESTION)
        assert MuveraRetriever(index).retrieve(QUESTION) == expected
        assert await MuveraRetriever(index).aretrieve(QUESTION) == expected
        await store.adelete("book of owls")
        assert [node.node_id for node in store.get_nodes()] == ["ant", "bat"]


READS: dict[str, tuple[Any, ...]] = {
    "get_nodes": (["bat", "owl"], {"legs": 2}),
    "count": ({"legs": 2},),
    "rerank": (QUESTION, ["ant", "bat", "unknown"]),
    "search_with_cross_encoder": (QUESTION, judge, 2),
}


@pytest.mark.parametrize("name", READS)
async def test_a_call_is_awaited_and_finds_the_same(
    name: str, filled: MuveraVectorStore, away: MuveraVectorStore
) -> None:
    expected = getattr(filled, name)(*READS[name])
    assert expected
    assert await getattr(away, f"a{name}")(*READS[name]) == expected
    assert awaited_by(away)


def content(result: VectorStoreQueryResult) -> tuple[Any, ...]:
    return result.ids, result.similarities, result.nodes


@pytest.mark.parametrize(
    "query",
    [
        VectorStoreQuery(query_str=QUESTION, similarity_top_k=2),
        VectorStoreQuery(query_str=QUESTION, mode=VectorStoreQueryMode.HYBRID, alpha=0.5, hybrid_top_k=2),
        VectorStoreQuery(query_str=QUESTION, mode=VectorStoreQueryMode.TEXT_SEARCH),
        VectorStoreQuery(query_str=QUESTION, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.3, similarity_top_k=2),
        VectorStoreQuery(query_str=QUESTION, doc_ids=["book of owls", "ant"]),
        VectorStoreQuery(query_str=QUESTION, node_ids=["ant"]),
    ],
)
async def test_a_query_is_awaited_and_finds_the_same(
    query: VectorStoreQuery, filled: MuveraVectorStore, away: MuveraVectorStore
) -> None:
    expected = filled.query(query)
    assert expected.ids
    assert content(await away.aquery(query)) == content(expected)


async def test_a_query_by_vector_is_awaited(filled: MuveraVectorStore, away: MuveraVectorStore, words: Any) -> None:
    query = VectorStoreQuery(query_embedding=MuveraEmbedding(words).get_query_embedding(QUESTION), similarity_top_k=2)
    assert content(await away.aquery(query)) == content(filled.query(query))
    with pytest.raises(InvalidInputError, match="In LlamaIndex, set query_str"):
        await away.aquery(VectorStoreQuery(query_embedding=[0.0]))
    assert awaited_by(away) == ["search_by_vector"] * 2


async def test_changes_are_awaited(away: MuveraVectorStore) -> None:
    assert await away.async_add([TextNode(id_="crow", text="crows are clever")]) == ["crow"]
    assert await away.aupdate_metadata("crow", {"legs": 2}) == 1
    [crow] = await away.aget_nodes(["crow"])
    assert crow.metadata == {"legs": 2}
    await away.adelete("book of owls")
    await away.adelete_nodes(["ant"])
    assert {node.node_id for node in await away.aget_nodes()} == {"bat", "crow"}
    await away.aclear()
    assert await away.acount() == 0
    assert set(awaited_by(away)) == {"add", "get", "update_metadata", "delete", "find", "clear", "count"}


async def test_a_retriever_is_awaited(filled: MuveraVectorStore, away: MuveraVectorStore) -> None:
    settings: list[dict[str, Any]] = [
        {"similarity_top_k": 2},
        {"mode": "hybrid"},
        {"passage": "text"},
        {"filters": {"legs": 6}},
        {"cross_encoder": judge, "n_calls": 2},
    ]
    for one in settings:
        expected = MuveraRetriever(filled.client, **one).retrieve(QUESTION)
        assert await MuveraRetriever(away.client, **one).aretrieve(QUESTION) == expected
    assert awaited_by(away) == ["search"] * 4 + ["search_with_cross_encoder"]
    retriever = MuveraRetriever.from_index(away.client, similarity_top_k=1)
    [both] = await retriever.aretrieve(QueryBundle("", custom_embedding_strs=["ants", "colonies"]))
    assert both.node.node_id == "ant"


async def test_llama_indexs_own_index_awaits_it(away: MuveraVectorStore) -> None:
    context = StorageContext.from_defaults(vector_store=away)
    index = VectorStoreIndex([], storage_context=context, embed_model=NoEmbedding())
    await index.ainsert_nodes([TextNode(id_="crow", text="crows are clever")])
    [found] = await index.as_retriever(similarity_top_k=1).aretrieve("clever")
    assert found.node.node_id == "crow"


async def test_many_questions_wait_together(away: MuveraVectorStore) -> None:
    retriever = MuveraRetriever(away.client, similarity_top_k=1)
    found = await asyncio.gather(*(retriever.aretrieve(text) for text in list(TEXTS.values()) * 5))
    assert [one.node.node_id for [one] in found] == list(TEXTS) * 5
    assert isinstance(away.client, AwaitedIndex)
    assert away.client.most_at_once == len(found)


async def test_an_empty_index_is_hinted_at(
    make_store: Callable[[], MuveraVectorStore], caplog: pytest.LogCaptureFixture
) -> None:
    empty = make_store().client
    assert isinstance(empty, MuveraIndex)
    index = AwaitedIndex(empty)
    assert await MuveraRetriever(index).aretrieve(QUESTION) == []
    assert "the index is empty" in caplog.text
    assert index.awaited == ["search", "count"]


async def test_errors_come_through(away: MuveraVectorStore) -> None:
    calls: list[Awaitable[Any]] = [
        away.adelete_nodes(),
        away.arerank(QUESTION, ["ant"], 0),
        away.aquery(VectorStoreQuery(query_str=QUESTION), no_such_name=1),
        away.async_add([TextNode(text="a")], no_such_name=1),
        MuveraRetriever(away.client, n_calls=3).aretrieve(QUESTION),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError):
            await call


def test_other_objects_are_refused() -> None:
    for kind in (MuveraVectorStore, MuveraRetriever):
        with pytest.raises(InvalidInputError, match="a RemoteMuveraIndex, got str"):
            kind("birds")  # type: ignore[arg-type]
