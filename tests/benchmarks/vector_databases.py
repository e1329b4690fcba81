"""FDE vectors as stage one in Qdrant and LanceDB: how much of exact MaxSim's top 10 they find, and how fast.

usage: python tests/benchmarks/vector_databases.py FOLDER [--questions 300] [--others N] [--cache DIR]

Needs qdrant-client and lancedb. Each database returns candidates by the vectors of one encoding, and an index ranks
these by exact MaxSim over their stored tokens. Prints recall@10 against exact MaxSim over all passages, and the median
times of the database's search and of the ranking. Qdrant's local mode is a scan in Python, so its times say nothing
about its server.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean, median

import lancedb
import pyarrow as pa
from embedded import Embedded, collection_parser, embed
from lancedb.index import IvfPq
from machine import describe_machine
from qdrant_client import QdrantClient, models

from muvera_core import FDEConfig, FixedDimensionalEncoder, LearnedSetEncoder, MuveraIndex, SetEncoder
from muvera_core.encoders import BundledEncoder
from muvera_core.token_embeddings import FloatArray

K = 10
CANDIDATES = (20, 50, 100, 200)
# The best ids for a vector: how many, and the vector.
Search = Callable[[FloatArray, int], list[str]]


def main() -> None:
    arguments = collection_parser(__doc__).parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    ids = [str(i) for i in range(len(collection.texts))]
    print(describe_machine())
    print(f"{collection.name}: {len(ids):,} passages, {len(collection.queries)} questions")
    with tempfile.TemporaryDirectory() as temporary, MuveraIndex.create(None, BundledEncoder()) as index:
        index.add_embeddings(collection.documents, ids)
        exact = [{hit.id for hit in index.search_embeddings(q, K, exact=True)} for q in collection.queries]
        report("index, built in", *built_in(index, collection, exact))
        encoders: dict[str, SetEncoder] = {
            "FDE": FixedDimensionalEncoder(FDEConfig()),
            "learned": LearnedSetEncoder.fit(collection.documents),
        }
        for name, encoder in encoders.items():
            vectors = encoder.encode_documents(collection.documents)
            queries = encoder.encode_queries(collection.queries)
            for database, search in databases(Path(temporary) / name, ids, vectors):
                for n in CANDIDATES:
                    label = f"{database}, {name} ({encoder.output_dimension}), {n} candidates"
                    report(label, *with_database(index, collection, queries, search, n, exact))


def databases(folder: Path, ids: Sequence[str], vectors: FloatArray) -> Iterator[tuple[str, Search]]:
    """Databases that hold the vectors, by name."""
    client = QdrantClient(path=str(folder / "qdrant"))
    settings = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
    client.create_collection("passages", vectors_config=settings)
    for start in range(0, len(ids), 256):
        part = range(start, min(start + 256, len(ids)))
        client.upsert("passages", [models.PointStruct(id=i, vector=vectors[i].tolist()) for i in part])
    yield (
        "Qdrant",
        lambda vector, n: [
            str(point.id) for point in client.query_points("passages", query=vector.tolist(), limit=n).points
        ],
    )
    client.close()
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    rows = pa.table({"id": pa.array(ids), "vector": column})
    table = lancedb.connect(folder / "lancedb").create_table("passages", rows)

    def search(vector: FloatArray, n: int, refine: int | None = None) -> list[str]:
        found = table.search(vector).distance_type("cosine").limit(n).select(["id", "_distance"])
        found = found if refine is None else found.refine_factor(refine)
        return [str(id) for id in found.to_arrow()["id"].to_pylist()]

    yield "LanceDB", search
    table.create_index("vector", config=IvfPq(distance_type="cosine"))
    yield "LanceDB IVF-PQ", search
    yield "LanceDB IVF-PQ refined", lambda vector, n: search(vector, n, refine=4)


def built_in(index: MuveraIndex, collection: Embedded, exact: list[set[str]]) -> tuple[float, float | None, float]:
    """Recall, and the median milliseconds of a whole search."""
    found, times = [], []
    for query in collection.queries:
        start = time.perf_counter()
        hits = index.search_embeddings(query, K)
        times.append(time.perf_counter() - start)
        found.append({hit.id for hit in hits})
    return recall(found, exact), None, median(times) * 1000


def with_database(
    index: MuveraIndex,
    collection: Embedded,
    queries: FloatArray,
    search: Search,
    n_candidates: int,
    exact: list[set[str]],
) -> tuple[float, float | None, float]:
    """Recall, and the median milliseconds of the database's search and of the ranking."""
    found, database_times, ranking_times = [], [], []
    for tokens, vector in zip(collection.queries, queries, strict=True):
        start = time.perf_counter()
        ids = search(vector, n_candidates)
        half = time.perf_counter()
        hits = index.search_embeddings(tokens, K, ids=ids, exact=True)
        ranking_times.append(time.perf_counter() - half)
        database_times.append(half - start)
        found.append({hit.id for hit in hits})
    return recall(found, exact), median(database_times) * 1000, median(ranking_times) * 1000


def recall(found: Sequence[set[str]], exact: Sequence[set[str]]) -> float:
    """The mean share of the exact top that was found."""
    return mean(len(some & best) / len(best) for some, best in zip(found, exact, strict=True))


def report(name: str, recall: float, database_ms: float | None, ranking_ms: float) -> None:
    """Print one row."""
    database = "" if database_ms is None else f"{database_ms:.1f}"
    print(f"{name:62} recall@{K} {recall:.3f}  database {database:>6} ms  ranking {ranking_ms:6.1f} ms", flush=True)


if __name__ == "__main__":
    main()
