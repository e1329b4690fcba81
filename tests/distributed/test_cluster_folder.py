from __future__ import annotations

import json
from pathlib import Path

import pytest

from muvera_core import MuveraIndex
from muvera_core.distributed.cluster_folder import (
    CLUSTER_NAME,
    ClusterFile,
    abandon_cluster,
    begin_cluster,
    finish_cluster,
    generation_folder,
    holds_sharded_index,
    lock_cluster,
    remove_generations,
    shard_folder,
)
from muvera_core.errors import (
    CorruptIndexError,
    IndexExistsError,
    IndexLockedError,
    NotAnIndexError,
    UnsupportedFormatError,
)


def make(folder: Path, n_shards: int = 2) -> ClusterFile:
    file, lock = ClusterFile.new(n_shards), begin_cluster(folder)
    for shard in range(n_shards):
        shard_folder(folder, 1, shard).mkdir(parents=True)
    finish_cluster(folder, file)
    lock.release()
    return file


def test_a_file_that_was_written_is_read(tmp_path: Path) -> None:
    file = make(tmp_path / "index", 3)
    assert ClusterFile.read(tmp_path / "index") == file
    assert (file.n_shards, file.generation) == (3, 1)
    assert holds_sharded_index(tmp_path / "index")


def test_shards_have_folders_by_generation_and_number() -> None:
    assert shard_folder(Path("/index"), 3, 12) == Path("/index/generation-3/shard-00012")


def test_the_next_generation_is_the_same_index() -> None:
    file = ClusterFile.new(2)
    assert (file.resharded(5).cluster_id, file.resharded(5).n_shards, file.resharded(5).generation) == (
        file.cluster_id,
        5,
        2,
    )


def test_a_folder_without_the_file_is_not_an_index(tmp_path: Path) -> None:
    assert not holds_sharded_index(tmp_path)
    with pytest.raises(NotAnIndexError, match=r"no cluster\.json"):
        ClusterFile.read(tmp_path)


def test_an_ordinary_index_is_told_apart(tmp_path: Path) -> None:
    MuveraIndex.create(tmp_path / "index").close()
    with pytest.raises(NotAnIndexError, match=r"open it with MuveraIndex\.open"):
        ClusterFile.read(tmp_path / "index")
    with pytest.raises(IndexExistsError, match="not sharded"):
        begin_cluster(tmp_path / "index")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\x00\xff", '{"format": "muvera-sharded-index"}'])
def test_a_damaged_file_is_reported(tmp_path: Path, content: str) -> None:
    make(tmp_path / "index")
    (tmp_path / "index" / CLUSTER_NAME).write_text(content)
    with pytest.raises(CorruptIndexError, match="restore the file"):
        ClusterFile.read(tmp_path / "index")


def test_a_changed_file_is_reported(tmp_path: Path) -> None:
    make(tmp_path / "index")
    path = tmp_path / "index" / CLUSTER_NAME
    path.write_text(path.read_text().replace('"n_shards": 2', '"n_shards": 3'))
    with pytest.raises(CorruptIndexError, match="checksum"):
        ClusterFile.read(tmp_path / "index")


@pytest.mark.parametrize("content", ["[]", '{"format": "another"}'])
def test_a_file_of_others_is_no_index(tmp_path: Path, content: str) -> None:
    (tmp_path / CLUSTER_NAME).write_text(content)
    with pytest.raises(NotAnIndexError, match="not written by muvera"):
        ClusterFile.read(tmp_path)


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    make(tmp_path / "index")
    path = tmp_path / "index" / CLUSTER_NAME
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptIndexError, match="not a plain file"):
        ClusterFile.read(tmp_path / "index")


@pytest.mark.parametrize("given", [{"placement": "modulo"}, {"format_version": 2}])
def test_another_format_is_refused(tmp_path: Path, given: dict[str, object]) -> None:
    import zlib

    make(tmp_path / "index")
    path = tmp_path / "index" / CLUSTER_NAME
    content = json.loads(path.read_text()) | given
    del content["checksum"]
    content["checksum"] = zlib.crc32(json.dumps(content, sort_keys=True).encode())
    path.write_text(json.dumps(content))
    with pytest.raises(UnsupportedFormatError, match="upgrade muvera-core"):
        ClusterFile.read(tmp_path / "index")


def test_an_interrupted_creation_leaves_no_index_and_can_be_repeated(tmp_path: Path) -> None:
    lock = begin_cluster(tmp_path / "index")
    left = shard_folder(tmp_path / "index", 1, 0)
    left.mkdir(parents=True)
    (left / "documents.sqlite").write_text("half of it")
    lock.release()  # as when the process ends
    assert not holds_sharded_index(tmp_path / "index")
    with pytest.raises(NotAnIndexError, match="make it again"):
        ClusterFile.read(tmp_path / "index")
    begin_cluster(tmp_path / "index").release()
    assert not left.exists()


def test_a_creation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    lock = begin_cluster(tmp_path / "index")
    shard_folder(tmp_path / "index", 1, 0).mkdir(parents=True)
    abandon_cluster(tmp_path / "index")
    lock.release()
    begin_cluster(tmp_path / "index").release()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "index")
    with pytest.raises(IndexExistsError, match="already holds a sharded index"):
        begin_cluster(tmp_path / "index")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(IndexExistsError, match=r"'notes\.txt'"):
        begin_cluster(tmp_path / "other")
    with pytest.raises(IndexExistsError, match="is a file"):
        begin_cluster(tmp_path / "other" / "notes.txt")


def test_generations_of_others_are_not_removed(tmp_path: Path) -> None:
    """Without the mark of an unfinished creation they may be all that is left of an index."""
    shard_folder(tmp_path / "index", 1, 0).mkdir(parents=True)
    with pytest.raises(IndexExistsError, match="not empty"):
        begin_cluster(tmp_path / "index")
    assert shard_folder(tmp_path / "index", 1, 0).exists()


def test_leftovers_of_other_generations_are_removed(tmp_path: Path) -> None:
    for generation in (1, 2, 3):
        shard_folder(tmp_path, generation, 0).mkdir(parents=True)
    (tmp_path / "generation-of-others").mkdir()
    remove_generations(tmp_path, keep=2)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["generation-2", "generation-of-others"]
    assert generation_folder(tmp_path, 2).is_dir()


def test_one_writer_holds_the_folder(tmp_path: Path) -> None:
    make(tmp_path / "index")
    with lock_cluster(tmp_path / "index"), pytest.raises(IndexLockedError, match="read_only=True"):
        lock_cluster(tmp_path / "index")
    lock_cluster(tmp_path / "index").release()
