from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, ClassVar

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_tests.integration_tests import RetrieversIntegrationTests

from langchain_muvera import MuveraRetriever, MuveraVectorStore, ScoredDocument
from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError


class TestOfficialSuite(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, nq_index: MuveraIndex) -> None:
        self.index = nq_index

    @property
    def retriever_constructor(self) -> type[MuveraRetriever]:
        return MuveraRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.index}

    @property
    def retriever_query_example(self) -> str:
        return "who got the first nobel prize in physics"


def test_documents_carry_id_metadata_and_both_scores(nq_index: MuveraIndex) -> None:
    question = "who got the first nobel prize in physics"
    document = MuveraRetriever(index=nq_index, k=1).invoke(question)[0]
    hit = nq_index.search(question, k=1)[0]
    assert isinstance(document, ScoredDocument)
    assert (document.id, document.page_content) == (hit.id, hit.text) == ("nq-0", hit.text)
    assert document.metadata == hit.metadata == {"title": "List of Nobel laureates in Physics"}
    assert (document.score, document.normalized_score) == (hit.score, hit.normalized_score)


async def test_k_and_candidates_can_be_set_for_one_call(nq_index: MuveraIndex) -> None:
    retriever = MuveraRetriever(index=nq_index)
    assert len(retriever.invoke("physics")) == 4
    assert len(retriever.invoke("physics", k=7, n_candidates=50)) == 7
    assert len(await retriever.ainvoke("physics", k=9)) == 9
    assert len(await retriever.ainvoke("physics", n_candidates=2)) == 4


async def test_zero_k_is_refused_everywhere(nq_index: MuveraIndex) -> None:
    retriever = MuveraRetriever(index=nq_index)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        MuveraRetriever(index=nq_index, k=0)
    with pytest.raises(InvalidInputError):
        retriever.invoke("physics", k=0)
    with pytest.raises(InvalidInputError):
        await retriever.ainvoke("physics", k=0)


async def lag_while(calls: list[Coroutine[Any, Any, list[Document]]]) -> tuple[list[list[Document]], float]:
    """What the calls return, and how late the event loop was at most, as a share of the time of all calls."""
    longest, step, start = 0.0, 0.005, time.perf_counter()

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(step)
            longest = max(longest, time.perf_counter() - before - step)

    watching = asyncio.create_task(watch())
    found = await asyncio.gather(*calls)
    watching.cancel()
    return found, longest / (time.perf_counter() - start)


@pytest.mark.parametrize("kind", ["retriever", "store", "diverse"])
async def test_a_hundred_calls_at_once_leave_the_event_loop_free(kind: str, nq_index: MuveraIndex) -> None:
    store = MuveraVectorStore(nq_index)
    retriever: BaseRetriever = {
        "retriever": MuveraRetriever(index=nq_index, k=1),
        "store": store.as_retriever(search_kwargs={"k": 1}),
        "diverse": store.as_retriever(search_type="mmr", search_kwargs={"k": 1, "fetch_k": 5}),
    }[kind]
    questions = [f"who wrote book number {i}" for i in range(100)]
    await retriever.ainvoke(questions[0])
    expected = [retriever.invoke(question)[0].id for question in questions]
    lags = []
    for _ in range(3):  # other processes may disturb a round
        found, lag = await lag_while([retriever.ainvoke(question) for question in questions])
        assert [documents[0].id for documents in found] == expected
        lags.append(lag)
    assert min(lags) < 0.5, "calls that block the event loop make it as late as all of them take"


async def test_filters_are_the_retrievers_or_the_calls(nq_index: MuveraIndex) -> None:
    question, title = "who got the first nobel prize in physics", "List of Nobel laureates in Physics"
    retriever = MuveraRetriever(index=nq_index, k=3, filter={"title": {"$ne": title}})
    assert "nq-0" not in [document.id for document in retriever.invoke(question)]
    for found in (
        retriever.invoke(question, filter={"title": title}),
        await retriever.ainvoke(question, filter={"title": title}),
    ):
        assert {document.metadata["title"] for document in found} == {title}
    assert retriever.invoke(question, filter={})[0].id == "nq-0"
    with pytest.raises(InvalidInputError, match="near"):
        await retriever.ainvoke(question, filter={"title": {"$near": title}})


