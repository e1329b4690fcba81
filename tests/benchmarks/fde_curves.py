"""The curves of the MUVERA paper: the share that FDEs find at each width, and the candidates that they need.

usage: python tests/benchmarks/fde_curves.py FOLDER [--cache DIR] [--questions 300] [--others N] [--plot FILE.png]

Prints and draws

- the share of exact MaxSim's top documents among a fixed number of candidates, by the encoding's width: mean and
  standard deviation over seeds, for the default setting and the paper's, of unit length and plain;
- the number of candidates that contain a given share of the top documents, compared with the single-vector heuristic,
  which looks up the document tokens nearest to each query token.

The encoding with fewer repetitions is the first part of the encoding with more. Candidates come from a flat scan.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from embedded import Embedded, begin
from machine import describe_machine
from matplotlib.figure import Figure
from places import candidates_needed, places_by_repetitions, places_by_tokens, share_found
from settings import PUBLISHED_FDE
from tqdm import tqdm

from muvera_core import FDEConfig
from muvera_core.token_embeddings import IntArray

K = 10
SEEDS = range(5)
# Each setting at its widest, and the numbers of repetitions to measure.
LINES = {
    "k2": (FDEConfig(num_repetitions=20), (1, 2, 5, 10, 20)),
    "k5 p16 filled": (PUBLISHED_FDE, (1, 2, 5, 10, 20)),
}
SCALINGS = ("unit length", "plain")
# Pairs (k, n): measure the share of exact MaxSim's best k among n candidates.
DEPTHS = ((K, 100), (1, 10))
SHARES = (0.8, 0.9, 0.95)
# Compared with the single-vector heuristic: the paper's encoding, and ours at the same and at the default width.
COMPARED = [
    ("k2", 2_560, "unit length"),
    ("k2", 10_240, "unit length"),
    ("k5 p16 filled", 10_240, "unit length"),
    ("k5 p16 filled", 10_240, "plain"),
]
# Places of exact MaxSim's best, int64, shape (seeds, queries, k), by line, width and scaling.
Places = dict[tuple[str, int, str], IntArray]


def main() -> None:
    collection, best, plot = begin(__doc__, K)
    print(describe_machine())
    print(f"{collection.name}: {len(collection.documents)} documents, {len(collection.queries)} queries")
    places: Places = {}
    for name, (config, repetitions) in LINES.items():
        places |= places_by_width(collection, best, name, config, repetitions)
    again, once = places_by_tokens(collection.queries, collection.documents, best)
    methods = {f"{name}, {width}, {scaling}": places[name, width, scaling] for name, width, scaling in COMPARED}
    methods |= {"single vectors, documents once": once, "single vectors": again}
    report_widths(places)
    report_candidates(methods)
    if plot:
        draw(places, methods, f"{collection.name}, {len(collection.documents)} passages", plot)


def places_by_width(
    collection: Embedded, best: IntArray, name: str, config: FDEConfig, repetitions: tuple[int, ...]
) -> Places:
    """Places of exact MaxSim's best with the first repetitions of a setting."""
    found = np.stack(
        [
            places_by_repetitions(
                replace(config, seed=seed), repetitions, collection.queries, collection.documents, best
            )
            for seed in tqdm(SEEDS, desc=name)
        ]
    )
    return {
        (name, width_of(config, n), scaling): found[:, j, i]
        for i, n in enumerate(repetitions)
        for j, scaling in enumerate(SCALINGS)
    }


def width_of(config: FDEConfig, repetitions: int) -> int:
    return replace(config, num_repetitions=repetitions).output_dimension


def over_seeds(places: IntArray, n: int, k: int) -> tuple[float, float]:
    """Share of the best ``k`` among ``n`` candidates: mean and standard deviation over seeds."""
    shares = [share_found(of_seed[:, :k], n) for of_seed in places]
    return float(np.mean(shares)), float(np.std(shares, ddof=1))


def report_widths(places: Places) -> None:
    print(f"\nshare of exact MaxSim's top k among n candidates, mean and standard deviation over {len(SEEDS)} seeds")
    header = "".join(f"{f'{scaling}, {k} in {n}':>25}" for scaling in SCALINGS for k, n in DEPTHS)
    print(f"{'setting':18}{'dims':>7}{header}")
    for name, (config, repetitions) in LINES.items():
        for width in (width_of(config, n) for n in repetitions):
            cells = (over_seeds(places[name, width, scaling], n, k) for scaling in SCALINGS for k, n in DEPTHS)
            shares = "".join(f"{f'{mean:.3f} ± {deviation:.3f}':>25}" for mean, deviation in cells)
            print(f"{name:18}{width:>7}{shares}")


def report_candidates(methods: dict[str, IntArray]) -> None:
    print("\nnumber of candidates that contain a share of the top")
    print(f"{'':40}" + "".join(f"{f'{share:.0%} of top {k}':>16}" for k in (K, 1) for share in SHARES))
    for name, places in methods.items():
        needed = (candidates_needed(places[..., :k], share) for k in (K, 1) for share in SHARES)
        print(f"{name:40}" + "".join(f"{n:>16}" for n in needed))


def draw(places: Places, methods: dict[str, IntArray], title: str, path: Path) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(title)
    by_width, by_candidates = figure.subplots(1, 2)
    k, depth = DEPTHS[0]
    for (name, (config, repetitions)), color in zip(LINES.items(), ("C0", "C1"), strict=True):
        for scaling, style in zip(SCALINGS, ("-", "--"), strict=True):
            widths = [width_of(config, n) for n in repetitions]
            shares = [over_seeds(places[name, width, scaling], depth, k) for width in widths]
            means, deviations = zip(*shares, strict=True)
            by_width.errorbar(
                widths, means, deviations, color=color, ls=style, marker=".", capsize=3, label=f"{name}, {scaling}"
            )
    by_width.set(
        xscale="log",
        xlabel="dimensions",
        ylabel=f"share of exact top {k}",
        title=f"among {depth} candidates, {len(SEEDS)} seeds",
    )
    counts = np.unique(np.geomspace(K, 1000, 40).astype(int))
    for name, of_method in methods.items():
        found = [share_found(of_method, n) for n in counts]
        by_candidates.plot(counts, found, "--" if name.startswith("single") else "-", label=name)
    by_candidates.set(xscale="log", xlabel="candidates", title="against the single-vector heuristic")
    for axes in (by_width, by_candidates):
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
