"""Rerank what any LlamaIndex retriever finds.

    python examples/recipes/rerank_llama_index.py

``WordRetriever`` stands for yours. ``MaxSimRerank`` goes among the ``node_postprocessors`` of a query engine or a chat
engine. For more than some tens of nodes, let a MuveraVectorStore hold them: it encodes each node only once.
"""

from __future__ import annotations

import re

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.retrievers.muvera import MaxSimRerank

NODES = [
    TextNode(id_="rates", text="The bank raised its interest rates, and loans became dearer."),
    TextNode(id_="river", text="We sat on the bank of the river, and the water was high."),
    TextNode(id_="comparison", text="Which bank is the best bank? A bank compares itself with a bank."),
]
QUESTION = "Where on the bank did they have a picnic by the stream?"


class WordRetriever(BaseRetriever):
    """Finds the nodes that have words of the question, those with the most occurrences first."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        words = set(re.findall(r"\w+", query_bundle.query_str.lower()))
        counts = {node.node_id: sum(w in words for w in re.findall(r"\w+", node.text.lower())) for node in NODES}
        best = sorted(NODES, key=lambda node: -counts[node.node_id])
        return [NodeWithScore(node=node, score=counts[node.node_id]) for node in best]


def main() -> None:
    retriever = WordRetriever()
    print("retriever:", *(found.node_id for found in retriever.retrieve(QUESTION)))
    # MockLLM repeats the prompt. A model of yours would answer it.
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), node_postprocessors=[MaxSimRerank(top_n=2)])
    for source in engine.query(QUESTION).source_nodes:
        print(f"reranked: {source.node_id} {source.score:.2f} {source.text}")


if __name__ == "__main__":
    main()
