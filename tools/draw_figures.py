"""Draws the figures of docs/figures/ from real data: python tools/draw_figures.py [--cache tokens.npz] [--only NAME].

They are drawn on an opaque light ground, so that they can be read on a light and on a dark page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from figure_data import PUBLISHED, WIDTHS, Measured
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from muvera_core import FDEConfig, FixedDimensionalEncoder
from muvera_core.token_embeddings import FloatArray

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
INK, SOFT, GROUND = "#24292f", "#6e7781", "#fcfcfd"
BLUE, ORANGE, GREEN, RED = "#3f51b5", "#d9730d", "#1a7f5a", "#b4232c"
QUESTION = "Which bird hunts mice at night?"
PASSAGE = "Most owls are birds of prey that hunt at night. They catch mice, and fly without a sound."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, help="file that keeps the passages' tokens between runs")
    parser.add_argument("--only", choices=list(FIGURES), help="draw one figure only")
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    mpl.rc("svg", hashsalt="muvera", fonttype="path")
    mpl.rc("font", size=10)
    mpl.rc("axes", edgecolor=SOFT, labelcolor=INK, facecolor=GROUND)
    mpl.rc("axes.spines", top=False, right=False)
    mpl.rc("text", color=INK)
    mpl.rc("xtick", color=INK)
    mpl.rc("ytick", color=INK)
    mpl.rc("figure", facecolor=GROUND)
    measured = Measured(arguments.cache)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        if arguments.only in (None, name):
            path = arguments.output / f"{name}.svg"
            draw(measured).savefig(path, metadata={"Date": None}, bbox_inches="tight", pad_inches=0.15)
            print(path)


def partitions(measured: Measured) -> Figure:
    """The tokens of a passage and a question on the plane of one repetition's two hyperplanes."""
    config = FDEConfig()
    planes = FixedDimensionalEncoder(config).matrices.simhash[0]  # (width, 2)
    planes = planes / np.linalg.norm(planes, axis=0)
    query, words_of_query = _tokens(measured, QUESTION, is_query=True)
    passage, words = _tokens(measured, PASSAGE, is_query=False)
    figure = Figure(figsize=(9, 4.6))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, tokens, labels, colour, title in (
        (axes[0], passage, words, BLUE, "passage: the mean in each partition"),
        (axes[1], query, words_of_query, ORANGE, "question: the sum in each partition"),
    ):
        places = tokens @ planes
        axis.axhline(0, color=SOFT, linewidth=1)
        axis.axvline(0, color=SOFT, linewidth=1)
        axis.scatter(*places.T, s=22, color=colour, alpha=0.85)
        for place, word in zip(places, labels, strict=True):
            if len(word) < 3:  # the labels of small words would hide each other
                continue
            axis.annotate(word, tuple(place), xytext=(4, 3), textcoords="offset points", fontsize=8)
        if colour == BLUE:
            for quadrant in np.unique(places > 0, axis=0):
                mean = places[((places > 0) == quadrant).all(axis=1)].mean(axis=0)
                axis.scatter(*mean, s=90, marker="X", color=RED, zorder=3)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("distance from hyperplane 1")
    axes[0].set_ylabel("distance from hyperplane 2")
    figure.suptitle(
        f"Two random hyperplanes make four partitions. An index repeats this {config.num_repetitions} times",
        fontsize=10,
    )
    return figure


def recall_by_candidates(measured: Measured) -> Figure:
    """Share of the exact top 10 by number of candidates."""
    numbers = [10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 400]
    figure = Figure(figsize=(7, 4.2))
    axis = figure.subplots()
    for encoding, colour, style in (
        (measured.fde_encoding("FDE as published, 40 kB", PUBLISHED, at_unit_length=False), SOFT, ":"),
        (measured.fde_encoding("FDE of a new index, 10 kB", FDEConfig(), at_unit_length=True), ORANGE, "-"),
        (measured.learned_encoding(256), BLUE, "-"),
    ):
        name = f"{encoding.name}, 1 kB" if encoding.name.startswith("learned") else encoding.name
        found = [measured.recall(encoding, number) for number in numbers]
        print(name, dict(zip(numbers, np.round(found, 3).tolist(), strict=True)))
        axis.plot(numbers, found, style, color=colour, marker="o", markersize=4, label=name)
    axis.set_xscale("log", base=10)
    axis.set_xticks([10, 20, 50, 100, 200, 400], ["10", "20", "50", "100", "200", "400"])
    axis.minorticks_off()
    axis.set_xlabel("candidates that exact MaxSim ranks")
    axis.set_ylabel("share of the exact top 10 among them")
    axis.grid(color="#d8dee4", linewidth=0.6)
    axis.legend(frameon=False, loc="lower right")
    axis.set_title(f"{len(measured.documents):,} Wikipedia passages, {len(measured.questions)} questions", fontsize=10)
    return figure


