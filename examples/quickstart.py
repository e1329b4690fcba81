"""Index 2,588 Wikipedia passages, ask questions through LangChain and LlamaIndex, and measure the index.

Run it without arguments. It needs no network: muvera-core contains the encoder, and this repository the passages.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import tempfile
import time
from pathlib import Path
from statistics import mean

from llama_index.retrievers.muvera import MuveraRetriever as LlamaIndexRetriever

from langchain_muvera import MuveraRetriever as LangChainRetriever
from langchain_muvera import ScoredDocument
from muvera_core import MuveraIndex, StageClock, TokenMatch
from muvera_core.evaluation.collections import BeirCollection, read_beir
from muvera_core.evaluation.measures import fidelity_at_k, ndcg_at_k

COLLECTION = Path(__file__).parent / "data" / "nq-gold"
ASKED_THROUGH_LANGCHAIN = "what was the city of beijing previously known as"
ASKED_THROUGH_LLAMA_INDEX = "where did the term spirits for alcohol come from"
N_MEASURED = 300
K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, help="folder for the index (default: a temporary folder)")
    arguments = parser.parse_args()
    collection = read_beir(COLLECTION)
    with tempfile.TemporaryDirectory() as temporary:
        path = arguments.index or Path(temporary) / "nq.muvera"
        build(path, collection)
        with MuveraIndex.open(path) as index:
            ask(index)
            measure(index, collection)


def build(path: Path, collection: BeirCollection) -> None:
    print(f"Indexing {len(collection.ids):,} passages into {path}")
    start = time.perf_counter()
    with MuveraIndex.create(path) as index:
        metadatas = [{"title": title} for title in collection.titles]
        index.add(collection.texts, ids=collection.ids, metadatas=metadatas, show_progress=True)
        n_tokens = index.n_tokens
    seconds = time.perf_counter() - start
    n_bytes = sum(file.stat().st_size for file in path.iterdir())
    print(
        f"{len(collection.ids) / seconds:.0f} passages/s, {n_tokens / len(collection.ids):.0f} tokens and "
        f"{n_bytes / len(collection.ids) / 1000:.1f} kB on disk per passage\n"
    )


def ask(index: MuveraIndex) -> None:
    print(f"LangChain: {ASKED_THROUGH_LANGCHAIN}?")
    for document in LangChainRetriever(index=index, k=2).invoke(ASKED_THROUGH_LANGCHAIN):
        assert isinstance(document, ScoredDocument)
        show(index, ASKED_THROUGH_LANGCHAIN, str(document.id), document.normalized_score, document.page_content)
    print(f"LlamaIndex: {ASKED_THROUGH_LLAMA_INDEX}?")
    for node in LlamaIndexRetriever(index, similarity_top_k=2).retrieve(ASKED_THROUGH_LLAMA_INDEX):
        show(index, ASKED_THROUGH_LLAMA_INDEX, node.node_id, node.get_score(), node.text)


def show(index: MuveraIndex, question: str, id: str, score: float, text: str) -> None:
    print(f"  {score:.3f}  [{id}] {text[:220]}…")
    best = sorted(index.explain(question, id), key=lambda match: -match.similarity)
    words = [
        f"{whole_word(question, m.query_span)} → {whole_word(text, m.document_span)} {m.similarity:.2f}"
        for m in best
        if is_word(m)
    ]
    print(f"         matched: {', '.join(list(dict.fromkeys(words))[:6])}\n")


def is_word(match: TokenMatch) -> bool:
    return bool(re.search(r"\w", match.query_token) and re.search(r"\w", match.document_token or ""))


def whole_word(text: str, span: tuple[int, int] | None) -> str:
    """The whole word that contains a token."""
    if span is None:
        return ""
    return next(found.group() for found in re.finditer(r"\w+", text) if found.start() <= span[0] < found.end())


def measure(index: MuveraIndex, collection: BeirCollection) -> None:
    every = len(collection.queries) // N_MEASURED
    asked = list(collection.queries.items())[::every][:N_MEASURED]
    index.search_batch([question for _, question in asked[:20]])  # the first searches also load files and libraries
    clock, exact_clock = StageClock(), StageClock()
    found = {id: [hit.id for hit in index.search(question, K, clock=clock)] for id, question in asked}
    exact = {id: [hit.id for hit in index.search(q, K, exact=True, clock=exact_clock)] for id, q in asked}
    fidelity = mean(fidelity_at_k(found[id], exact[id], K) for id in found)
    ndcg, exact_ndcg = (mean(ndcg_at_k(r[id], collection.relevance[id], K) for id in r) for r in (found, exact))

    print(f"{len(asked)} questions over {len(index):,} passages, {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'':24}{'index':>10}{'exact':>10}")
    print(f"{'fidelity@10 to exact':24}{fidelity:>10.3f}{1:>10.3f}")
    print(f"{'nDCG@10':24}{ndcg:>10.3f}{exact_ndcg:>10.3f}")
    for stage in clock.seconds:
        print(f"{stage + ', ms':24}", *(f"{c.seconds[stage] / len(asked) * 1000:>9.2f}" for c in (clock, exact_clock)))
    totals = (sum(c.seconds.values()) / len(asked) * 1000 for c in (clock, exact_clock))
    print(f"{'question to hits, ms':24}", *(f"{total:>9.2f}" for total in totals))


if __name__ == "__main__":
    main()
