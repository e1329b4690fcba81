"""Damage copies of an index in thousands of ways, and see that no damage is ever a wrong answer or a crash.

    python tests/durability/corruption_run.py --flips 1000 --seed 0

makes ``--flips`` damaged copies of each file of a flat and of a graph index, opens them for reading and for writing,
checks and repairs them, and counts what became of them. Cases run in child processes with limited memory and time, so
that an interpreter that dies is a failure of a case like any other.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from damaged_folders import (
    CORRUPT,
    ENCODER,
    KINDS,
    WAYS,
    answers,
    damage,
    files,
    make,
    use,
    wrong,
)
from tqdm import tqdm

from muvera_core import check_index, repair_index
from muvera_core.errors import MuveraError

# Far more than a small index needs beside the interpreter and its libraries.
MEMORY = 4 << 30
SECONDS_PER_CASE = 20
BATCH = 50


def main() -> None:
    """Run the campaign and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000, help="damaged copies of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--child", nargs=4, metavar=("KIND", "FOLDER", "FIRST", "LAST"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, folder, first, last = arguments.child
        _child(kind, Path(folder), range(int(first), int(last)), arguments.seed)
        return
    failed = False
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), kind)
            n = arguments.flips * len(files(Path(folder) / "index"))
            results = run(Path(folder), kind, n, arguments.seed, show_progress=True)
        print(f"\n{kind} index, {n} damaged copies")
        print(table(results))
        for result in results:
            if result["outcome"] == "FAILURE":
                failed = True
                print(
                    f"  case {result['case']}, {result['file']}, {result['way']} {result['where']}: {result['error']}"
                )
    sys.exit(failed)


def prepare(folder: Path, kind: str) -> None:
    """An index, an older state of it and another index."""
    make(folder, kind, seed=0)
    (folder / "another").mkdir()
    make(folder / "another", kind, seed=1)


