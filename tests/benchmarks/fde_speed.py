"""Measures how long FDEs take: the compiled kernels, NumPy, and fastembed's Muvera, alternately in one process.

``OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python tests/benchmarks/fde_speed.py``. fastembed is left out if it is not
installed. Times are processor time per text, the median of several rounds. Tokens are drawn at random, which puts some
into nearly every partition: most work for all three.

The limit is the time of the multiplications alone, at the rate that this machine's BLAS reaches with large matrices in
the same run. Products with hyperplanes count for every token, projections for every partition with a value.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from machine import describe_machine

from muvera_core import FDEConfig, FixedDimensionalEncoder, TokenEmbeddings
from muvera_core.native import NUMPY, VARIABLE, kernel_name
from muvera_core.token_embeddings import unit_length

PUBLISHED = FDEConfig(
    num_repetitions=20, num_simhash_projections=5, projection_dimension=16, fill_empty_partitions=True
)
CONFIGS = {
    "default: R5 k2, whole tokens, 2,560-d": FDEConfig(),
    "published: R20 k5 p16, filled, 10,240-d": PUBLISHED,
    "published with final projection, 2,048-d": FDEConfig(
        num_repetitions=20,
        num_simhash_projections=5,
        projection_dimension=16,
        projection="count_sketch",
        final_projection_dimension=2048,
        fill_empty_partitions=True,
    ),
}


@dataclass(frozen=True)
class Side:
    """One way to encode all texts, with variables of the environment."""

    encode: Callable[[], None]
    environment: dict[str, str] = field(default_factory=lambda: {"OMP_NUM_THREADS": "1"})

    def measure(self) -> tuple[float, float]:
        """Processor and wall time, in seconds, after a call that fills the caches."""
        with mock.patch.dict(os.environ, self.environment):
            self.encode()
            processor, wall = time.process_time(), time.perf_counter()
            self.encode()
            return time.process_time() - processor, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--document-tokens", type=int, default=120)
    parser.add_argument("--query-tokens", type=int, default=32)
    parser.add_argument("--texts", type=int, default=50, help="texts per round")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    fastembed = find_fastembed()
    rate = multiplications_per_second()
    print(f"{describe_machine()}; kernel {kernel_name()}")
    print(f"{rate / 1e9:.1f} billion multiplications per second in BLAS\n")
    for name, config in CONFIGS.items():
        for are_documents in (True, False):
            n_tokens = arguments.document_tokens if are_documents else arguments.query_tokens
            print(f"{name}: {'document' if are_documents else 'query'} of {n_tokens} tokens")
            tokens = random_tokens(arguments.texts, n_tokens, config.dimension)
            encoder = FixedDimensionalEncoder(config)
            sides = our_sides(encoder, tokens, are_documents)
            peer = None if fastembed is None else their_side(fastembed, config, tokens, are_documents)
            if peer is not None:
                sides["fastembed"] = peer
            limit = multiplications(encoder, tokens, are_documents) / rate
            report(measure(sides, arguments.rounds, len(tokens)), limit)


def find_fastembed() -> Any:
    try:
        return importlib.import_module("fastembed.postprocess").Muvera
    except ImportError as error:
        print(f"fastembed is left out: {error}")
        return None


def random_tokens(n_texts: int, n_tokens: int, dimension: int) -> TokenEmbeddings:
    vectors = np.random.default_rng(0).standard_normal((n_texts * n_tokens, dimension)).astype(np.float32)
    return TokenEmbeddings(unit_length(vectors), np.arange(n_texts + 1) * n_tokens)


def our_sides(encoder: FixedDimensionalEncoder, tokens: TokenEmbeddings, are_documents: bool) -> dict[str, Side]:
    """One text per call, as in a search, and all texts in one call on one and two threads."""
    texts = [TokenEmbeddings.from_list([text]) for text in tokens]
    encode = encoder.encode_documents if are_documents else encoder.encode_queries

    def one_by_one() -> None:
        for text in texts:
            encode(text)

    def together() -> None:
        encode(tokens)

    return {
        "native, one call each": Side(one_by_one),
        "native, together": Side(together),
        "native, together, 2 threads": Side(together, {"OMP_NUM_THREADS": "2"}),
        "NumPy": Side(together, {VARIABLE: NUMPY}),
    }


def their_side(muvera: Any, config: FDEConfig, tokens: TokenEmbeddings, are_documents: bool) -> Side | None:
    """fastembed's encoder of the same settings. It has no final projection."""
    if config.final_projection_dimension is not None:
        return None
    model = muvera(config.dimension, config.num_simhash_projections, config.value_dimension, config.num_repetitions)
    process = model.process_document if are_documents else model.process_query

    def one_by_one() -> None:
        for text in tokens:
            process(text)

    return Side(one_by_one)


def measure(sides: dict[str, Side], rounds: int, n_texts: int) -> dict[str, tuple[float, float]]:
    """Median processor and wall time per text, in seconds, of each side."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            times[name].append(side.measure())
    return {  # without the first round
        name: (median(p for p, _ in spent[1:]) / n_texts, median(w for _, w in spent[1:]) / n_texts)
        for name, spent in times.items()
    }


def report(times: dict[str, tuple[float, float]], limit: float) -> None:
    best = times["native, together"][0]
    print(f"  {'':30}{'CPU µs':>9}{'wall µs':>9}{'ratio':>8}{'of limit':>10}")
    for name, (processor, wall) in times.items():
        print(f"  {name:30}{processor * 1e6:9.1f}{wall * 1e6:9.1f}{processor / best:8.1f}{limit / processor:10.0%}")
    print(f"  {'the multiplications alone':30}{limit * 1e6:9.1f}\n")


def multiplications(encoder: FixedDimensionalEncoder, tokens: TokenEmbeddings, are_documents: bool) -> float:
    """Multiplications that one text needs."""
    config = encoder.config
    cells = config.num_repetitions << config.num_simhash_projections
    products = config.num_repetitions * config.num_simhash_projections * len(tokens[0])
    if config.projection_dimension is None:
        return config.dimension * products
    first = TokenEmbeddings.from_list([tokens[0]])
    whole = FixedDimensionalEncoder(FDEConfig(config.dimension, config.num_repetitions, config.num_simhash_projections))
    occupied = int(whole.encode_queries(first).reshape(cells, -1).any(axis=1).sum())
    values = cells if are_documents and config.fill_empty_partitions else occupied
    return config.dimension * (products + values * config.projection_dimension)


def multiplications_per_second() -> float:
    """The rate of BLAS with large float32 matrices, on the threads that it uses."""
    matrix = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    spent = []
    for _ in range(7):
        start = time.process_time()
        matrix @ matrix
        spent.append(time.process_time() - start)
    return 1024**3 / min(spent)


if __name__ == "__main__":
    main()
