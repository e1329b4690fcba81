"""Measures how fast passages are added: the encoder alone, ``add`` with everything, and ``add`` of repeated passages.

    git worktree add ../before REVISION
    python tests/benchmarks/indexing.py FOLDER --before ../before/core

FOLDER is a collection in BEIR's format. Without ``--before`` only this revision is measured. The revisions take turns,
each in a process of its own. Times are those of the processor, of all threads together, so that other work disturbs
little; the wall's are printed as well. Prints the least time of the turns, and ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import describe_machine

ROOT = Path(__file__).resolve().parents[2]
COPIES = 3  # how often each text of the calls with copies appears


class Timed:
    """An encoder, and the seconds that it takes for documents: of the processor, and on the wall."""

    def __init__(self, encoder: Any) -> None:
        self._encoder, self.seconds = encoder, (0.0, 0.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    # The members of a token encoder must be in the class.
    dimension = property(lambda self: self._encoder.dimension)
    fingerprint = property(lambda self: self._encoder.fingerprint)

    def encode_documents(self, texts: Sequence[str]) -> Any:
        before = clocks()
        embeddings = self._encoder.encode_documents(texts)
        self.seconds = (self.seconds[0] + clocks()[0] - before[0], self.seconds[1] + clocks()[1] - before[1])
        return embeddings

    def encode_queries(self, texts: Sequence[str]) -> Any:
        return self._encoder.encode_queries(texts)

    def document_spans(self, text: str) -> Any:
        return self._encoder.document_spans(text)

    def query_spans(self, text: str) -> Any:
        return self._encoder.query_spans(text)


def clocks() -> tuple[float, float]:
    """Seconds of this process on the processor, and on the wall."""
    return time.process_time(), time.perf_counter()


def measure(folder: Path, n: int) -> dict[str, float]:
    """Seconds of each case with the core that this process imports. Uses public calls only."""
    from muvera_core import MuveraIndex
    from muvera_core.encoders import BundledEncoder
    from muvera_core.evaluation import read_beir

    texts = read_beir(folder).texts
    texts = texts[:: max(1, len(texts) // n)][:n]
    repeated = [text for _ in range(COPIES) for text in texts[: n // COPIES]]
    times: dict[str, float] = {}
    for case, given in (("add", texts), ("add of copies", repeated)):
        encoder = Timed(BundledEncoder())
        encoder.encode_documents(texts[:2])
        encoder.seconds = (0.0, 0.0)
        with tempfile.TemporaryDirectory() as parent, MuveraIndex.create(Path(parent) / "index", encoder) as index:
            before = clocks()
            index.add(given)
            for clock, start, end, encoding in zip(("CPU", "wall"), before, clocks(), encoder.seconds, strict=True):
                times[f"{case}, {clock}"] = end - start
                times[f"{case}, the encoder's {clock}"] = encoding
    return times


def turn(core: Path, folder: Path, n: int) -> dict[str, float]:
    """``measure`` in a process that imports the core from ``core``."""
    command = [sys.executable, __file__, str(folder), "--passages", str(n), "--measure"]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(core)}, stdout=subprocess.PIPE, text=True, check=True
    )
    times: dict[str, float] = json.loads(result.stdout)
    return times


def report(turns: dict[str, list[dict[str, float]]], n: int) -> None:
    """Print what each revision does in a second, the share of all but encoding, and the ratio of the revisions."""
    least = {name: {case: min(times[case] for times in each) for case in each[0]} for name, each in turns.items()}
    cases = [f"{case}, {part}" for case in ("add", "add of copies") for part in ("the encoder's CPU", "CPU", "wall")]
    for name, times in least.items():
        print(f"{name}: passages in a second, the best of {len(turns[name])} turns")
        for case in cases:
            print(f"  {case:34}{(n if case.startswith('add,') else n // COPIES * COPIES) / times[case]:9.1f}")
        for case in ("add", "add of copies"):
            share = times[f"{case}, CPU"] / times[f"{case}, the encoder's CPU"] - 1
            print(f"  {case}, all but encoding, as a share of encoding, CPU {share:6.1%}")
    if len(least) == 2:
        print("before / this")
        for case in cases:
            print(f"  {case:34}{least['before'][case] / least['this'][case]:9.2f}")


def main() -> None:
    """Measure the revisions in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a collection in BEIR's format")
    parser.add_argument("--before", type=Path, help="the folder `core` of another revision")
    parser.add_argument("--passages", type=int, default=240, help="number of passages, evenly spread (default: 240)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.folder, options.passages)))
        return
    cores = {"this": ROOT / "core"}
    if options.before is not None:
        if not (options.before / "muvera_core").is_dir():
            parser.error(f"expected the folder `core` of another revision, got {options.before}")
        cores = {"before": options.before.resolve(), **cores}
    print(describe_machine())
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in cores}
    for i in range(options.turns):
        for name in sorted(cores, reverse=i % 2 == 0):
            turns[name].append(turn(cores[name], options.folder, options.passages))
    report(turns, options.passages)


if __name__ == "__main__":
    main()
