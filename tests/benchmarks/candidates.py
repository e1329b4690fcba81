"""The flat scan beside the hnswlib graph, on the same stage-one vectors: time, and what each finds.

usage: python tests/benchmarks/candidates.py FOLDER [--others 20000] [--cache FILE.npz] [--questions 300]

Uses the collection's judged passages and, of the rest, so many others. Prints, for growing parts of them, the median
milliseconds of a search, and the share of exact MaxSim's top 10 among the candidates.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from fde_settings import K, encode
from machine import describe_machine
from tqdm import tqdm

from muvera_core import FDEConfig, FixedDimensionalEncoder, maxsim
from muvera_core.candidates import Candidates, FlatCandidates, HnswCandidates
from muvera_core.evaluation import BeirCollection, read_beir
from muvera_core.fde import unit_length
from muvera_core.token_embeddings import FloatArray

N_CANDIDATES = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--others", type=int, default=20_000)
    parser.add_argument("--cache", type=Path, help="file to keep the token embeddings in between runs")
    parser.add_argument("--questions", type=int, default=300)
    arguments = parser.parse_args()
    collection = with_others(read_beir(arguments.folder), arguments.others)
    questions = random.Random(1).sample(sorted(collection.queries.values()), arguments.questions)
    documents, queries = encode(collection, questions, arguments.cache)
    encoder = FixedDimensionalEncoder(FDEConfig())
    vectors = unit_length(encoder.encode_documents(documents))
    query_vectors = encoder.encode_queries(queries)
    exact = [set(np.argsort(-maxsim(query, documents), kind="stable")[:K].tolist()) for query in tqdm(queries)]

    print(describe_machine())
    print(f"{arguments.folder.name}: {len(documents)} documents, {len(queries)} questions, {N_CANDIDATES} candidates")
    for n in (5_000, 10_000, len(documents)):
        for holder in (FlatCandidates(vectors.shape[1]), HnswCandidates(vectors.shape[1])):
            start = time.perf_counter()
            holder.stage(np.arange(n), vectors[:n])
            holder.publish([])
            building = time.perf_counter() - start
            milliseconds, recall = search(holder, query_vectors, exact)
            found = f", found {recall:.4f}" if n == len(documents) else ""
            print(f"{n:>7} {holder.kind:5} search {milliseconds:.2f} ms, building {building:.1f} s{found}")


def with_others(collection: BeirCollection, n_others: int) -> BeirCollection:
    """The judged passages of a collection and ``n_others`` more, drawn at random."""
    judged = {id for relevant in collection.relevance.values() for id in relevant}
    others = [id for id in collection.ids if id not in judged]
    random.Random(0).shuffle(others)
    keep = judged | set(others[:n_others])
    rows = [i for i, id in enumerate(collection.ids) if id in keep]
    return replace(
        collection,
        ids=[collection.ids[i] for i in rows],
        texts=[collection.texts[i] for i in rows],
        titles=[collection.titles[i] for i in rows],
    )


def search(holder: Candidates, query_vectors: FloatArray, exact: list[set[int]]) -> tuple[float, float]:
    """Median milliseconds of a search, and the share of the exact top among the candidates."""
    times, found = [], []
    for query, expected in zip(query_vectors, exact, strict=True):
        start = time.perf_counter()
        keys = holder.search(query, N_CANDIDATES)
        times.append(time.perf_counter() - start)
        found.append(len(expected & set(keys.tolist())) / K)
    return median(times) * 1000, float(np.mean(found))


if __name__ == "__main__":
    main()
