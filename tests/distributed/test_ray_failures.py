from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray_shards import add, all_texts, eventually, every, options, small_encoder

from muvera_core.distributed.cluster import RayCluster, create_cluster, open_cluster
from muvera_core.distributed.lines import Line, LineAddress, LineServer
from muvera_core.distributed.ray_scatter import RayScatter
from muvera_core.distributed.scatter import ShardWriteError
from muvera_core.errors import ShardUnavailableError

TEXTS = {f"doc-{i}": f"text {i}" for i in range(20)}


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Whether the process has taken in SIGSTOP, which may happen after ``os.kill`` returned."""
    return subprocess.check_output(["ps", "-o", "state=", "-p", str(pid)], text=True).strip().startswith("T")


def problem_of(scatter: RayScatter) -> ShardUnavailableError | None:
    try:
        all_texts(scatter)
    except ShardUnavailableError as error:
        return error
    return None


def has_grown(acknowledged: dict[str, str], n: int) -> bool:
    return len(acknowledged) >= n + 8


def pids_of(scatter: RayScatter, shard: int) -> dict[str, int]:
    """The process of each of two members, by role."""
    primary = scatter.write("pid", {shard: ()})[shard]
    found = {scatter.read("pid", {shard: ()})[shard] for _ in range(8)}
    return {"primary": primary, **({"replica": (found - {primary}).pop()} if found - {primary} else {})}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Iterator[RayCluster]:
    """Two shards with a replica each. Tests leave all members alive and the documents as they are."""
    folder = tmp_path_factory.mktemp("cluster") / "index"
    made = create_cluster(folder, 2, small_encoder, {"lexical": False}, options(n_replicas=1))
    with made.current() as scatter:
        add(scatter, TEXTS)
    yield made
    made.close()


@pytest.fixture
def scatter(cluster: RayCluster) -> Iterator[RayScatter]:
    eventually(lambda: all(report.is_alive for report in cluster.members()))
    with cluster.current() as scatter:
        eventually(lambda: len(pids_of(scatter, 0)) == 2 and len(pids_of(scatter, 1)) == 2)
        yield scatter


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_reads_do_without_a_killed_member_and_it_is_replaced(scatter: RayScatter, role: str) -> None:
    pids = pids_of(scatter, 0)
    kill(pids[role])
    for _ in range(20):
        assert all_texts(scatter) == TEXTS
    eventually(lambda: len(pids_of(scatter, 0)) == 2)
    assert pids_of(scatter, 0)[role] != pids[role]
    assert all_texts(scatter) == TEXTS


def test_a_member_that_is_killed_during_a_read_is_done_without(scatter: RayScatter) -> None:
    pids = pids_of(scatter, 1)
    threading.Timer(0.5, kill, [pids["primary"]]).start()
    start = time.monotonic()
    answers = [scatter.read("sleep", {1: (1.0,)})[1] for _ in range(2)]  # each member in turn
    assert set(answers) == {pids["replica"]}
    assert time.monotonic() - start < 15


def test_a_silent_member_is_done_without(cluster: RayCluster, scatter: RayScatter) -> None:
    patient = RayScatter(cluster._generation.members, timeout=3.0)
    pids = pids_of(scatter, 0)
    os.kill(pids["replica"], signal.SIGSTOP)
    try:
        eventually(lambda: is_stopped(pids["replica"]))
        answers = {patient.read("pid", {0: ()})[0] for _ in range(4)}
    finally:
        os.kill(pids["replica"], signal.SIGCONT)
    assert answers == {pids["primary"]}
    eventually(lambda: len(pids_of(scatter, 0)) == 2)


def test_a_write_to_a_killed_primary_is_completed(scatter: RayScatter) -> None:
    pids = pids_of(scatter, 0)
    timer = threading.Timer(0.5, kill, [pids["primary"]])
    timer.start()
    # The first attempt dies while it sleeps.
    written_by = scatter.write("add_slowly", {0: (1.0, ["doc-new"], ["a new text"])})[0]
    assert written_by != pids["primary"]
    assert all_texts(scatter) == TEXTS | {"doc-new": "a new text"}
    scatter.write("remove", {0: (["doc-new"],)})


def test_everything_that_was_acknowledged_survives_kills(tmp_path: Path, ray_cluster: None) -> None:
    cluster = create_cluster(tmp_path / "index", 2, small_encoder, {"lexical": False}, options())
    acknowledged: dict[str, str] = {}
    done = threading.Event()

    def write() -> None:
        with cluster.current() as scatter:
            for i in range(200):
                if done.is_set():
                    return
                batch = {f"{i}-{j}": f"text {i} {j}" for j in range(4)}
                add(scatter, batch)
                acknowledged.update(batch)

    writer = threading.Thread(target=write)
    writer.start()
    with cluster.current() as scatter:
        for shard in (0, 1):
            n = len(acknowledged)
            eventually(partial(has_grown, acknowledged, n))
            kill(scatter.read("pid", {shard: ()})[shard])
        n = len(acknowledged)
        eventually(partial(has_grown, acknowledged, n))
        done.set()
        writer.join()
        assert all_texts(scatter) == acknowledged
    cluster.close()
    again = open_cluster(tmp_path / "index", small_encoder, options())
    with again.current() as scatter:
        assert all_texts(scatter) == acknowledged
    again.close()


def test_without_a_replica_a_read_waits_for_the_new_process_or_leaves_the_shard_out(
    tmp_path: Path, ray_cluster: None
) -> None:
    cluster = create_cluster(tmp_path / "index", 2, small_encoder, {"lexical": False}, options())
    partial = RayScatter(cluster._generation.members, on_missing_shard="partial", timeout=20.0)
    with cluster.current() as scatter:
        add(scatter, TEXTS)
        kill(scatter.read("pid", {0: ()})[0])
        start = time.monotonic()
        assert list(partial.read("texts", every(scatter))) == [1]
        assert time.monotonic() - start < 10
        assert all_texts(scatter) == TEXTS
        eventually(lambda: list(partial.read("texts", every(scatter))) == [0, 1])
    cluster.close()


def test_members_that_have_ended_for_good_are_reported_at_once(tmp_path: Path, ray_cluster: None) -> None:
    import ray

    cluster = create_cluster(tmp_path / "index", 2, small_encoder, {"lexical": False}, options(timeout=20.0))
    with cluster.current() as scatter:
        add(scatter, TEXTS)
        ray.kill(cluster._generation.members[1][0].actor)
        error = eventually(lambda: problem_of(scatter))  # the process goes on for a moment
        assert error.shards == (1,)
        start = time.monotonic()
        with pytest.raises(ShardUnavailableError, match="shard 1"):
            all_texts(scatter)
        with pytest.raises(ShardWriteError) as failed:
            scatter.write("add", {0: (["a"], ["a"]), 1: (["b"], ["b"])})
        assert list(failed.value.done) == [0]
        assert isinstance(failed.value.failed[1], ShardUnavailableError)
        assert time.monotonic() - start < 15
    assert [report.is_alive for report in cluster.members()] == [True, False]
    cluster.close()


def test_replicas_answer_while_their_primary_is_gone(tmp_path: Path, ray_cluster: None) -> None:
    import ray

    cluster = create_cluster(tmp_path / "index", 1, small_encoder, {"lexical": False}, options(n_replicas=1))
    with cluster.current() as scatter:
        add(scatter, TEXTS)
        ray.kill(cluster._generation.members[0][0].actor)
        for _ in range(4):
            assert all_texts(scatter) == TEXTS
    cluster.close()


def test_a_killed_node_is_done_without_and_its_members_go_on_elsewhere(tmp_path: Path, ray_cluster: Any) -> None:
    def add_node() -> Any:  # with room for one member
        head: Any = ray_cluster.head_node
        given: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000, "resources": {"room": 1}}
        return ray_cluster.add_node(node_ip_address=head.node_ip_address, **given)

    nodes = [add_node(), add_node()]
    one_on_each = {"resources": {"room": 1}, "scheduling_strategy": "DEFAULT"}
    placed = options(n_replicas=1, actor_options=one_on_each)
    cluster = create_cluster(tmp_path / "index", 1, small_encoder, {"lexical": False}, placed)
    try:
        cluster.run(lambda scatter: add(scatter, TEXTS))
        primary = cluster.members()[0]
        (killed,) = [node for node in nodes if node.node_id == primary.node]
        ray_cluster.remove_node(killed, allow_graceful=False)
        nodes.remove(killed)
        for _ in range(20):
            assert cluster.run(all_texts) == TEXTS
        nodes.append(add_node())
        cluster.run(lambda scatter: add(scatter, {"new": "a new text"}))  # waits for the new process
        assert cluster.members()[0].node not in (primary.node, None)
        for _ in range(4):
            assert cluster.run(all_texts) == TEXTS | {"new": "a new text"}
    finally:
        cluster.close()
        for node in nodes:
            ray_cluster.remove_node(node)


def test_a_line_is_refused_without_the_key() -> None:
    server = LineServer("127.0.0.1", lambda name, *arguments: (name, arguments))
    address = server.address
    line = Line(address, time.monotonic() + 5)
    line.ask("name", (1,), time.monotonic() + 5)
    assert line.answer(time.monotonic() + 5).value == ("name", (1,))
    with pytest.raises((OSError, EOFError)):
        Line(LineAddress(address.host, address.port, b"x" * 32), time.monotonic() + 5)
    line.close()
    server.close()
    with pytest.raises((OSError, EOFError)):
        Line(address, time.monotonic() + 5)


def test_a_caller_does_not_trust_another_process_at_the_same_port() -> None:
    """The port of a process that has died may be taken by another one."""
    server = LineServer("127.0.0.1", lambda name: name)
    lying: Any = LineAddress(server.address.host, server.address.port, b"the key of an earlier process")
    with pytest.raises((OSError, EOFError)):
        Line(lying, time.monotonic() + 5)
    server.close()
