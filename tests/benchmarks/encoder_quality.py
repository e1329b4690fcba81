"""Compares encoders in the form of the bundled one: nDCG@10 by exact MaxSim, in one process.

usage: python tests/benchmarks/encoder_quality.py NAME=FOLDER... --collections FOLDER... [--questions 300]

An encoder's folder holds model.onnx, tokenizer.json and encoder.json, such as core/muvera_core/encoders/assets of this
revision or of another, or what ``tools/build_bundled_encoder.py --output FOLDER`` writes. A collection's folder is in
BEIR's format. Every encoder is compared with the first one, at 128 dimensions: the difference, and its 95 % interval by
a paired bootstrap over questions. ``--dimensions 128 64`` measures the first directions alone as well. ``--times``
measures the speed instead, with the encoders taking turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from machine import describe_machine

from muvera_core import TokenEmbeddings
from muvera_core.encoders.packaged import bundled
from muvera_core.encoders.packaged.bundled import BundledEncoder
from muvera_core.evaluation.collections import BeirCollection, read_beir
from muvera_core.evaluation.measures import ndcg_at_k
from muvera_core.maxsim import maxsim_of_many
from muvera_core.token_embeddings import unit_length

K = 10
RESAMPLES = 2000
QUERIES_TOGETHER = 8
TIMED_PASSAGES, TIMED_ROUNDS = 64, 7

Gains = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--collections", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--questions", type=int, default=300, help="number of queries, evenly spread (default: 300)")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[128], help="first directions to measure")
    parser.add_argument("--times", action="store_true", help="measure passages/s and the time of a question")
    arguments = parser.parse_args()
    encoders = {name: load(Path(folder)) for name, folder in (each.split("=", 1) for each in arguments.encoders)}
    print(describe_machine())
    gains: list[dict[str, Gains]] = []
    for folder in arguments.collections:
        collection = read_beir(folder)
        every = max(1, len(collection.queries) // arguments.questions)
        asked = list(collection.queries)[::every][: arguments.questions]
        print(f"{folder.name}: {len(collection.ids)} documents, {len(asked)} queries", flush=True)
        if arguments.times:
            report_times(encoders, collection.texts, [collection.queries[id] for id in asked])
            continue
        gains.append({})
        for name, encoder in encoders.items():
            for dimension, gain in measure(encoder, collection, asked, arguments.dimensions).items():
                gains[-1][f"{name}, {dimension}-d"] = gain
        report(gains[-1:])
    if len(gains) > 1:
        print(f"mean of the {len(gains)} collections")
        report(gains)


def load(folder: Path) -> BundledEncoder:
    with patch.object(bundled, "ASSETS", folder):
        return BundledEncoder()


def measure(
    encoder: BundledEncoder, collection: BeirCollection, asked: Sequence[str], dimensions: Sequence[int]
) -> dict[int, Gains]:
    """The nDCG of each query, by dimension."""
    documents = encoder.encode_documents(collection.texts)
    queries = encoder.encode_queries([collection.queries[id] for id in asked])
    gains = {}
    for dimension in dimensions:
        some, other = (leading(embeddings, dimension) for embeddings in (documents, queries))
        found: list[list[str]] = []
        for start in range(0, len(asked), QUERIES_TOGETHER):
            batch = [other[i] for i in range(start, min(start + QUERIES_TOGETHER, len(asked)))]
            scores = maxsim_of_many(batch, some.vectors, None, some.offsets)
            found += [[collection.ids[i] for i in row[:K]] for row in np.argsort(-scores, axis=1, kind="stable")]
        gains[dimension] = np.array(
            [ndcg_at_k(ids, collection.relevance[id], K) for ids, id in zip(found, asked, strict=True)]
        )
    return gains


def leading(embeddings: TokenEmbeddings, dimension: int) -> TokenEmbeddings:
    """The first directions of the vectors, at unit length again."""
    if dimension == embeddings.dimension:
        return embeddings
    return TokenEmbeddings(unit_length(embeddings.vectors[:, :dimension]), embeddings.offsets)


def report(collections: Sequence[dict[str, Gains]]) -> None:
    """Print a line for each encoder: the mean over collections, each with the same weight."""
    rng = np.random.default_rng(0)
    base = next(iter(collections[0]))
    draws = [rng.integers(0, len(each[base]), (RESAMPLES, len(each[base]))) for each in collections]
    for name in collections[0]:
        line = f"  {name:<28}{np.mean([each[name].mean() for each in collections]):.4f}"
        if name != base:
            differences = [each[name] - each[base] for each in collections]
            resampled = np.mean([d[drawn].mean(axis=1) for d, drawn in zip(differences, draws, strict=True)], axis=0)
            low, high = np.percentile(resampled, [2.5, 97.5])
            line += f"  {np.mean([d.mean() for d in differences]):+.4f} [{low:+.4f}, {high:+.4f}]"
        print(line, flush=True)


def report_times(encoders: dict[str, BundledEncoder], passages: Sequence[str], questions: Sequence[str]) -> None:
    """Print a line for each encoder: passages per second on all cores, and the milliseconds of a question."""
    some = [passages[i] for i in np.linspace(0, len(passages) - 1, TIMED_PASSAGES).astype(int)]
    rates: dict[str, list[float]] = {name: [] for name in encoders}
    waits: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(TIMED_ROUNDS):
        for name, encoder in encoders.items():
            with timing() as seconds:
                encoder.encode_documents(some)
            rates[name].append(len(some) / seconds[0])
            for question in questions[:50]:
                with timing() as seconds:
                    encoder.encode_queries([question])
                waits[name].append(seconds[0] * 1000)
    base = next(iter(encoders))
    for name in encoders:
        rate, wait = median(rates[name]), median(waits[name])
        print(
            f"  {name:<28}{rate:7.1f} passages/s ({rate / median(rates[base]):.2f} x)"
            f"{wait:7.2f} ms a question ({wait / median(waits[base]):.2f} x)",
            flush=True,
        )


@contextmanager
def timing() -> Iterator[list[float]]:
    seconds: list[float] = []
    start = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - start)


if __name__ == "__main__":
    main()
