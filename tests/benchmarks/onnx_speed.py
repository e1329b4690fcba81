"""Speed and quality of exported ONNX models beside sentence-transformers' own ``encode_document`` and ``encode_query``.

    python tests/benchmarks/onnx_speed.py MODEL [--passages 64] [--questions 60] [--rounds 3]
        [--threads N] [--collection FOLDER ...] [--documents N]

MODEL is the folder of a late-interaction model of sentence-transformers or PyLate. It is exported twice, in float and
with --int8. All sides run in one process, in turns, and the median of the rounds is printed. Passages and questions are
those of examples/data/nq-gold. With --threads 1, processor time is measured, so that other processes matter less. With
--collection, in BEIR's format, the nDCG@10 of exact MaxSim over that collection is printed for each side but the
library's, whose vectors the float model has, for at most 300 questions; with --documents, of its first N documents and
of questions about these only. Needs muvera-core[sentence-transformers,export].
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from machine import describe_machine
from sentence_transformers import MultiVectorEncoder

from muvera_core.encoders import BundledEncoder, OnnxEncoder, export_onnx
from muvera_core.errors import TruncatedTextWarning, UnknownTextWarning
from muvera_core.evaluation.collections import BeirCollection, read_beir

NQ = Path(__file__).parents[2] / "examples" / "data" / "nq-gold"
DEPTH = 10
MOST_QUESTIONS = 300
Encode = Callable[[list[str]], Any]


def sides(model: Any, folders: list[Path], threads: int | None) -> dict[str, tuple[Encode, Encode]]:
    """By name, the functions that encode documents and queries."""
    found: dict[str, tuple[Encode, Encode]] = {
        "sentence-transformers": (
            lambda texts: model.encode_document(texts, convert_to_numpy=True),
            lambda texts: model.encode_query(texts, convert_to_numpy=True),
        )
    }
    encoders = {f"OnnxEncoder, {folder.name}": OnnxEncoder(folder, num_threads=threads) for folder in folders}
    for name, encoder in (encoders | {"BundledEncoder": BundledEncoder(num_threads=threads)}).items():
        found[name] = (encoder.encode_documents, encoder.encode_queries)
    return found


def timed(encode: Encode, texts: list[str], clock: Callable[[], float]) -> float:
    started = clock()
    encode(texts)
    return clock() - started


def measure_speed(
    encoders: dict[str, tuple[Encode, Encode]],
    passages: list[str],
    questions: list[str],
    rounds: int,
    clock: Callable[[], float],
) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    latency: dict[str, list[float]] = {name: [] for name in encoders}
    for documents, queries in encoders.values():
        documents(passages[:4])
        queries(questions[:4])
    for _ in range(rounds):
        for name, (documents, queries) in encoders.items():
            seconds[name].append(timed(documents, passages, clock))
            latency[name] += [timed(queries, [question], clock) for question in questions]
    base = next(iter(encoders))
    print(f"{len(passages)} passages, {len(questions)} questions, {rounds} rounds")
    print("| | passages/s | ratio | ms a question | ratio |\n|---|---|---|---|---|")
    for name in encoders:
        rate, each = (statistics.median(seconds[n]) for n in (base, name)), statistics.median(latency[name])
        slow, own = rate
        print(
            f"| {name} | {len(passages) / own:.1f} | {slow / own:.2f} | {1000 * each:.1f} | "
            f"{statistics.median(latency[base]) / each:.2f} |"
        )


def first_documents(collection: BeirCollection, n: int | None) -> BeirCollection:
    """The first ``n`` documents, and the questions whose relevant documents are all among them."""
    ids = set(collection.ids[:n])
    queries = {id: text for id, text in collection.queries.items() if collection.relevance[id].keys() <= ids}
    return replace(
        collection, ids=collection.ids[:n], texts=collection.texts[:n], titles=collection.titles[:n], queries=queries
    )


def ndcg(collection: BeirCollection, encode: tuple[Encode, Encode]) -> tuple[float, float]:
    """The nDCG@10, and the seconds of processor time that a document takes."""
    documents, queries = encode
    started = time.process_time()
    vectors = list(documents(collection.texts))
    seconds = (time.process_time() - started) / len(vectors)
    starts = np.cumsum([0, *map(len, vectors[:-1])])
    together: npt.NDArray[np.float32] = np.concatenate(vectors)
    ids = list(collection.queries)[:MOST_QUESTIONS]
    values = []
    for id, query in zip(ids, queries([collection.queries[id] for id in ids]), strict=True):
        scores = np.maximum.reduceat(query @ together.T, starts, axis=1).sum(axis=0)
        grades = collection.relevance[id]
        found = [grades.get(collection.ids[i], 0) for i in np.argsort(-scores)[:DEPTH]]
        values.append(gain(found) / gain(sorted(grades.values(), reverse=True)[:DEPTH]))
    return float(np.mean(values)), seconds


def gain(grades: list[float]) -> float:
    return sum((2**grade - 1) / float(np.log2(rank + 2)) for rank, grade in enumerate(grades))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--collection", type=Path, action="append", default=[])
    parser.add_argument("--documents", type=int)
    parser.add_argument("--passages", type=int, default=64)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)
    transformers.logging.disable_progress_bar()
    for category in (TruncatedTextWarning, UnknownTextWarning):
        warnings.simplefilter("ignore", category)
    print(describe_machine())
    print(f"torch {torch.__version__} with {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as name:
        folders = []
        for kind in ("float", "int8"):
            report = export_onnx(arguments.model, Path(name) / kind, int8=kind == "int8")
            folders.append(report.folder)
            print(
                f"{kind}: {report.n_bytes / 1e6:.1f} MB, components of {report.n_vectors} vectors differ by at most "
                f"{report.largest_difference:.1e}, lowest cosine {report.lowest_cosine:.4f}"
            )
        model = MultiVectorEncoder(str(arguments.model), device="cpu", local_files_only=True)
        encoders = sides(model, folders, arguments.threads)
        nq = read_beir(NQ)
        questions = list(nq.queries.values())[: arguments.questions]
        clock = time.process_time if arguments.threads == 1 else time.perf_counter
        measure_speed(encoders, nq.texts[: arguments.passages], questions, arguments.rounds, clock)
        for folder in arguments.collection:
            collection = first_documents(read_beir(folder), arguments.documents)
            n_questions = min(MOST_QUESTIONS, len(collection.queries))
            print(f"\n{folder.name}: {len(collection.ids)} documents, {n_questions} questions")
            print("| | nDCG@10 | ms of processor time a document |\n|---|---|---|")
            for name_of, encode in list(encoders.items())[1:]:  # the float model has the library's vectors
                value, seconds = ndcg(collection, encode)
                print(f"| {name_of} | {value:.4f} | {1000 * seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
