"""Measures whether the order in which documents enter an hnswlib graph changes what searches find.

usage: python tests/benchmarks/insertion_order.py FOLDER [--cache FOLDER] [--others N] [--questions 300] [--seeds 5]

Builds graphs of the same vectors, as stage one holds them, in several orders: as given; at random, several times, to
show how much is chance; by local intrinsic dimensionality (LID), which arXiv 2405.17813 found to matter; and by
distance from the mean. There is no order by norm, because all vectors have unit length. Prints, for each ef, the share
of a flat scan's 100 candidates among the graph's 100, the share of exact MaxSim's top 10 among the latter, and the
milliseconds of a search on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import hnswlib
import numpy as np
from embedded import collection_parser, embed, exact_top
from machine import describe_machine

from muvera_core import FDEConfig, FixedDimensionalEncoder, LearnedSetEncoder, LearnedSetEncoderConfig
from muvera_core.set_encoders.protocol import SetEncoder
from muvera_core.stage_one.graph_parameters import DEFAULT_GRAPH, GraphParameters
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, unit_length

K = 10
N_CANDIDATES = 100
EFS = (100, 200, 400)
WIDTHS = (256, 512)
# As in the paper.
LID_NEIGHBOURS = 100
# The fastest of this many runs is reported, because other work may run on the machine.
REPEATS = 3
_BLOCK = 1024


def main() -> None:
    parser = collection_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of random orders")
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    exact = np.stack(exact_top(collection.queries, collection.documents, K))

    print(describe_machine())
    print(f"{collection.name}: {len(collection.documents)} documents, {len(collection.queries)} queries")
    for name, encoder in encoders(collection.documents):
        vectors = unit_length(encoder.encode_documents(collection.documents))
        queries = encoder.encode_queries(collection.queries)
        scanned = flat_scan(vectors, queries, N_CANDIDATES)
        dimensionality = local_intrinsic_dimensionality(vectors)
        print(
            f"--- {name}, {vectors.shape[1]}-d: median LID {np.median(dimensionality):.1f}, "
            f"exact top {K} in the scan's {N_CANDIDATES}: {share(exact, scanned):.4f}"
        )
        columns = "".join(f"{f'ef {ef}: scan':>16}{'exact':>8}{'ms':>7}" for ef in EFS)
        print(f"{'order':20}{'build s':>8}{columns}")
        for order_name, order in orders(vectors, dimensionality, arguments.seeds):
            seconds, graph = build(vectors, order)
            line = f"{order_name:20}{seconds:8.1f}"
            for ef in EFS:
                found, milliseconds = search(graph, queries, N_CANDIDATES, ef)
                line += f"{share(scanned, found):16.4f}{share(exact, found):8.4f}{milliseconds:7.3f}"
            print(line, flush=True)


def encoders(documents: TokenEmbeddings) -> Iterator[tuple[str, SetEncoder]]:
    """Learned encodings, and the default encoding of an index, with their names."""
    config = LearnedSetEncoderConfig(dimension=documents.dimension, output_dimension=WIDTHS[-1])
    widest = LearnedSetEncoder.fit(documents, config)
    for width in WIDTHS:
        yield "learned", widest.truncated(width)
    yield "FDE", FixedDimensionalEncoder(FDEConfig(dimension=documents.dimension))


def orders(vectors: FloatArray, dimensionality: FloatArray, n_random: int) -> Iterator[tuple[str, IntArray]]:
    """Each order's name, and the numbers of all documents in that order."""
    yield "as given", np.arange(len(vectors))
    for seed in range(n_random):
        yield f"random {seed}", np.random.default_rng(seed).permutation(len(vectors))
    distance = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)
    for name, values in (("LID", dimensionality), ("distance", distance)):
        yield f"{name} descending", np.argsort(-values, kind="stable")
        yield f"{name} ascending", np.argsort(values, kind="stable")


def local_intrinsic_dimensionality(vectors: FloatArray) -> FloatArray:
    """Estimate of each vector's LID from the distances to its nearest neighbours (Amsaleg et al., KDD 2015).

    Returns:
        float64, shape (vectors,).
    """
    estimates = []
    for start in range(0, len(vectors), _BLOCK):
        squared = np.maximum(0, 2 - 2 * (vectors[start : start + _BLOCK] @ vectors.T))
        rows = np.arange(len(squared))
        squared[rows, start + rows] = np.inf
        nearest = np.sort(np.partition(squared, LID_NEIGHBOURS, axis=1)[:, :LID_NEIGHBOURS], axis=1).astype(np.float64)
        nearest = np.maximum(nearest, 1e-12)  # equal documents
        estimates.append(-1 / np.mean(np.log(nearest / nearest[:, -1:]) / 2, axis=1))
    return np.concatenate(estimates)


def build(vectors: FloatArray, order: IntArray, parameters: GraphParameters = DEFAULT_GRAPH) -> tuple[float, Any]:
    """The seconds of building a graph, and the graph. It is built on one thread, so that the order is kept."""
    start = time.perf_counter()
    graph = hnswlib.Index(space="ip", dim=vectors.shape[1])
    graph.init_index(
        len(vectors),
        M=parameters.m,
        ef_construction=parameters.ef_construction,
        random_seed=HnswCandidates.SEED,
    )
    graph.add_items(vectors[order], order, num_threads=1)
    return time.perf_counter() - start, graph


def search(graph: Any, queries: FloatArray, n: int, ef: int) -> tuple[IntArray, float]:
    """Numbers of the ``n`` candidates of each query, int64, shape (queries, n), and milliseconds per query."""
    graph.set_ef(ef)
    milliseconds = np.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        labels, _ = graph.knn_query(queries, k=n, num_threads=1)
        milliseconds = min(milliseconds, (time.perf_counter() - start) * 1000 / len(queries))
    return labels.astype(np.int64), milliseconds


def flat_scan(vectors: FloatArray, queries: FloatArray, n: int) -> IntArray:
    """The same numbers from the inner products with all vectors."""
    return np.argpartition(-(queries @ vectors.T), n - 1, axis=1)[:, :n]


def share(wanted: IntArray, found: IntArray) -> float:
    """Share of the wanted numbers that were found, over all queries."""
    return float(np.mean([np.isin(some, others).mean() for some, others in zip(wanted, found, strict=True)]))


if __name__ == "__main__":
    main()