async def test_smallest_scores_are_the_retrievers_or_the_calls(nq_index: MuveraIndex) -> None:
    question = "who got the first nobel prize in physics"
    scores = [hit.normalized_score for hit in nq_index.search(question, k=4)]
    retriever = MuveraRetriever(index=nq_index, min_score=scores[1])
    assert len(retriever.invoke(question)) == len(await retriever.ainvoke(question)) == 2
    assert len(retriever.invoke(question, min_score=scores[0])) == 1
    assert len(await retriever.ainvoke(question, min_score=0)) == 4
    with pytest.raises(ValueError, match="less than or equal to 1"):
        MuveraRetriever(index=nq_index, min_score=1.5)


async def test_traces_name_the_store_the_encoder_and_the_tags(nq_index: MuveraIndex) -> None:
    class Tracer(BaseCallbackHandler):
        seen: ClassVar[list[tuple[dict[str, Any], list[str]]]] = []

        def on_retriever_start(self, serialized: Any, query: str, **run: Any) -> None:
            self.seen.append((run["metadata"], run["tags"]))

    retriever = MuveraRetriever(index=nq_index, tags=["mine"], metadata={"team": "search"})
    retriever.invoke("physics", config={"callbacks": [Tracer()], "tags": ["call"]})
    await retriever.ainvoke("physics", config={"callbacks": [Tracer()]}, k=1)
    for metadata, _ in Tracer.seen:
        assert metadata["ls_retriever_name"] == "muvera"
        assert metadata["ls_vector_store_provider"] == "MuveraIndex"
        assert metadata["ls_embedding_provider"] == "BundledEncoder"
        assert metadata["ls_embedding_model"] == nq_index.encoder.fingerprint
        assert metadata["team"] == "search"
    assert [set(tags) for _, tags in Tracer.seen] == [{"mine", "call"}, {"mine"}]


async def test_events_stream(nq_index: MuveraIndex) -> None:
    retriever = MuveraRetriever(index=nq_index, k=2)
    events = [event async for event in retriever.astream_events("physics", version="v2")]
    assert [event["event"] for event in events if "retriever" in event["event"]] == [
        "on_retriever_start",
        "on_retriever_end",
    ]
    assert len(await retriever.abatch(["physics", "chemistry"])) == 2


def test_it_works_in_a_chain(nq_index: MuveraIndex) -> None:
    retriever = MuveraRetriever(index=nq_index, k=1)
    chain = (
        {"context": retriever | (lambda documents: documents[0].page_content), "question": RunnablePassthrough()}
        | RunnableLambda(lambda inputs: f"{inputs['question']} → {inputs['context']}")
        | StrOutputParser()
    )
    assert "Wilhelm Conrad Röntgen" in chain.invoke("who got the first nobel prize in physics")


def test_callbacks_and_errors_reach_the_caller(nq_index: MuveraIndex) -> None:
    class Recorder(BaseCallbackHandler):
        seen: list[str]

        def __init__(self) -> None:
            self.seen = []

        def on_retriever_end(self, documents: Any, **_: Any) -> None:
            self.seen.append(f"end {len(documents)}")

        def on_retriever_error(self, error: BaseException, **_: Any) -> None:
            self.seen.append(type(error).__name__)

    recorder, retriever = Recorder(), MuveraRetriever(index=nq_index, k=2)
    retriever.invoke("physics", config={"callbacks": [recorder]})
    with pytest.raises(InvalidInputError, match="k must be"):
        retriever.invoke("physics", config={"callbacks": [recorder]}, k=0)
    assert recorder.seen == ["end 2", "InvalidInputError"]


def test_embeddings_without_text_give_an_empty_page(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add_embeddings(encoder.encode_documents(["Owls hunt at night."]), ids=["owl"])
        document = MuveraRetriever(index=index).invoke("owls")[0]
    assert (document.id, document.page_content) == ("owl", "")
