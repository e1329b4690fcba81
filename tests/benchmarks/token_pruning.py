"""Pruning document tokens beside pooling them and dropping them at random: what exact MaxSim finds, and time.

usage: python tests/benchmarks/token_pruning.py FOLDER... [--questions 300] [--shares .75 .5] [--others N]

All rules use the same token embeddings of the bundled encoder, keep the first token of each document, and leave nearly
the same number of vectors. "Kept" is the share of the top 10 of exact MaxSim over all tokens that exact MaxSim over the
tokens left finds. "Pooled" at .75 cuts the tree of pooling where three quarters of the vectors are left, which no
setting of an index does. Rows are int8, as in an index. Times are processor time per document.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
from embedded import Embedded, collection_parser, embed
from machine import describe_machine

from muvera_core import TokenEmbeddings
from muvera_core.encoders import TokenReduction
from muvera_core.encoders.token_pooling import _clusters, _means
from muvera_core.encoders.token_pruning import kept_length
from muvera_core.evaluation.measures import ndcg_at_k
from muvera_core.maxsim import maxsim_of_many
from muvera_core.token_embeddings import FloatArray

K = 10
SHARES = (0.9, 0.75, 0.5, 1 / 3)
RANDOM_SHARES = (0.75, 0.5)
QUERIES_TOGETHER = 40

Rule = Callable[[TokenEmbeddings], TokenEmbeddings]


def main() -> None:
    parser = collection_parser(__doc__)
    next(action for action in parser._actions if action.dest == "folder").nargs = "+"
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES), help="shares of tokens to keep")
    arguments = parser.parse_args()
    print(describe_machine())
    for folder in arguments.folder:
        report(embed(Path(folder), arguments.cache, arguments.questions, others=arguments.others), arguments.shares)


def report(collection: Embedded, shares: list[float]) -> None:
    """Print a line for each rule."""
    print(f"{collection.name}: {len(collection.documents)} documents, {len(collection.queries)} queries")
    print(f"{'rule':<24}{'share':>7}{'nDCG':>8}{'kept':>7}{'ms/doc':>8}")
    full = best(collection, collection.documents)
    for name, rule in (("all", TokenReduction().apply), *rules(shares)):
        start = time.process_time()
        left = rule(collection.documents)
        ms = (time.process_time() - start) * 1000 / len(left)
        found = best(collection, left)
        share = len(left.vectors) / len(collection.documents.vectors)
        kept = mean(len(set(ids) & set(all_ids)) / K for ids, all_ids in zip(found, full, strict=True))
        print(f"{name:<24}{share:>7.3f}{ndcg(found, collection):>8.4f}{kept:>7.3f}{ms:>8.2f}", flush=True)


def rules(shares: list[float]) -> Iterator[tuple[str, Rule]]:
    """Names and rules, those of equal shares beside one another."""
    for share in shares:
        if share in RANDOM_SHARES:
            yield f"random, {share:.2f}", partial(at_random, share=share)
        yield f"keep_tokens={share:.2f}", TokenReduction(keep_tokens=share).apply
        yield f"pooled, {share:.2f}", partial(pooled, share=share)
    yield "pool_factor=2", TokenReduction(pool_factor=2).apply
    yield "keep .75, pool_factor=2", TokenReduction(keep_tokens=0.75, pool_factor=2).apply
    yield "pooled, 0.38", partial(pooled, share=0.375)


def at_random(documents: TokenEmbeddings, share: float) -> TokenEmbeddings:
    random = np.random.default_rng(0)

    def some(tokens: FloatArray) -> FloatArray:
        others = 1 + random.permutation(len(tokens) - 1)[: kept_length(len(tokens), share) - 1]
        kept: FloatArray = tokens[np.sort(np.append(others, 0))]
        return kept

    return TokenEmbeddings.from_list([some(tokens) for tokens in documents])


def pooled(documents: TokenEmbeddings, share: float) -> TokenEmbeddings:
    """Documents pooled to a share of their tokens."""

    def merged(tokens: FloatArray) -> FloatArray:
        n = math.ceil(len(tokens) * share) - 1
        if n < 1 or len(tokens) < 3:
            return tokens
        return np.concatenate([tokens[:1], _means(tokens[1:], _clusters(tokens[1:], n))])

    return TokenEmbeddings.from_list([merged(tokens) for tokens in documents])


def best(collection: Embedded, documents: TokenEmbeddings) -> list[list[int]]:
    """Numbers of the documents of highest MaxSim for each query, with rows of int8."""
    scales = np.maximum(np.abs(documents.vectors).max(axis=1), 1e-30) / np.float32(127)
    rows = np.rint(documents.vectors / scales[:, None]).astype(np.int8)
    queries = list(collection.queries)
    found: list[list[int]] = []
    for start in range(0, len(queries), QUERIES_TOGETHER):
        some = queries[start : start + QUERIES_TOGETHER]
        scores = maxsim_of_many(some, rows, scales.astype(np.float32), documents.offsets)
        found += [np.argsort(-of_query, kind="stable")[:K].tolist() for of_query in scores]
    return found


def ndcg(found: list[list[int]], collection: Embedded) -> float:
    graded = [{str(i): grade for i, grade in grades.items()} for grades in collection.relevance]
    return mean(ndcg_at_k([str(i) for i in ids], grades, K) for ids, grades in zip(found, graded, strict=True))


if __name__ == "__main__":
    main()