def run(folder: Path, kind: str, n: int, seed: int, *, show_progress: bool = False) -> list[dict[str, Any]]:
    """What became of cases 0 to ``n``, run in child processes."""
    results: list[dict[str, Any]] = []
    with tqdm(total=n, desc=f"damaging a {kind} index", disable=not show_progress) as bar:
        while len(results) < n:
            first, last = len(results), min(n, len(results) + BATCH)
            some, ending = _run_child(kind, folder, first, last, seed)
            results += some
            if len(some) < last - first:  # it died in the case that follows
                results.append(describe(folder, len(results), seed) | {"outcome": "FAILURE", "error": ending})
            bar.update(len(results) - first)
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Counts by file and kind of damage."""
    outcomes = ("open", "read", "harmless", "older state", "unchanged", "FAILURE")
    counts = Counter((result["file"], result["way"], result["outcome"]) for result in results)
    lines = [f"{'file':24}{'damage':9}" + "".join(f"{outcome:>12}" for outcome in outcomes)]
    for file, way in sorted({(file, way) for file, way, _ in counts}):
        numbers = "".join(f"{counts[file, way, outcome]:12}" for outcome in outcomes)
        lines.append(f"{file:24}{way:9}{numbers}")
    total = Counter(result["outcome"] for result in results)
    lines.append(f"{'all':33}" + "".join(f"{total[outcome]:12}" for outcome in outcomes))
    repairs = Counter(result.get("repair", "not tried") for result in results)
    return "\n".join([*lines, "repair: " + ", ".join(f"{count} {name}" for name, count in repairs.most_common())])


def describe(folder: Path, case: int, seed: int) -> dict[str, Any]:
    """Which file a case damages, and how."""
    names = files(folder / "index")
    way = WAYS[case // len(names) % len(WAYS)]
    return {"case": case, "seed": seed, "file": names[case % len(names)], "way": way, "where": ""}


def run_case(folder: Path, work: Path, case: int, seed: int, expected: dict[str, Any]) -> dict[str, Any]:
    """Damage a copy and look at it from all sides. Raises whatever goes wrong in an unforeseen way."""
    result = describe(folder, case, seed)
    rng = random.Random(f"{seed} {case} place")
    damaged, for_writing = work / "damaged", work / "for writing"
    shutil.copytree(folder / "index", damaged)
    result["where"] = damage(
        damaged, result["file"], result["way"], rng, folder / "another" / "index", folder / "older"
    )
    if not result["where"]:
        return result | {"outcome": "unchanged"}
    shutil.copytree(damaged, for_writing)
    states = [expected["index"]] + ([expected["older"]] if result["way"] == "older" else [])
    reader = answers(damaged, read_only=True)
    report = check_index(damaged)
    writer = answers(for_writing, read_only=False)
    for how, found in (("reader", reader), ("writer", writer)):
        if names := wrong(found, *states):
            return result | {"outcome": "FAILURE", "error": f"wrong answers of a {how}: {names[:5]}"}
    refused = [isinstance(found, str) or CORRUPT in found.values() for found in (reader, writer)]
    if any(refused) and report.ok:
        return result | {"outcome": "FAILURE", "error": "check_index finds nothing, though reading does"}
    try:
        repair_index(damaged, ENCODER)
        result["repair"] = "made it whole"
    except MuveraError as error:
        result["repair"] = f"refused with {type(error).__name__}"
        if not isinstance(reader, str):
            return result | {"outcome": "FAILURE", "error": f"an index that opens can't be repaired: {error}"}
    else:
        if problem := _trouble_after_repair(damaged, reader, states):
            return result | {"outcome": "FAILURE", "error": problem}
    if isinstance(reader, str) or isinstance(writer, str):
        return result | {"outcome": "open"}
    if any(refused):
        return result | {"outcome": "read"}
    return result | {"outcome": "harmless" if reader == states[0] else "older state"}


def _trouble_after_repair(folder: Path, before: dict[str, Any] | str, states: list[Any]) -> str:
    """What is wrong with a repaired index: a document that is lost though it could be read, or one that is altered."""
    if not (report := check_index(folder)).ok:
        return f"damaged after repair: {report}"
    after = answers(folder, read_only=False)
    if isinstance(after, str):
        return f"{after} after repair"
    if CORRUPT in after.values():
        return "refuses to answer after repair"
    single = [name for name in after if name.startswith("get ")]
    for name in single:
        if after[name] and all(after[name] != state[name] for state in states):
            return f"repair altered a document: {name}"
        explained = name.replace("get", "explain")
        if after[name] and all(after[explained] != state[explained] for state in states):
            return f"repair altered a document's tokens: {name}"
        if isinstance(before, dict) and before[name] and before[name] != CORRUPT and not after[name]:
            return f"repair lost a document that could be read: {name}"
    if after["len"] != sum(bool(after[name]) for name in single):
        return "repair invented documents"
    return ""


def _run_child(kind: str, folder: Path, first: int, last: int, seed: int) -> tuple[list[dict[str, Any]], str]:
    command = [sys.executable, "-X", "faulthandler", __file__, "--seed", str(seed)]
    command += ["--child", kind, str(folder), str(first), str(last)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 + SECONDS_PER_CASE * (last - first))
        output, ending = done.stdout, f"exit {done.returncode}: {done.stderr[-1500:]}"
    except subprocess.TimeoutExpired as error:
        output, ending = (error.stdout or b"").decode(), "it hangs"
    return [json.loads(line) for line in output.splitlines() if line.endswith("}")], ending


def _child(kind: str, folder: Path, cases: range, seed: int) -> None:
    use(kind)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    expected = {}
    for name in ("index", "older"):
        with tempfile.TemporaryDirectory() as work:
            copy = Path(shutil.copytree(folder / name, Path(work) / "copy"))
            expected[name] = answers(copy, read_only=True)
            assert check_index(copy).ok, str(check_index(copy))
    for case in cases:
        with tempfile.TemporaryDirectory() as work:
            try:
                result = run_case(folder, Path(work), case, seed, expected)
            except Exception as error:
                trace = traceback.format_exc()[-1500:]
                result = describe(folder, case, seed)
                result |= {"outcome": "FAILURE", "error": f"{type(error).__name__}: {error}\n{trace}"}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
