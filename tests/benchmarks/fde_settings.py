"""Compares settings of the Fixed Dimensional Encoding that have the same width.

usage: python tests/benchmarks/fde_settings.py FOLDER [--cache DIR] [--questions 300] [--others N] [--plot FILE.png]
           [--components N]

For each width, prints all settings with that many dimensions, the best first: the share of exact MaxSim's top 10 among
N candidates of a flat scan, mean and standard deviation over seeds. Document encodings are first scaled to unit length,
as in an index, and then plain. All settings use the same token embeddings. Filled partitions are tried if there are so
many partitions that many are empty. The encoding with fewer repetitions is the first part of the encoding with more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from embedded import Embedded, begin
from machine import describe_machine
from matplotlib.figure import Figure
from places import places_by_repetitions, share_found
from tqdm import tqdm

from muvera_core import FDEConfig, FixedDimensionalEncoder, TokenEmbeddings
from muvera_core.token_embeddings import FloatArray, IntArray

K = 10
SEEDS = range(3)
BUDGETS = (640, 1280, 2560, 5120, 10240)
HYPERPLANES = (1, 2, 3, 4, 5)
WIDTHS = (8, 16, 32, 64, None)
FEWEST_FILLED = 4  # hyperplanes
_TIMED = 200  # documents


@dataclass(frozen=True)
class Row:
    """The shares that a setting finds.

    Attributes:
        config: the setting.
        at_100: share of the top among 100 candidates, for each seed, with document encodings of unit length.
        at_400: the same among 400 candidates.
        plain_at_100: the share among 100 candidates with plain document encodings.
    """

    config: FDEConfig
    at_100: FloatArray
    at_400: FloatArray
    plain_at_100: FloatArray

    @property
    def name(self) -> str:
        c = self.config
        return (
            f"R{c.num_repetitions} k{c.num_simhash_projections} "
            f"{f'p{c.projection_dimension}' if c.projection_dimension else 'all'}"
            f"{' filled' if c.fill_empty_partitions else ''}{' count sketch' if c.projection == 'count_sketch' else ''}"
        )


def main() -> None:
    collection, best, plot = begin(__doc__, K, narrows=True)
    tokens = FDEConfig(dimension=collection.documents.dimension)
    kinds = [
        replace(tokens, num_simhash_projections=k, projection_dimension=p, fill_empty_partitions=filled)
        for k in HYPERPLANES
        for p in WIDTHS
        for filled in (False, True)
        if not filled or k >= FEWEST_FILLED
    ]
    kinds.append(replace(tokens, num_simhash_projections=3, projection_dimension=16, projection="count_sketch"))
    rows = [row for kind in tqdm(kinds) for row in measure(kind, collection, best)]

    print(describe_machine())
    print(f"{collection.name}: {len(collection.documents)} documents, {len(collection.queries)} queries")
    timed = TokenEmbeddings.from_list([collection.documents[i] for i in range(_TIMED)])
    for budget in BUDGETS:
        print(f"\n{budget} dimensions{'@100':>28}{'@400':>8}{'plain @100':>12}{'µs/doc':>8}{'µs/query':>10}")
        as_wide = [row for row in rows if row.config.output_dimension == budget]
        for row in sorted(as_wide, key=lambda row: -row.at_100.mean()):
            encoder = FixedDimensionalEncoder(row.config)
            start = time.perf_counter()
            encoder.encode_documents(timed)
            middle = time.perf_counter()
            encoder.encode_queries(collection.queries)
            end = time.perf_counter()
            print(
                f"{row.name:28}{f'{row.at_100.mean():.3f} ± {row.at_100.std(ddof=1):.3f}':>16}"
                f"{row.at_400.mean():>8.3f}{row.plain_at_100.mean():>12.3f}"
                f"{(middle - start) / _TIMED * 1e6:>8.0f}{(end - middle) / len(collection.queries) * 1e6:>10.0f}",
                flush=True,
            )
    if plot:
        draw(rows, f"{collection.name}, {len(collection.documents)} passages", plot)


def measure(kind: FDEConfig, collection: Embedded, best: IntArray) -> list[Row]:
    """A row for each budget that is a multiple of the width of one repetition of ``kind``."""
    width = kind.output_dimension // kind.num_repetitions
    repetitions = [budget // width for budget in BUDGETS if budget % width == 0]
    if not repetitions:
        return []
    widest = replace(kind, num_repetitions=repetitions[-1])
    found = [
        places_by_repetitions(replace(widest, seed=seed), repetitions, collection.queries, collection.documents, best)
        for seed in SEEDS
    ]
    unit_length, plain = zip(*found, strict=True)
    return [
        Row(
            replace(kind, num_repetitions=n),
            np.array([share_found(places[i], 100) for places in unit_length]),
            np.array([share_found(places[i], 400) for places in unit_length]),
            np.array([share_found(places[i], 100) for places in plain]),
        )
        for i, n in enumerate(repetitions)
    ]


def draw(rows: list[Row], title: str, path: Path) -> None:
    """Draw the best share for each budget, by number of hyperplanes, filled or not."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for k in HYPERPLANES:
        for filled in {False, k >= FEWEST_FILLED}:
            kind = [
                r for r in rows if (r.config.num_simhash_projections, r.config.fill_empty_partitions) == (k, filled)
            ]
            best = {}
            for budget in BUDGETS:
                if shares := [row.at_100.mean() for row in kind if row.config.output_dimension == budget]:
                    best[budget] = max(shares)
            label = f"{k} hyperplane{'s' if k > 1 else ''}{', filled' if filled else ''}"
            axes.plot(list(best), list(best.values()), "--" if filled else "-", color=f"C{k}", marker=".", label=label)
    axes.set(xscale="log", xlabel="dimensions", ylabel=f"share of exact top {K} among 100", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
