"""Hybrid search beside its two parts, on collections in BEIR's format.

usage: python tests/benchmarks/hybrid.py FOLDER [FOLDER ...] [--questions 300] [--k 10]

For each collection, in one run: nDCG@10 of BM25, late interaction, reciprocal rank fusion, hybrid with constant shares,
hybrid by question, and hybrid with what is not relevant left out (calibrated on every other question, measured on the
others); how often an identifier or a phrase that one passage has is found first; and the median milliseconds of a
search. The difference of hybrid to the better part comes with a 95 % interval (paired bootstrap).
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median

import numpy as np
from embedded import Embedded, embed
from machine import describe_machine

from muvera_core import Hit, MuveraIndex
from muvera_core.evaluation import ndcg_at_k

_SHARES = (0.1, 0.2, 0.3)
_LEAST_RELEVANCE = 0.1
_IDENTIFIER = re.compile(r"(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_./-]{2,}[A-Za-z0-9]")
_N_EXACT = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--questions", type=int, default=300, help="number of queries, drawn at random (default: 300)")
    parser.add_argument("--k", type=int, default=10)
    cache = Path(tempfile.gettempdir()) / "muvera-benchmarks"
    parser.add_argument("--cache", type=Path, default=cache, help="folder that caches the token embeddings")
    arguments = parser.parse_args()
    print(describe_machine())
    gains = [measure(embed(folder, arguments.cache, arguments.questions), arguments.k) for folder in arguments.folders]
    if len(gains) > 1:
        print(f"hybrid less the better part, mean: {fmean(gains):+.4f}, least: {min(gains):+.4f}")


def measure(collection: Embedded, k: int) -> float:
    """Print a collection's figures. Returns the difference of hybrid to the better part."""
    grades = [{str(number): grade for number, grade in of_it.items()} for of_it in collection.relevance]
    with MuveraIndex.create(None) as index:
        ids = [str(number) for number in range(len(collection.texts))]
        index.add_embeddings(list(collection.documents), ids=ids, texts=collection.texts)

        def ndcg(search: Callable[[str], list[Hit]]) -> list[float]:
            found = [[hit.id for hit in search(query)] for query in collection.query_texts]
            return [ndcg_at_k(hits, of_it, k) for hits, of_it in zip(found, grades, strict=True)]

        rows = {
            "BM25": ndcg(lambda query: index.search(query, k, mode="lexical")),
            "late interaction": ndcg(lambda query: index.search(query, k)),
            "reciprocal ranks": ndcg(lambda query: index.search(query, k, mode="hybrid", fusion="ranks")),
        }
        for share in _SHARES:
            rows[f"hybrid, {share}"] = ndcg(
                lambda query: index.search(query, k, mode="hybrid", lexical_weight=share)  # noqa: B023
            )
        rows["hybrid"] = ndcg(lambda query: index.search(query, k, mode="hybrid"))
        print(f"\n{collection.name}: {len(ids)} documents, {len(grades)} questions; nDCG@{k}")
        for name, values in rows.items():
            print(f"  {name:18}{fmean(values):.4f}")
        better = max(rows["BM25"], rows["late interaction"], key=fmean)
        gain, low, high = interval(np.array(rows["hybrid"]) - np.array(better))
        print(f"  hybrid less the better part: {gain:+.4f} [{low:+.4f}, {high:+.4f}]")
        print_exact_strings(index, collection.texts)
        print_times(index, collection.query_texts)
        print_filtered(index, collection.query_texts, grades, k)
    return gain


def interval(differences: np.ndarray, n_samples: int = 10_000) -> tuple[float, float, float]:
    """The mean, and its 95 % interval by the bootstrap."""
    rng = np.random.default_rng(0)
    means = differences[rng.integers(len(differences), size=(n_samples, len(differences)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


def print_exact_strings(index: MuveraIndex, texts: Sequence[str]) -> None:
    """How often the one passage that has an identifier, or a phrase of four words, comes first."""
    rng = random.Random(2)
    places = list(range(len(texts)))
    rng.shuffle(places)
    folded = [text.casefold() for text in texts]

    def is_unique(string: str) -> bool:
        return sum(string.casefold() in text for text in folded) == 1

    identifiers: list[tuple[str, int]] = []
    phrases: list[tuple[str, int]] = []
    for place in places:
        found = [string for string in _IDENTIFIER.findall(texts[place]) if is_unique(string)]
        if found and len(identifiers) < _N_EXACT:
            identifiers.append((rng.choice(found), place))
        words = texts[place].split()
        start = rng.randrange(max(1, len(words) - 4))
        phrase = " ".join(words[start : start + 4])
        if len(phrases) < _N_EXACT and len(words) > 8 and '"' not in phrase and is_unique(phrase):
            phrases.append((f'"{phrase}"', place))
        if len(identifiers) == len(phrases) == _N_EXACT:
            break
    for name, questions in (("identifiers", identifiers), ("phrases", phrases)):
        if questions:
            shares = {
                mode: fmean(
                    [hit.id for hit in index.search(query, 1, mode=mode)] == [str(place)] for query, place in questions
                )
                for mode in ("lexical", "late", "hybrid")
            }
            figures = ", ".join(f"{mode} {share:.3f}" for mode, share in shares.items())
            print(f"  {len(questions)} {name}, found first: {figures}")


def print_times(index: MuveraIndex, queries: Sequence[str]) -> None:
    times: dict[str, list[float]] = {"lexical": [], "late": [], "hybrid": []}
    for query in queries[:100]:
        for mode, seconds in times.items():
            start = time.perf_counter()
            index.search(query, mode=mode)  # type: ignore[arg-type]
            seconds.append(time.perf_counter() - start)
    figures = ", ".join(f"{mode} {median(seconds) * 1000:.1f}" for mode, seconds in times.items())
    print(f"  median ms of a search: {figures}")


def print_filtered(index: MuveraIndex, queries: Sequence[str], grades: Sequence[dict[str, float]], k: int) -> None:
    """What is left of the hits above a relevance, of questions that the calibration has not seen."""
    index.calibrate(queries[::2], grades[::2], mode="hybrid", n_queries=100)
    for least in (None, _LEAST_RELEVANCE):
        hits = [index.search(query, k, mode="hybrid", min_score=least) for query in queries[1::2]]
        both = list(zip(hits, grades[1::2], strict=True))
        found = sum(hit.id in of_it for some, of_it in both for hit in some)
        n = sum(map(len, hits))
        quality = fmean(ndcg_at_k([hit.id for hit in some], of_it, k) for some, of_it in both)
        recall = fmean(len({hit.id for hit in some} & of_it.keys()) / max(1, len(of_it)) for some, of_it in both)
        name = "all hits" if least is None else f"relevance of at least {least}"
        print(
            f"  hybrid, {name}: {n / len(hits):.1f} hits a question, precision {found / max(1, n):.3f}, "
            f"recall {recall:.3f}, nDCG@{k} {quality:.4f}"
        )


if __name__ == "__main__":
    main()
