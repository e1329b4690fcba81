"""A vector store and a retriever over any index: one that is awaited answers as one of this process does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest
from awaited_index import AwaitedIndex, NoThreads
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from langchain_muvera import MuveraEmbeddings, MuveraRetriever, MuveraVectorStore
from muvera_core import IndexCalls, MuveraIndex
from muvera_core.distributed import LocalScatter, Shard, ShardedEngine
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError

TEXTS = ["Owls hunt at night.", "Ants live in colonies.", "Herons stand still in water.", "Bats find moths by echo."]
IDS = ["owl", "ant", "heron", "bat"]
LEGS: list[dict[str, Any]] = [{"legs": 2}, {"legs": 6}, {"legs": 2}, {"legs": 2}]
NOCTURNAL = "Which animal is active at night?"
CALLER = ContextVar("CALLER", default="nobody")

# Calls that search or read, by name; each works with a store's synchronous and its asynchronous call.
READS: dict[str, tuple[Any, ...]] = {
    "similarity_search": (NOCTURNAL, 2, {"legs": 2}),
    "similarity_search_with_score": (NOCTURNAL, 3),
    "similarity_search_with_relevance_scores": (NOCTURNAL, 3),
    "max_marginal_relevance_search": (NOCTURNAL, 2, 3, 0.3),
    "search_with_cross_encoder": (NOCTURNAL, lambda pairs: [len(text) for _, text in pairs], 2),
    "rerank": (NOCTURNAL, ["ant", "bat", "unknown"]),
    "get_by_ids": (["bat", "owl"],),
    "count": ({"legs": 2},),
}
SEARCH_TYPES = ["similarity", "similarity_score_threshold", "mmr", "hybrid", "lexical", "coverage"]


def sharded(encoder: BundledEncoder) -> IndexCalls:
    """An empty index over two shards in this process."""
    shards = [Shard(MuveraIndex.create(None, encoder)) for _ in range(2)]
    return IndexCalls(ShardedEngine(LocalScatter(shards), encoder), encoder)


class TestOfficialSuiteOverShards(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, encoder: BundledEncoder) -> Iterator[VectorStore]:
        with MuveraVectorStore(sharded(encoder)) as store:
            yield store


@pytest.fixture
def local(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    with MuveraVectorStore.from_texts(TEXTS, metadatas=LEGS, ids=IDS, encoder=encoder) as store:
        yield store


@pytest.fixture
async def store(local: MuveraVectorStore) -> MuveraVectorStore:
    """A store over an index that is awaited, where nothing may use a thread."""
    assert isinstance(local.index, MuveraIndex)
    asyncio.get_running_loop().set_default_executor(NoThreads())
    return MuveraVectorStore(AwaitedIndex(local.index))


def awaited_by(store: MuveraVectorStore) -> list[str]:
    assert isinstance(store.index, AwaitedIndex)
    return store.index.awaited


def seen(found: Any) -> Any:
    """What was found, with the scores of documents."""
    if isinstance(found, tuple):
        return tuple(map(seen, found))
    if isinstance(found, list):
        return list(map(seen, found))
    return (found, getattr(found, "score", None))


async def test_a_sharded_index_finds_the_same(local: MuveraVectorStore, encoder: BundledEncoder) -> None:
    with MuveraVectorStore(sharded(encoder)) as store:
        await store.aadd_texts(TEXTS, LEGS, ids=IDS)
        for found in (store.similarity_search(NOCTURNAL), await store.asimilarity_search(NOCTURNAL)):
            assert seen(found) == seen(local.similarity_search(NOCTURNAL))
        assert MuveraRetriever(index=store.index, k=1).invoke(NOCTURNAL)[0].id == "owl"


@pytest.mark.parametrize("name", READS)
async def test_a_call_is_awaited_and_finds_the_same(
    name: str, local: MuveraVectorStore, store: MuveraVectorStore
) -> None:
    expected = getattr(local, name)(*READS[name])
    assert expected
    assert seen(await getattr(store, f"a{name}")(*READS[name])) == seen(expected)
    assert len(awaited_by(store)) == 1


@pytest.mark.parametrize("search_type", SEARCH_TYPES)
async def test_every_search_type_is_awaited(
    search_type: str, local: MuveraVectorStore, store: MuveraVectorStore
) -> None:
    settings: dict[str, Any] = {"score_threshold": 0.1} if search_type.endswith("threshold") else {}
    expected = local.as_retriever(search_type=search_type, search_kwargs=settings).invoke(NOCTURNAL, k=2)
    assert expected
    retriever = store.as_retriever(search_type=search_type, search_kwargs=settings)
    assert seen(await retriever.ainvoke(NOCTURNAL, k=2)) == seen(expected)
    assert seen(await store.asearch(NOCTURNAL, search_type, k=2, **settings)) == seen(expected)
    assert len(awaited_by(store)) == 2


async def test_a_search_by_vector_is_awaited(local: MuveraVectorStore, store: MuveraVectorStore) -> None:
    vector = MuveraEmbeddings(local.index.encoder).embed_query(NOCTURNAL)
    assert await store.asimilarity_search_by_vector(vector) == local.similarity_search_by_vector(vector)
    assert await store.asimilarity_search_with_score_by_vector(
        vector, 2
    ) == local.similarity_search_with_score_by_vector(vector, 2)
    assert awaited_by(store) == ["search_by_vector"] * 2


async def test_changes_are_awaited(store: MuveraVectorStore) -> None:
    assert await store.aadd_texts(["Crows are clever."], [{"legs": 2}], ids=["crow"]) == ["crow"]
    moth = Document(id="moth", page_content="Moths fly to the light.", metadata={"legs": 6})
    assert await store.aadd_documents([moth]) == ["moth"]
    assert await store.aupdate_metadata("moth", {"wings": 4}) == 1
    [found] = await store.aget_by_ids(["moth"])
    assert (found.page_content, found.metadata) == (moth.page_content, {"legs": 6, "wings": 4})
    assert await store.adelete(["owl"], filter={"legs": 2})
    assert await store.acount() == 5
    assert await store.aclear() == 5
    assert await store.adelete()
    assert await store.acount() == 0
    names = ["add", "add", "update_metadata", "get", "delete", "count", "clear", "clear", "count"]
    assert awaited_by(store) == names


async def test_a_retriever_is_awaited(local: MuveraVectorStore, store: MuveraVectorStore) -> None:
    for settings in ({"k": 2}, {"mode": "hybrid", "k": 3}, {"passage": "text"}, {"filter": {"legs": 6}}):
        expected = MuveraRetriever(index=local.index).invoke(NOCTURNAL, **settings)
        found = await MuveraRetriever(index=store.index).ainvoke(NOCTURNAL, **settings)
        assert seen(found) == seen(expected)
    judge: Callable[[Any], list[int]] = lambda pairs: [len(text) for _, text in pairs]  # noqa: E731
    expected = MuveraRetriever(index=local.index, cross_encoder=judge, n_calls=3).invoke(NOCTURNAL)
    assert await MuveraRetriever(index=store.index, cross_encoder=judge, n_calls=3).ainvoke(NOCTURNAL) == expected
    assert awaited_by(store) == ["search"] * 4 + ["search_with_cross_encoder"]


async def test_traces_do_not_ask_for_the_encoder(store: MuveraVectorStore) -> None:
    class Tracer(AsyncCallbackHandler):
        async def on_retriever_start(self, serialized: Any, query: str, **run: Any) -> None:
            seen_by_tracer.append(run["metadata"])

    seen_by_tracer: list[dict[str, Any]] = []
    await MuveraRetriever(index=store.index).ainvoke(NOCTURNAL, config={"callbacks": [Tracer()]})
    assert [metadata["ls_vector_store_provider"] for metadata in seen_by_tracer] == ["AwaitedIndex"]
    assert awaited_by(store) == ["search"]


async def test_many_questions_wait_together(store: MuveraVectorStore) -> None:
    retriever = MuveraRetriever(index=store.index, k=1)
    found = await asyncio.gather(*(retriever.ainvoke(text) for text in TEXTS * 5))
    assert [document.id for [document] in found] == IDS * 5
    assert isinstance(store.index, AwaitedIndex)
    assert store.index.most_at_once == len(found)


async def test_errors_come_through(store: MuveraVectorStore) -> None:
    calls: list[Awaitable[Any]] = [
        store.asimilarity_search("owl", k=0),
        store.asimilarity_search("owl", filter={"$no": 1}),
        store.asearch("owl", "no such type"),
        store.arerank("owl", IDS, 0),
        MuveraRetriever(index=store.index).ainvoke("owl", passage="no"),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError):
            await call


async def test_no_asynchronous_call_is_forgotten() -> None:
    """LangChain's own calls use a thread."""
    threaded = {
        name
        for kind in MuveraVectorStore.__mro__
        for name in vars(kind)
        if name.startswith("a")
        and inspect.iscoroutinefunction(getattr(MuveraVectorStore, name))
        and "run_in_executor" in inspect.getsource(getattr(MuveraVectorStore, name))
    }
    # This search is not available.
    assert threaded == {"amax_marginal_relevance_search_by_vector"}


