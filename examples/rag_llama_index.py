"""A chat over Wikipedia passages with LlamaIndex: an ingestion pipeline, a vector store, a chat engine.

Run it without arguments. It needs no network. The language model is LlamaIndex's ``MockLLM``, which repeats its input.
So the example prints the prompt that a real model would get: the passages, then the question. For real answers, install
a model's integration and pass the model to ``converse``, for example::

    pip install llama-index-llms-ollama

    from llama_index.llms.ollama import Ollama
    converse(index, Ollama(model="llama3.2"), QUESTIONS)
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.retrievers.muvera import MuveraVectorStore, NoEmbedding

from muvera_core.evaluation.collections import read_beir

COLLECTION = Path(__file__).parent / "data" / "nq-gold"
QUESTIONS = ["who got the first nobel prize in physics", "when is the next deadpool movie being released"]
N_PASSAGES = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=N_PASSAGES, help="passages to index (default: %(default)s)")
    parser.add_argument("questions", nargs="*", default=QUESTIONS, help="questions to ask, one after the other")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = MuveraVectorStore.open_or_create(Path(folder) / "muvera")
        index = ingest(store, read_passages(arguments.passages))
        converse(index, MockLLM(), arguments.questions)
        store.client.close()


def read_passages(n: int) -> list[Document]:
    passages = read_beir(COLLECTION)
    return [
        # A passage's text already starts with its title, so the index and the model should not get it again.
        Document(
            id_=id,
            text=text,
            metadata={"title": title},
            excluded_embed_metadata_keys=["title"],
            excluded_llm_metadata_keys=["title"],
        )
        for id, text, title in zip(passages.ids[:n], passages.texts, passages.titles, strict=False)
    ]


def ingest(store: MuveraVectorStore, documents: list[Document]) -> VectorStoreIndex:
    pipeline = IngestionPipeline(
        # NoEmbedding comes last: the pipeline drops nodes without an embedding, and the store makes its own vectors.
        transformations=[SentenceSplitter(chunk_size=512), NoEmbedding()],
        docstore=SimpleDocumentStore(),
        vector_store=store,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    n_nodes = len(pipeline.run(documents=documents))
    print(f"{len(documents)} documents, {n_nodes} nodes; again, unchanged: {len(pipeline.run(documents=documents))}\n")
    return VectorStoreIndex(
        [], storage_context=StorageContext.from_defaults(vector_store=store), embed_model=NoEmbedding()
    )


def converse(index: VectorStoreIndex, llm: LLM, questions: Sequence[str]) -> None:
    chat = index.as_chat_engine(
        chat_mode="context",  # type: ignore[arg-type]
        llm=llm,
        memory=ChatMemoryBuffer.from_defaults(token_limit=4000),
        similarity_top_k=3,
    )
    for question in questions:
        response = chat.chat(question)
        print(f"Question: {question}\nAnswer: {_shortened(str(response), 700)}\nSources:")
        for source in response.source_nodes:
            print(f"  {source.score:.2f} {source.metadata['title']}: {_shortened(source.text, 90)}")
        print()


def _shortened(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 2 :]}"


if __name__ == "__main__":
    main()
