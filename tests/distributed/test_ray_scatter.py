from __future__ import annotations

import pickle
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ray_shards import add, all_texts, eventually, every, options, small_encoder

import muvera_core.errors as errors
from muvera_core import MuveraIndex
from muvera_core.distributed.cluster import RayCluster, create_cluster, open_cluster
from muvera_core.distributed.cluster_folder import holds_sharded_index, shard_folder
from muvera_core.distributed.ray_scatter import RayScatter
from muvera_core.distributed.scatter import ShardWriteError
from muvera_core.errors import (
    EncoderMismatchError,
    IndexClosedError,
    IndexExistsError,
    IndexLockedError,
    InvalidInputError,
    MuveraError,
    ReadOnlyIndexError,
    ServiceTimeoutError,
    ShardUnavailableError,
    TruncatedTextWarning,
)

TEXTS = {f"doc-{i}": f"text {i}" for i in range(20)}
pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Iterator[RayCluster]:
    """Two shards with a replica each, and 20 documents. Tests must not change them."""
    folder = tmp_path_factory.mktemp("cluster") / "index"
    made = create_cluster(folder, 2, small_encoder, {"lexical": False}, options(n_replicas=1))
    with made.current() as scatter:
        add(scatter, TEXTS)
    yield made
    made.close()


@pytest.fixture
def scatter(cluster: RayCluster) -> Iterator[RayScatter]:
    with cluster.current() as scatter:
        yield scatter


def test_all_shards_together_hold_what_was_added(scatter: RayScatter) -> None:
    assert all_texts(scatter) == TEXTS
    assert all(scatter.read("texts", every(scatter)).values())  # each shard has some


def test_only_the_named_shards_are_asked(scatter: RayScatter) -> None:
    assert scatter.read("echo", {1: ("for the second",)}) == {1: "for the second"}
    assert scatter.read("echo", {}) == {}


def test_arrays_and_large_values_arrive_as_they_are(scatter: RayScatter) -> None:
    value = np.random.default_rng(0).normal(size=(500_000,)).astype(np.float32)
    for answer in scatter.read("echo", every(scatter, value)).values():
        np.testing.assert_array_equal(answer, value)


def test_members_take_turns(scatter: RayScatter) -> None:
    assert len({scatter.read("pid", {0: ()})[0] for _ in range(6)}) == 2


