"""Compare top-k, maximal marginal relevance and coverage: two-part questions, plain questions, near copies.

usage: python tests/benchmarks/coverage.py FOLDER [--questions 300] [--asked 150] [--copies 700] [--neighbors 5]

Two-part questions are made of two questions of the collection with different relevant passages: "A? And B?". Prints for
each choice of hits from the 50 best: the share of two-part questions for which both passages are among the first 5; for
plain questions nDCG@10, the share of relevant passages among the first 5, and the mean cosine of the first 5 hits'
FDEs; and the median time of a search for 5. With --copies, the corpus has only so many passages, and for each two
copies of it, without its last and without its first fifth; then a hit stands for its passage, and "distinct" is the
number of different passages among the first 5.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean, median
from typing import get_args

import numpy as np
from embedded import Embedded, collection_parser, embed, encoded_documents
from machine import describe_machine

from muvera_core import FDEConfig, FixedDimensionalEncoder, Hit, MuveraIndex, TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.measures import ndcg_at_k
from muvera_core.search import DiversityMethod
from muvera_core.token_embeddings import unit_length

K = 5
WEIGHTS = (0.0, 0.3, 0.5, 0.7)
Choose = Callable[[str, int], list[Hit]]


@dataclass(frozen=True)
class Corpus:
    """Documents, the passage that each of them is or is a copy of, and questions with their relevant passages."""

    texts: list[str]
    tokens: TokenEmbeddings
    passages: list[int]
    plain: list[tuple[str, set[int]]]
    two_part: list[tuple[str, set[int], set[int]]]


def main() -> None:
    parser = collection_parser(__doc__)
    parser.add_argument("--asked", type=int, default=150, help="number of plain and of two-part questions")
    parser.add_argument("--copies", type=int, help="passages of a corpus with two near copies of each")
    parser.add_argument("--neighbors", type=int, default=5, help="neighbours of each of the best hits")
    parser.add_argument("--weights", type=float, nargs="*", default=WEIGHTS, help="relevance weights")
    arguments = parser.parse_args()
    embedded = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    corpus = make_corpus(embedded, arguments.asked, arguments.copies, arguments.cache)
    print(describe_machine())
    print(
        f"{embedded.name}: {len(corpus.texts)} documents of {len(set(corpus.passages))} passages, "
        f"{len(corpus.plain)} plain and {len(corpus.two_part)} two-part questions"
    )
    print(f"{'':32} both@5  nDCG@10  recall@5  cosine  distinct      ms")
    with MuveraIndex.create(None, BundledEncoder()) as index:
        index.add_embeddings(corpus.tokens, ids=[str(i) for i in range(len(corpus.texts))], texts=corpus.texts)
        cosine = Cosines(corpus.tokens)
        for name, choose in choices(index, arguments.weights, arguments.neighbors).items():
            report(name, corpus, choose, cosine)


def choices(index: MuveraIndex, weights: Sequence[float], n_neighbors: int) -> dict[str, Choose]:
    """The ways to choose hits, by name."""

    def diverse(method: DiversityMethod, weight: float, n: int) -> Choose:
        return lambda query, k: index.search_diverse(query, k, method=method, relevance_weight=weight, n_neighbors=n)

    found: dict[str, Choose] = {"top-k": lambda query, k: index.search(query, k)}
    for n in (0, n_neighbors):
        for method in get_args(DiversityMethod):
            for weight in weights if n == 0 else (0.5,):
                found[f"{method} {weight}{f' + {n} neighbours' if n else ''}"] = diverse(method, weight, n)
    return found


def report(name: str, corpus: Corpus, choose: Choose, cosine: Cosines) -> None:
    """Print a row."""
    both, ndcg, recall, cosines, distinct, times = [], [], [], [], [], []
    for query, first, second in corpus.two_part:
        start = time.perf_counter()
        hits = choose(query, K)
        times.append(time.perf_counter() - start)
        found = {corpus.passages[int(hit.id)] for hit in hits}
        both.append(bool(found & first) and bool(found & second))
    for query, relevant in corpus.plain:
        places = [int(hit.id) for hit in choose(query, 10)]
        found_in_order = list(dict.fromkeys(corpus.passages[place] for place in places))
        ndcg.append(ndcg_at_k([str(p) for p in found_in_order], {str(p): 1.0 for p in relevant}, 10))
        best = {corpus.passages[place] for place in places[:K]}
        recall.append(len(best & relevant) / len(relevant))
        distinct.append(len(best))
        cosines.append(cosine.mean(places[:K]))
    print(
        f"{name:32} {mean(both):6.3f} {mean(ndcg):8.3f} {mean(recall):9.3f} {mean(cosines):7.3f} "
        f"{mean(distinct):9.2f} {median(times) * 1000:7.1f}",
        flush=True,
    )


class Cosines:
    """Cosines of documents' FDEs, each of which is computed once."""

    def __init__(self, tokens: TokenEmbeddings) -> None:
        self._tokens, self._encoder = tokens, FixedDimensionalEncoder(FDEConfig(dimension=tokens.dimension))
        self._vectors: dict[int, np.ndarray] = {}

    def mean(self, places: Sequence[int]) -> float:
        """The mean over the pairs of some documents."""
        for place in places:
            if place not in self._vectors:
                encoded = self._encoder.encode_documents(TokenEmbeddings.from_list([self._tokens[place]]))
                self._vectors[place] = unit_length(encoded)[0]
        return float(np.mean([self._vectors[a] @ self._vectors[b] for a, b in combinations(places, 2)]))


def make_corpus(embedded: Embedded, n_asked: int, n_with_copies: int | None, cache: Path) -> Corpus:
    """The collection, or passages of it with two near copies each, and questions about it."""
    chance = random.Random(3)
    asked = [(text, set(of_it)) for text, of_it in zip(embedded.query_texts, embedded.relevance, strict=True) if of_it]
    texts, tokens, passages = embedded.texts, embedded.documents, list(range(len(embedded.texts)))
    if n_with_copies is not None:
        kept = sorted({passage for _, relevant in asked for passage in relevant})[:n_with_copies]
        others = [passage for passage in passages if passage not in set(kept)]
        kept += chance.sample(others, min(n_with_copies - len(kept), len(others)))
        copies = [copy for passage in kept for copy in near_copies(texts[passage])]
        of_copies = encoded_documents(copies, cache / f"{embedded.name}-copies-{n_with_copies}")
        texts = [*(texts[passage] for passage in kept), *copies]
        tokens = TokenEmbeddings.from_list([*(tokens[passage] for passage in kept), *of_copies])
        passages = [*kept, *(passage for passage in kept for _ in range(2))]
        asked = [(text, relevant) for text, relevant in asked if relevant <= set(kept)]
    chance.shuffle(asked)
    pairs = zip(asked[0::2], asked[1::2], strict=False)
    two_part = [(joined(a[0], b[0]), a[1], b[1]) for a, b in pairs if not a[1] & b[1]]
    return Corpus(texts, tokens, passages, asked[:n_asked], two_part[:n_asked])


def near_copies(text: str) -> tuple[str, str]:
    """The text without its last, and without its first fifth."""
    words = text.split()
    fifth = max(1, len(words) // 5)
    return " ".join(words[:-fifth] or words), " ".join(words[fifth:] or words)


def joined(first: str, second: str) -> str:
    """Two questions as one."""
    one, other = (question.strip().rstrip("?.") for question in (first, second))
    return f"{one}? And {other}?"


if __name__ == "__main__":
    main()
