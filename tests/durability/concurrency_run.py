"""Long run of what the tests beside it do for seconds: threads, processes, and random courses of calls.

    python tests/durability/concurrency_run.py --seconds 120

Every round of threads and processes has a seed of its own, counted from --seed; the writes of a seed are always the
same, what happens at once isn't. A failure ends its part of the run, is shown with its seed, and makes the exit
status 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from reference_model import create
from test_processes import read_while_another_process_writes
from test_stateful import MACHINES, SETTINGS
from test_threads import observe_while_writing

from muvera_core import MuveraIndex
from muvera_core.stage_one import stage_one

ROUND_SECONDS = 10.0
FLAT_LIMITS = (stage_one.FLAT_LIMIT, 5)

Round = Callable[[int, float, Path], Counter[str]]


def threads(seed: int, seconds: float, folder: Path) -> Counter[str]:
    """One round of searching threads beside a writing one, in a folder or in memory."""
    limit = stage_one.FLAT_LIMIT
    stage_one.FLAT_LIMIT = FLAT_LIMITS[seed % 2]
    try:
        with create(None if seed % 4 == 3 else folder / "index") as index:
            counts = observe_while_writing(index, seconds, seed)
    finally:
        stage_one.FLAT_LIMIT = limit
    return Counter(
        {"searches checked": counts.observations, "writes": counts.writes, "compactions": counts.compactions}
    )


def processes(seed: int, seconds: float, folder: Path) -> Counter[str]:
    """One round of reading processes beside a writing one."""
    counts = read_while_another_process_writes(folder / "run", seconds, seed, FLAT_LIMITS[seed % 2])
    return Counter(
        {
            "searches checked": counts.observations,
            "refreshes that found something": counts.refreshes,
            "writes": counts.writes,
            "compactions": counts.compactions,
        }
    )


def stateful(seed: int, seconds: float, folder: Path) -> Counter[str]:
    """Random courses of calls until the time is up, at least some. Hypothesis draws them, and shows one that fails."""
    machine, end = MACHINES[seed % 2], time.monotonic() + seconds
    examples, steps = machine.n_examples, machine.n_steps
    more = settings(SETTINGS, derandomize=False, max_examples=50, stateful_step_count=60)
    while machine.n_examples == examples or time.monotonic() < end:
        run_state_machine_as_test(machine, settings=more)
    return Counter({"examples": machine.n_examples - examples, "states": machine.n_steps - steps})


PARTS: dict[str, Round] = {"threads": threads, "processes": processes, "stateful": stateful}


def run_part(name: str, seconds: float, seed: int) -> tuple[Counter[str], int]:
    """Rounds of one part for so long; the sum of their counts, and the number of failures."""
    total: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while not total["rounds"] or time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            try:
                total += PARTS[name](seed, min(ROUND_SECONDS, max(1, end - time.monotonic())), Path(folder))
            except Exception:
                traceback.print_exc()
                print(f"{name}: seed {seed} failed", flush=True)
                return total, 1
        total["rounds"] += 1
        seed += 1
    return total, 0


def main() -> int:
    """Run each part for its share of the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="how long, all parts together (default 120)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first round (default: the clock)")
    parser.add_argument("--only", choices=PARTS, help="run this part for all of the time")
    options = parser.parse_args()
    names = [options.only] if options.only else list(PARTS)
    print(
        f"{MuveraIndex.__module__} from {sys.modules[MuveraIndex.__module__].__file__}, seed {options.seed}", flush=True
    )
    failures = 0
    for name in names:
        counts, failed = run_part(name, options.seconds / len(names), options.seed)
        failures += failed
        told = ", ".join(f"{number:,} {what}" for what, number in sorted(counts.items()))
        print(f"{name}: {told or 'nothing finished'}, {failed} failures", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
