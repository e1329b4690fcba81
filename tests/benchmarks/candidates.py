"""Compares the flat scan with the hnswlib graph on the same stage-one vectors: time, and share found.

usage: python tests/benchmarks/candidates.py FOLDER [--others 20000] [--cache DIR] [--questions 300]

Uses the judged passages of the collection and ``--others`` of the rest. Prints, for growing parts of them, the median
time of a search and the share of exact MaxSim's top 10 among the candidates.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
from embedded import collection_parser, embed, exact_top
from machine import describe_machine

from muvera_core import FDEConfig, FixedDimensionalEncoder
from muvera_core.stage_one.candidates import Candidates
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.token_embeddings import FloatArray, unit_length

K = 10
N_CANDIDATES = 400


def main() -> None:
    parser = collection_parser(__doc__)
    parser.set_defaults(others=20_000)
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    encoder = FixedDimensionalEncoder(FDEConfig())
    vectors = unit_length(encoder.encode_documents(collection.documents))
    query_vectors = encoder.encode_queries(collection.queries)
    exact = [set(top.tolist()) for top in exact_top(collection.queries, collection.documents, K)]

    print(describe_machine())
    print(f"{collection.name}: {len(vectors)} documents, {len(query_vectors)} queries, {N_CANDIDATES} candidates")
    for n in sorted({min(n, len(vectors)) for n in (5_000, 10_000, len(vectors))}):
        for holder in (FlatCandidates(vectors.shape[1]), HnswCandidates(vectors.shape[1])):
            start = time.perf_counter()
            holder.stage(np.arange(n), vectors[:n])
            holder.publish([])
            building = time.perf_counter() - start
            milliseconds, recall = search(holder, query_vectors, exact)
            found = f", found {recall:.4f}" if n == len(vectors) else ""
            print(f"{n:>7} {holder.kind:5} search {milliseconds:.2f} ms, building {building:.1f} s{found}")


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
