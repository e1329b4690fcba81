"""Chat about documents in the terminal, with LlamaIndex: follow-up questions, streamed answers, citations.

    python examples/chat_llama_index.py                                 # about Wikipedia passages
    python examples/chat_llama_index.py notes/ --index notes.muvera     # about your documents
    python examples/chat_llama_index.py notes/ --model ollama:llama3.2  # answers of a language model

Without --model no language model is needed: answers are quotations of the sentence that matches best. /sources shows
the passages behind the last answer, /new forgets the conversation, Ctrl-D ends it.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from llama_index.core.chat_engine import CondensePlusContextChatEngine
from llama_index.core.llms import LLM, CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.retrievers.muvera import MuveraRetriever

from muvera_core import MuveraIndex, score_texts, sync_files
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.collections import read_beir

with suppress(ImportError):  # for input(); Windows has none
    import readline  # noqa: F401

WIKIPEDIA = Path(__file__).parent / "data" / "nq-gold"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
CONDENSE = (
    "Rewrite the last question so that it can be understood without the conversation before it.\n"
    "{chat_history}\nuser: {question}\nrewritten: "
)
ANSWER = "Answer from these passages only, and cite their numbers, such as [1].\n\n{context_str}\n"
# Providers: LlamaIndex's package, the class in it, and its name for where the provider answers.
PROVIDERS = {
    "anthropic": ("llama-index-llms-anthropic", "Anthropic", "base_url"),
    "ollama": ("llama-index-llms-ollama", "Ollama", "base_url"),
    "openai": ("llama-index-llms-openai", "OpenAI", "api_base"),
    "openai-like": ("llama-index-llms-openai-like", "OpenAILike", "api_base"),
}


class Numbering(BaseNodePostprocessor):
    """Gives passages the numbers by which they are cited."""

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=TextNode(id_=found.node_id, text=f"[{n}] {found.text}"), score=found.score)
            for n, found in enumerate(nodes, start=1)
        ]


class QuotingModel(CustomLLM):
    """Stands in for a language model: quotes the sentence of the passages that matches the question best."""

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex wants to know of a model."""
        return LLMMetadata(model_name="quoting", context_window=16_000)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The whole reply."""
        questions = re.findall(r"^user: (.*)", prompt, re.MULTILINE)
        passages = re.findall(r"^\[(\d+)\] (.*?)(?=\n\n\[\d+\] |^user: |\Z)", prompt, re.MULTILINE | re.DOTALL)
        if not passages:
            return CompletionResponse(text=standalone(questions))
        sentences = [(text, n) for n, passage in passages for text in SENTENCE_END.split(passage) if text]
        scores, _ = score_texts(BundledEncoder(), standalone(questions), [text for text, _ in sentences])
        text, number = sentences[int(scores.argmax())]
        return CompletionResponse(text=f"“{text.strip()}” [{number}]")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The reply, word by word."""
        reply = self.complete(prompt).text
        words = list(re.finditer(r"\s*\S+", reply))
        return (CompletionResponse(text=reply[: word.end()], delta=word.group()) for word in words)


def standalone(questions: list[str]) -> str:
    """The last question, after the one before it if it is short or says "he", "it" or the like."""
    refers = re.search(r"\b(he|she|it|they|him|her|his|its|them|their|this|that|those|there)\b", questions[-1], re.I)
    return " ".join(questions[-2:]) if refers or len(questions[-1].split()) < 4 else questions[-1]


def load_model(name: str | None, base_url: str | None) -> LLM:
    """A model of one of LlamaIndex's integrations, by PROVIDER:MODEL."""
    if name is None:
        print("No --model: answers are quotations.")
        return QuotingModel()
    provider, _, model = name.partition(":")
    if provider not in PROVIDERS or not model:
        sys.exit(f"--model must be PROVIDER:MODEL with a provider of {', '.join(PROVIDERS)}, got {name}")
    package, kind, place = PROVIDERS[provider]
    options: dict[str, Any] = {"model": model, **({place: base_url} if base_url else {})}
    if provider == "openai-like":
        options |= {"is_chat_model": True, "api_key": "none"}
    try:
        module = importlib.import_module(
            "llama_index.llms." + package.removeprefix("llama-index-llms-").replace("-", "_")
        )
        loaded: LLM = getattr(module, kind)(**options)
    except ImportError:
        sys.exit(f"--model {name} needs another package: pip install {package}")
    except Exception as error:  # each provider has errors of its own, such as a missing key
        sys.exit(f"--model {name} cannot be used: {error}")
    return loaded


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
    parser.add_argument("--model", metavar="PROVIDER:MODEL", help=f"with a provider of {', '.join(PROVIDERS)}")
    parser.add_argument("--base-url", metavar="URL", help="where the model's provider answers")
    parser.add_argument("--passages", type=int, default=300, help="number of Wikipedia passages (default: %(default)s)")
    arguments = parser.parse_args()
    model = load_model(arguments.model, arguments.base_url)
    with open_index(arguments.path, arguments.index, arguments.passages) as index:
        engine = CondensePlusContextChatEngine.from_defaults(
            retriever=MuveraRetriever(index, similarity_top_k=4, mode="hybrid"),
            llm=model,
            memory=ChatMemoryBuffer.from_defaults(token_limit=3000),
            condense_prompt=CONDENSE,
            context_prompt=ANSWER,
            node_postprocessors=[Numbering()],
        )
        sources: list[NodeWithScore] = []
        for line in lines():
            if line == "/new":
                engine.reset()
                sources = []
            elif line == "/sources":
                for source in sources:
                    metadata = index.get(source.node_id)[0].metadata
                    name = metadata.get("title") or metadata.get("path") or source.node_id
                    number, text = source.text.split(maxsplit=1)
                    print(f"{number} {name}: {' '.join(text.split())[:200]}")
            elif line:
                response = engine.stream_chat(line)
                sources = response.source_nodes
                for piece in response.response_gen:
                    print(piece, end="", flush=True)
                print()


if __name__ == "__main__":
    main()
