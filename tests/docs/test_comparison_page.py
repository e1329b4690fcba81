"""docs/comparison.md says nothing that was not measured: its figures are those of docs/benchmarks.md and README.md."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

pytest.importorskip("markdown_it", reason="needs markdown-it-py")

from markdown_pages import ROOT, tokens_of

FIGURE = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d*\.\d+|\d{2,})(?![\w.]*\d)")


def cells() -> Iterator[list[str]]:
    """The cells of each row of a table of the page, but for the first, which names what the row is about."""
    row: list[str] = []
    tokens = tokens_of("docs/comparison.md")
    for token, content in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        if token.type == "tr_open":
            row = []
        elif token.type == "td_open":
            row.append(content.content)
        elif token.type == "tr_close" and row:
            yield row


@pytest.mark.parametrize("row", [row for row in cells() if any(FIGURE.fullmatch(cell) for cell in row)], ids=str)
def test_the_figures_of_a_row_are_those_of_one_row_of_the_benchmarks(row: list[str]) -> None:
    figures = [cell for cell in row[1:] if FIGURE.fullmatch(cell)]
    measured = (ROOT / page for page in ("docs/benchmarks.md", "README.md"))
    lines = [line for page in measured for line in page.read_text(encoding="utf-8").replace("*", "").splitlines()]
    assert any(
        all(figure in {cell.strip() for cell in line.split("|")} for figure in figures)
        for line in lines
        if line.startswith("|")
    )


def test_figures_of_the_text_are_in_the_benchmarks() -> None:
    text = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")
    known = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    missing = [figure for figure in re.findall(r"(?<![\w.])\.\d{2,3}\b", prose) if figure not in known]
    assert missing == []
