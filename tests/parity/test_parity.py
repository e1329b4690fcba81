"""The same collection gives the same ids and scores through the core and both frameworks."""

from __future__ import annotations

import pytest
from llama_index.retrievers.muvera import MuveraRetriever as LlamaIndexRetriever

from langchain_muvera import MuveraRetriever as LangChainRetriever
from langchain_muvera import ScoredDocument
from muvera_core import MuveraIndex


async def test_all_ways_in_give_the_same(nq_index: MuveraIndex, nq_questions: dict[str, str]) -> None:
    through_langchain = LangChainRetriever(index=nq_index, k=10)
    through_llama_index = LlamaIndexRetriever(nq_index, similarity_top_k=10)
    for question in list(nq_questions.values())[:20]:
        expected = [(hit.id, hit.score, hit.normalized_score) for hit in nq_index.search(question, k=10)]
        for documents in (through_langchain.invoke(question), await through_langchain.ainvoke(question)):
            got = [(d.id, d.score, d.normalized_score) for d in documents if isinstance(d, ScoredDocument)]
            assert got == expected
        for nodes in (through_llama_index.retrieve(question), await through_llama_index.aretrieve(question)):
            assert [(n.node_id, n.score) for n in nodes] == [(id, normalized) for id, _, normalized in expected]


@pytest.mark.parametrize("k", [1, 300, 1000])
def test_k_means_the_same(nq_index: MuveraIndex, k: int) -> None:
    expected = [hit.id for hit in nq_index.search("physics", k=k)]
    assert len(expected) == min(k, 300)
    assert [d.id for d in LangChainRetriever(index=nq_index, k=k).invoke("physics")] == expected
    assert [n.node_id for n in LlamaIndexRetriever(nq_index, similarity_top_k=k).retrieve("physics")] == expected
