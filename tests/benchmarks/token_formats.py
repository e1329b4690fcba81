"""Formats of stored tokens: bytes, and what exact MaxSim over them finds, alone and behind a pass over leading bits.

usage: python tests/benchmarks/token_formats.py FOLDER [--cache FOLDER] [--questions 100] [--others N]

Each query's 200 best passages by MaxSim over the given tokens are ranked again from tokens in each format. "fidelity"
is the share of the 10 best that are among its 10 best. "cascade" is the same if the leading bits of the format choose
50 of the 200 first. "in 50" is the share that is among these 50. The cached tokens are rounded to int8, so int8 itself
is the reference and loses nothing here. Besides the formats of the index, alternatives of about the same size are
tried: no rotation; 2 bits for the residual of the nearest of some learned centroids; principal components, with more
bits for those of larger variance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import mean

import numpy as np
import numpy.typing as npt
from embedded import Embedded, collection_parser, embed, exact_top
from machine import describe_machine

from muvera_core.evaluation.measures import ndcg_at_k
from muvera_core.maxsim.cpu import maxsim_scaled
from muvera_core.storage.rotation import rotate
from muvera_core.storage.token_codec import PRECISIONS, TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

K, CANDIDATES, SHORTLIST = 10, 200, 50
# Thresholds between the best 4 levels for a normal distribution, and the levels (Max, 1960).
THRESHOLD, LEVELS = 0.9816, (0.4528, 1.510)
Format = tuple[str, float, FloatArray, FloatArray | None]  # name, bytes a token, tokens, tokens by leading bits


def main() -> None:
    arguments = collection_parser(__doc__).parse_args()
    collection = embed(arguments.folder, arguments.cache, min(arguments.questions, 100), others=arguments.others)
    print(describe_machine())
    report(collection)


def report(collection: Embedded) -> None:
    """Print a line for each format."""
    expected = exact_top(collection.queries, collection.documents, CANDIDATES)
    used = np.unique(np.concatenate(expected))
    documents = TokenEmbeddings.from_list([collection.documents[int(i)] for i in used])
    candidates = [np.searchsorted(used, np.sort(best)) for best in expected]
    print(f"{collection.name}: {len(collection.queries)} queries, {len(documents.vectors)} tokens of their candidates")
    print(f"{'format':<34}{'bytes':>7}{'fidelity@10':>13}{'nDCG@10':>9}{'in 50':>8}{'cascade':>9}")
    for name, size, tokens, leading in formats(documents):
        alone, shortlists, cascade = [], [], []
        for query, some in zip(collection.queries, candidates, strict=True):
            alone.append(best_of(query, tokens, documents.offsets, some))
            if leading is not None:
                shortlists.append(best_of(query, leading, documents.offsets, some)[:SHORTLIST])
                cascade.append(best_of(query, tokens, documents.offsets, np.sort(shortlists[-1])))
        ndcg = mean(
            ndcg_at_k([str(used[i]) for i in found], {str(i): grade for i, grade in grades.items()}, K)
            for found, grades in zip(alone, collection.relevance, strict=True)
        )
        wanted = [np.searchsorted(used, best[:K]) for best in expected]
        leading_columns = (
            f"{kept(shortlists, wanted, SHORTLIST):>8.3f}{kept(cascade, wanted, K):>9.3f}" if cascade else ""
        )
        print(f"{name:<34}{size:>7.0f}{kept(alone, wanted, K):>13.3f}{ndcg:>9.3f}{leading_columns}", flush=True)


def best_of(query: FloatArray, tokens: FloatArray, offsets: IntArray, documents: IntArray) -> IntArray:
    """The documents by falling MaxSim."""
    rows = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in documents])
    bounds = np.cumsum(np.r_[0, np.diff(offsets)[documents]])
    return documents[np.argsort(-maxsim_scaled(query, tokens[rows], None, bounds), kind="stable")]


def kept(found: list[IntArray], wanted: list[IntArray], n: int) -> float:
    """The mean share of the wanted documents among the first ``n`` found."""
    return mean(len(set(some[:n].tolist()) & set(best.tolist())) / K for some, best in zip(found, wanted, strict=True))


def formats(documents: TokenEmbeddings) -> Iterator[Format]:
    """The formats, with the documents' tokens rounded to each."""
    vectors, d = documents.vectors, documents.dimension
    for precision in PRECISIONS:
        codec = TokenCodec(precision, d)
        rows = codec.encode(vectors, documents.offsets)
        leading = None
        if codec.is_sliced:
            codes, scales = codec.split(rows, documents.offsets, coarse=True)
            assert scales is not None
            # Inner products with rotated tokens are those with rotated queries; only the order matters here.
            leading = (codes * scales[:, None]) @ rotate(np.eye(d, dtype=np.float32)).T
        yield precision, codec.row_dtype.itemsize, codec.decode(rows, documents.offsets), leading
    yield "2 bits, not rotated", d / 4 + 2, two_bits(vectors), None
    for n in (256, 2048):
        nearest = nearest_centroids(vectors, n)
        residuals = vectors - nearest
        yield f"{n} centroids, 2 bits of residuals", d / 4 + 4, nearest + rotated(two_bits, residuals), None
    for bits in (2 * d, 3 * d):
        yield f"principal components, {bits} bits", bits / 8 + 2, by_variance(vectors, bits), None


