"""Keeping any index in step with files: one of several shards, and one behind a service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from local_service import serving

from muvera_core import IndexCalls, MuveraIndex, Reading, RemoteMuveraIndex, sync_files
from muvera_core.distributed import LocalScatter, Shard, ShardedEngine
from muvera_core.errors import FilesGoneError
from muvera_core.sync import recall_reading


@pytest.fixture(params=["memory", "shards", "service"])
def index(request: pytest.FixtureRequest) -> Iterator[IndexCalls]:
    with ExitStack() as stack:
        made = [stack.enter_context(MuveraIndex.create(None)) for _ in range(3)]
        if request.param == "shards":
            scatter = LocalScatter([Shard(each) for each in made])
            yield stack.enter_context(IndexCalls(ShardedEngine(scatter, made[0].encoder), made[0].encoder))
        elif request.param == "service":
            yield stack.enter_context(RemoteMuveraIndex(stack.enter_context(serving(made[0]))))
        else:
            yield made[0]


def test_any_index_follows_files(index: IndexCalls, tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i}.txt").write_text(f"Note {i} is about owls.\n\nIt is the note of day {i}.")
    report = sync_files(index, tmp_path, reading=Reading(max_tokens=10))
    assert (report.added, len(index)) == (24, 24)
    assert recall_reading(index) == Reading(max_tokens=10)
    (tmp_path / "3.txt").write_text("Note 3 is about herons.")
    (tmp_path / "4.txt").rename(tmp_path / "four.txt")
    (tmp_path / "5.txt").unlink()
    report = sync_files(index, tmp_path)
    assert (report.added, report.replaced, report.unchanged, report.deleted) == (3, 0, 18, 6)
    assert report.reused == 2
    (hit,) = index.search("Which note is about herons?", k=1)
    assert hit.metadata["path"] == (tmp_path / "3.txt").as_posix()
    again = sync_files(index, tmp_path)
    assert (again.added, again.replaced, again.unchanged, again.deleted) == (0, 0, 21, 0)
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(FilesGoneError):
        sync_files(index, tmp_path)
    assert len(index) == 21


def test_any_index_keeps_notes(index: IndexCalls) -> None:
    index.write_note("mine", {"a": [1, None, "ü"]})
    index.write_note("other", {"b": True})
    assert index.notes() == {"mine": {"a": [1, None, "ü"]}, "other": {"b": True}}
    index.write_note("other", None)
    assert index.notes() == {"mine": {"a": [1, None, "ü"]}}
