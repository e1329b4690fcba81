"""Writes the table of a comparison and draws its plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Legible on a white and on a dark page.
_INK, _OURS, _PEERS, _EXACT = "#7d838c", "#e06c1f", "#3f87d9", "#7d838c"
_PLACES = ((7, -3), (-7, -3), (0, 8), (0, -14), (7, 7), (-7, 7), (7, -13), (-7, -13), (0, 18), (0, -24))


def table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table with a row per system. A system without results has its reason there."""
    k = results[0]["inputs"]["k"]
    header = (
        f"| system | fidelity@{k} | nDCG@{k} | CPU ms | 95 % | wall ms | wall ms, all cores | bytes a token | "
        "build CPU s | MB to build | MB to search |"
    )
    return "\n".join([header, "|---" * 11 + "|", *map(_row, results)])


def settings(results: Sequence[dict[str, Any]]) -> str:
    """Versions and settings of the systems, as a list."""
    lines: dict[str, list[str]] = {}
    for result in results:
        if "reason" not in result:
            about = f"{result['package']} {result['version']}: {' '.join(result['build']['settings'].split())}"
            lines.setdefault(about, []).append(result["label"])
    return "\n".join(f"- {', '.join(labels)}: {about}" for about, labels in lines.items())


def draw(results: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw fidelity against CPU time, for the systems that have results."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    measured = [result for result in results if "reason" not in result]
    figure = Figure(figsize=(7.5, 5), layout="constrained", facecolor="none")
    axes = figure.subplots()
    axes.set_facecolor("none")
    for name, color, marker, chosen in (
        ("scans of all documents", _EXACT, "^", [r for r in measured if not r["is_ours"] and r["is_exact"]]),
        ("other systems", _PEERS, "s", [r for r in measured if not r["is_ours"] and not r["is_exact"]]),
        ("muvera", _OURS, "o", [r for r in measured if r["is_ours"]]),
    ):
        if chosen:
            milliseconds, shares = zip(*map(_point, chosen), strict=True)
            axes.scatter(milliseconds, shares, s=42, color=color, marker=marker, label=name, zorder=3)
    # Most systems find nearly everything: equal distances are equal ratios of what is missed.
    axes.set_yscale("function", functions=(lambda r: -np.log(1.03 - r), lambda y: 1.03 - np.exp(-y)))
    lowest = min(result["recall"] for result in measured)
    axes.set_ylim(min(0.9, lowest - 0.05), 1.006)
    axes.set_yticks([share for share in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1) if share >= axes.get_ylim()[0]])
    axes.set(
        xscale="log",
        xlabel="CPU milliseconds per query, one core",
        ylabel=f"share of the exact top {measured[0]['inputs']['k']}",
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.2, 0.5)))
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.yaxis.set_minor_formatter("")
    axes.margins(x=0.12)
    axes.set_title(title, color=_INK)
    axes.grid(alpha=0.3, color=_INK)
    axes.tick_params(colors=_INK, which="both")
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    axes.legend(fontsize=8, labelcolor=_INK, framealpha=0, loc="best", edgecolor=_INK)
    _write_labels(axes, measured)
    figure.savefig(path, dpi=110, transparent=True)


def _write_labels(axes: Axes, measured: Sequence[dict[str, Any]]) -> None:
    """Write each system's name beside its point, where it covers no other name and no point."""
    figure = axes.figure
    figure.canvas.draw()  # the layout moves the axes
    points = axes.transData.transform([_point(result) for result in measured])
    taken = [_box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for result in sorted(measured, key=lambda result: _point(result)):
        for dx, dy in _PLACES:
            side = "left" if dx > 0 else "right" if dx < 0 else "center"
            label = axes.annotate(
                result["label"], _point(result), (dx, dy), textcoords="offset points", ha=side, fontsize=8, color=_INK
            )
            extent = label.get_window_extent()
            box = _box(extent.x0, extent.y0, extent.x1, extent.y1)
            is_inside = axes.bbox.x0 <= box[0] and box[2] <= axes.bbox.x1
            if is_inside and not any(_overlap(box, other) for other in taken):
                break
            if (dx, dy) != _PLACES[-1]:
                label.remove()
        taken.append(box)


def _point(result: dict[str, Any]) -> tuple[float, float]:
    return result["one_core"]["cpu_ms"], result["recall"]


def _box(x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
    return x0, y0, x1, y1


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _row(result: dict[str, Any]) -> str:
    if "reason" in result:
        return f"| {result['label']} | {result['reason'].replace('|', '/')} |" + " |" * 9
    one, every, build = result["one_core"], result["all_cores"], result["build"]
    cells = (
        result["label"],
        _share(result["recall"]),
        "" if result["ndcg"] is None else _share(result["ndcg"]),
        _short(one["cpu_ms"]),
        _short(one["cpu_ms_95"]),
        _short(one["wall_ms"]),
        _short(every["wall_ms"]),
        f"{result['bytes'] / result['inputs']['n_tokens']:.0f}",
        _short(build["cpu_seconds"]),
        f"{build['peak_bytes'] / 1e6:,.0f}",
        f"{one['resident_bytes'] / 1e6:,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _share(value: float) -> str:
    return "1" if value > 0.9995 else f"{value:.3f}".lstrip("0")


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"
