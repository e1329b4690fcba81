"""Exact search on a GPU by coarse scores: how many documents lie within the bound, and what coarse scores alone find.

usage: python tests/benchmarks/one_product.py FOLDER [--cache FOLDER] [--questions 100] [--others N]

On a GPU, each number of a query is split into a coarse and a fine one. Coarse scores leave the fine ones out, which
takes half of the products. They differ from full scores by at most a bound, so only documents whose coarse scores are
within twice the bound of the tenth best are scored in full (see core/muvera_core/cuda/exact.cu). NumPy does the same
here, without a GPU, for passages with the bundled encoder's tokens, and for random ones as in gpu.py.

- "recall", "order": the share of the 10 best by full scores that are among the 10 best by coarse scores, and the share
  of queries for which these are the same in the same order. "change" is the largest difference of two scores.
- "within": documents within twice the bound, the median and the largest number, and the share of all documents in the
  mean. The share at a quarter of the passages shows how it changes with their number.
- "error": the largest difference divided by the bound.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from embedded import collection_parser, embed
from machine import describe_machine

from muvera_core.cuda.row_layout import RowLayout
from muvera_core.storage.token_codec import TokenCodec, TokenPrecision
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

K = 10
PRECISIONS: tuple[TokenPrecision, ...] = ("int8", "8bit", "4bit", "2bit", "float16")
RANDOM_PASSAGES, RANDOM_QUERIES, PASSAGE_TOKENS, QUERY_TOKENS, D = 8192, 8, 120, 32, 128
# The number of passages for which the share of random ones within the bound is estimated.
MANY = 1_000_000
_TOKENS_TOGETHER = 32_768


class Rows(NamedTuple):
    """Token rows as the kernels read them: codes as float32, (tokens, dimension), and a scale for each."""

    codes: FloatArray
    scales: FloatArray
    offsets: IntArray


class Split(NamedTuple):
    """A query's numbers, float32, (tokens, dimension), all in multiples of its tokens' scales."""

    coarse: FloatArray
    fine: FloatArray
    scales: FloatArray


class Result(NamedTuple):
    """One query's scores of all documents, and the bound of their differences."""

    coarse: FloatArray
    full: FloatArray
    bound: float

    def within(self, n: int) -> int:
        """How many of the first ``n`` documents are within twice the bound of the ``K``-th best of them."""
        some = self.coarse[:n]
        return int((some >= np.partition(some, -K)[-K] - 2 * self.bound).sum())


def main() -> None:
    arguments = collection_parser(__doc__).parse_args()
    collection = embed(arguments.folder, arguments.cache, min(arguments.questions, 100), others=arguments.others)
    print(describe_machine())
    lengths = collection.queries.lengths
    print(
        f"{collection.name}: {len(collection.queries)} queries of {lengths.mean():.0f} tokens, "
        f"{len(collection.documents)} passages of {collection.documents.lengths.mean():.0f}"
    )
    order = np.random.default_rng(0).permutation(len(collection.documents))
    documents = TokenEmbeddings.from_list([collection.documents[int(i)] for i in order])
    report(collection.queries, documents)
    print(
        f"\nrandom: {RANDOM_QUERIES} queries of {QUERY_TOKENS} tokens, {RANDOM_PASSAGES} passages of {PASSAGE_TOKENS}"
    )
    rng = np.random.default_rng(1)
    report(random_sets(rng, RANDOM_QUERIES, QUERY_TOKENS), random_sets(rng, RANDOM_PASSAGES, PASSAGE_TOKENS), MANY)


