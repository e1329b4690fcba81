from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_tests.integration_tests import RetrieversIntegrationTests

from langchain_muvera import MuveraRetriever
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
    assert isinstance(document, Document)
    assert (document.id, document.page_content) == (hit.id, hit.text) == ("nq-0", hit.text)
    assert document.metadata == {
        "title": "List of Nobel laureates in Physics",
        "relevance_score": hit.normalized_score,
        "maxsim_score": hit.score,
    }
    assert nq_index.get("nq-0")[0].metadata == {"title": "List of Nobel laureates in Physics"}


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


async def test_a_hundred_calls_at_once_leave_the_event_loop_free(nq_index: MuveraIndex) -> None:
    retriever, ticks = MuveraRetriever(index=nq_index, k=1), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    questions = [f"who wrote book number {i}" for i in range(100)]
    found = await asyncio.gather(*(retriever.ainvoke(question) for question in questions))
    ticking.cancel()
    assert [documents[0].id for documents in found] == [retriever.invoke(question)[0].id for question in questions]
    assert ticks > 10


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
    with pytest.raises(InvalidInputError, match="is empty"):
        retriever.invoke("  ", config={"callbacks": [recorder]})
    assert recorder.seen == ["end 2", "InvalidInputError"]


def test_embeddings_without_text_give_an_empty_page(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add_embeddings(encoder.encode_documents(["Owls hunt at night."]), ids=["owl"])
        document = MuveraRetriever(index=index).invoke("owls")[0]
    assert (document.id, document.page_content) == ("owl", "")