def recall_by_bytes(measured: Measured) -> Figure:
    """Share of the exact top 10 among 50 candidates, by the size of a passage's vector."""
    figure = Figure(figsize=(7, 4.2))
    axis = figure.subplots()
    fdes = [
        measured.fde_encoding(f"{repetitions}", FDEConfig(num_repetitions=repetitions), at_unit_length=True)
        for repetitions in (1, 2, 3, 5, 10, 20)
    ]
    learned = [measured.learned_encoding(width) for width in WIDTHS[::-1]]
    for encodings, colour, name in ((fdes, ORANGE, "FDE, 1 to 20 repetitions"), (learned, BLUE, "learned encoding")):
        sizes = [encoding.n_bytes for encoding in encodings]
        found = [measured.recall(encoding, 50) for encoding in encodings]
        print(name, dict(zip(sizes, np.round(found, 3).tolist(), strict=True)))
        axis.plot(sizes, found, color=colour, marker="o", markersize=5, label=name)
    axis.set_xscale("log", base=2)
    ticks = [256, 512, 1024, 2048, 4096, 10240, 40960]
    axis.set_xticks(ticks, ["256 B", "512 B", "1 kB", "2 kB", "4 kB", "10 kB", "40 kB"])
    axis.minorticks_off()
    axis.set_xlabel("bytes of a passage's vector (float32)")
    axis.set_ylabel("share of the exact top 10\namong 50 candidates")
    axis.grid(color="#d8dee4", linewidth=0.6)
    axis.legend(frameon=False, loc="lower right")
    axis.set_title(f"{len(measured.documents):,} Wikipedia passages, {len(measured.questions)} questions", fontsize=10)
    return figure


def matches(measured: Measured) -> Figure:
    """The similarity of each token of a question to each token of a passage, the best of each row framed."""
    query, words_of_query = _tokens(measured, QUESTION, is_query=True)
    passage, words = _tokens(measured, PASSAGE, is_query=False)
    similarities = query @ passage.T
    figure = Figure(figsize=(9, 3.6))
    axis = figure.subplots()
    picture = axis.imshow(similarities, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, best in enumerate(similarities.argmax(axis=1)):
        axis.add_patch(mpl.patches.Rectangle((best - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ORANGE, linewidth=2))
        _number(axis, similarities, row, int(best))
    axis.set_xticks(range(len(words)), words, rotation=55, ha="right", fontsize=8)
    axis.set_yticks(range(len(words_of_query)), words_of_query, fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.colorbar(picture, ax=axis, fraction=0.03, pad=0.02, label="inner product")
    total = float(similarities.max(axis=1).sum())
    axis.set_title(f"MaxSim adds up the best match of each row: {total:.2f}", fontsize=10)
    return figure


def _number(axis: Axes, similarities: FloatArray, row: int, column: int) -> None:
    value = similarities[row, column]
    colour = "white" if value > 0.55 else INK
    axis.text(column, row, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=7, color=colour)


def _tokens(measured: Measured, text: str, *, is_query: bool) -> tuple[FloatArray, list[str]]:
    """The token vectors of a text, and what each stands for."""
    encoder = measured.encoder
    vectors = (encoder.encode_queries([text]) if is_query else encoder.encode_documents([text]))[0]
    spans = encoder.query_spans(text) if is_query else encoder.document_spans(text)
    words = [text[start:end] for start, end in spans.tolist()]
    markers = iter(["[CLS]", "[SEP]"])
    return vectors, [word or next(markers, "") for word in words]


FIGURES: dict[str, Callable[[Measured], Figure]] = {
    "partitions": partitions,
    "matches": matches,
    "recall-by-candidates": recall_by_candidates,
    "recall-by-bytes": recall_by_bytes,
}


if __name__ == "__main__":
    main()