def report(queries: TokenEmbeddings, documents: TokenEmbeddings, many: int | None = None) -> None:
    """Print a line for each format of rows."""
    n = len(documents)
    print(
        f"{'rows':<10}{'recall':>9}{'order':>8}{'change':>9}{'within':>9}{'largest':>9}{'share':>8}{'of n/4':>8}"
        f"{'error':>8}" + (f"{f'share of {many:,}':>20}" if many else "")
    )
    for precision in PRECISIONS:
        results = all_results(precision, queries, documents)
        best = [(top(result.coarse), top(result.full)) for result in results]
        recall = np.mean([len(np.intersect1d(*pair)) / K for pair in best])
        order = np.mean([np.array_equal(*pair) for pair in best])
        changes = [np.abs(result.coarse - result.full).max() for result in results]
        errors = [change / result.bound for change, result in zip(changes, results, strict=True)]
        within = [result.within(n) for result in results]
        of_quarter = np.mean([result.within(n // 4) for result in results]) / (n // 4)
        at_many = f"{np.mean([share_of_many(result, many) for result in results]):>20.2%}" if many else ""
        print(
            f"{precision:<10}{recall:>9.3f}{order:>8.2f}{max(changes):>9.4f}{np.median(within):>9.0f}{max(within):>9}"
            f"{np.mean(within) / n:>8.2%}{of_quarter:>8.2%}{max(errors):>8.3f}{at_many}",
            flush=True,
        )


def share_of_many(result: Result, n: int) -> float:
    """The share of ``n`` documents within the bound, if scores are distributed normally, as those of random ones."""
    scores = NormalDist.from_samples(result.coarse.tolist())
    least = scores.inv_cdf(1 - K / n) - 2 * result.bound
    return 1 - scores.cdf(least)


def all_results(precision: TokenPrecision, queries: TokenEmbeddings, documents: TokenEmbeddings) -> list[Result]:
    """Both scores and the bound for each query."""
    codec = TokenCodec(precision, documents.vectors.shape[1])
    codes, scales = codec.split(codec.encode(documents.vectors, documents.offsets), documents.offsets)
    rows = Rows(
        codes.astype(np.float32),
        np.ones(len(codes), dtype=np.float32) if scales is None else scales,
        documents.offsets,
    )
    largest = float((np.linalg.norm(rows.codes, axis=1) * rows.scales).max())
    splits = [split(codec.to_codec_space(query), codec) for query in queries]
    bounds = [float((part.scales * np.linalg.norm(part.fine, axis=1)).sum()) * largest for part in splits]
    coarse = scores_of([part.coarse * part.scales[:, None] for part in splits], rows)
    full = scores_of([(part.coarse + part.fine) * part.scales[:, None] for part in splits], rows)
    return [Result(*some) for some in zip(coarse, full, bounds, strict=True)]


def split(query: FloatArray, codec: TokenCodec) -> Split:
    """What the kernel ``split_queries`` does."""
    largest = np.abs(query).max(axis=1, keepdims=True)
    share = query / np.where(largest > 0, largest, 1)
    layout = RowLayout.of(codec)
    if not layout.is_int8:
        coarse = share.astype(np.float16).astype(np.float32)
        fine = (share - coarse).astype(np.float16).astype(np.float32)
        return Split(coarse, fine, largest[:, 0])
    whole = np.rint(share * np.float32(layout.limit))
    coarse = 128 * np.trunc((whole + np.where(whole >= 0, 64, -64)) / 128)
    return Split(coarse, whole - coarse, largest[:, 0] / layout.limit)


def scores_of(queries: list[FloatArray], rows: Rows) -> FloatArray:
    """MaxSim, float32, (queries, documents)."""
    tokens = np.concatenate(queries)
    first = np.cumsum([0, *(len(query) for query in queries[:-1])])
    scores = np.empty((len(queries), len(rows.offsets) - 1), dtype=np.float32)
    bounds = np.unique(np.searchsorted(rows.offsets, np.arange(0, rows.offsets[-1], _TOKENS_TOGETHER)))
    for low, high in zip(bounds, [*bounds[1:], len(rows.offsets) - 1], strict=True):
        some = slice(rows.offsets[low], rows.offsets[high])
        products = (tokens @ rows.codes[some].T) * rows.scales[some]
        best: FloatArray = np.maximum.reduceat(products, rows.offsets[low:high] - rows.offsets[low], axis=1)
        scores[:, low:high] = np.add.reduceat(best, first, axis=0)
    return scores


def top(scores: FloatArray) -> npt.NDArray[np.int64]:
    """The ``K`` best documents."""
    return np.argsort(-scores, kind="stable")[:K]


def random_sets(rng: np.random.Generator, n: int, n_tokens: int) -> TokenEmbeddings:
    """Sets of random unit vectors."""
    vectors = rng.standard_normal((n * n_tokens, D), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return TokenEmbeddings(vectors, np.arange(n + 1, dtype=np.int64) * n_tokens)


if __name__ == "__main__":
    main()
