"""Costs and savings of token pooling: space, time, and what exact MaxSim and a default index find.

usage: python tests/benchmarks/token_pooling.py FOLDER... --cache FOLDER [--questions 300] [--others N]

All factors use the same token embeddings of the bundled encoder. "Kept" is the share of the top 10 of exact MaxSim over
all tokens that is found: by exact MaxSim over the pooled tokens, and by a default index of them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean

from embedded import Embedded, embed
from machine import describe_machine

from muvera_core import MuveraIndex, TokenEmbeddings
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.encoders.token_pooling import pool_tokens
from muvera_core.evaluation.measures import fidelity_at_k, ndcg_at_k
from muvera_core.storage.token_codec import TokenCodec

K = 10
BATCH = 256
FACTORS = (1, 2, 3, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the token embeddings")
    parser.add_argument("--questions", type=int, default=300, help="number of queries (default: 300)")
    parser.add_argument("--others", type=int, help="number of unjudged passages to include (default: all)")
    arguments = parser.parse_args()
    print(describe_machine())
    for folder in arguments.folders:
        report(embed(folder, arguments.cache, arguments.questions, others=arguments.others))


def report(collection: Embedded) -> None:
    """Print a line for each factor."""
    n_documents, n_queries = len(collection.documents), len(collection.queries)
    print(f"{collection.name}: {n_documents} documents, {n_queries} queries")
    print(
        f"{'factor':>6}{'tokens':>8}{'bytes':>8}{'nDCG exact':>12}{'kept exact':>12}{'nDCG':>7}{'kept':>7}{'ms/doc':>8}"
    )
    row_size = TokenCodec("int8", collection.documents.dimension).row_dtype.itemsize
    expected: list[list[str]] = []
    for factor in FACTORS:
        with MuveraIndex.create(None, PrecomputedEmbeddings(collection.documents.dimension, collection.name)) as index:
            seconds = add_pooled(index, collection.documents, factor)
            exact, found = (ranked(index, collection, exact=exact) for exact in (True, False))
            n_tokens = index.n_tokens / n_documents
        expected = expected or exact
        print(
            f"{factor:>6}{n_tokens:>8.1f}{n_tokens * row_size:>8.0f}{ndcg(exact, collection):>12.3f}"
            f"{kept(exact, expected):>12.3f}{ndcg(found, collection):>7.3f}{kept(found, expected):>7.3f}"
            f"{seconds * 1000 / n_documents:>8.2f}",
            flush=True,
        )


def add_pooled(index: MuveraIndex, documents: TokenEmbeddings, factor: int) -> float:
    """Pool documents and add them, numbered from 0. Returns the CPU seconds that pooling took."""
    seconds = 0.0
    for start in range(0, len(documents), BATCH):
        numbers = range(start, min(start + BATCH, len(documents)))
        some = TokenEmbeddings.from_list([documents[i] for i in numbers])
        began = time.process_time()
        pooled = pool_tokens(some, factor)
        seconds += time.process_time() - began
        index.add_embeddings(pooled, ids=[str(i) for i in numbers])
    return seconds


def ranked(index: MuveraIndex, collection: Embedded, *, exact: bool) -> list[list[str]]:
    """Ids of the best documents for each query, best first."""
    return [[hit.id for hit in index.search_embeddings(query, K, exact=exact)] for query in collection.queries]


def ndcg(found: list[list[str]], collection: Embedded) -> float:
    graded = [{str(i): grade for i, grade in grades.items()} for grades in collection.relevance]
    return mean(ndcg_at_k(ids, grades, K) for ids, grades in zip(found, graded, strict=True))


def kept(found: list[list[str]], expected: list[list[str]]) -> float:
    return mean(fidelity_at_k(ids, best, K) for ids, best in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
