"""What a search returns equals what was stored, whatever was asked: LlamaIndex recognizes a node by its hash."""

from __future__ import annotations

from collections import Counter

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.retrievers.muvera import MaxSimRerank, MuveraRetriever, MuveraVectorStore, NoEmbedding

from muvera_core import TokenEncoder

NODES = [
    TextNode(id_="heron", text="herons wait in shallow water", metadata={"legs": 2, "seen": [3, 4]}),
    TextNode(id_="otter", text="otters swim in cold water", metadata={"legs": 4}),
    TextNode(id_="camel", text="camels store no water", excluded_llm_metadata_keys=["legs"], metadata={"legs": 4}),
]
QUESTIONS = ["cold water", "who waits in shallow water", "camels swim"]


class Rephrasing(QueryFusionRetriever):
    """Asks these questions in place of those that a language model would write."""

    def _get_queries(self, original_query: str) -> list[QueryBundle]:
        return [QueryBundle(question) for question in QUESTIONS]


class Listing(BaseRetriever):
    """Stands for a retriever of another package: the stored nodes, with scores of its own."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=node, score=3.0 - i) for i, node in enumerate(NODES)]


@pytest.fixture
def retrievers(store: MuveraVectorStore) -> dict[str, BaseRetriever]:
    store.add(NODES)
    index = VectorStoreIndex.from_vector_store(store, embed_model=NoEmbedding())
    return {
        "retriever": MuveraRetriever(store.client, similarity_top_k=3),
        "vector store": index.as_retriever(similarity_top_k=3),
        "mmr": index.as_retriever(similarity_top_k=3, vector_store_query_mode=VectorStoreQueryMode.MMR),
    }


@pytest.mark.parametrize("way", ["retriever", "vector store", "mmr"])
def test_found_nodes_equal_the_stored_ones_whatever_was_asked(retrievers: dict[str, BaseRetriever], way: str) -> None:
    stored = {node.node_id: node for node in NODES}
    for question in QUESTIONS:
        for found in retrievers[way].retrieve(question):
            assert found.node == stored[found.node_id]
            assert found.node.hash == stored[found.node_id].hash


@pytest.mark.parametrize("mode", list(FUSION_MODES))
@pytest.mark.parametrize("way", ["retriever", "vector store"])
def test_fusing_several_phrasings_gives_the_union_without_duplicates(
    retrievers: dict[str, BaseRetriever], way: str, mode: FUSION_MODES
) -> None:
    several: list[BaseRetriever] = [retrievers[way], Listing()]
    for chosen in (several[:1], several):
        fusion = Rephrasing(chosen, llm=MockLLM(), num_queries=4, similarity_top_k=3, mode=mode, use_async=False)
        found = Counter(node.node_id for node in fusion.retrieve("water"))
        assert found == {"heron": 1, "otter": 1, "camel": 1}


def test_a_reranker_changes_no_node_unless_it_is_asked_to(words: TokenEncoder) -> None:
    nodes = [NodeWithScore(node=node, score=0.5) for node in NODES]
    for keep, same in ((False, True), (True, False)):
        rerank = MaxSimRerank(words, top_n=3, keep_retrieval_score=keep)
        for question in QUESTIONS:
            hashes = {found.node_id: found.node.hash for found in rerank.postprocess_nodes(nodes, query_str=question)}
            assert (hashes == {node.node_id: node.hash for node in NODES}) is same
    assert [node.node.metadata.get("retrieval_score") for node in nodes] == [None] * 3  # the caller's own nodes
