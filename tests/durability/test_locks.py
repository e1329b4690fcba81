"""SQLite's locks on an index: nothing that this process does beside a change takes them away or leaves them behind."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from folder_format import DATABASE, run_sql
from reference_model import ENCODER, ReferenceModel, add_to, create, model_document, search_exactly
from test_processes import environment, fork, needs_fork, outcome
from test_threads import Crew

from muvera_core import MuveraIndex, check_index, repair_index
from muvera_core.errors import CorruptIndexError, IndexExistsError, IndexLockedError
from muvera_core.filters.patterns import LikePattern
from muvera_core.storage import Change, Snapshot, committed, database, folder_lock

HERE = str(Path(__file__).parent)
# Far beyond what any of it takes on a busy machine.
PATIENCE = 60.0
DOCUMENTS = [model_document(f"d{i}", i, {"group": i % 4, "name": f"name {i}"}) for i in range(20)]
LATER = model_document("later", 100)


@contextlib.contextmanager
def process(call: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another Python that calls a function of this module, and is dead when the block ends."""
    script = f"import sys; sys.path.insert(0, {HERE!r}); import test_locks; test_locks.{call}(*{arguments!r})"
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "error", "-c", script]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment()) as running:
        try:
            yield running
        finally:
            running.kill()


def output(running: subprocess.Popen[str], told: str = "") -> Any:
    """What a process prints in the end, as JSON."""
    out, err = running.communicate(told, timeout=PATIENCE)
    assert running.returncode == 0, err
    return json.loads(out)


def run(call: str, *arguments: object) -> Any:
    with process(call, *map(str, arguments)) as running:
        return output(running)


def lock_database(path: str, kind: str) -> None:
    """Try to lock the database from here, without waiting; print the error, or null."""
    error = None
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as db:
        try:
            db.execute(f"BEGIN {kind}")
        except sqlite3.OperationalError as refused:
            error = str(refused)
    print(json.dumps(error))


def lock_from_elsewhere(folder: Path, kind: str = "IMMEDIATE") -> str | None:
    error: str | None = run("lock_database", folder / DATABASE, kind)
    return error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with create(tmp_path / "index") as index:
        add_to(index, DOCUMENTS)
    return tmp_path / "index"


def before_each_commit(patch: pytest.MonkeyPatch, call: Callable[[], object]) -> None:
    """Let something happen within every transaction, when all of it is written and none of it committed."""
    commit = Change.commit

    def after_call(self: Change) -> Snapshot:
        call()
        return commit(self)

    patch.setattr(Change, "commit", after_call)


def open_and_close_a_reader(folder: Path) -> None:
    MuveraIndex.open(folder, ENCODER, read_only=True).close()


def search_with_a_reader(folder: Path) -> None:
    with MuveraIndex.open(folder, ENCODER, read_only=True) as reader:
        reader.refresh()
        reader.find({"group": 1})


def open_a_second_writer(folder: Path) -> None:
    with pytest.raises(IndexLockedError):
        MuveraIndex.open(folder, ENCODER)


def check(folder: Path) -> None:
    with pytest.raises(IndexLockedError):
        check_index(folder)


def repair(folder: Path) -> None:
    with pytest.raises(IndexLockedError):
        repair_index(folder, ENCODER)


