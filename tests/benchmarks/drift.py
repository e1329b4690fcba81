"""Measures a learned encoding on a corpus that grew to three and ten times its size, and on one about something else.

usage: python tests/benchmarks/drift.py FOLDER [FOLDER...] --cache FOLDER [--others 20000] [--questions 300]

For each collection, prints the share of exact MaxSim's top 10 in 100 candidates of a flat scan, with the encoding
fitted to a random part of it, to all of it, and to each of the other collections. The default FDE, which is not fitted,
is measured too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from embedded import Embedded, embed, exact_top
from machine import describe_machine
from stage_one import N_CANDIDATES, K, fit

from muvera_core import FDEConfig, FixedDimensionalEncoder, LearnedSetEncoder, SetEncoder, TokenEmbeddings
from muvera_core.token_embeddings import IntArray, unit_length

WIDTHS = (256, 512)
PARTS = (1 / 10, 1 / 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--cache", type=Path, required=True, help="folder for token embeddings")
    parser.add_argument("--others", type=int, help="number of unjudged passages to include (default: all)")
    parser.add_argument("--questions", type=int, default=300)
    arguments = parser.parse_args()
    print(describe_machine())
    collections = [
        embed(folder, arguments.cache, arguments.questions, others=arguments.others) for folder in arguments.folders
    ]
    fitted = {collection.name: fit(collection) for collection in collections}
    for collection in collections:
        exact = exact_top(collection.queries, collection.documents, K)
        print(f"{collection.name}: {len(collection.documents)} documents")
        report("default FDE", [FixedDimensionalEncoder(FDEConfig())], collection, exact)
        for share in PARTS:
            report(f"fitted to {share:.0%} of it", widths(fit(part(collection, share))), collection, exact)
        for name, encoder in fitted.items():
            report(f"fitted to {'all of it' if name == collection.name else name}", widths(encoder), collection, exact)


def part(collection: Embedded, share: float) -> Embedded:
    """A random part of a collection's documents."""
    which = np.random.default_rng(3).permutation(len(collection.documents))[: round(share * len(collection.documents))]
    return replace(
        collection,
        texts=[collection.texts[i] for i in which],
        documents=TokenEmbeddings.from_list([collection.documents[i] for i in which]),
    )


def widths(encoder: LearnedSetEncoder) -> list[LearnedSetEncoder]:
    return [encoder.truncated(width) for width in WIDTHS]


def report(name: str, encoders: Sequence[SetEncoder], collection: Embedded, exact: list[IntArray]) -> None:
    found = []
    for encoder in encoders:
        vectors = unit_length(encoder.encode_documents(collection.documents))
        queries = encoder.encode_queries(collection.queries)
        order = [np.argpartition(-(vectors @ query), N_CANDIDATES)[:N_CANDIDATES] for query in queries]
        share = np.mean([np.isin(best, some).mean() for best, some in zip(exact, order, strict=True)])
        found.append(f"{encoder.output_dimension}-d {share:.3f}")
    print(f"  {name:28} {'  '.join(found)}", flush=True)


if __name__ == "__main__":
    main()
