from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray_shards import add, all_texts, eventually, every, options, small_encoder, vectors

from muvera_core import MuveraIndex
from muvera_core.distributed import resharding
from muvera_core.distributed.cluster import RayCluster, create_cluster, open_cluster
from muvera_core.distributed.cluster_folder import ClusterFile, generation_folder, shard_folder
from muvera_core.distributed.generation_actors import wait_until_open
from muvera_core.distributed.placement import shard_of
from muvera_core.distributed.ray_scatter import RayScatter
from muvera_core.distributed.resharding import reshard
from muvera_core.distributed.scatter import ShardWriteError
from muvera_core.distributed.shard_copying import ShardSource, ShardTarget, joined_settings
from muvera_core.errors import IndexLockedError, InvalidInputError, MuveraError, ReadOnlyIndexError

TEXTS = {f"doc-{i}": f"text {i}" for i in range(60)}
pytestmark = pytest.mark.usefixtures("ray_cluster")


def make(folder: Path) -> RayCluster:
    cluster = create_cluster(folder, 2, small_encoder, {"lexical": False}, options())
    cluster.run(lambda scatter: add(scatter, TEXTS))
    return cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Iterator[RayCluster]:
    """Two shards or more with 60 documents. Tests reshard it, but leave the documents as they are."""
    made = make(tmp_path_factory.mktemp("cluster") / "index")
    yield made
    made.close()


def can_be_written(cluster: RayCluster) -> None:
    """Check that documents can be added and are found, and remove them again."""
    added = {f"new-{i}": f"new text {i}" for i in range(8)}
    cluster.run(lambda scatter: add(scatter, added))
    assert cluster.run(all_texts) == TEXTS | added
    cluster.run(lambda scatter: scatter.write("remove", every(scatter, list(added))))
    assert cluster.run(all_texts) == TEXTS


def copied(source: Path, target: Path) -> None:
    """Copy one shard to one other, as resharding does."""
    reader = ShardSource(source)
    settings, _ = joined_settings([reader.settings()], 1)
    writer = ShardTarget(target, settings)
    place: int | None = 0
    while place is not None:
        page, place = reader.page(place)
        writer.add(page)
    writer.finish()
    reader.close()


def test_documents_move_to_where_they_belong(tmp_path: Path) -> None:
    cluster = make(tmp_path / "index")
    done = reshard(cluster, 3)
    assert (done.n_documents, done.optimize_again) == (60, False)
    assert cluster.n_shards == 3
    placed = cluster.run(lambda scatter: scatter.read("texts", every(scatter)))
    assert {id: shard for shard, texts in placed.items() for id in texts} == {id: shard_of(id, 3) for id in TEXTS}
    can_be_written(cluster)
    assert not generation_folder(cluster.folder, 1).exists()
    reshard(cluster, 1)
    can_be_written(cluster)
    cluster.close()
    with MuveraIndex.open(shard_folder(cluster.folder, 3, 0), small_encoder()) as index:
        assert len(index) == len(TEXTS)
    # As after a crash of everything during another resharding.
    copied(shard_folder(cluster.folder, 3, 0), shard_folder(cluster.folder, 4, 0))
    shard_folder(cluster.folder, 3, 0).with_name("shard-00000.frozen").touch()
    again = open_cluster(cluster.folder, small_encoder, options())
    can_be_written(again)
    again.close()
    assert sorted(entry.name for entry in cluster.folder.iterdir()) == ["cluster.json", "cluster.lock", "generation-3"]


def test_searches_see_all_documents_while_they_are_moved(cluster: RayCluster) -> None:
    expected = cluster.run(lambda scatter: best(scatter, "text 7"))
    other = pickle.loads(pickle.dumps(cluster))  # noqa: S301 - a handle as another process has it
    reader = open_cluster(cluster.folder, small_encoder, options(), read_only=True)
    done, wrong = threading.Event(), []
    n_answers = dict.fromkeys(("owner", "copy", "reader"), 0)

    def search(name: str, handle: RayCluster) -> None:
        while not done.is_set():
            found = handle.run(lambda scatter: best(scatter, "text 7"))
            if found != expected:
                wrong.append((name, found))
            n_answers[name] += 1

    handles = {"owner": cluster, "copy": other, "reader": reader}
    threads = [threading.Thread(target=search, args=each) for each in handles.items()]
    for thread in threads:
        thread.start()
    try:
        n_shards = cluster.n_shards + 1
        reshard(cluster, n_shards)
        eventually(lambda: all(handle.n_shards == n_shards for handle in handles.values()))
        before = dict(n_answers)
        eventually(lambda: all(n_answers[name] > before[name] + 3 for name in before))
    finally:
        done.set()
        for thread in threads:
            thread.join()
        other.close()
        reader.close()
    assert wrong == []


