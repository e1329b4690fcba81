"""Crash an index thousands of times and print a table of what came of it.

    python tests/durability/crash/long_run.py --kills 300 --states 3000 --faults 300 --seed 0

A failure is printed with the options that repeat it, such as ``--scenario life --seed 3 --reproduce stop:211:torn``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

from crash_campaign import Campaign, Result
from crash_worker import Worker, build_iolog, missing_requirement
from crash_workload import Scenario
from tqdm import tqdm

CRASHES = {
    "kill": "kills at random instants",
    "stop": "kills at chosen file operations",
    "threads": "the same, beside searching threads",
    "reader": "the same, beside a reader",
    "power": "power losses",
    "strict": "power losses, names reordered",
    "recovery": "power losses in recovery from one",
    "fsync": "power losses after a failed fsync",
    "fault": "injected errors",
}
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
# Per scenario, how much of the --kills, --states and --faults goes where.
SHARES: dict[str, dict[str, dict[str, float]]] = {
    "kills": {
        "life": {"kill": 0.15, "stop": 0.35, "threads": 0.1, "reader": 0.15},
        "create": {"stop": 0.05},
        "migration": {"stop": 0.1},
        "repair": {"stop": 0.1},
    },
    "states": {
        "life": {"power": 0.36, "strict": 0.08, "recovery": 0.08, "fsync": 0.08},
        "create": {"power": 0.02, "strict": 0.02, "recovery": 0.01},
        "migration": {"power": 0.06, "strict": 0.07, "recovery": 0.02, "fsync": 0.01},
        "repair": {"power": 0.08, "strict": 0.07, "recovery": 0.03, "fsync": 0.01},
    },
    "faults": {
        "life": {"fault": 0.55},
        "create": {"fault": 0.15},
        "migration": {"fault": 0.15},
        "repair": {"fault": 0.15},
    },
}
SHORT_SCRIPT = 4
MOST_SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="at random instants and at chosen operations")
    parser.add_argument("--states", type=int, default=3000, help="of the folder after a power loss")
    parser.add_argument("--faults", type=int, default=300, help="injected errors")
    parser.add_argument("--seed", type=int, default=0, help="of the first script")
    parser.add_argument("--scripts", type=int, default=10, help="how many scripts share the work")
    parser.add_argument("--operations", type=int, default=25, help="length of a script")
    parser.add_argument("--reproduce", help="do only this crash of the script with this seed")
    parser.add_argument("--scenario", choices=SCENARIOS, default="life", help="which one to reproduce a crash of")
    options = parser.parse_args()
    missing = missing_requirement()
    if missing:
        print(missing)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="muvera-crash-"))
    with Worker(build_iolog(folder)) as worker:
        if options.reproduce:
            campaign = campaign_of(worker, folder, options, options.seed, options.scenario)
            result = campaign.reproduce(options.reproduce)
            print(result, *result.notes)
            results = [result]
        else:
            results = run_all(worker, folder, options)
            report(results)
    failed = any(result.problems for result in results)
    if not failed:
        shutil.rmtree(folder)
    return int(failed)


def campaign_of(worker: Worker, folder: Path, options: argparse.Namespace, seed: int, scenario: Scenario) -> Campaign:
    """The campaign that options describe."""
    n_operations = options.operations if scenario == "life" else min(options.operations, SHORT_SCRIPT)
    return Campaign(worker, folder, seed, n_operations, scenario)


def run_all(worker: Worker, folder: Path, options: argparse.Namespace) -> list[Result]:
    """All crashes, spread over the scripts."""
    plan: dict[Scenario, dict[str, int]] = {scenario: {} for scenario in SCENARIOS}
    for what, shares in SHARES.items():
        for scenario in SCENARIOS:
            for crash, share in shares[scenario].items():
                plan[scenario][crash] = round(share * vars(options)[what])
    results: list[Result] = []
    with tqdm(total=sum(sum(crashes.values()) for crashes in plan.values()), unit="crash") as bar:
        for number in range(options.scripts):
            for scenario, crashes in plan.items():
                campaign = campaign_of(worker, folder, options, options.seed + number, scenario)
                for crash, n in crashes.items():
                    share = n * (number + 1) // options.scripts - n * number // options.scripts
                    for result in crash_with(campaign, crash, share):
                        results.append(result)
                        bar.update()
                        bar.set_postfix(failures=sum(bool(r.problems) for r in results), refresh=False)
    return results


def crash_with(campaign: Campaign, crash: str, n: int) -> Iterable[Result]:
    """``n`` crashes of one kind."""
    ways: dict[str, Callable[[int], Iterable[Result]]] = {
        "kill": campaign.kills,
        "stop": campaign.stops,
        "threads": campaign.stops_beside_threads,
        "reader": campaign.stops_beside_a_reader,
        "power": campaign.power_losses,
        "strict": lambda n: campaign.power_losses(n, strict=True),
        "recovery": campaign.losses_in_recovery,
        "fsync": campaign.losses_after_failed_fsyncs,
        "fault": campaign.faults,
    }
    return ways[crash](n)


def report(results: list[Result]) -> None:
    """Print failures and counts."""
    for scenario in SCENARIOS:
        for crash in CRASHES:
            some = [r for r in results if r.problems and (r.scenario, r.crash) == (scenario, crash)]
            for failure in some[:MOST_SHOWN]:
                print(failure)
            if len(some) > MOST_SHOWN:
                print(f"... and {len(some) - MOST_SHOWN} more like --scenario {scenario} --reproduce {crash}:...")
    print(f"\n{'crashes (failures)':36}" + "".join(f"{scenario:>13}" for scenario in (*SCENARIOS, "total")))
    for crash, name in {**CRASHES, "": "total"}.items():
        print(f"{name:36}" + "".join(f"{_counts(results, crash, scenario):>13}" for scenario in (*SCENARIOS, "")))
    print()
    notes = Counter(f"{result.crash}: {note}" for result in results for note in result.notes)
    for note, n in notes.most_common():
        print(f"{n:6} x {note}")


def _counts(results: list[Result], crash: str, scenario: str) -> str:
    """How many crashes, and how many failed; an empty name stands for all."""
    some = [r for r in results if crash in ("", r.crash) and scenario in ("", r.scenario)]
    return f"{len(some)} ({sum(bool(r.problems) for r in some)})" if some else "-"


if __name__ == "__main__":
    sys.exit(main())
