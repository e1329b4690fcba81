"""Every mode, passages, coverage and relevance are the same through the core and both frameworks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.retrievers.muvera import MuveraRetriever as LlamaIndexRetriever
from llama_index.retrievers.muvera import MuveraVectorStore as LlamaIndexStore

from langchain_muvera import MuveraRetriever as LangChainRetriever
from langchain_muvera import MuveraVectorStore as LangChainStore
from langchain_muvera import ScoredDocument
from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.collections import BeirCollection

N = 80
QUERY_MODES = {"late": "default", "hybrid": "hybrid", "lexical": "text_search"}


@pytest.fixture(scope="module")
def both(encoder: BundledEncoder, nq: BeirCollection) -> Iterator[tuple[LangChainStore, LlamaIndexStore]]:
    """A store of each framework, with the same passages, each with an index of its own."""
    texts, ids = nq.texts[:N], nq.ids[:N]
    langchain = LangChainStore.from_texts(texts, ids=ids, encoder=encoder)
    llama_index = LlamaIndexStore(MuveraIndex.create(None, encoder))
    llama_index.add([TextNode(id_=id, text=text) for id, text in zip(ids, texts, strict=True)])
    with langchain.index, llama_index.client:
        yield langchain, llama_index


@pytest.fixture
def questions(nq_questions: dict[str, str]) -> list[str]:
    return list(nq_questions.values())[:5]


@pytest.mark.parametrize("mode", list(QUERY_MODES))
def test_every_mode_and_its_passages(both: Any, questions: list[str], mode: Any) -> None:
    langchain, llama_index = both
    for question in questions:
        expected = [
            (hit.id, hit.relevance, hit.passage and (hit.passage.text, hit.passage.start, hit.passage.end))
            for hit in langchain.index.search(question, 5, mode=mode, with_passages=True)
        ]
        documents: Any = LangChainRetriever(index=langchain.index, k=5, mode=mode, passage="metadata").invoke(question)
        nodes = LlamaIndexRetriever(llama_index.client, 5, mode=mode, passage="metadata").retrieve(question)
        keys = ("passage", "passage_start", "passage_end")
        assert [
            (each.id, each.relevance, tuple(each.metadata[key] for key in keys))
            for each in documents
            if isinstance(each, ScoredDocument)
        ] == expected
        assert [(each.node_id, each.score, tuple(each.metadata[key] for key in keys)) for each in nodes] == expected
        query = VectorStoreQuery(query_str=question, similarity_top_k=5, mode=VectorStoreQueryMode(QUERY_MODES[mode]))
        result = llama_index.query(query, passage="text")
        pairs = langchain.similarity_search_with_score(question, 5, mode=mode, passage="text")
        assert [(each.id, score, each.page_content) for each, score in pairs] == [
            (id, relevance, passage and passage[0]) for id, relevance, passage in expected
        ]
        assert [each.text for each in result.nodes or []] == [each.page_content for each, _ in pairs]
        assert result.ids == [id for id, _, _ in expected]


def test_coverage(both: Any, questions: list[str]) -> None:
    langchain, llama_index = both
    question = f"{questions[0]} and {questions[1]}"
    for options in ({}, {"n_neighbors": 3}, {"mode": "hybrid"}):
        found = langchain.max_marginal_relevance_search(question, 4, fetch_k=50, method="coverage", **options)
        query = VectorStoreQuery(query_str=question, similarity_top_k=4, mode=VectorStoreQueryMode.MMR)
        assert llama_index.query(query, method="coverage", **options).ids == [document.id for document in found]
        hits = langchain.index.search_diverse(question, 4, method="coverage", **options)
        assert [hit.id for hit in hits] == [document.id for document in found]


def test_a_smallest_relevance_after_calibration(both: Any, questions: list[str]) -> None:
    langchain, llama_index = both
    for index in (langchain.index, llama_index.client):
        index.calibrate(n_queries=40)
    try:
        for question in questions:
            expected = [(hit.id, hit.relevance) for hit in langchain.index.search(question, 10, min_score=0.5)]
            pairs = langchain.similarity_search_with_relevance_scores(question, 10, score_threshold=0.5)
            assert [(document.id, score) for document, score in pairs] == expected
            nodes = LlamaIndexRetriever(llama_index.client, 10, min_score=0.5).retrieve(question)
            assert [(node.node_id, node.score) for node in nodes] == expected
            assert len(expected) < 10
    finally:
        for index in (langchain.index, llama_index.client):
            index.remove_calibration()
