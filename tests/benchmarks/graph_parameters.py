"""Effect of an hnswlib graph's parameters: build time, search time, and share of a flat scan's candidates found.

usage: python tests/benchmarks/graph_parameters.py FOLDER [--cache FOLDER] [--others N] [--questions 300]

Builds graphs of the same vectors with different m and ef_construction. Searches each for 100 and 200 candidates, with
ef of 1 to 4 times that number.
"""

from __future__ import annotations

import numpy as np
from embedded import collection_parser, embed
from insertion_order import build, encoders, flat_scan, search, share
from machine import describe_machine

from muvera_core.stage_one.graph_parameters import GraphParameters
from muvera_core.token_embeddings import unit_length

PARAMETERS = [
    GraphParameters(m, ef)
    for m, ef in ((8, 200), (16, 100), (16, 200), (16, 400), (24, 200), (32, 200), (32, 400), (48, 400))
]
DEPTHS = (100, 200)
WIDER = (1, 1.5, 2, 3, 4)


def main() -> None:
    parser = collection_parser(__doc__)
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)

    print(describe_machine())
    print(f"{collection.name}: {len(collection.documents)} documents, {len(collection.queries)} queries")
    for name, encoder in encoders(collection.documents):
        vectors = unit_length(encoder.encode_documents(collection.documents))
        queries = encoder.encode_queries(collection.queries)
        print(f"--- {name}, {vectors.shape[1]}-d")
        columns = "".join(f"{f'ef {wider:g}x':>16}{'ms':>7}" for wider in WIDER)
        print(f"{'m':>3}{'ef_c.':>6}{'build s':>8}{'of':>5}{columns}")
        for parameters in PARAMETERS:
            seconds, graph = build(vectors, np.arange(len(vectors)), parameters)
            for n in DEPTHS:
                scanned = flat_scan(vectors, queries, n)
                line = f"{parameters.m:3}{parameters.ef_construction:6}{seconds:8.1f}{n:5}"
                for wider in WIDER:
                    found, milliseconds = search(graph, queries, n, int(n * wider))
                    line += f"{share(scanned, found):16.4f}{milliseconds:7.3f}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
