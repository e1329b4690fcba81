from __future__ import annotations

import asyncio

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, QueryBundle
from llama_index.retrievers.muvera import MuveraRetriever

from muvera_core import MuveraIndex
from muvera_core.errors import InvalidInputError

QUESTION = "who got the first nobel prize in physics"


def test_class() -> None:
    assert BaseRetriever.__name__ in [base.__name__ for base in MuveraRetriever.__mro__]


@pytest.mark.parametrize("query", [QUESTION, QueryBundle(QUESTION)], ids=["text", "bundle"])
def test_nodes_carry_id_text_metadata_and_score(nq_index: MuveraIndex, query: str | QueryBundle) -> None:
    (found,) = MuveraRetriever(nq_index, similarity_top_k=1).retrieve(query)
    hit = nq_index.search(QUESTION, k=1)[0]
    assert (found.node_id, found.text, found.score) == ("nq-0", hit.text, hit.normalized_score)
    assert found.metadata == {"title": "List of Nobel laureates in Physics", "maxsim_score": hit.score}


def test_the_raw_score_is_kept_from_models(nq_index: MuveraIndex) -> None:
    (found,) = MuveraRetriever(nq_index, similarity_top_k=1).retrieve(QUESTION)
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        content = found.node.get_content(mode)
        assert "List of Nobel laureates in Physics" in content
        assert "maxsim_score" not in content


async def test_async_gives_the_same(nq_index: MuveraIndex) -> None:
    retriever = MuveraRetriever(nq_index, similarity_top_k=5, n_candidates=50)
    sync, async_ = retriever.retrieve(QUESTION), await retriever.aretrieve(QUESTION)
    assert [(n.node_id, n.score) for n in async_] == [(n.node_id, n.score) for n in sync]
    assert len(sync) == 5


async def test_a_hundred_calls_at_once_leave_the_event_loop_free(nq_index: MuveraIndex) -> None:
    retriever, ticks = MuveraRetriever(nq_index, similarity_top_k=1), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    found = await asyncio.gather(*(retriever.aretrieve(f"who wrote book number {i}") for i in range(100)))
    ticking.cancel()
    assert all(len(nodes) == 1 for nodes in found)
    assert ticks > 10


def test_it_works_in_a_query_engine_with_a_cutoff(nq_index: MuveraIndex) -> None:
    engine = RetrieverQueryEngine.from_args(
        MuveraRetriever(nq_index, similarity_top_k=3),
        llm=MockLLM(),
        node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=0.5)],
    )
    response = engine.query(QUESTION)
    assert response.source_nodes[0].node_id == "nq-0"
    assert "Wilhelm Conrad Röntgen" in str(response)


def test_bad_questions_and_settings_raise_our_errors(nq_index: MuveraIndex) -> None:
    with pytest.raises(InvalidInputError, match="is empty"):
        MuveraRetriever(nq_index).retrieve("")
    with pytest.raises(InvalidInputError, match="k must be"):
        MuveraRetriever(nq_index, similarity_top_k=0).retrieve(QUESTION)