@pytest.mark.parametrize("look", [open_and_close_a_reader, search_with_a_reader, open_a_second_writer, check, repair])
def test_looking_at_a_folder_keeps_the_locks_of_the_change_that_is_under_way(
    look: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = []

    def look_and_try() -> None:
        refusals.append(lock_from_elsewhere(folder))
        look(folder)
        refusals.append(lock_from_elsewhere(folder))

    with MuveraIndex.open(folder, ENCODER) as index:
        before_each_commit(monkeypatch, look_and_try)
        add_to(index, [LATER])
        assert refusals == ["database is locked"] * 2
        monkeypatch.undo()
        assert lock_from_elsewhere(folder) is None
        assert search_exactly(index)(ReferenceModel().with_documents([*DOCUMENTS, LATER]))


def test_a_kept_traceback_of_a_filtered_search_that_failed_does_not_block_writers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT", 0.2)
    seen = []

    def fails_at_the_third(self: LikePattern, text: str) -> bool:
        seen.append(text)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return True

    with MuveraIndex.open(folder, ENCODER) as index:
        with monkeypatch.context() as patch:
            patch.setattr(LikePattern, "matches", fails_at_the_third)
            with pytest.raises(KeyboardInterrupt) as kept:
                index.find({"name": {"$like": "name%"}})
        add_to(index, [LATER])
        assert kept.value.__traceback__ is not None
        assert "later" in index


def test_a_kept_traceback_of_a_read_that_failed_does_not_block_writers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT", 0.2)
    monkeypatch.setattr(committed, "_ROWS_AT_ONCE", 2)
    with MuveraIndex.open(folder, ENCODER) as index, MuveraIndex.open(folder, ENCODER, read_only=True) as reader:
        add_to(index, [LATER])
        run_sql(folder, "UPDATE directory SET id_hash = 'no number' WHERE key = 3")
        with pytest.raises(CorruptIndexError) as kept:
            reader.refresh()
        index.delete(["d10"])
        assert kept.value.__traceback__ is not None
        assert "d10" not in index


# Forks


def fork_inside_a_change(path: str) -> None:
    """Fork while another thread is about to commit; the child opens the folder anew and reads. Prints what happened."""
    folder = Path(path)
    index = MuveraIndex.open(folder, ENCODER)
    inside, forked = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        # The fork waits for the commit, or the commit for the fork. A fork that waits doesn't tell.
        forked.wait(1)

    crew = Crew()
    with pytest.MonkeyPatch.context() as patch:
        before_each_commit(patch, wait)
        crew.start(lambda: add_to(index, [LATER]))
        assert inside.wait(PATIENCE)
        from_child, to_parent = os.pipe()
        from_parent, to_child = os.pipe()
        child = fork()
        if child == 0:
            _read_in_child(folder, to_parent, from_parent)
        forked.set()
        os.close(to_parent)
        os.close(from_parent)
        with os.fdopen(from_child) as pipe:
            told = json.loads(pipe.readline())
            told["refused"] = lock_from_elsewhere(folder, "EXCLUSIVE")
            os.write(to_child, b"\n")
            told["second read"] = json.loads(pipe.readline())
        os.close(to_child)
        told["status"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        crew.join()
    add_to(index, [model_document("last", 101)])
    told["parent"] = [len(index), "later" in index, "last" in index]
    index.close()
    print(json.dumps(told))


def _read_in_child(folder: Path, to_parent: int, from_parent: int) -> None:
    """Open the index, and hold a read transaction until the parent says so."""
    counts: list[int] = []

    def open_index() -> None:
        with MuveraIndex.open(folder, ENCODER, read_only=True) as reader:
            counts.append(len(reader.find()))

    told = {"open": outcome(open_index), "documents": counts}
    with contextlib.closing(sqlite3.connect(folder / DATABASE, timeout=1, isolation_level=None)) as db:

        def tell(message: object) -> None:
            os.write(to_parent, json.dumps(message).encode() + b"\n")

        def count() -> int:
            return int(db.execute("SELECT count(*) FROM documents").fetchone()[0])

        db.execute("BEGIN")
        first = count()
        tell(told)
        os.read(from_parent, 1)
        tell(first == count())
    os._exit(0)


@needs_fork
def test_a_child_forked_inside_a_change_takes_real_locks_and_the_parent_goes_on(folder: Path) -> None:
    told = run("fork_inside_a_change", folder)
    n = len(DOCUMENTS)
    assert told["open"] == "done"
    assert told["documents"] in ([n], [n + 1])
    assert told["refused"] == "database is locked"
    assert told["second read"] is True
    assert told["status"] == 0
    assert told["parent"] == [n + 2, True, True]


# Creation


def create_and_fill(path: str, wait: str = "") -> None:
    """Make an index with a document that bears the number of this process, as soon as a line is read (``wait``)."""
    if wait:
        print(flush=True)
        sys.stdin.readline()
    try:
        with create(Path(path)) as index:
            add_to(index, [model_document(f"of {os.getpid()}", 1)])
    except (IndexExistsError, IndexLockedError) as error:
        print(json.dumps({"error": type(error).__name__}))
    else:
        print(json.dumps({"made": f"of {os.getpid()}"}))


def test_an_index_that_another_process_makes_meanwhile_is_not_created_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    claim = folder_lock.claim_folder
    made: list[str] = []

    def claim_too_late(folder: Path) -> Any:
        if not made:
            made.append(run("create_and_fill", folder)["made"])
        return claim(folder)

    monkeypatch.setattr(folder_lock, "claim_folder", claim_too_late)
    with pytest.raises(IndexExistsError):
        create(path)
    with MuveraIndex.open(path, ENCODER) as index:
        assert [document.id for document in index.find()] == made


def test_of_processes_that_create_one_folder_at_once_one_wins_and_keeps_its_documents(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with contextlib.ExitStack() as stack:
        racing = [stack.enter_context(process("create_and_fill", str(path), "wait")) for _ in range(3)]
        for one in racing:
            assert one.stdout is not None
            one.stdout.readline()
        for one in racing:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        told = [output(one) for one in racing]
    made = [one["made"] for one in told if "made" in one]
    assert len(made) == 1
    with MuveraIndex.open(path, ENCODER) as index:
        assert [document.id for document in index.find()] == made


# Who holds the folder


def refusal(call: Callable[[], object]) -> str:
    """The message of the IndexLockedError that a call raises."""
    with pytest.raises(IndexLockedError) as refused:
        call()
    return str(refused.value)


def print_refusal(path: str) -> None:
    """Try to open the folder for writing; print why it is refused."""
    print(json.dumps(refusal(lambda: MuveraIndex.open(path, ENCODER))))


def print_refusal_of_a_child(path: str) -> None:
    """Open the folder for writing, and print why a forked child may not."""
    with MuveraIndex.open(path, ENCODER):
        reading, writing = os.pipe()
        child = fork()
        if child == 0:
            with os.fdopen(writing, "w") as pipe:
                pipe.write(refusal(lambda: MuveraIndex.open(path, ENCODER)))
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            print(json.dumps(pipe.read()))
        os.waitpid(child, 0)


def test_a_second_writer_learns_that_the_first_is_in_the_same_process(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with MuveraIndex.open(folder, ENCODER):
        for path in (folder, tmp_path / "link", folder / ".." / folder.name):
            assert "in this process: use the index that is open, or call close()" in refusal(
                lambda path=path: MuveraIndex.open(path, ENCODER)  # type: ignore[misc]
            )
        assert "in this process" in refusal(lambda: check_index(folder))
        assert "in this process" in refusal(lambda: repair_index(folder, ENCODER))
    MuveraIndex.open(folder, ENCODER).close()


def test_a_second_writer_learns_that_the_first_is_in_another_process(folder: Path) -> None:
    MuveraIndex.open(folder, ENCODER).close()  # this process has held the folder before
    with MuveraIndex.open(folder, ENCODER):
        assert "in another process: close it there" in run("print_refusal", folder)


@needs_fork
def test_a_forked_child_learns_that_the_writer_is_another_process(folder: Path) -> None:
    assert "in another process" in run("print_refusal_of_a_child", folder)
