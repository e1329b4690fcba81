"""Whatever stops the process or the machine, an index holds what was acknowledged and nothing half-done.

A script of writes runs in a process whose file operations are numbered, logged, interrupted or made to fail (see
``iolog.c``). ``long_run.py`` does the same thousands of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from crash_campaign import Campaign, Result
from crash_worker import Worker, build_iolog, missing_requirement
from crash_workload import Scenario, make_script
from power_loss import Record, power_losses

MISSING = missing_requirement()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


N_OPERATIONS = 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def worker(folder: Path) -> Iterator[Worker]:
    with Worker(build_iolog(folder)) as worker:
        yield worker


@pytest.fixture(scope="module")
def campaign(worker: Worker, folder: Path) -> Campaign:
    return Campaign(worker, folder, seed=0, n_operations=N_OPERATIONS)


# The odd seeds begin in the midst of a commit; seed 5 of "repair" has a damaged header as well.
@pytest.fixture(scope="module", params=["create-0", "migration-0", "migration-1", "repair-0", "repair-5"])
def short_campaign(worker: Worker, folder: Path, request: pytest.FixtureRequest) -> Campaign:
    name, _, seed = request.param.partition("-")
    scenario: Scenario = name
    return Campaign(worker, folder, int(seed), 2, scenario)


def by_operation(campaign: Campaign) -> list[list[Record]]:
    """The records of each operation of the script, and last those of closing the index."""
    parts: list[list[Record]] = [[]]
    for record in campaign.records:
        parts[-1].append(record)
        if record.kind == "A":
            parts.append([])
    return parts


def require_no_problems(results: Iterable[Result], at_least: int) -> None:
    results = list(results)
    failures = [str(result) for result in results if result.problems]
    assert not failures, f"{len(failures)} of {len(results)} crashes:\n" + "\n".join(failures)
    assert len(results) >= at_least


def test_the_log_sees_files_and_folders_being_synced_and_files_come_and_go(campaign: Campaign) -> None:
    folders = {r.path for r in campaign.records if r.kind == "D" and not r.error}
    synced = {r.path for r in campaign.records if r.kind == "S" and not r.error}
    created = {r.path for r in campaign.records if r.kind == "C" and not r.error}
    gone = {r.path for r in campaign.records if r.kind in "UR" and not r.error}
    assert folders & synced
    assert created & synced
    assert created & gone


def test_the_script_compacts_and_shrinks_and_saves_unasked(campaign: Campaign) -> None:
    script = make_script(campaign.seed, N_OPERATIONS)
    unasked: set[str] = set()
    for operation, records in zip(script, by_operation(campaign), strict=False):
        if operation.kind in ("add", "delete", "delete_where"):
            databases = {r.inode for r in campaign.records if r.path.endswith(".sqlite")}
            unasked |= {r.path for r in records if r.kind == "C" and "tokens-" in r.path}
            unasked |= {r.other for r in records if r.kind == "R"}
            unasked |= {"shrunk" for r in records if r.kind == "T" and r.inode in databases}
    assert {"index/stage_one.json", "shrunk"} < unasked
    assert any("tokens-" in path for path in unasked)


def test_a_kill_at_any_instant_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.kills(8), 8)


def test_a_kill_before_or_inside_any_file_operation_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.stops(20), 20)


def test_a_kill_loses_nothing_acknowledged_while_threads_search(campaign: Campaign) -> None:
    require_no_problems(campaign.stops_beside_threads(4), 4)


def test_a_reader_survives_the_writer_and_sees_what_the_next_one_recovers(campaign: Campaign) -> None:
    require_no_problems(campaign.stops_beside_a_reader(8), 8)


def test_a_power_loss_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.power_losses(100), 100)


def test_a_power_loss_that_reorders_names_and_leaves_garbage_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.power_losses(30, strict=True), 30)


def test_a_power_loss_while_an_index_recovers_from_one_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.losses_in_recovery(30), 30)


def test_a_disk_error_is_raised_and_leaves_a_usable_index_with_all_or_nothing_of_the_call(campaign: Campaign) -> None:
    require_no_problems(campaign.faults(18), 18)


def test_a_power_loss_after_a_failed_fsync_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.losses_after_failed_fsyncs(30), 30)


def test_a_creation_migration_or_repair_can_be_killed_anywhere(short_campaign: Campaign) -> None:
    require_no_problems(short_campaign.stops(6), 6)


def test_a_creation_migration_or_repair_survives_a_power_loss(short_campaign: Campaign) -> None:
    require_no_problems(short_campaign.power_losses(15), 15)
    require_no_problems(short_campaign.power_losses(5, strict=True), 5)
    require_no_problems(short_campaign.losses_in_recovery(4), 1)


def test_a_creation_migration_or_repair_survives_a_disk_error(short_campaign: Campaign) -> None:
    require_no_problems(short_campaign.faults(4), 4)


def test_this_harness_notices_a_missing_fsync(campaign: Campaign) -> None:
    unsynced = [record for record in campaign.records if record.kind != "S"]
    losses = power_losses(unsynced, 20, seed=0, first=len(unsynced) // 2)
    assert any(campaign.judge(loss).problems for loss in losses)
