"""Measures whether it helps to subtract the corpus's mean token before encoding (``FDEConfig.center``).

usage: python tests/benchmarks/centring.py FOLDER [--cache DIR] [--questions 300] [--others N] [--plot FILE.png]
           [--sample FOLDER]

Token vectors of some models point mostly in one direction. Such models are simulated: one common vector of growing
strength is added to all tokens of documents and queries, which are then scaled to unit length. Prints, for each
strength, the mean cosine of two tokens, and the share of exact MaxSim's top 10 (of the same tokens) in 100 candidates
of a flat scan, mean and standard deviation over seeds.

``--sample`` names a folder with token embeddings of a real model: ``documents.npz`` and ``queries.npz`` with the arrays
``vectors`` and ``lens``. It is measured in the same way, with fewer candidates, as suits its size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from embedded import collection_parser, embed, exact_top
from machine import describe_machine
from matplotlib.figure import Figure
from places import places_by_score, share_found
from settings import PUBLISHED_FDE
from tqdm import tqdm

from muvera_core import FDEConfig, FixedDimensionalEncoder, TokenEmbeddings
from muvera_core.token_embeddings import FloatArray, IntArray, unit_length

K = 10
N_CANDIDATES = 100
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.4)
SEEDS = range(3)
# Numbers of candidates, and seeds, for a small sample that has hardly more documents than candidates.
SAMPLE_DEPTHS = (10, 15, 20)
SAMPLE_SEEDS = range(20)
CONFIGS = (
    FDEConfig(),
    FDEConfig(num_simhash_projections=1),
    PUBLISHED_FDE,
)
SCALINGS = ("unit length", "plain")


@dataclass(frozen=True)
class Row:
    """The shares that an encoding finds.

    Attributes:
        name: name of the encoding.
        shares: share of exact MaxSim's top among the candidates, shape (depths, seeds).
    """

    name: str
    shares: FloatArray


def main() -> None:
    parser = collection_parser(__doc__)
    parser.add_argument("--sample", type=Path, help="folder with token embeddings of a real model")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    print(describe_machine())
    if arguments.sample:
        queries, documents = (read_arrays(arguments.sample / f"{name}.npz") for name in ("queries", "documents"))
        print(f"{arguments.sample.name}: {len(documents)} documents, {len(queries)} queries")
        report(queries, documents, SAMPLE_DEPTHS, SAMPLE_SEEDS)
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    print(f"{collection.name}: {len(collection.documents)} documents, {len(collection.queries)} queries")
    direction = unit_length(
        np.random.default_rng(0).standard_normal((1, collection.documents.dimension)).astype(np.float32)
    )
    curves = {}
    for strength in tqdm(STRENGTHS):
        queries, documents = (
            shifted(some, strength * direction) for some in (collection.queries, collection.documents)
        )
        curves[mean_cosine(documents)] = report(queries, documents, (N_CANDIDATES,), SEEDS)
    if arguments.plot:
        draw(curves, f"{collection.name}, {len(collection.documents)} passages", arguments.plot)


def read_arrays(path: Path) -> TokenEmbeddings:
    with np.load(path) as arrays:
        return TokenEmbeddings(arrays["vectors"], np.concatenate([[0], np.cumsum(arrays["lens"])]))


def shifted(embeddings: TokenEmbeddings, by: FloatArray) -> TokenEmbeddings:
    """Tokens plus one vector, scaled to unit length."""
    return TokenEmbeddings(unit_length(embeddings.vectors + by), embeddings.offsets)


def mean_cosine(embeddings: TokenEmbeddings) -> float:
    """Mean cosine of two random tokens of unit length."""
    mean = embeddings.vectors.mean(axis=0, dtype=np.float64)
    return float(mean @ mean)


def report(queries: TokenEmbeddings, documents: TokenEmbeddings, depths: tuple[int, ...], seeds: range) -> list[Row]:
    """Print the shares that each setting finds with and without centring."""
    best = np.stack(exact_top(queries, documents, K))
    print(f"mean cosine of two tokens {mean_cosine(documents):.3f}" + "".join(f"{f'@{n}':>16}" for n in depths))
    rows = []
    for config in CONFIGS:
        for center in (False, True):
            found = np.stack([places(replace(config, center=center, seed=s), queries, documents, best) for s in seeds])
            for scaling, of_scaling in zip(SCALINGS, found.swapaxes(0, 1), strict=True):
                shares = np.array([[share_found(of_seed, n) for of_seed in of_scaling] for n in depths])
                name = (
                    f"k{config.num_simhash_projections}{' filled' if config.fill_empty_partitions else ''}, {scaling}"
                )
                rows.append(Row(f"{name}{', centred' if center else ''}", shares))
                means = (f"{of_depth.mean():.3f} ± {of_depth.std(ddof=1):.3f}" for of_depth in shares)
                print(f"{rows[-1].name:35}" + "".join(f"{mean:>16}" for mean in means), flush=True)
    return rows


def places(config: FDEConfig, queries: TokenEmbeddings, documents: TokenEmbeddings, best: IntArray) -> IntArray:
    """Places of ``best`` with encodings of unit length, and with plain ones: int64, shape (2, queries, k)."""
    mean = documents.vectors.mean(axis=0, dtype=np.float64) if config.center else None
    encoder = FixedDimensionalEncoder(config, mean=mean)
    vectors, query_vectors = encoder.encode_documents(documents), encoder.encode_queries(queries)
    return np.stack([places_by_score(query_vectors @ some.T, best) for some in (unit_length(vectors), vectors)])


def draw(curves: dict[float, list[Row]], title: str, path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for i, rows in enumerate(zip(*curves.values(), strict=True)):
        means, deviations = zip(*((row.shares[0].mean(), row.shares[0].std(ddof=1)) for row in rows), strict=True)
        style = "-" if rows[0].name.endswith("centred") else "--"
        color = f"C{i // 4 * 2 + i % 2}"
        axes.errorbar(list(curves), means, deviations, ls=style, color=color, capsize=3, marker=".", label=rows[0].name)
    axes.set(xlabel="mean cosine of two tokens", ylabel=f"share of exact top {K} among {N_CANDIDATES}", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
