"""Compares encodings for stage one: share of exact MaxSim's top 10 among 100 candidates, time and space.

usage: python tests/benchmarks/stage_one.py FOLDER [--cache FOLDER] [--others 20000] [--questions 300] [--plot FILE.png]
           [--efs 100 200 400] [--no-published]

The encodings are the published FDE of 10,240 dimensions and the published LEMUR, both by plain inner product, the
default FDE of an index, and learned encodings of several widths. Each is searched by a flat scan, and in the same kind
of graph (hnswlib) with several values of ef. The published LEMUR needs PyTorch (--no-published leaves it out).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np
from embedded import Embedded, collection_parser, embed, exact_top, seconds_to_encode
from machine import describe_machine
from settings import PUBLISHED_FDE

from muvera_core import FDEConfig, FixedDimensionalEncoder, LearnedSetEncoder, LearnedSetEncoderConfig, TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.set_encoders.pseudo_queries import part_of_text, run_of_tokens
from muvera_core.stage_one.candidates import Candidates
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.token_embeddings import FloatArray, IntArray, unit_length

K, N_CANDIDATES = 10, 100
WIDTHS = (128, 256, 512)
N_EXAMPLES = 1500
LARGEST_GRAPH = 1 << 31  # bytes
_T = TypeVar("_T")


class Encoding(NamedTuple):
    name: str
    documents: FloatArray
    queries: FloatArray
    fit_seconds: float
    encode_seconds: float


class Row(NamedTuple):
    encoding: str
    n_bytes: int
    flat: float
    graph: list[tuple[float, float]]


def main() -> None:
    parser = collection_parser(__doc__)
    parser.add_argument("--no-published", action="store_true", help="leave the published LEMUR out")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--efs", type=int, nargs="+", default=[100, 200, 400], help="values of ef for graph searches")
    arguments = parser.parse_args()
    embedded = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    documents, queries = embedded.documents, embedded.queries
    encoding_seconds = seconds_to_encode(embedded)
    start = time.perf_counter()
    exact = exact_top(queries, documents, K)
    print(describe_machine())
    print(
        f"{embedded.name}: {len(documents)} documents of {len(documents.vectors) / len(documents):.0f} tokens, "
        f"{len(queries)} queries; encoding the documents takes {encoding_seconds:.0f} s, "
        f"exact MaxSim {(time.perf_counter() - start) / len(queries) * 1000:.0f} ms per query"
    )
    columns = "".join(f"{f'graph {ef}':>9}{'ms':>7}" for ef in arguments.efs)
    print(f"{'':34}{'bytes':>7}{'scan':>7}{columns}{'build':>8}{'fit':>7}{'encode':>8}{'share':>7}{'query ms':>9}")
    rows = []
    for encoding, query_ms in encodings(embedded, published=not arguments.no_published):
        row, building = measure(encoding, exact, arguments.efs)
        rows.append(row)
        share = (encoding.fit_seconds + encoding.encode_seconds) / encoding_seconds
        found = "".join(f"{recall:>9.3f}{ms:>7.2f}" for recall, ms in row.graph) or " " * 16 * len(arguments.efs)
        print(
            f"{row.encoding:34}{row.n_bytes:>7}{row.flat:>7.3f}{found}{building:>7.0f}s{encoding.fit_seconds:>6.0f}s"
            f"{encoding.encode_seconds:>7.0f}s{share:>7.0%}{query_ms:>9.2f}",
            flush=True,
        )
    if arguments.plot:
        plot(rows, f"{embedded.name}, {len(documents)} documents", arguments.plot)


def encodings(embedded: Embedded, *, published: bool) -> Iterator[tuple[Encoding, float]]:
    """Encodings of documents and queries, and the median milliseconds to encode a query."""
    documents, queries = embedded.documents, embedded.queries
    for name, config, scale in (
        ("FDE as published, R20 k5 p16", PUBLISHED_FDE, False),
        ("FDE of an index, R5 k2", FDEConfig(), True),
    ):
        encoder = FixedDimensionalEncoder(config)
        vectors, seconds = timed(lambda: encoder.encode_documents(documents))  # noqa: B023
        yield encoded(name, unit_length(vectors) if scale else vectors, encoder.encode_queries, queries, 0, seconds)
    if published:
        from published_lemur import PublishedLemur

        lemur, fitting = timed(lambda: PublishedLemur(documents, 1024))
        vectors, seconds = timed(lambda: lemur.encode_documents(documents))
        yield encoded("LEMUR as published, 1,024", vectors, lemur.encode_queries, queries, fitting, seconds)
    widest, fitting = timed(lambda: fit(embedded))
    for width in WIDTHS[::-1]:
        learned = widest.truncated(width)
        vectors, seconds = timed(lambda: unit_length(learned.encode_documents(documents)))  # noqa: B023
        yield encoded(f"learned, {width}", vectors, learned.encode_queries, queries, fitting, seconds)


def encoded(
    name: str,
    vectors: FloatArray,
    encode_queries: Callable[[TokenEmbeddings], FloatArray],
    queries: TokenEmbeddings,
    fit_seconds: float,
    encode_seconds: float,
) -> tuple[Encoding, float]:
    both = [timed(lambda: encode_queries(TokenEmbeddings.from_list([tokens]))) for tokens in queries]  # noqa: B023
    query_vectors = np.concatenate([vector for vector, _ in both])
    encoding = Encoding(name, vectors, query_vectors, fit_seconds, encode_seconds)
    return encoding, median(seconds for _, seconds in both) * 1000


def fit(embedded: Embedded) -> LearnedSetEncoder:
    """The encoder that ``optimize`` would fit: to parts of passages, encoded as queries."""
    rng = np.random.default_rng(2)
    parts = []
    for i in rng.integers(len(embedded.documents), size=N_EXAMPLES):
        tokens = embedded.documents[i]
        parts.append(part_of_text(embedded.texts[i], len(run_of_tokens(tokens, rng)) / len(tokens), rng))
    config = LearnedSetEncoderConfig(output_dimension=WIDTHS[-1])
    return LearnedSetEncoder.fit(embedded.documents, config, BundledEncoder().encode_queries(parts))


def measure(encoding: Encoding, exact: list[IntArray], efs: list[int]) -> tuple[Row, float]:
    """The shares found, and the seconds that building the graph took."""
    keys, vectors = np.arange(len(encoding.documents)), encoding.documents
    flat, _ = search(FlatCandidates.from_vectors(keys, vectors), encoding.queries, exact)
    graph, building = [], 0.0
    if vectors.nbytes <= LARGEST_GRAPH:
        candidates, building = timed(lambda: HnswCandidates.from_vectors(keys, vectors))
        for candidates.ef in efs:
            graph.append(search(candidates, encoding.queries, exact))
    return Row(encoding.name, vectors[0].nbytes, flat, graph), building


def search(candidates: Candidates, queries: FloatArray, exact: list[IntArray]) -> tuple[float, float]:
    """Share of the exact top among the candidates, and median milliseconds of a search on one thread."""
    found = [timed(lambda: candidates.search(query, N_CANDIDATES)) for query in queries]  # noqa: B023
    share = np.mean([np.isin(best, keys).mean() for best, (keys, _) in zip(exact, found, strict=True)])
    return float(share), median(seconds for _, seconds in found) * 1000


def timed(call: Callable[[], _T]) -> tuple[_T, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def plot(rows: list[Row], title: str, path: Path) -> None:
    """Draw the share found against the milliseconds of a graph search."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if row.graph:
            shares, milliseconds = zip(*row.graph, strict=True)
            axes.plot(milliseconds, shares, marker="o", label=f"{row.encoding} ({row.n_bytes / 1024:.3g} kB)")
    axes.set(
        xscale="log",
        xlabel="milliseconds per search, one thread",
        ylabel=f"share of the exact top {K} in {N_CANDIDATES} candidates",
    )
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