def rotated(rounding: Callable[[FloatArray], FloatArray], vectors: FloatArray) -> FloatArray:
    """Vectors that are rounded after the index's rotation."""
    return rounding(rotate(vectors)) @ rotate(np.eye(vectors.shape[1], dtype=np.float32)).T


def two_bits(vectors: FloatArray) -> FloatArray:
    """Each number rounded to one of four levels of its token, scaled to keep the token's product with itself."""
    deviation = np.sqrt((vectors**2).mean(axis=1, keepdims=True))
    magnitudes = np.where(np.abs(vectors) > THRESHOLD * deviation, *map(np.float32, LEVELS[::-1]))
    rounded = np.copysign(magnitudes, vectors)
    products, squares = (rounded * vectors).sum(axis=1, keepdims=True), (vectors**2).sum(axis=1, keepdims=True)
    scaled: FloatArray = rounded * squares / np.maximum(products, 1e-9)
    return scaled


def nearest_centroids(vectors: FloatArray, n: int) -> FloatArray:
    """Each token's nearest centroid of ``n`` that k-means learns from a sample."""
    rng = np.random.default_rng(0)
    sample = vectors[rng.permutation(len(vectors))[: 20 * n]]
    centroids = sample[:n].copy()
    for _ in range(5):
        places = nearest_places(sample, centroids)
        order, counts = np.argsort(places, kind="stable"), np.bincount(places, minlength=n)
        filled = np.flatnonzero(counts)
        sums = np.add.reduceat(sample[order], (np.cumsum(counts) - counts)[filled], axis=0)
        centroids[filled] = sums / counts[filled, None]
    return centroids[nearest_places(vectors, centroids)]


def nearest_places(vectors: FloatArray, centroids: FloatArray) -> npt.NDArray[np.int64]:
    squares = (centroids**2).sum(axis=1) / 2
    parts = [vectors[i : i + 8192] @ centroids.T - squares for i in range(0, len(vectors), 8192)]
    return np.concatenate([part.argmax(axis=1) for part in parts])


def by_variance(vectors: FloatArray, bits: int) -> FloatArray:
    """Principal components, each with as many bits as lower the error most, from levels of a normal distribution."""
    _, components = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
    numbers = vectors @ components.astype(np.float32)
    deviation = np.sqrt((numbers**2).mean(axis=0))
    errors = np.array([1, 0.3634, 0.1175, 0.03454, 0.009497, 0.002499, 0.000641, 0])  # with 0 to 6 bits (Max, 1960)
    spent = np.zeros(len(deviation), dtype=np.int64)
    for _ in range(bits):
        gains = np.where(spent < 6, deviation**2 * (errors[spent] - errors[spent + 1]), -1)
        spent[gains.argmax()] += 1
    sample = np.sort(np.random.default_rng(0).standard_normal(100_000).astype(np.float32))
    for n in np.unique(spent):
        columns = spent == n
        levels = lloyd(sample, 1 << int(n))
        edges = (levels[1:] + levels[:-1]) / 2
        numbers[:, columns] = levels[np.searchsorted(edges, numbers[:, columns] / deviation[columns])]
        numbers[:, columns] *= deviation[columns]
    rounded: FloatArray = numbers @ components.T.astype(np.float32)
    products = (rounded * vectors).sum(axis=1, keepdims=True)
    scaled: FloatArray = rounded * (vectors**2).sum(axis=1, keepdims=True) / np.maximum(products, 1e-9)
    return scaled


def lloyd(sample: FloatArray, n: int) -> FloatArray:
    """The best ``n`` levels for sorted numbers."""
    levels = sample[(np.arange(n) * 2 + 1) * len(sample) // (2 * n)].copy()
    for _ in range(100):
        bounds = np.searchsorted(sample, (levels[1:] + levels[:-1]) / 2)
        levels = np.array([part.mean() for part in np.split(sample, bounds)], dtype=np.float32)
    return levels


if __name__ == "__main__":
    main()
