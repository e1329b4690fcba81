"""Chat about documents in the terminal, with LangChain: follow-up questions, streamed answers, citations.

    python examples/chat_langchain.py                                 # about Wikipedia passages
    python examples/chat_langchain.py notes/ --index notes.muvera     # about your documents
    python examples/chat_langchain.py notes/ --model ollama:llama3.2  # answers of a language model

Without --model no language model is needed: answers are quotations of the sentence that matches best. /sources shows
the passages behind the last answer, /new forgets the conversation, Ctrl-D ends it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever

from langchain_muvera import MuveraRetriever
from muvera_core import MuveraIndex, score_texts, sync_files
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.collections import read_beir

with suppress(ImportError):  # for input(); Windows has none
    import readline  # noqa: F401

WIKIPEDIA = Path(__file__).parent / "data" / "nq-gold"
REMEMBERED = 6  # messages
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
CONDENSE = ChatPromptTemplate.from_messages(
    [
        ("system", "Rewrite the last question so that it can be understood without the conversation before it."),
        MessagesPlaceholder("history"),
        ("human", "{question}"),
    ]
)
ANSWER = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer from these passages only, and cite their numbers, such as [1].\n\n{passages}"),
        MessagesPlaceholder("history"),
        ("human", "{question}"),
    ]
)


class Conversation:
    """Questions and answers about the documents that a retriever finds."""

    def __init__(self, retriever: BaseRetriever, model: BaseChatModel) -> None:
        self.retriever, self.model = retriever, model
        self.messages: list[BaseMessage] = []
        self.sources: list[Document] = []

    def ask(self, question: str) -> Iterator[str]:
        """The pieces of an answer, as they come. The conversation remembers both."""
        history = self.messages[-REMEMBERED:]
        asked = {"history": history, "question": question}
        if history:
            asked["question"] = (CONDENSE | self.model | StrOutputParser()).invoke(asked)
        self.sources = self.retriever.invoke(str(asked["question"]))
        if not self.sources:
            yield "The documents do not say."
            return
        passages = "\n\n".join(f"[{n}] {source.page_content}" for n, source in enumerate(self.sources, start=1))
        answer = ""
        for piece in (ANSWER | self.model | StrOutputParser()).stream({**asked, "passages": passages}):
            answer += piece
            yield piece
        self.messages += [HumanMessage(question), AIMessage(answer)]


class QuotingModel(BaseChatModel):
    """Stands in for a language model: quotes the sentence of the passages that matches the question best."""

    @property
    def _llm_type(self) -> str:
        return "quoting"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self._reply(messages)))])

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for word in re.findall(r"\s*\S+", self._reply(messages)):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))

    def _reply(self, messages: list[BaseMessage]) -> str:
        questions: list[str] = [message.text for message in messages if isinstance(message, HumanMessage)]
        passages = re.findall(r"^\[(\d+)\] (.*?)(?=\n\n\[\d+\] |\Z)", messages[0].text, re.MULTILINE | re.DOTALL)
        if not passages:
            return standalone(questions)
        sentences = [(text, n) for n, passage in passages for text in SENTENCE_END.split(passage) if text]
        scores, _ = score_texts(BundledEncoder(), questions[-1], [text for text, _ in sentences])
        text, number = sentences[int(scores.argmax())]
        return f"“{text.strip()}” [{number}]"


def standalone(questions: list[str]) -> str:
    """The last question, after the one before it if it is short or says "he", "it" or the like."""
    refers = re.search(r"\b(he|she|it|they|him|her|his|its|them|their|this|that|those|there)\b", questions[-1], re.I)
    return " ".join(questions[-2:]) if refers or len(questions[-1].split()) < 4 else questions[-1]


def load_model(name: str | None, base_url: str | None) -> BaseChatModel:
    """A model of LangChain's, by PROVIDER:MODEL."""
    if name is None:
        print("No --model: answers are quotations.")
        return QuotingModel()
    try:
        from langchain.chat_models import init_chat_model

        options: dict[str, Any] = {"base_url": base_url} if base_url else {}
        model: BaseChatModel = init_chat_model(name, **options)
    except ImportError as error:
        package = "langchain" if error.name == "langchain" else None
        sys.exit(f"--model needs another package: {f'pip install {package}' if package else error}")
    except Exception as error:  # each provider has errors of its own, such as a missing key
        sys.exit(f"--model {name} cannot be used: {error}")
    return model


def open_index(path: Path | None, folder: Path | None, n_passages: int) -> MuveraIndex:
    """The index of the documents in ``path``, brought up to date. Without a path, of Wikipedia passages."""
    index = MuveraIndex.open_or_create(folder) if folder else MuveraIndex.create(None)
    if path is not None:
        print(sync_files(index, path))
    elif not len(index):
        wikipedia = read_beir(WIKIPEDIA)
        print(f"Indexing {min(n_passages, len(wikipedia.ids)):,} Wikipedia passages.")
        titles = [{"title": title} for title in wikipedia.titles[:n_passages]]
        index.add(wikipedia.texts[:n_passages], wikipedia.ids[:n_passages], titles, show_progress=sys.stderr.isatty())
    return index


def lines() -> Iterator[str]:
    """What the user types, until Ctrl-D."""
    shown = sys.stdin.isatty()
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            line = input("\n> " if shown else "").strip()
            if line and not shown:
                print(f"\n> {line}")
            yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, help="a folder or file of documents")
    parser.add_argument("--index", type=Path, help="folder for the index, so that it is there the next time")
    parser.add_argument("--model", metavar="PROVIDER:MODEL", help="a model of LangChain's, such as ollama:llama3.2")
    parser.add_argument("--base-url", metavar="URL", help="where the model's provider answers")
    parser.add_argument("--passages", type=int, default=300, help="number of Wikipedia passages (default: %(default)s)")
    arguments = parser.parse_args()
    model = load_model(arguments.model, arguments.base_url)
    with open_index(arguments.path, arguments.index, arguments.passages) as index:
        conversation = Conversation(MuveraRetriever(index=index, k=4, mode="hybrid"), model)
        for line in lines():
            if line == "/new":
                conversation = Conversation(conversation.retriever, model)
            elif line == "/sources":
                for n, source in enumerate(conversation.sources, start=1):
                    name = source.metadata.get("title") or source.metadata.get("path") or source.id
                    print(f"[{n}] {name}: {' '.join(source.page_content.split())[:200]}")
            elif line:
                for piece in conversation.ask(line):
                    print(piece, end="", flush=True)
                print()


if __name__ == "__main__":
    main()
