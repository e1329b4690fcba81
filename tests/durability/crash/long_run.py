"""Crash an index thousands of times and print a table of what came of it.

    python tests/durability/crash/long_run.py --kills 300 --states 3000 --faults 300 --seed 0

A failure is printed with the options that repeat it, such as ``--seed 3 --reproduce stop:211:torn``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from crash_campaign import Campaign, Result
from crash_worker import Worker, build_iolog, missing_requirement
from tqdm import tqdm

CRASHES = {
    "kill": "kills at random instants",
    "stop": "kills at chosen file operations",
    "power": "power losses",
    "strict": "power losses, names reordered",
    "recovery": "power losses in recovery from one",
    "fsync": "power losses after a failed fsync",
    "fault": "injected errors",
}
MOST_SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="half at random instants, half at chosen operations")
    parser.add_argument("--states", type=int, default=3000, help="power losses, a tenth each of the special kinds")
    parser.add_argument("--faults", type=int, default=300, help="injected errors")
    parser.add_argument("--seed", type=int, default=0, help="of the first script")
    parser.add_argument("--scripts", type=int, default=10, help="how many scripts share the work")
    parser.add_argument("--operations", type=int, default=25, help="length of a script")
    parser.add_argument("--reproduce", help="do only this crash of the script with this seed")
    options = parser.parse_args()
    missing = missing_requirement()
    if missing:
        print(missing)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="muvera-crash-"))
    with Worker(build_iolog(folder)) as worker:
        if options.reproduce:
            result = Campaign(worker, folder, options.seed, options.operations).reproduce(options.reproduce)
            print(result, *result.notes)
            results = [result]
        else:
            results = run_all(worker, folder, options)
            report(results)
    failed = any(result.problems for result in results)
    if not failed:
        shutil.rmtree(folder)
    return int(failed)


def run_all(worker: Worker, folder: Path, options: argparse.Namespace) -> list[Result]:
    """All crashes, spread over the scripts."""
    plan: list[tuple[Callable[[Campaign, int], Iterable[Result]], int]] = [
        (lambda campaign, n: campaign.kills(n), options.kills // 2),
        (lambda campaign, n: campaign.stops(n), options.kills - options.kills // 2),
        (lambda campaign, n: campaign.power_losses(n), options.states - 3 * (options.states // 10)),
        (lambda campaign, n: campaign.power_losses(n, strict=True), options.states // 10),
        (lambda campaign, n: campaign.losses_in_recovery(n), options.states // 10),
        (lambda campaign, n: campaign.losses_after_failed_fsyncs(n), options.states // 10),
        (lambda campaign, n: campaign.faults(n), options.faults),
    ]
    results: list[Result] = []
    with tqdm(total=sum(n for _, n in plan), unit="crash") as bar:
        for number in range(options.scripts):
            campaign = Campaign(worker, folder, options.seed + number, options.operations)
            for crashes, n in plan:
                share = n * (number + 1) // options.scripts - n * number // options.scripts
                for result in crashes(campaign, share):
                    results.append(result)
                    bar.update()
                    bar.set_postfix(failures=sum(bool(r.problems) for r in results), refresh=False)
    return results


def report(results: list[Result]) -> None:
    """Print failures and counts."""
    failures = [result for result in results if result.problems]
    for crash in CRASHES:
        some = [failure for failure in failures if failure.crash == crash]
        for failure in some[:MOST_SHOWN]:
            print(failure)
        if len(some) > MOST_SHOWN:
            print(f"... and {len(some) - MOST_SHOWN} more like --reproduce {crash}:...")
    print(f"\n{'':36} {'number':>7} {'failures':>8}")
    for crash, name in CRASHES.items():
        some = [result for result in results if result.crash == crash]
        print(f"{name:36} {len(some):7} {sum(bool(result.problems) for result in some):8}")
    print(f"{'total':36} {len(results):7} {len(failures):8}\n")
    for note, n in Counter(note for result in results for note in result.notes).most_common():
        print(f"{n:6} x {note}")


if __name__ == "__main__":
    sys.exit(main())
