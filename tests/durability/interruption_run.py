"""Long run of test_interruptions.py: interrupts every call at every point, in random order, until the time is up.

    python tests/durability/interruption_run.py --seconds 120

Without --seconds it goes on until all points had their turn, which takes about half an hour. A failure is shown with
the call and the point, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import pytest
from test_interruptions import CALLS, STAGE_ONE, Case, prepare, use

from muvera_core import MuveraIndex


def interrupt_all(kind: str, seconds: float, seed: int, only: str | None) -> tuple[int, int, int]:
    """Interrupt calls on indexes with one kind of stage one. Returns how many points there are, turns and failures."""
    end = time.monotonic() + seconds
    turns = failures = 0
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        use(kind, patch)
        calls = [one for one in CALLS if only in (None, one[0])]
        cases = [Case(*one, Path(folder) / "-".join(one), thorough=True) for one in calls]
        points = [(case, point) for case in cases for point in case.points()]
        random.Random(seed).shuffle(points)
        for case, point in points:
            if time.monotonic() > end:
                break
            turns += 1
            try:
                case.interrupt(point.number)
            except Exception:
                failures += 1
                traceback.print_exc()
                print(f"{kind}: {case.call} in {case.where}, interrupted at {point}: FAILED", flush=True)
    return len(points), turns, failures


def main() -> int:
    """Take each kind of stage one for its share of the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long at most, all together")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the order (default: the clock)")
    parser.add_argument("--only", choices=sorted({call for call, _ in CALLS}), help="interrupt this call only")
    options = parser.parse_args()
    print(
        f"{MuveraIndex.__module__} from {sys.modules[MuveraIndex.__module__].__file__}, seed {options.seed}", flush=True
    )
    warnings.simplefilter("ignore", ResourceWarning)
    logging.disable(logging.CRITICAL)
    prepare()
    failed = 0
    for kind in STAGE_ONE:
        points, turns, failures = interrupt_all(kind, options.seconds / len(STAGE_ONE), options.seed, options.only)
        failed += failures
        print(f"{kind}: {turns:,} of {points:,} points, {failures} failures", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
