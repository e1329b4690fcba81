"""What each setting of the Fixed Dimensional Encoding buys: share of exact MaxSim's top 10 among N candidates.

usage: python tests/benchmarks/fde_settings.py FOLDER [--cache FILE.npz] [--questions 300]

All settings see the same token embeddings, those of the bundled encoder. Candidates come from a flat scan, so that
only the encoding is measured: first with the document encodings scaled to unit length, as an index has them, then as
they are.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from tqdm import tqdm

from muvera_core import FDEConfig, FixedDimensionalEncoder, TokenEmbeddings, maxsim
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation import BeirCollection, read_beir
from muvera_core.fde import unit_length

K = 10
DEPTHS = (50, 100, 200, 400)
SHAPES = [
    (10, 3, 16),
    (10, 4, 16),
    (20, 3, 16),
    (20, 4, 8),
    (10, 4, 32),
    (20, 4, 16),
    (10, 5, 16),
    (40, 3, 16),
    (20, 5, 16),
]
VARIANTS: list[dict[str, Any]] = [
    {"projection": "count_sketch"},
    {"center": True},
    {"final_projection_dimension": 2560},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, help="file to keep the token embeddings in between runs")
    parser.add_argument("--questions", type=int, default=300)
    arguments = parser.parse_args()
    collection = read_beir(arguments.folder)
    every = max(1, len(collection.queries) // arguments.questions)
    questions = list(collection.queries.values())[::every][: arguments.questions]
    documents, queries = encode(collection, questions, arguments.cache)
    exact = [set(np.argsort(-maxsim(query, documents), kind="stable")[:K].tolist()) for query in tqdm(queries)]

    print(describe_machine())
    print(f"{arguments.folder.name}: {len(documents)} documents, {len(queries)} questions")
    print(
        f"{'settings':44}{'dims':>7}{'µs/doc':>8}{'µs/query':>9}{'scan ms':>8}"
        + "".join(f"{f'@{n}':>7}" for n in DEPTHS)
    )
    for repetitions, projections, width in SHAPES:
        for fill in (True, False):
            report(settings(repetitions, projections, width, fill_empty_partitions=fill), documents, queries, exact)
    for fill in (True, False):
        for variant in VARIANTS:
            report(settings(20, 4, 16, fill_empty_partitions=fill, **variant), documents, queries, exact)


def settings(repetitions: int, projections: int, width: int, **others: Any) -> FDEConfig:
    return FDEConfig(
        num_repetitions=repetitions, num_simhash_projections=projections, projection_dimension=width, **others
    )


def encode(
    collection: BeirCollection, questions: list[str], cache: Path | None
) -> tuple[TokenEmbeddings, TokenEmbeddings]:
    if cache is not None and cache.exists():
        with np.load(cache) as arrays:
            return (
                TokenEmbeddings(arrays["vectors"], arrays["offsets"]),
                TokenEmbeddings(arrays["query_vectors"], arrays["query_offsets"]),
            )
    encoder = BundledEncoder()
    texts = collection.texts
    batches = [encoder.encode_documents(texts[i : i + 64]) for i in tqdm(range(0, len(texts), 64), desc="encoding")]
    documents, queries = TokenEmbeddings.concatenate(batches), encoder.encode_queries(questions)
    if cache is not None:
        np.savez(
            cache,
            vectors=documents.vectors,
            offsets=documents.offsets,
            query_vectors=queries.vectors,
            query_offsets=queries.offsets,
        )
    return documents, queries


def report(config: FDEConfig, documents: TokenEmbeddings, queries: TokenEmbeddings, exact: list[set[int]]) -> None:
    encoder = FixedDimensionalEncoder(config, mean=documents.vectors.mean(axis=0) if config.center else None)
    start = time.perf_counter()
    vectors = encoder.encode_documents(documents)
    document_time = (time.perf_counter() - start) / len(documents)
    start = time.perf_counter()
    query_vectors = encoder.encode_queries(queries)
    query_time = (time.perf_counter() - start) / len(queries)
    recalls = []
    for scanned in (unit_length(vectors), vectors):
        ranked = [np.argsort(-(scanned @ query))[: max(DEPTHS)].tolist() for query in query_vectors]
        recalls += [np.mean([len(e & set(r[:n])) / K for e, r in zip(exact, ranked, strict=True)]) for n in DEPTHS]
    name = f"R{config.num_repetitions} k{config.num_simhash_projections} p{config.projection_dimension}"
    name += (
        f"{'' if config.fill_empty_partitions else ' unfilled'}{' centred' if config.center else ''}"
        f"{' count sketch' if config.projection == 'count_sketch' else ''}"
        f"{f' → {config.final_projection_dimension}' if config.final_projection_dimension else ''}"
    )
    print(
        f"{name:44}{config.output_dimension:>7}{document_time * 1e6:>8.0f}{query_time * 1e6:>9.0f}"
        + "".join(f"{recall:>7.3f}" for recall in recalls),
        flush=True,
    )


if __name__ == "__main__":
    main()
