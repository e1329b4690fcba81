"""Whatever stops the process or the machine, an index holds what was acknowledged and nothing half-done.

A script of writes runs in a process whose file operations are numbered, logged, interrupted or made to fail (see
``iolog.c``). ``long_run.py`` does the same thousands of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from crash_campaign import Campaign, Result
from crash_worker import Worker, build_iolog, missing_requirement
from power_loss import power_losses

MISSING = missing_requirement()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    folder = tmp_path_factory.mktemp("crash")
    with Worker(build_iolog(folder)) as worker:
        yield Campaign(worker, folder, seed=0, n_operations=25)


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


def test_a_kill_at_any_instant_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.kills(20), 20)


def test_a_kill_before_or_inside_any_file_operation_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.stops(40), 40)


def test_a_power_loss_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.power_losses(150), 150)


def test_a_power_loss_that_reorders_names_and_leaves_garbage_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.power_losses(50, strict=True), 50)


def test_a_power_loss_while_an_index_recovers_from_one_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.losses_in_recovery(50), 50)


def test_a_disk_error_is_raised_and_leaves_a_usable_index_with_all_or_nothing_of_the_call(campaign: Campaign) -> None:
    require_no_problems(campaign.faults(48), 48)


def test_a_power_loss_after_a_failed_fsync_loses_nothing_acknowledged(campaign: Campaign) -> None:
    require_no_problems(campaign.losses_after_failed_fsyncs(60), 60)


def test_this_harness_notices_a_missing_fsync(campaign: Campaign) -> None:
    unsynced = [record for record in campaign.records if record.kind != "S"]
    losses = power_losses(unsynced, 20, seed=0, first=len(unsynced) // 2)
    assert any(campaign.judge(loss).problems for loss in losses)
