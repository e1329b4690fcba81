"""Rerank what any LangChain retriever finds.

    python examples/recipes/rerank_langchain.py

``WordRetriever`` stands for yours. The chain is a retriever again for everything that takes a runnable. LangChain's
ContextualCompressionRetriever takes ``MaxSimReranker`` as its ``base_compressor``, too.
"""

from __future__ import annotations

import re

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel, RunnablePassthrough

from langchain_muvera import MaxSimReranker

DOCUMENTS = [
    Document("The bank raised its interest rates, and loans became dearer.", id="rates"),
    Document("We sat on the bank of the river, and the water was high.", id="river"),
    Document("Which bank is the best bank? A bank compares itself with a bank.", id="comparison"),
]
QUESTION = "Where on the bank did they have a picnic by the stream?"


class WordRetriever(BaseRetriever):
    """Finds the documents that have words of the question, those with the most occurrences first."""

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        words = set(re.findall(r"\w+", query.lower()))
        counts = [sum(w in words for w in re.findall(r"\w+", d.page_content.lower())) for d in DOCUMENTS]
        return [DOCUMENTS[i] for i in sorted(range(len(DOCUMENTS)), key=lambda i: -counts[i])]


def reranked(retriever: BaseRetriever, reranker: MaxSimReranker) -> Runnable[str, list[Document]]:
    """A retriever whose documents are in the reranker's order."""
    found = RunnableParallel(documents=retriever, query=RunnablePassthrough())
    return found | RunnableLambda(lambda both: list(reranker.compress_documents(both["documents"], both["query"])))


def main() -> None:
    retriever = WordRetriever()
    print("retriever:", *(document.id for document in retriever.invoke(QUESTION)))
    for document in reranked(retriever, MaxSimReranker(top_n=2)).invoke(QUESTION):
        print("reranked:", document.id, document.page_content)


if __name__ == "__main__":
    main()
