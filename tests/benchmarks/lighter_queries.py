"""What shorter queries save and lose: ball carving for the choice of the documents that are ranked by all tokens.

usage: python tests/benchmarks/lighter_queries.py FOLDER... [--cache FOLDER] [--questions 100] [--others 1500]
       python tests/benchmarks/lighter_queries.py --colbert-sample FOLDER

"Kept" is the share of the ten hits of a search without a reduction that is found: by the search with one, which ranks a
shortlist by all tokens, and by balls alone. Times are processor time of a search from token embeddings to hits, medians
over all queries; all sides take turns, query by query. The folder of the sample has token embeddings of ColBERTv2.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean, median

import numpy as np
from embedded import collection_parser, embed
from machine import describe_machine

from muvera_core import MuveraIndex, QueryReduction, TokenEmbeddings, maxsim
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.evaluation.measures import ndcg_at_k
from muvera_core.search.query_reduction import carve_balls
from muvera_core.token_embeddings import FloatArray

K = 10
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
ROUNDS = 3
# Copies of the sample's documents, so that a search has 400 candidates.
COPIES = 12


def main() -> None:
    parser = collection_parser(__doc__)
    next(action for action in parser._actions if action.dest == "folder").nargs = "*"
    parser.add_argument("--colbert-sample", type=Path)
    parser.add_argument("--precision", default="int8", help="how tokens are stored (default: int8)")
    parser.set_defaults(questions=100)
    arguments = parser.parse_args()
    print(describe_machine())
    for folder in arguments.folder:
        collection = embed(folder, arguments.cache, arguments.questions, others=arguments.others)
        report(collection.name, collection.documents, list(collection.queries), collection.relevance, arguments)
    if arguments.colbert_sample is not None:
        report_sample(arguments.colbert_sample, arguments)


def report(
    name: str,
    documents: TokenEmbeddings,
    queries: list[FloatArray],
    relevance: list[dict[int, float]],
    arguments: argparse.Namespace,
) -> None:
    """Print a line for the search as it is, and for each threshold."""
    sides = [None, *(QueryReduction(ball_threshold=threshold) for threshold in THRESHOLDS)]
    with MuveraIndex.create(
        None, PrecomputedEmbeddings(documents.dimension, name), token_precision=arguments.precision
    ) as index:
        index.add_embeddings(documents, ids=[str(i) for i in range(len(documents))])
        found: list[list[list[str]]] = [[] for _ in sides]
        times: list[list[float]] = [[] for _ in sides]
        for query in queries:
            hits, seconds = search_in_turns(index, query, sides)
            for of_side, times_of_side, ids, least in zip(found, times, hits, seconds, strict=True):
                of_side.append(ids)
                times_of_side.append(least)
        plan = index.plan(K)
    print(f"{name}: {len(documents)} documents, {len(queries)} queries, {plan.n_candidates} candidates, "
          f"tokens in {arguments.precision}")  # fmt: skip
    print(
        f"{'threshold':>10}{'tokens':>8}{'nDCG':>7}{'kept':>7}{'balls alone: nDCG':>19}{'kept':>7}{'ms':>7}{'ratio':>7}"
    )
    graded = [{str(i): grade for i, grade in grades.items()} for grades in relevance]
    for side, found_ids, seconds_of_side in zip(sides, found, times, strict=True):
        short = [query if side is None else side.apply(query) for query in queries]
        alone = ranked_alone(short, documents)
        cells = (
            f"{'none' if side is None else side.ball_threshold!s:>10}",
            f"{mean(map(len, short)):>8.1f}{ndcg(found_ids, graded):>7.3f}{kept(found_ids, found[0]):>7.3f}",
            f"{ndcg(alone, graded):>19.3f}{kept(alone, found[0]):>7.3f}",
            f"{median(seconds_of_side) * 1000:>7.2f}{median(seconds_of_side) / median(times[0]):>7.2f}",
        )
        print("".join(cells), flush=True)


def search_in_turns(
    index: MuveraIndex, query: FloatArray, sides: list[QueryReduction | None]
) -> tuple[list[list[str]], list[float]]:
    """Ids that each side finds, and its least processor time in a few rounds."""
    hits: list[list[str]] = [[] for _ in sides]
    seconds = [np.inf] * len(sides)
    for _ in range(ROUNDS):
        for i, side in enumerate(sides):
            start = time.process_time()
            found = index.search_embeddings(query, K, query_reduction=side)
            seconds[i] = min(seconds[i], time.process_time() - start)
            hits[i] = [hit.id for hit in found]
    return hits, seconds


def report_sample(folder: Path, arguments: argparse.Namespace) -> None:
    """What balls find alone among the sample's documents, and what a search of copies of them costs."""
    documents, queries = (read_sample(folder / name) for name in ("documents.npz", "queries.npz"))
    copies = TokenEmbeddings.from_list([tokens for _ in range(COPIES) for tokens in documents])
    report("ColBERTv2, copies", copies, queries, [{} for _ in queries], arguments)
    full = ranked_alone(queries, TokenEmbeddings.from_list(documents))
    for threshold in THRESHOLDS:
        balls = ranked_alone([carve_balls(query, threshold) for query in queries], TokenEmbeddings.from_list(documents))
        print(f"balls alone, {len(documents)} documents, threshold {threshold}: kept {kept(balls, full):.3f}")


def read_sample(path: Path) -> list[FloatArray]:
    with np.load(path, allow_pickle=False) as arrays:
        ends = np.cumsum(arrays["lens"])
        return [vectors.astype(np.float32) for vectors in np.split(arrays["vectors"], ends[:-1])]


def ranked_alone(queries: list[FloatArray], documents: TokenEmbeddings) -> list[list[str]]:
    """Ids of the best of all documents for each query, by all tokens that it has."""
    return [[str(i) for i in np.argsort(-maxsim(query, documents), kind="stable")[:K]] for query in queries]


def ndcg(found: list[list[str]], graded: list[dict[str, float]]) -> float:
    return mean(ndcg_at_k(ids, grades, K) if grades else 0.0 for ids, grades in zip(found, graded, strict=True))


def kept(found: list[list[str]], expected: list[list[str]]) -> float:
    return mean(len(set(ids) & set(best)) / len(best) for ids, best in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
