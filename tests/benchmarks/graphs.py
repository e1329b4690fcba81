"""Engines that find stage-one candidates, on the FDEs of one collection: recall, time, memory, filters, equal vectors.

    pip install usearch faiss-cpu
    python tests/benchmarks/graphs.py FOLDER [--others N]

Each engine runs in a process of its own, on one thread. Recall is the share of the 400 nearest vectors of float32 that
are found. The filtered searches admit a random share of the documents. "Equal" adds a tenth of equal vectors first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from embedded import collection_parser, embed
from growth import resident
from machine import describe_machine

from muvera_core.set_encoders import FDEConfig, FixedDimensionalEncoder
from muvera_core.stage_one import FlatCandidates
from muvera_core.token_embeddings import FloatArray, IntArray, unit_length

K = 400
SHARES = (0.01, 0.1, 0.5)
EF = 400


class Engine(NamedTuple):
    """What a built index can do.

    Attributes:
        search: the keys that it finds for a query, among the admitted ones if they are given.
        delete: takes keys out. None if it cannot.
    """

    search: Callable[[FloatArray, IntArray | None], Any]
    delete: Callable[[IntArray], Any] | None = None


def flat(vectors: FloatArray) -> Engine:
    """The scan of this project."""
    held = FlatCandidates.from_vectors(np.arange(len(vectors)), vectors)
    return Engine(lambda query, allowed: held.search(query, K, allowed), held.publish)


def hnswlib(vectors: FloatArray) -> Engine:
    """The graph that this project uses for many documents."""
    graph = import_module("hnswlib").Index(space="ip", dim=vectors.shape[1])
    graph.init_index(max_elements=len(vectors), M=16, ef_construction=200)
    graph.add_items(vectors, np.arange(len(vectors)), num_threads=1)
    graph.set_ef(EF)

    def search(query: FloatArray, allowed: IntArray | None) -> Any:
        if allowed is None:
            return graph.knn_query(query, k=K, num_threads=1)[0][0]
        admitted = set(allowed.tolist())
        k = min(K, len(admitted))
        return graph.knn_query(query, k=k, num_threads=1, filter=admitted.__contains__)[0][0]

    return Engine(search, lambda keys: [graph.mark_deleted(key) for key in keys.tolist()])


def usearch(dtype: str) -> Callable[[FloatArray], Engine]:
    """A graph of narrow numbers. Its Python package takes no filter: more is found, and what is not admitted left."""

    def build(vectors: FloatArray) -> Engine:
        index = import_module("usearch.index").Index(
            ndim=vectors.shape[1], metric="ip", dtype=dtype, connectivity=16, expansion_add=200, expansion_search=EF
        )
        index.add(np.arange(len(vectors)), vectors, threads=1)

        def search(query: FloatArray, allowed: IntArray | None) -> Any:
            if allowed is None:
                return index.search(query, K, threads=1).keys.astype(np.int64)
            n = min(len(vectors), int(1.5 * K * len(vectors) / len(allowed)))
            found = index.search(query, n, threads=1).keys.astype(np.int64)
            return found[np.isin(found, allowed)][:K]

        return Engine(search, index.remove)

    return build


def faiss(description: str, search_at: int) -> Callable[[FloatArray], Engine]:
    """An index of FAISS, by its factory's name."""

    def build(vectors: FloatArray) -> Engine:
        module = import_module("faiss")
        module.omp_set_num_threads(1)
        index = module.index_factory(vectors.shape[1], description, module.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        is_graph = "HNSW" in description
        make = module.SearchParametersHNSW if is_graph else module.SearchParametersIVF
        width = {"efSearch" if is_graph else "nprobe": search_at}

        def search(query: FloatArray, allowed: IntArray | None) -> Any:
            some = {} if allowed is None else {"sel": module.IDSelectorBatch(allowed)}
            return index.search(query[None], K, params=make(**width, **some))[1][0]

        return Engine(search, None if is_graph else lambda keys: index.remove_ids(keys))

    return build


ENGINES: dict[str, Callable[[FloatArray], Engine]] = {
    "flat": flat,
    "hnswlib": hnswlib,
    "usearch i8": usearch("i8"),
    "usearch f16": usearch("f16"),
    "faiss HNSW16,SQ8": faiss("HNSW16,SQ8", EF),
    "faiss IVF256,SQ8": faiss("IVF256,SQ8", 32),
    "faiss IVF256,PQ320x4fs": faiss("IVF256,PQ320x4fs", 64),
}


def measure(name: str, folder: Path) -> dict[str, float]:
    """Build an engine and search it."""
    vectors, queries = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")
    before, start = resident(), time.process_time()
    engine = ENGINES[name](vectors)
    row = {"build CPU s": time.process_time() - start, "MB": (resident() - before) / 1e6}
    rng = np.random.default_rng(0)
    for label, allowed in {
        "all": None,
        **{f"{share:.0%}": np.sort(rng.choice(len(vectors), int(share * len(vectors)), False)) for share in SHARES},
    }.items():
        row |= searched(engine, vectors, queries, allowed, label)
    if engine.delete is not None:
        gone = np.sort(rng.choice(len(vectors), len(vectors) // 5, False))
        start = time.process_time()
        engine.delete(gone)
        row["delete CPU s"] = time.process_time() - start
        left = np.setdiff1d(np.arange(len(vectors)), gone)
        found = [np.setdiff1d(engine.search(query, None), [-1]) for query in queries[:20]]
        exact = [left[np.argsort(-(vectors[left] @ query))[:K]] for query in queries[:20]]
        row["recall, a fifth deleted"] = share_of(exact, found)
    return row


def searched(
    engine: Engine, vectors: FloatArray, queries: FloatArray, allowed: IntArray | None, label: str
) -> dict[str, float]:
    """Recall and milliseconds of searches."""
    keys = np.arange(len(vectors)) if allowed is None else allowed
    exact = [keys[np.argsort(-(vectors[keys] @ query))[:K]] for query in queries]
    start = time.process_time()
    found = [engine.search(query, allowed) for query in queries]
    milliseconds = (time.process_time() - start) / len(queries) * 1e3
    return {f"recall, {label}": share_of(exact, found), f"CPU ms, {label}": milliseconds}


def share_of(exact: list[IntArray], found: list[Any]) -> float:
    """The share of the wanted keys that were found."""
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))


def main() -> None:
    """Measure all engines and print a table."""
    parser = collection_parser(__doc__)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    encoder = FixedDimensionalEncoder(FDEConfig(dimension=collection.documents.dimension))
    vectors = unit_length(encoder.encode_documents(collection.documents))
    print(describe_machine())
    print(f"{collection.name}, {len(vectors)} documents, {vectors.shape[1]} dimensions")
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "queries.npy", encoder.encode_queries(collection.queries))
        for case in ("as they are", "with a tenth of equal vectors"):
            if case != "as they are":
                vectors = np.concatenate([np.repeat(vectors[:1], len(vectors) // 10, axis=0), vectors])
            np.save(Path(folder) / "vectors.npy", vectors)
            print(case)
            for name in arguments.engines:
                command = [sys.executable, __file__, "--measure", name, folder]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    print(f"  {name}: left out ({done.stderr.strip().splitlines()[-1]})", flush=True)
                else:
                    row = json.loads(done.stdout.splitlines()[-1])
                    print(f"  {name}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
