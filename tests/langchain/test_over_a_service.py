"""LangChain's classes over an index behind a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from awaited_index import NoThreads
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests
from local_service import serving

from langchain_muvera import MuveraRetriever, MuveraVectorStore
from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError, ServiceError
from muvera_core.remote import RemoteMuveraIndex

QUESTION = "who got the first nobel prize in physics"


@pytest.fixture(scope="module")
def served_questions(nq_index: MuveraIndex) -> Iterator[str]:
    with serving(nq_index) as url:
        yield url


@pytest.fixture(scope="module")
def served_changes(encoder: BundledEncoder) -> Iterator[str]:
    with MuveraIndex.create(None, encoder) as index, serving(index) as url:
        yield url


@pytest.fixture
async def store(served_changes: str) -> AsyncIterator[MuveraVectorStore]:
    """A store over an empty index behind a service."""
    index = RemoteMuveraIndex(served_changes)
    index.clear()
    yield MuveraVectorStore(index)
    await index.aclose()


class TestOfficialStoreSuite(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, store: MuveraVectorStore) -> VectorStore:
        return store


class TestOfficialRetrieverSuite(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    async def _index(self, served_questions: str) -> AsyncIterator[None]:
        self.index = RemoteMuveraIndex(served_questions)
        yield
        await self.index.aclose()

    @property
    def retriever_constructor(self) -> type[MuveraRetriever]:
        return MuveraRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.index}

    @property
    def retriever_query_example(self) -> str:
        return QUESTION


def seen(documents: list[Document]) -> list[tuple[Any, ...]]:
    return [(document, document.score, document.relevance) for document in documents]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "settings", [{"k": 3}, {"mode": "hybrid"}, {"passage": "text"}, {"filter": {"title": "Nobel Prize in Physics"}}]
)
async def test_a_retriever_finds_the_same_as_beside_the_index(
    settings: dict[str, Any], served_questions: str, nq_index: MuveraIndex
) -> None:
    expected = MuveraRetriever(index=nq_index).invoke(QUESTION, **settings)
    async with RemoteMuveraIndex(served_questions) as index:
        retriever = MuveraRetriever(index=index)
        assert seen(await asyncio.to_thread(retriever.invoke, QUESTION, **settings)) == seen(expected)
        asyncio.get_running_loop().set_default_executor(NoThreads())
        assert seen(await retriever.ainvoke(QUESTION, **settings)) == seen(expected)


async def test_many_questions_at_once_need_no_thread(served_questions: str, nq_index: MuveraIndex) -> None:
    questions = [document.text or "" for document in nq_index.find(limit=40)]
    asyncio.get_running_loop().set_default_executor(NoThreads())
    async with RemoteMuveraIndex(served_questions) as index:
        retriever = MuveraRetriever(index=index, k=1)
        found = await asyncio.gather(*(retriever.ainvoke(question[:100]) for question in questions))
    assert [document.page_content for [document] in found] == questions


async def test_changes_need_no_thread(store: MuveraVectorStore) -> None:
    asyncio.get_running_loop().set_default_executor(NoThreads())
    await store.aadd_documents([Document(id="owl", page_content="Owls hunt at night.", metadata={"legs": 2})])
    assert await store.aupdate_metadata("owl", {"wings": 2}) == 1
    [owl] = await store.asimilarity_search("night", filter={"legs": 2})
    assert owl.metadata == {"legs": 2, "wings": 2}
    assert await store.adelete(["owl"])
    assert await store.acount() == 0


async def test_errors_of_the_service_are_those_of_an_index(store: MuveraVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="k"):
        await store.asimilarity_search("night", k=0)
    with pytest.raises(InvalidInputError, match="cross-encoder cannot be sent"):
        await store.asearch_with_cross_encoder("night", lambda pairs: [0.0 for _ in pairs])
    async with RemoteMuveraIndex("http://127.0.0.1:9", retries=0) as nobody:
        with pytest.raises(ServiceError):
            await MuveraRetriever(index=nobody).ainvoke("night")
