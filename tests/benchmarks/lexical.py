"""Quality, time and space of lexical search (BM25) alone, without an encoder.

usage: python tests/benchmarks/lexical.py FOLDER... [--questions 300] [--language english]
       python tests/benchmarks/lexical.py FOLDER --speed [--questions 100]

For each collection in BEIR's format: nDCG@10 with the words' stems, with the words as they are, and with trigrams, and
the same of a plain BM25 in memory (NumPy) over the same stems. With ``--speed``: the time of an add and of a question,
and bytes per document.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median

import numpy as np
import numpy.typing as npt
from machine import describe_machine

from muvera_core.evaluation.collections import BeirCollection, read_beir
from muvera_core.evaluation.measures import ndcg_at_k
from muvera_core.lexical import LexicalConfig, parse_query, tokenize
from muvera_core.set_encoders import FDEConfig
from muvera_core.storage import Change, Manifest, Store
from muvera_core.token_embeddings import TokenEmbeddings

K, DIMENSION, BATCH = 10, 16, 1000
K1, B = 1.2, 0.75


class PlainBM25:
    """BM25 in memory: for each word the documents that have it and what it adds to their scores."""

    def __init__(self, config: LexicalConfig, texts: Sequence[str]) -> None:
        self._config, self._n = config, len(texts)
        documents = [tokenize(config, text) for text in texts]
        lengths = np.array([len(words) for words in documents])
        postings: dict[str, dict[int, int]] = {}
        for place, words in enumerate(documents):
            for word in words:
                counts = postings.setdefault(word, {})
                counts[place] = counts.get(place, 0) + 1
        self._postings: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = {}
        norm = K1 * (1 - B + B * lengths / lengths.mean())
        for word, counts in postings.items():
            places, count = np.array(list(counts)), np.array(list(counts.values()))
            idf = np.log(1 + (len(texts) - len(places) + 0.5) / (len(places) + 0.5))
            self._postings[word] = places, idf * count * (K1 + 1) / (count + norm[places])

    def search(self, question: str) -> list[int]:
        scores = np.zeros(self._n)
        for word in set(tokenize(self._config, question)):
            if word in self._postings:
                places, weights = self._postings[word]
                scores[places] += weights
        best = np.argpartition(-scores, K)[:K]
        return [int(place) for place in best[np.argsort(-scores[best], kind="stable")] if scores[place] > 0]


def new_store(folder: Path | None, lexical: LexicalConfig | None) -> Store:
    manifest = Manifest("benchmark", "none", "2bit", FDEConfig(DIMENSION), lexical=lexical)
    return Store(folder, manifest.codec, create={"manifest": manifest.as_text()})


def add(store: Store, collection: BeirCollection) -> float:
    """Add the texts, each with one token. Returns the seconds that it took."""
    start = time.perf_counter()
    for first in range(0, len(collection.ids), BATCH):
        ids, texts = (column[first : first + BATCH] for column in (collection.ids, collection.texts))
        tokens, _ = store.append_tokens(TokenEmbeddings.from_list([np.eye(1, DIMENSION, dtype=np.float32)] * len(ids)))
        keys = np.arange(first + 1, first + 1 + len(ids))
        nothing = [None] * len(ids)

        def fill(change: Change) -> None:
            change.add(keys, ids, texts, ["{}"] * len(ids), nothing, tokens)  # noqa: B023

        store.apply(fill)
    return time.perf_counter() - start


def quality(collection: BeirCollection, asked: Sequence[str], config: LexicalConfig) -> float:
    with closing(new_store(None, config)) as store:
        add(store, collection)
        scores = []
        for id in asked:
            query = parse_query(config, collection.queries[id])
            keys, _ = store.lexical_search(store.snapshot, query, K)
            found = [collection.ids[key - 1] for key in keys.tolist()]
            scores.append(ndcg_at_k(found, collection.relevance[id], K))
        return mean(scores)


def plain_quality(collection: BeirCollection, asked: Sequence[str], config: LexicalConfig) -> float:
    plain = PlainBM25(config, collection.texts)
    found = {id: [collection.ids[place] for place in plain.search(collection.queries[id])] for id in asked}
    return mean(ndcg_at_k(found[id], collection.relevance[id], K) for id in asked)


def compare_quality(folders: Sequence[Path], n_questions: int, language: str) -> None:
    print(f"nDCG@{K} of BM25 alone")
    print(f"{'collection':14} {'documents':>9} {'stems':>7} {'words':>7} {'trigrams':>8} {'plain stems':>11}")
    for folder in folders:
        collection = read_beir(folder)
        asked = evenly(list(collection.queries), n_questions)
        stems, words = LexicalConfig(language=language), LexicalConfig(language=None)
        found = [quality(collection, asked, config) for config in (stems, words, LexicalConfig("trigram"))]
        found.append(plain_quality(collection, asked, stems))
        head = f"{folder.name:14} {len(collection.ids):9}"
        print(f"{head} {found[0]:7.3f} {found[1]:7.3f} {found[2]:8.3f} {found[3]:11.3f}", flush=True)


def measure_speed(folder: Path, n_questions: int, language: str, n_documents: int | None) -> None:
    collection = read_beir(folder)
    if n_documents is not None:
        collection = replace(collection, ids=collection.ids[:n_documents], texts=collection.texts[:n_documents])
    asked = [collection.queries[id] for id in evenly(list(collection.queries), n_questions)]
    print(f"{folder.name}: {len(collection.ids)} documents, {len(asked)} questions")
    seconds, sizes = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, config in (("words", LexicalConfig(language=language)), ("none", None)):
            path = Path(temporary) / name
            path.mkdir()
            with closing(new_store(path, config)) as store:
                seconds[name] = add(store, collection)
                sizes[name] = (path / "documents.sqlite").stat().st_size / len(collection.ids)
        print(f"add: {1e6 * (seconds['words'] - seconds['none']) / len(collection.ids):.0f} us/document for the words")
        words = sizes["words"] - sizes["none"]
        print(f"size: {words:.0f} bytes/document for the words, {sizes['none']:.0f} for the rest of the database")
        config = LexicalConfig(language=language)
        with closing(Store(Path(temporary) / "words", Manifest("b", "n", "2bit", FDEConfig(DIMENSION)).codec)) as store:
            for name in ("first time", "again"):
                times = [timed(partial(search, store, config, text)) for text in asked]
                print(f"{name}: median {median(times):.2f} ms, mean {mean(times):.2f}, most {max(times):.2f}")
    plain = PlainBM25(config, collection.texts)
    times = [timed(partial(plain.search, text)) for text in asked]
    print(f"plain BM25 in memory: median {median(times):.2f} ms, mean {mean(times):.2f}, most {max(times):.2f}")


def search(store: Store, config: LexicalConfig, text: str) -> None:
    store.lexical_search(store.snapshot, parse_query(config, text), K)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def evenly(ids: list[str], n: int) -> list[str]:
    return ids[:: max(1, len(ids) // n)][:n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--questions", type=int, default=300, help="number of queries, evenly spread (default: 300)")
    parser.add_argument("--language", default="english", help="of the stems (default: english)")
    parser.add_argument("--documents", type=int, default=None, help="with --speed: only the first ones")
    parser.add_argument("--speed", action="store_true", help="measure time and space instead of quality")
    arguments = parser.parse_args()
    print(describe_machine())
    if arguments.speed:
        for folder in arguments.folders:
            measure_speed(folder, arguments.questions, arguments.language, arguments.documents)
    else:
        compare_quality(arguments.folders, arguments.questions, arguments.language)


if __name__ == "__main__":
    main()