def test_replicas_see_each_acknowledged_write_at_once(tmp_path: Path) -> None:
    """Also those that another read takes in at the moment."""
    cluster = create_cluster(tmp_path / "index", 1, small_encoder, {"lexical": False}, options(n_replicas=1))
    acknowledged: dict[str, str] = {}
    missing: list[set[str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            expected = set(acknowledged)
            missing.append(expected - set(cluster.run(all_texts)))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        for i in range(40):
            texts = {f"doc-{i}-{j}": "a text" for j in range(50)}
            cluster.run(partial(add, texts=texts))
            acknowledged = acknowledged | texts
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert len(missing) > 20
    assert set().union(*missing) == set()
    cluster.close()


def test_errors_of_a_shard_come_back_as_themselves(scatter: RayScatter) -> None:
    with pytest.raises(InvalidInputError, match="got nothing"):
        scatter.read("refuse", every(scatter))
    with pytest.raises(ZeroDivisionError) as caught:
        scatter.read("fail", every(scatter))
    assert "in the process of a shard" in caught.value.__notes__[0]


def test_a_write_that_fails_says_what_became_of_each_shard(scatter: RayScatter) -> None:
    with pytest.raises(ShardWriteError) as caught:
        scatter.write("add", {0: ([], []), 1: (["a"], [])})
    assert caught.value.done == {0: []}
    assert isinstance(caught.value.failed[1], InvalidInputError)
    assert all_texts(scatter) == TEXTS


def test_warnings_of_shards_are_given_to_the_caller_once(scatter: RayScatter) -> None:
    with pytest.warns(TruncatedTextWarning, match="too long") as given:
        scatter.read("warn", every(scatter, "a text is too long"))
    assert len(given) == 1
    with pytest.warns(TruncatedTextWarning, match="too long"):  # each call gives it again
        scatter.write("warn", every(scatter, "a text is too long"))


def test_many_threads_can_ask(scatter: RayScatter) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda i: scatter.read("echo", every(scatter, i)), range(200))
    assert list(answers) == [{0: i, 1: i} for i in range(200)]


def test_reads_go_on_during_a_long_write(scatter: RayScatter) -> None:
    done = threading.Event()

    def write() -> None:
        scatter.write("sleep", {0: (1.5,), 1: (1.5,)})
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    n_answers = 0
    while not done.is_set():
        assert all_texts(scatter) == TEXTS
        n_answers += 1
    thread.join()
    assert n_answers > 3


def test_a_read_that_takes_too_long_ends(cluster: RayCluster) -> None:
    members = pickle.loads(pickle.dumps(cluster))._generation.members  # noqa: S301
    hasty = RayScatter(members, timeout=0.5)
    eventually(lambda: all(member.is_up for part in members for member in part))
    with pytest.raises(ShardUnavailableError, match=r"shard 0 answers within 0\.5 s") as caught:
        hasty.read("sleep", {0: (5.0,), 1: (0.0,)})
    assert caught.value.shards == (0,)
    hasty.close()


def test_a_write_that_takes_too_long_ends(cluster: RayCluster) -> None:
    hasty = RayScatter(cluster._generation.members, write_timeout=0.5)
    with pytest.raises(ShardWriteError) as caught:
        hasty.write("sleep", {0: (2.0,), 1: (0.0,)})
    assert isinstance(caught.value.failed[0], ServiceTimeoutError)
    assert list(caught.value.done) == [1]


def test_members_are_reported(cluster: RayCluster) -> None:
    reports = cluster.members()
    assert [(report.shard, report.role) for report in reports] == [
        (0, "primary"),
        (0, "replica"),
        (1, "primary"),
        (1, "replica"),
    ]
    assert all(report.is_alive and report.node and (report.memory or 0) > 1 << 20 for report in reports)
    assert sum(report.n_documents or 0 for report in reports) == 2 * len(TEXTS)


def test_other_processes_use_the_same_members(cluster: RayCluster) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def ask(cluster: RayCluster) -> tuple[dict[str, str], set[int]]:
        with cluster.current() as scatter:
            return all_texts(scatter), {scatter.read("pid", {0: ()})[0] for _ in range(6)}

    texts, pids = ray.get(ask.remote(cluster), timeout=60)
    assert texts == TEXTS
    with cluster.current() as scatter:
        assert pids == {scatter.read("pid", {0: ()})[0] for _ in range(6)}


def test_a_second_writer_is_refused_but_readers_are_not(cluster: RayCluster) -> None:
    with pytest.raises(IndexLockedError, match="read_only=True"):
        open_cluster(cluster.folder, small_encoder, options())
    reader = open_cluster(cluster.folder, small_encoder, options(), read_only=True)
    with reader.current() as scatter:
        assert all_texts(scatter) == TEXTS
        with pytest.raises(ReadOnlyIndexError):
            add(scatter, {"new": "new"})
    reader.close()


def test_a_closed_index_can_be_opened_again(tmp_path: Path) -> None:
    cluster = create_cluster(tmp_path / "index", 2, small_encoder, {"lexical": False}, options())
    with cluster.current() as scatter:
        add(scatter, TEXTS)
    cluster.close()
    cluster.close()
    with pytest.raises(IndexClosedError), cluster.current():
        pass
    again = open_cluster(tmp_path / "index", small_encoder, options())
    with again.current() as scatter:
        assert all_texts(scatter) == TEXTS
    again.close()
    # Each shard is an ordinary index.
    with MuveraIndex.open(shard_folder(tmp_path / "index", 1, 0), small_encoder()) as shard:
        assert 0 < len(shard) < len(TEXTS)


def test_a_creation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="token precision"):
        create_cluster(tmp_path / "index", 2, small_encoder, {"token_precision": "3bit"}, options())
    assert not holds_sharded_index(tmp_path / "index")
    cluster = create_cluster(tmp_path / "index", 1, small_encoder, {"lexical": False}, options())
    cluster.close()
    with pytest.raises(IndexExistsError):
        create_cluster(tmp_path / "index", 1, small_encoder, {}, options())


def test_another_encoder_is_refused(cluster: RayCluster) -> None:
    with pytest.raises(EncoderMismatchError):
        open_cluster(cluster.folder, None, options(), read_only=True)


def test_an_encoder_that_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    encoder = small_encoder()
    encoder.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(InvalidInputError, match="a function without arguments"):
        create_cluster(tmp_path / "index", 1, encoder, {}, options())


def test_shared_members_outlive_a_handle(tmp_path: Path) -> None:
    shared = options(detached=True)
    first = create_cluster(tmp_path / "index", 1, small_encoder, {"lexical": False}, shared)
    second = open_cluster(tmp_path / "index", small_encoder, shared)
    with first.current() as scatter:
        add(scatter, TEXTS)
        pid = scatter.read("pid", {0: ()})
    first.close()
    with second.current() as scatter:
        assert scatter.read("pid", {0: ()}) == pid
        assert all_texts(scatter) == TEXTS
        add(scatter, {"new": "new"})
    second.end()
    with MuveraIndex.open(shard_folder(tmp_path / "index", 1, 0), small_encoder()) as shard:
        assert len(shard) == len(TEXTS) + 1


def test_options_are_checked() -> None:
    for wrong in ({"timeout": 0}, {"timeout": None}, {"n_replicas": -1}, {"on_missing_shard": "ignore"}):
        with pytest.raises(InvalidInputError):
            options(**wrong)


def test_every_error_survives_the_way_between_processes() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, MuveraError)]
    assert len(classes) > 20
    for error_class in classes:
        sent = error_class("a message")
        got = pickle.loads(pickle.dumps(sent))  # noqa: S301
        assert (type(got), str(got), vars(got)) == (type(sent), str(sent), vars(sent))
    partial = errors.PartialWriteError("a message", ("a",), {1: "why"}, ("b",))
    got = pickle.loads(pickle.dumps(partial))  # noqa: S301
    assert (got.acknowledged, got.failed, got.unknown) == (("a",), {1: "why"}, ("b",))


def test_warnings_that_are_errors_do_not_undo_a_write(scatter: RayScatter) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scatter.write("warn", {0: ("a text is too long",)}) == {0: None}
        with pytest.raises(TruncatedTextWarning):
            scatter.read("warn", {0: ("a text is too long",)})