async def test_a_local_index_is_asked_in_a_thread_with_the_callers_context(local: MuveraVectorStore) -> None:
    callers: list[str] = []

    def judge(pairs: list[tuple[str, str]]) -> np.ndarray[Any, Any]:
        callers.append(CALLER.get())
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return np.arange(len(pairs))

    CALLER.set("me")
    await local.asearch_with_cross_encoder(NOCTURNAL, judge)
    await MuveraRetriever(index=local.index, cross_encoder=judge).ainvoke(NOCTURNAL)
    assert set(callers) == {"me"}


async def test_a_store_of_a_users_own_keeps_its_searches(local: MuveraVectorStore) -> None:
    class Shouting(MuveraVectorStore):
        def similarity_search(self, *args: Any, **kwargs: Any) -> list[Document]:
            return [Document(document.page_content.upper()) for document in super().similarity_search(*args, **kwargs)]

    [document] = await Shouting(local.index).asimilarity_search(NOCTURNAL, k=1)
    assert document.page_content == "OWLS HUNT AT NIGHT."


def test_other_objects_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="a RemoteMuveraIndex, got str"):
        MuveraVectorStore("birds")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="index: Input should be an instance of IndexCalls"):
        MuveraRetriever(index="birds")  # type: ignore[arg-type]
