from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.base import BaseEvent  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever, RecursiveRetriever
from llama_index.core.schema import IndexNode, QueryBundle, TextNode
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.retrievers.muvera import MuveraRetriever, NoEmbedding

from muvera_core import MuveraIndex, TokenEncoder
from muvera_core.errors import InvalidInputError

QUESTION = "who got the first nobel prize in physics"


def test_class() -> None:
    assert BaseRetriever.__name__ in [base.__name__ for base in MuveraRetriever.__mro__]


@pytest.mark.parametrize("query", [QUESTION, QueryBundle(QUESTION)], ids=["text", "bundle"])
def test_nodes_carry_id_text_metadata_and_score(nq_index: MuveraIndex, query: str | QueryBundle) -> None:
    (found,) = MuveraRetriever(nq_index, similarity_top_k=1).retrieve(query)
    hit = nq_index.search(QUESTION, k=1)[0]
    assert (found.node_id, found.text, found.score) == ("nq-0", hit.text, hit.normalized_score)
    assert found.metadata == {"title": "List of Nobel laureates in Physics"}


async def test_async_gives_the_same(nq_index: MuveraIndex) -> None:
    retriever = MuveraRetriever(nq_index, similarity_top_k=5, n_candidates=50)
    sync, async_ = retriever.retrieve(QUESTION), await retriever.aretrieve(QUESTION)
    assert [(n.node_id, n.score) for n in async_] == [(n.node_id, n.score) for n in sync]
    assert len(sync) == 5


async def test_a_hundred_calls_at_once_leave_the_event_loop_free(
    nq_index: MuveraIndex, record_property: Callable[[str, object], None]
) -> None:
    """The loop is late by far less than the calls take; a retriever that blocks it makes it late by all of that."""
    retriever = MuveraRetriever(nq_index, similarity_top_k=1)
    await retriever.aretrieve("warm up")
    rounds = [await _lag_and_seconds(retriever) for _ in range(3)]
    lag, seconds = min(rounds)  # other processes may disturb a round
    record_property("max_lag_seconds", lag)
    record_property("seconds_for_all", seconds)
    print(f"100 calls: {seconds:.2f} s, event loop at most {1000 * lag:.0f} ms late")
    assert lag < seconds / 2, "calls that block the event loop make it as late as all of them take"


async def _lag_and_seconds(retriever: MuveraRetriever) -> tuple[float, float]:
    lags: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - before - 0.001)

    ticking = asyncio.create_task(tick())
    started = time.perf_counter()
    found = await asyncio.gather(*(retriever.aretrieve(f"who wrote book number {i}") for i in range(100)))
    seconds = time.perf_counter() - started
    await asyncio.sleep(0.01)
    ticking.cancel()
    assert all(len(nodes) == 1 for nodes in found)
    return max(lags), seconds


def test_filters_choose_what_is_searched(nq_index: MuveraIndex) -> None:
    nobel = MetadataFilter(key="title", value="Nobel", operator=FilterOperator.TEXT_MATCH)
    only = MuveraRetriever(nq_index, similarity_top_k=300, filters=MetadataFilters(filters=[nobel]))
    without = MuveraRetriever(
        nq_index, similarity_top_k=300, filters=MetadataFilters(filters=[nobel], condition=FilterCondition.NOT)
    )
    found, rest = only.retrieve(QUESTION), without.retrieve(QUESTION)
    assert found
    assert all("Nobel" in node.metadata["title"] for node in found)
    assert all("Nobel" not in node.metadata["title"] for node in rest)
    assert len(found) + len(rest) == 300


def test_k_beyond_the_corpus_and_an_empty_index(nq_index: MuveraIndex, words: TokenEncoder) -> None:
    assert len(MuveraRetriever(nq_index, similarity_top_k=10_000).retrieve(QUESTION)) == 300
    with MuveraIndex.create(None, words) as empty:
        assert MuveraRetriever(empty).retrieve(QUESTION) == []


def test_several_embedding_strings_all_count(words: TokenEncoder) -> None:
    nodes = [TextNode(id_=text, text=text) for text in ("owls", "ants", "bats")]
    retriever = MuveraRetriever.from_nodes(nodes, encoder=words)
    found = retriever.retrieve(QueryBundle("anything", custom_embedding_strs=["owls", "ants"]))
    assert {node.node_id for node in found} == {"owls", "ants"}
    retriever.index.close()


# Making one


def test_from_documents_splits_them(tmp_path: Path, words: TokenEncoder) -> None:
    documents = [Document(id_="d", text="Owls hunt at night. Ants live in colonies.", metadata={"page": 1})]
    retriever = MuveraRetriever.from_documents(
        documents,
        persist_dir=tmp_path / "index",
        encoder=words,
        transformations=[SentenceSplitter(chunk_size=16, chunk_overlap=0)],
        similarity_top_k=1,
    )
    (found,) = retriever.retrieve("ants")
    assert (found.text, found.node.ref_doc_id) == ("Ants live in colonies.", "d")
    retriever.index.close()
    reopened = MuveraRetriever.from_persist_dir(tmp_path / "index", encoder=words, similarity_top_k=1)
    assert reopened.retrieve("ants") == [found]
    reopened.index.close()
    with pytest.raises(InvalidInputError, match="device must be"):
        MuveraRetriever.from_persist_dir(tmp_path / "index", encoder=words, device="abacus")


