"""The numbers of one process, and of several that share a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muvera_core import MuveraIndex
from muvera_core.errors import MissingExtraError
from muvera_core.serving.metrics import Metrics, forget_live_numbers

CALLS = ("search", "add")
# A worker process that answers a search and begins another one; then it is asked for all numbers, or killed.
WORKER = """
import sys
from muvera_core import MuveraIndex
from muvera_core.serving.metrics import Metrics
metrics = Metrics(["search"], folder=sys.argv[1], worker=sys.argv[2])
metrics.began()
metrics.ended("/v1/search", 200, 0.02)
metrics.began()
metrics.waits(1)
with MuveraIndex.create(None) as index:
    print(metrics.show(index)[0].decode())
"""


@pytest.fixture(scope="module")
def index() -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None) as made:
        made.add(["Owls hunt at night.", "Ants live in colonies."])
        yield made


def numbers(text: str) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def shown(metrics: Metrics, index: MuveraIndex) -> dict[str, float]:
    text, kind = metrics.show(index)
    assert kind.startswith("text/plain")
    return numbers(text.decode())


def test_requests_are_counted_by_call_and_status(index: MuveraIndex) -> None:
    metrics = Metrics(CALLS)
    for call, status in (("/v1/search", 200), ("/v1/search", 200), ("/v1/search", 422), ("/v1/add", 503)):
        metrics.began()
        metrics.ended(call, status, 0.02)
    found = shown(metrics, index)
    assert found['muvera_requests_total{call="search",status="200"}'] == 2
    assert found['muvera_requests_total{call="search",status="422"}'] == 1
    assert found['muvera_requests_total{call="add",status="503"}'] == 1
    assert found['muvera_request_seconds_count{call="search"}'] == 3
    assert found['muvera_request_seconds_sum{call="search"}'] == pytest.approx(0.06)
    assert found['muvera_request_seconds_bucket{call="search",le="0.01"}'] == 0
    assert found['muvera_request_seconds_bucket{call="search",le="0.025"}'] == 3


def test_nobody_makes_names_up(index: MuveraIndex) -> None:
    metrics = Metrics(CALLS)
    for number in range(50):
        metrics.began()
        metrics.ended(f"/v1/made-up-{number}", 404, 0.0)
    found = shown(metrics, index)
    assert found['muvera_requests_total{call="other",status="404"}'] == 50
    assert not any("made-up" in name for name in found)


def test_running_and_waiting_requests_are_shown(index: MuveraIndex) -> None:
    metrics = Metrics(CALLS)
    metrics.began()
    metrics.began()
    metrics.waits(1)
    assert shown(metrics, index)["muvera_requests_in_flight"] == 2
    assert shown(metrics, index)["muvera_requests_waiting"] == 1
    metrics.waits(-1)
    metrics.ended("/health", 200, 0.0)
    assert shown(metrics, index)["muvera_requests_in_flight"] == 1
    assert shown(metrics, index)["muvera_requests_waiting"] == 0


def test_the_index_is_shown_as_it_is_now(index: MuveraIndex) -> None:
    metrics = Metrics(CALLS)
    assert shown(metrics, index)["muvera_documents"] == 2
    assert shown(metrics, index)["muvera_tokens"] == index.n_tokens
    with MuveraIndex.create(None) as empty:
        assert shown(metrics, empty)["muvera_documents"] == 0


def test_times_of_stages_add_up(index: MuveraIndex) -> None:
    metrics = Metrics(CALLS)
    for _ in range(2):
        metrics.searched({"encode": 0.25, "rerank": 0.5})
    found = shown(metrics, index)
    assert found['muvera_search_stage_seconds_total{stage="encode"}'] == 0.5
    assert found['muvera_search_stage_seconds_total{stage="rerank"}'] == 1.0


def test_two_services_in_one_process_count_apart(index: MuveraIndex) -> None:
    one, other = Metrics(CALLS), Metrics(CALLS)
    one.began()
    one.ended("/v1/search", 200, 0.0)
    assert 'muvera_requests_total{call="search",status="200"}' not in shown(other, index)


def test_workers_add_up_and_a_new_one_goes_on_where_a_dead_one_stopped(tmp_path: Path) -> None:
    def run(worker: str) -> dict[str, float]:
        command = [sys.executable, "-c", WORKER, str(tmp_path), worker]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
        return numbers(done.stdout)

    total = 'muvera_requests_total{call="search",status="200"}'
    first = run("reader-1")
    assert (first[total], first["muvera_requests_in_flight"], first["muvera_requests_waiting"]) == (1, 1, 1)
    # It is gone now, but nobody has noticed.
    second = run("reader-2")
    assert (second[total], second["muvera_requests_in_flight"], second["muvera_requests_waiting"]) == (2, 2, 2)
    for worker in ("reader-1", "reader-2"):
        forget_live_numbers(str(tmp_path), worker)
    files = len(list(tmp_path.iterdir()))
    third = run("reader-1")
    assert (third[total], third["muvera_requests_in_flight"], third["muvera_requests_waiting"]) == (3, 1, 1)
    started = [name for name in third if name.startswith("muvera_process_start")]
    assert started == ['muvera_process_start_timestamp_seconds{pid="reader-1"}']
    forget_live_numbers(str(tmp_path), "reader-1")
    assert len(list(tmp_path.iterdir())) == files, "files pile up"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"muvera-core\[serve\]"):
        Metrics(CALLS)