def best(scatter: RayScatter, text: str) -> list[tuple[str, float]]:
    answers = scatter.read("search", every(scatter, text, 5)).values()
    return sorted((hit for part in answers for hit in part), key=lambda hit: (-hit[1], hit[0]))[:5]


def test_writes_are_refused_meanwhile_and_none_is_lost(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[Exception] = []

    def write_and_go_on(*arguments: Any) -> None:
        # The process of the first shard dies and is started again. It must refuse writes as before.
        pid = cluster.run(lambda scatter: scatter.read("pid", {0: ()}))[0]
        os.kill(pid, signal.SIGKILL)
        try:
            cluster.run(lambda scatter: add(scatter, {"new": "new", "newer": "newer", "newest": "newest"}))
        except ShardWriteError as error:
            refused.extend(error.failed.values())
        wait_until_open(*arguments)

    monkeypatch.setattr(resharding, "wait_until_open", write_and_go_on)
    reshard(cluster, 2)
    assert {type(error) for error in refused} == {IndexLockedError}
    assert "being resharded" in str(refused[0])
    assert cluster.run(all_texts) == TEXTS
    can_be_written(cluster)


def test_an_interruption_leaves_the_index_as_it_was(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = ClusterFile.read(cluster.folder)
    with monkeypatch.context() as patch:
        patch.setattr(resharding, "wait_until_open", interrupt)
        with pytest.raises(KeyboardInterrupt):
            reshard(cluster, 3)
    assert ClusterFile.read(cluster.folder) == before
    assert not generation_folder(cluster.folder, before.generation + 1).exists()
    can_be_written(cluster)


def test_a_new_process_that_dies_leaves_the_index_as_it_was(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(resharding._Copy):
        def run(self) -> None:
            import ray

            ray.kill(self._targets[0].actor, no_restart=False)
            super().run()

    with monkeypatch.context() as patch:
        patch.setattr(resharding, "_Copy", Dying)
        with pytest.raises(MuveraError, match="reshard"):
            reshard(cluster, 3)
    can_be_written(cluster)


def test_only_a_writer_can_reshard(cluster: RayCluster) -> None:
    reader = open_cluster(cluster.folder, small_encoder, options(), read_only=True)
    for handle in (reader, pickle.loads(pickle.dumps(cluster))):  # noqa: S301
        with pytest.raises(ReadOnlyIndexError):
            reshard(handle, 3)
    reader.close()
    with pytest.raises(InvalidInputError):
        reshard(cluster, 0)


def test_documents_are_copied_exactly(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"token_precision": "4bit"}
    metadatas = [{"n": i, "deep": {"list": [1, 2.5, None, "ä"]}} for i in range(40)]
    with MuveraIndex.create(tmp_path / "a", small_encoder(), **settings) as index:
        ids = [f"doc-{i}" for i in range(40)]
        index.add_embeddings([vectors(id) for id in ids], ids, [f"the text of {id}" for id in ids], metadatas)
        index.delete(ids[:3])
        before = index.find(), index.get_embeddings(ids)
        question = vectors("a question")
        found = [(hit.id, hit.score) for hit in index.search_embeddings(question, k=5, exact=True)]
        words = [(hit.id, hit.score) for hit in index.search("doc-7", k=3, mode="lexical")]
    copied(tmp_path / "a", tmp_path / "b")
    with MuveraIndex.open(tmp_path / "b", small_encoder()) as index:
        assert index.find() == before[0]
        for id, tokens in index.get_embeddings(ids).items():
            np.testing.assert_array_equal(tokens, before[1][id])
        assert index.token_precision == "4bit"
        assert [(hit.id, hit.score) for hit in index.search_embeddings(question, k=5, exact=True)] == found
        assert [(hit.id, hit.score) for hit in index.search("doc-7", k=3, mode="lexical")] == words


def test_the_copy_of_a_large_shard_takes_several_pages(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "a", small_encoder(), lexical=False) as index:
        ids = [f"doc-{i}" for i in range(2500)]
        index.add_embeddings([vectors(id) for id in ids], ids)
    source = ShardSource(tmp_path / "a")
    assert source.page(0)[1] == 1024
    source.close()
    copied(tmp_path / "a", tmp_path / "b")
    with MuveraIndex.open(tmp_path / "b", small_encoder()) as index:
        assert [document.id for document in index.find()] == ids


def test_what_was_learned_is_copied(tmp_path: Path, nq_tokens: Any, encoder: Any) -> None:
    with MuveraIndex.create(tmp_path / "a", encoder, lexical=False) as index:
        index.add_embeddings([nq_tokens[i] for i in range(600)], [str(i) for i in range(600)])
        index.optimize(k=10, n_queries=50)
        index.calibrate(n_queries=50)
        tuning, expected = index._engine.manifest.tuning, index._engine.learned
    copied(tmp_path / "a", tmp_path / "b")
    with MuveraIndex.open(tmp_path / "b", encoder) as index:
        assert index._engine.manifest.tuning == tuning
        assert index._engine.learned == expected