def test_from_documents_takes_llama_indexs_settings(words: TokenEncoder) -> None:
    retriever = MuveraRetriever.from_documents([Document(text="Owls hunt at night.")], encoder=words)
    assert len(retriever.retrieve("owls")) == 1
    retriever.index.close()


def test_from_index_takes_a_muvera_index_only(nq_index: MuveraIndex) -> None:
    assert MuveraRetriever.from_index(nq_index, similarity_top_k=7).similarity_top_k == 7
    with pytest.raises(InvalidInputError, match="VectorStoreIndex over SimpleVectorStore"):
        MuveraRetriever.from_index(VectorStoreIndex([], embed_model=NoEmbedding()))


# In LlamaIndex


def test_it_works_in_a_query_engine_with_a_cutoff(nq_index: MuveraIndex) -> None:
    engine = RetrieverQueryEngine.from_args(
        MuveraRetriever(nq_index, similarity_top_k=3),
        llm=MockLLM(),
        node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=0.5)],
    )
    response = engine.query(QUESTION)
    assert response.source_nodes[0].node_id == "nq-0"
    assert "Wilhelm Conrad Röntgen" in str(response)


@pytest.mark.parametrize("kind", [ContextChatEngine, CondensePlusContextChatEngine])
async def test_it_works_in_chat_engines(nq_index: MuveraIndex, kind: type[BaseChatEngine]) -> None:
    # The default memory opens a database that it never closes.
    memory = ChatMemoryBuffer.from_defaults(token_limit=3000)
    retriever = MuveraRetriever(nq_index, similarity_top_k=1)
    engine = kind.from_defaults(retriever=retriever, llm=MockLLM(), memory=memory)  # type: ignore[attr-defined]
    for response in (engine.chat(QUESTION), await engine.achat(QUESTION)):
        assert response.source_nodes[0].node_id == "nq-0"
        assert QUESTION in str(response)


def test_it_works_in_query_fusion(nq_index: MuveraIndex) -> None:
    retrievers: list[BaseRetriever] = [MuveraRetriever(nq_index, similarity_top_k=k) for k in (2, 5)]
    for use_async in (True, False):
        fusion = QueryFusionRetriever(retrievers, llm=MockLLM(), num_queries=1, similarity_top_k=3, use_async=use_async)
        found = fusion.retrieve(QUESTION)
        assert [node.node_id for node in found] == [hit.id for hit in nq_index.search(QUESTION, k=3)]


@pytest.mark.parametrize("through", ["object", "object map"])
async def test_index_nodes_lead_on(nq_index: MuveraIndex, words: TokenEncoder, through: str) -> None:
    inner = MuveraRetriever(nq_index, similarity_top_k=1)
    node = IndexNode(text="prizes in physics", index_id="nobel", obj=inner if through == "object" else None)
    retriever = MuveraRetriever.from_nodes(
        [node], encoder=words, object_map=None if through == "object" else {"nobel": inner}
    )
    for found in (retriever.retrieve(QUESTION), await retriever.aretrieve(QUESTION)):
        assert [node.node_id for node in found] == ["nq-0"]
    assert node.obj is (inner if through == "object" else None)  # the caller's node stays whole
    retriever.index.close()


def test_it_works_in_a_recursive_retriever(nq_index: MuveraIndex, words: TokenEncoder) -> None:
    outer = MuveraRetriever.from_nodes([IndexNode(text="prizes in physics", index_id="nobel")], encoder=words)
    inner = MuveraRetriever(nq_index, similarity_top_k=1)
    recursive = RecursiveRetriever("outer", retriever_dict={"outer": outer, "nobel": inner})
    assert [node.node_id for node in recursive.retrieve(QUESTION)] == ["nq-0"]
    outer.index.close()


async def test_events_and_callbacks_tell_what_happens(nq_index: MuveraIndex) -> None:
    seen: list[BaseEvent] = []

    class Recorder(BaseEventHandler):
        def handle(self, event: BaseEvent, **kwargs: object) -> None:
            seen.append(event)

    debug = LlamaDebugHandler(print_trace_on_end=False)
    retriever = MuveraRetriever(nq_index, similarity_top_k=1, callback_manager=CallbackManager([debug]))
    dispatcher, recorder = get_dispatcher(), Recorder()
    dispatcher.add_event_handler(recorder)
    try:
        found = retriever.retrieve(QUESTION)
        await retriever.aretrieve(QUESTION)
    finally:
        dispatcher.event_handlers.remove(recorder)
    kinds = [type(event) for event in seen]
    assert kinds == [RetrievalStartEvent, RetrievalEndEvent] * 2
    assert seen[1].nodes == found  # type: ignore[attr-defined]
    assert len(debug.get_event_pairs(CBEventType.RETRIEVE)) == 2
