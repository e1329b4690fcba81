"""Draws the README's picture of a terminal: real commands, and what they printed.

    pip install rich
    python tools/draw_terminal.py [--output docs/images/terminal.svg]

The commands index passages of Wikipedia from examples/data/ as files of a temporary folder, search them, and show why a
passage was found. What they print is captured and drawn as it is, but for lines that are too long.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text
from set_home import REPOSITORY

from muvera_core.evaluation.collections import read_beir

OUTPUT = REPOSITORY / "docs" / "images" / "terminal.svg"
COLLECTION = REPOSITORY / "examples" / "data" / "nq-gold"
N_PASSAGES = 120  # one in twenty, evenly spread, and those that answer the questions
QUESTIONS = ("what was the city of beijing previously known as", "where did the term spirits for alcohol come from")
COMMANDS = (
    "muvera index facts.muvera wikipedia",
    f'muvera search facts.muvera "{QUESTIONS[0]}?" -k 2 --passages',
    f'muvera search facts.muvera "{QUESTIONS[1]}?" -k 1 --explain',
)
COLUMNS = 96
MAX_LINES = 9  # of one command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(draw(run_commands()), encoding="utf-8")
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")


def run_commands() -> list[tuple[str, str]]:
    """Each command, and what it printed."""
    with tempfile.TemporaryDirectory() as temporary:
        write_passages(Path(temporary) / "wikipedia")
        return [(command, run(command, Path(temporary))) for command in COMMANDS]


def write_passages(folder: Path) -> None:
    """Write a file of text for each passage, named by its title."""
    collection = read_beir(COLLECTION)
    relevant = [next(iter(collection.relevance[id])) for id, text in collection.queries.items() if text in QUESTIONS]
    some = range(0, len(collection.ids), len(collection.ids) // N_PASSAGES)
    folder.mkdir()
    for i in sorted({*some, *(collection.ids.index(id) for id in relevant)}):
        title = re.sub(r"[^\w]+", "-", collection.titles[i]).strip("-").lower()
        text = collection.texts[i].removeprefix(collection.titles[i]).strip()
        (folder / f"{title}.txt").write_text(f"{text}\n", encoding="utf-8")


def run(command: str, folder: Path) -> str:
    """What ``muvera`` prints for a command, run by this interpreter."""
    program, *rest = shlex.split(command)
    if program != "muvera":
        raise ValueError(f"expected a command of muvera, got {command}")
    full = [sys.executable, "-m", "muvera_core.cli", *rest]
    done = subprocess.run(full, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def draw(printed: list[tuple[str, str]]) -> str:
    """An SVG of a terminal. Fonts of the reader's machine are used: the file fetches nothing."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for command, output in printed:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        lines = [line for line in output.splitlines() if line.strip()]
        for line in lines[:MAX_LINES]:
            console.print(Text(shortened(line), style_of(line)), no_wrap=True)
        console.print()
    svg = console.export_svg(title="muvera", unique_id="muvera")
    return without_web_fonts(svg)


def style_of(line: str) -> str:
    """Hits stand out from their texts, and so do the words that matched."""
    if line.lstrip().startswith("[") or "→" in line:
        return "yellow"
    return "bold cyan" if line[:1].isdigit() else ""


def shortened(line: str) -> str:
    """A line that fits into the terminal."""
    return line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…"


def without_web_fonts(svg: str) -> str:
    """Without the rules by which rich's picture fetches its font from another server."""
    while "@font-face" in svg:
        before, _, rest = svg.partition("@font-face")
        svg = before + rest.partition("}")[2]
    return svg.replace("Fira Code, monospace", "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace")


if __name__ == "__main__":
    main()
