"""LangChain's own retrievers, selectors and tools work over a MuveraVectorStore, with the keywords that they pass."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.example_selectors import MaxMarginalRelevanceExampleSelector, SemanticSimilarityExampleSelector
from langchain_core.stores import InMemoryByteStore, InMemoryStore
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_muvera import MuveraEmbeddings, MuveraRetriever, MuveraVectorStore
from muvera_core.encoders import BundledEncoder

TREES = ["Oaks bear acorns.", "Pines keep their needles in winter.", "Willows grow beside water."]
QUESTION = "Which tree stands at the river?"


@pytest.fixture
def store(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    with MuveraVectorStore.from_texts([], encoder=encoder) as made:
        yield made


def documents() -> list[Document]:
    return [Document(text, metadata={"number": number}) for number, text in enumerate(TREES)]


@pytest.mark.parametrize("selector", [SemanticSimilarityExampleSelector, MaxMarginalRelevanceExampleSelector])
async def test_example_selectors_make_and_search_a_store(
    selector: type[SemanticSimilarityExampleSelector | MaxMarginalRelevanceExampleSelector], encoder: BundledEncoder
) -> None:
    examples = [{"text": text, "answer": str(number)} for number, text in enumerate(TREES)]
    made = selector.from_examples(examples, MuveraEmbeddings(encoder), MuveraVectorStore, k=1, input_keys=["text"])
    assert made.select_examples({"text": QUESTION})[0]["answer"] == "2"
    assert (await made.aselect_examples({"text": QUESTION}))[0]["answer"] == "2"
    made.add_example({"text": "Alders stand at rivers.", "answer": "3"})
    assert made.select_examples({"text": QUESTION})[0]["answer"] == "3"


@pytest.mark.parametrize("search_type", ["similarity", "similarity_score_threshold", "mmr"])
def test_parents_are_found_by_their_parts(search_type: str, store: MuveraVectorStore) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers", reason="langchain-classic isn't installed")
    splitters = pytest.importorskip("langchain_text_splitters", reason="langchain-text-splitters isn't installed")
    parents: InMemoryStore = InMemoryStore()
    search_kwargs: dict[str, Any] = {"k": 1} | ({"score_threshold": 0.1} if "threshold" in search_type else {})
    retriever = retrievers.ParentDocumentRetriever(
        vectorstore=store,
        docstore=parents,
        child_splitter=splitters.CharacterTextSplitter(chunk_size=40, chunk_overlap=0, separator=". "),
        search_type=search_type,
        search_kwargs=search_kwargs,
    )
    retriever.add_documents(
        [Document(" ".join(TREES)), Document("Stones do not grow. They lie.")], ids=["trees", "stones"]
    )
    assert store.count() > 2
    assert retriever.invoke(QUESTION)[0].page_content == " ".join(TREES)


def test_several_vectors_can_stand_for_a_document(store: MuveraVectorStore) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers", reason="langchain-classic isn't installed")
    retriever = retrievers.MultiVectorRetriever(vectorstore=store, byte_store=InMemoryByteStore(), id_key="doc")
    retriever.docstore.mset([(str(number), document) for number, document in enumerate(documents())])
    store.add_texts(["acorns", "needles", "rivers"], [{"doc": str(number)} for number in range(3)])
    assert retriever.invoke("river")[0].page_content == TREES[2]


def test_recent_documents_come_first(store: MuveraVectorStore) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers", reason="langchain-classic isn't installed")
    retriever = retrievers.TimeWeightedVectorStoreRetriever(vectorstore=store, decay_rate=0.9, k=1)
    long_ago = datetime.datetime.now() - datetime.timedelta(days=9)
    retriever.add_documents([Document(TREES[2])], current_time=long_ago)
    retriever.add_documents([Document("Alders stand at rivers.")])
    assert [document.page_content for document in retriever.invoke(QUESTION)] == ["Alders stand at rivers."]


async def test_a_tool_returns_what_a_model_reads(store: MuveraVectorStore) -> None:
    store.add_documents(documents())
    tool = create_retriever_tool(MuveraRetriever(index=store.index, k=1), "trees", "knows trees")
    assert tool.invoke({"query": QUESTION}) == await tool.ainvoke({"query": QUESTION}) == TREES[2]


def test_the_embeddings_work_behind_a_cache(encoder: BundledEncoder) -> None:
    embeddings = pytest.importorskip("langchain_classic.embeddings", reason="langchain-classic isn't installed")
    plain = MuveraEmbeddings(encoder)
    cached = embeddings.CacheBackedEmbeddings.from_bytes_store(
        plain, InMemoryByteStore(), namespace="trees", query_embedding_cache=True, key_encoder="sha256"
    )
    for _ in range(2):
        assert cached.embed_documents(TREES) == plain.embed_documents(TREES)
        assert cached.embed_query(QUESTION) == plain.embed_query(QUESTION)
    other = InMemoryVectorStore(cached)
    other.add_texts(TREES)
    assert other.similarity_search(QUESTION, k=1)[0].page_content == TREES[2]
