"""Retrieval-augmented generation with LangChain: a chain that streams its answer and names its sources.

It runs offline. A fake model of LangChain's takes the place of a language model: it streams the sentence of the
retrieved passages that matches the question best. To use a real model, install its package and pass it to
``make_chain``:

    from langchain.chat_models import init_chat_model
    chain = make_chain(retriever, init_chat_model("PROVIDER:MODEL"))
"""

from __future__ import annotations

import argparse
import re
from operator import itemgetter
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from langchain_muvera import MaxSimReranker, MuveraRetriever, MuveraVectorStore, ScoredDocument
from muvera_core.evaluation.collections import read_beir

COLLECTION = Path(__file__).parent / "data" / "nq-gold"
QUESTIONS = ["who got the first nobel prize in physics", "when is the next deadpool movie being released"]
PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer the question from these passages only, and cite their numbers.\n\n{passages}"),
        ("human", "{question}"),
    ]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=QUESTIONS, help="questions to ask")
    parser.add_argument("--passages", type=int, default=300, help="number of Wikipedia passages to index (up to 2,588)")
    arguments = parser.parse_args()
    with index_passages(arguments.passages) as store:
        chain = make_chain(MuveraRetriever(index=store.index, k=3))
        for question in arguments.questions:
            ask(chain, question)


def index_passages(n: int) -> MuveraVectorStore:
    collection = read_beir(COLLECTION)
    print(f"Indexing {min(n, len(collection.ids)):,} passages in memory")
    return MuveraVectorStore.from_texts(
        collection.texts[:n],
        metadatas=[{"title": title} for title in collection.titles[:n]],
        ids=collection.ids[:n],
        show_progress=True,
    )


def make_chain(retriever: BaseRetriever, model: BaseChatModel | None = None) -> Runnable[dict[str, str], Any]:
    """A chain from {"question"} to {"question", "documents", "passages", "answer"}, which streams the answer."""
    reranker = MaxSimReranker(top_n=1)

    def answer(found: dict[str, Any]) -> Runnable[Any, str]:
        chat = model or GenericFakeChatModel(messages=iter([AIMessage(best_sentence(reranker, **found))]))
        return PROMPT | chat | StrOutputParser()

    return (
        RunnablePassthrough.assign(documents=itemgetter("question") | retriever)
        .assign(passages=itemgetter("documents") | RunnableLambda(numbered))
        .assign(answer=RunnableLambda(answer))
    )


def numbered(documents: list[Document]) -> str:
    return "\n\n".join(f"[{i}] {document.page_content}" for i, document in enumerate(documents, start=1))


def best_sentence(reranker: MaxSimReranker, question: str, documents: list[Document], **_: Any) -> str:
    sentences = [
        Document(page_content=f"{sentence} [{i}]")
        for i, document in enumerate(documents, start=1)
        for sentence in re.split(r"(?<=[.!?])\s+", document.page_content)
    ]
    best = reranker.compress_documents(sentences, question)
    return best[0].page_content if best else "No passage was found."


def ask(chain: Runnable[dict[str, str], Any], question: str) -> None:
    print(f"\n{question}?")
    documents: list[ScoredDocument] = []
    for piece in chain.stream({"question": question}):
        documents = piece.get("documents", documents)
        print(piece.get("answer", ""), end="", flush=True)
    print("\nSources:")
    for i, document in enumerate(documents, start=1):
        print(f"  [{i}] {document.metadata['title']} ({document.id}, {document.normalized_score:.2f})")


if __name__ == "__main__":
    main()
