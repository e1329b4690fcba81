"""Compares wide FDEs, compressed to a few hundred dimensions, with a learned encoding of the same width.

usage: python tests/benchmarks/fde_compression.py FOLDER [--cache DIR] [--questions 300] [--others N] [--plot FILE.png]

Ways to compress:

- sketch: the final projection of the authors' code, one signed count sketch;
- PCA: the principal components of the documents' encodings, minus their mean;
- whitened PCA: the same after documents are mapped by S and queries by 1/S, where S² is the second moments of the
  encodings of pseudo-queries (runs of consecutive document tokens). This keeps what matters to queries. One more
  coordinate could give all documents the same length, as in ``muvera_core.set_encoders.lemur``, but it would not change
  the order of a flat scan.

Each is measured with the documents' encodings scaled to unit length first, and with plain ones. Prints the share of
exact MaxSim's top 10 among 100 candidates of a flat scan, the seconds that fitting takes, and the time to encode a
document.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from embedded import Embedded, begin
from machine import describe_machine
from matplotlib.figure import Figure
from places import places_by_score, share_found
from settings import PUBLISHED_FDE

from muvera_core import FDEConfig, FixedDimensionalEncoder, LearnedSetEncoder, LearnedSetEncoderConfig, TokenEmbeddings
from muvera_core.set_encoders.fde_matrices import FDEMatrices
from muvera_core.set_encoders.pseudo_queries import runs_of_tokens
from muvera_core.token_embeddings import FloatArray, IntArray, unit_length

K = 10
N_CANDIDATES = 100
WIDTHS = (256, 512, 1024)
ENCODINGS = {
    "R20 k5 p16 filled": PUBLISHED_FDE,
    "R10 k2": FDEConfig(num_repetitions=10),
}
# Number of documents, and of pseudo-queries, that a compression is fitted to.
_SAMPLE = 4096
# This share of the mean variance of pseudo-queries is added to each variance: there are more dimensions than queries.
_FLOOR = 0.01


@dataclass(frozen=True, eq=False)
class Projection:
    """A map to fewer dimensions that approximates inner products, up to a constant per query.

    Attributes:
        mean: mean of the documents, shape (dimensions,).
        document_map: map for documents, shape (dimensions, width).
        query_map: map for queries, shape (dimensions, width).
    """

    mean: FloatArray
    document_map: FloatArray
    query_map: FloatArray

    @classmethod
    def sketch(cls, config: FDEConfig) -> Projection:
        """The final projection of ``config``."""
        matrices = FDEMatrices.draw(config)
        assert matrices.sketch_index is not None
        assert matrices.sketch_sign is not None
        sketch = np.zeros((config.sketched_from, config.output_dimension), dtype=np.float32)
        sketch[np.arange(config.sketched_from), matrices.sketch_index] = matrices.sketch_sign
        return cls(np.zeros(config.sketched_from, dtype=np.float32), sketch, sketch)

    @classmethod
    def principal(cls, documents: FloatArray, queries: FloatArray | None = None) -> dict[int, Projection]:
        """The largest principal components of documents (n, dimensions), by their number; whitened by ``queries``.

        X is the centred documents. SXᵀ = VΛ½Uᵀ follows from XS²Xᵀ = UΛUᵀ, a matrix of width n. Documents are mapped by
        SV = S²XᵀUΛ^-½, and queries by S⁻¹V = XᵀUΛ^-½, so S itself is not needed.
        """
        mean = documents.mean(axis=0)
        centred = documents - mean
        gram, mapped = centred @ centred.T, centred.T
        if queries is not None:
            floor = np.float32(_FLOOR * np.square(queries).mean())
            products = queries @ centred.T / np.float32(np.sqrt(len(queries)))
            gram = products.T @ products + floor * gram
            mapped = queries.T @ products / np.float32(np.sqrt(len(queries))) + floor * mapped
        values, vectors = np.linalg.eigh(gram.astype(np.float64))
        largest = slice(None, -max(WIDTHS) - 1, -1)
        components = (vectors[:, largest] / np.sqrt(values[largest])).astype(np.float32)
        document_map, query_map = mapped @ components, centred.T @ components
        return {width: cls(mean, document_map[:, :width], query_map[:, :width]) for width in WIDTHS}


@dataclass(frozen=True)
class Row:
    """The result of one way to encode documents.

    Attributes:
        name: the encoding, and the way it is compressed.
        shares: share of the exact top among the candidates, by width; at 0 that of the uncompressed encoding.
        fit_seconds: time of fitting, without encoding the documents that it is fitted to.
        document_microseconds: time to encode a document, at the largest width.
    """

    name: str
    shares: dict[int, float]
    fit_seconds: float
    document_microseconds: float


def main() -> None:
    collection, best, plot = begin(__doc__, K)
    print(describe_machine())
    print(f"{collection.name}: {len(collection.documents)} documents, {len(collection.queries)} queries")
    print(f"{'':44}{'whole':>8}" + "".join(f"{width:>8}" for width in WIDTHS) + f"{'fit s':>8}{'µs/doc':>8}")
    rows = [learned(collection, best)]
    report(rows[0])
    for name, config in ENCODINGS.items():
        for row in compressed(name, config, collection, best):
            report(row)
            rows.append(row)
    if plot:
        draw(rows, f"{collection.name}, {len(collection.documents)} passages", plot)


def learned(collection: Embedded, best: IntArray) -> Row:
    start = time.perf_counter()
    widest = LearnedSetEncoder.fit(collection.documents, LearnedSetEncoderConfig(output_dimension=max(WIDTHS)))
    fitted = time.perf_counter()
    vectors = widest.encode_documents(collection.documents)
    end = time.perf_counter()
    queries = widest.encode_queries(collection.queries)
    # The last dimension makes all lengths equal, and is 0 in queries.
    shares = {width: share(queries[:, : width - 1], vectors[:, : width - 1], best) for width in WIDTHS}
    return Row("learned", shares, fitted - start, (end - fitted) / len(vectors) * 1e6)


def compressed(name: str, config: FDEConfig, collection: Embedded, best: IntArray) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    encoder = FixedDimensionalEncoder(config)
    start = time.perf_counter()
    encodings = encoder.encode_documents(collection.documents)
    encoding = time.perf_counter() - start
    queries = encoder.encode_queries(collection.queries)
    pseudo_queries = encoder.encode_queries(
        TokenEmbeddings.from_list(runs_of_tokens(collection.documents, _SAMPLE, rng))
    )
    sample = rng.permutation(len(encodings))[:_SAMPLE]
    sketches = {width: Projection.sketch(replace(config, final_projection_dimension=width)) for width in WIDTHS}
    ways: dict[str, Callable[[FloatArray], dict[int, Projection]]] = {
        "sketch": lambda _: sketches,
        "PCA": Projection.principal,
        "whitened PCA": partial(Projection.principal, queries=pseudo_queries),
    }
    for scaling, vectors in (("unit length", unit_length(encodings)), ("plain", encodings)):
        whole = {0: share(queries, vectors, best)}
        for way, fit in ways.items():
            start = time.perf_counter()
            projections = fit(vectors[sample])
            fitting = time.perf_counter() - start
            shares = {}
            for width, projection in projections.items():
                start = time.perf_counter()
                centred: FloatArray = vectors - projection.mean
                mapped: FloatArray = centred @ projection.document_map
                mapping = time.perf_counter() - start
                shares[width] = share(queries @ projection.query_map, mapped, best)
            per_document = (encoding + mapping) / len(vectors) * 1e6
            yield Row(f"{name}, {scaling}, {way}", whole | shares, fitting, per_document)


def share(queries: FloatArray, vectors: FloatArray, best: IntArray) -> float:
    return share_found(places_by_score(queries @ vectors.T, best), N_CANDIDATES)


def report(row: Row) -> None:
    shares = "".join(f"{row.shares[width]:>8.3f}" if width in row.shares else f"{'':8}" for width in (0, *WIDTHS))
    print(f"{row.name:44}{shares}{row.fit_seconds:>8.1f}{row.document_microseconds:>8.0f}", flush=True)


def draw(rows: list[Row], title: str, path: Path) -> None:
    """Draw the shares of encodings of unit length, and of the learned encoding."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(WIDTHS, [rows[0].shares[width] for width in WIDTHS], color="black", marker=".", label=rows[0].name)
    for color, encoding in zip(("C0", "C1"), ENCODINGS, strict=True):
        scaled = [row for row in rows if row.name.startswith(f"{encoding}, unit length")]
        axes.axhline(scaled[0].shares[0], color=color, linewidth=0.8, label=f"{encoding}, whole")
        for row, style in zip(scaled, (":", "--", "-"), strict=True):
            label = row.name.replace(" unit length,", "")
            axes.plot(WIDTHS, [row.shares[w] for w in WIDTHS], style, color=color, marker=".", label=label)
    axes.set(xscale="log", xlabel="dimensions", ylabel=f"share of exact top {K} among {N_CANDIDATES}", title=title)
    axes.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
