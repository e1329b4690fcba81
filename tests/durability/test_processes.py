"""An index folder in many processes: readers beside a writer, other writers, forks, and writers that die."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest
from reference_model import (
    ENCODER,
    OBSERVATIONS,
    QUESTIONS,
    History,
    Observation,
    Witness,
    answers,
    answers_of_folder,
    create,
    unfiltered_answers,
)

from muvera_core import (
    LearnedSetEncoder,
    LearnedSetEncoderConfig,
    MuveraError,
    MuveraIndex,
    TokenEmbeddings,
    stage_one,
)
from muvera_core.errors import ForkedIndexError, IndexLockedError
from muvera_core.tuning import choose, encodings, optimizing

HERE = str(Path(__file__).parent)
# Far beyond what any of it takes on a busy machine.
PATIENCE = 60.0
COMPACT_EVERY = 15
MIN_WRITES = 2 * COMPACT_EVERY
N_READERS = 3
_READER_PREFIX = "reader-"

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def environment() -> dict[str, str]:
    """That of a user's process: NumPy has threads of its own there, also when these tests are run with one."""
    return {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}


@contextlib.contextmanager
def process(call: str, *arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """Another Python that calls a function of this module, and is dead when the block ends."""
    script = (
        f"import sys; sys.path.insert(0, {HERE!r}); import test_processes; "
        f"test_processes.{call}(*{tuple(map(_plain, arguments))!r})"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment()) as running:
        try:
            yield running
        finally:
            running.kill()


def output(running: subprocess.Popen[str], seconds: float = PATIENCE) -> dict[str, Any]:
    """What a process prints in the end, as JSON."""
    out, err = running.communicate(timeout=seconds)
    assert running.returncode == 0, err
    printed: dict[str, Any] = json.loads(out)
    return printed


def run(call: str, *arguments: Any) -> dict[str, Any]:
    with process(call, *arguments) as running:
        return output(running)


def _plain(argument: Any) -> Any:
    return str(argument) if isinstance(argument, Path) else argument


# Readers beside a writer


class Ledger:
    """How many states a writer began and finished, as the sizes of two files: a size is read and grows in one piece."""

    def __init__(self, folder: Path) -> None:
        self.started, self.acknowledged, self.stop = (folder / n for n in ("started", "acknowledged", "stop"))

    def last_acknowledged(self) -> int:
        return self.acknowledged.stat().st_size - 1

    def last_started(self) -> int:
        return self.started.stat().st_size - 1

    @staticmethod
    def note(path: Path) -> None:
        with path.open("ab") as file:
            file.write(b".")


def write_history(path: str, ledger_path: str, seed: int, seconds: float) -> None:
    """The writing process: goes through the history for so long."""
    ledger, history = Ledger(Path(ledger_path)), History(seed)
    number, compactions, end = ledger.last_acknowledged(), 0, time.monotonic() + seconds
    with MuveraIndex.open(path, ENCODER) as index:
        while time.monotonic() < end or number < MIN_WRITES:
            number += 1
            change = history.change(number)
            ledger.note(ledger.started)
            change.apply(index)
            ledger.note(ledger.acknowledged)
            if number % COMPACT_EVERY == 0:
                index.compact()
                compactions += 1
    print(json.dumps({"writes": number, "compactions": compactions}))


def read_history(path: str, ledger_path: str, seed: int, flat_limit: int) -> None:
    """A reading process: refreshes, asks everything twice, and checks each answer, until it is told to stop."""
    stage_one.FLAT_LIMIT = flat_limit
    ledger, history = Ledger(Path(ledger_path)), History(seed)
    refreshes = 0
    with MuveraIndex.open(path, ENCODER, read_only=True) as index:
        (Path(ledger_path) / f"{_READER_PREFIX}{os.getpid()}").touch()
        witness = Witness(history)
        while True:
            stopped = ledger.stop.exists()
            time.sleep(0.03)  # so that something has been committed since the last look, which takes commits in, too
            first = ledger.last_acknowledged()
            refreshes += index.refresh()
            for _ in range(2):
                for observe in OBSERVATIONS:
                    agrees = observe(index)
                    witness.check(observe.__name__, agrees, first, ledger.last_started())
            if stopped:
                break
        assert not index.refresh(), "nothing was written since the last refresh"
    print(json.dumps({"observations": witness.n_checked, "refreshes": refreshes}))


@dataclass(frozen=True)
class Counts:
    """What a run did."""

    observations: int
    refreshes: int
    writes: int
    compactions: int


def read_while_another_process_writes(folder: Path, seconds: float, seed: int, flat_limit: int) -> Counts:
    """Run one writing and several reading processes; each reader checks what it is told."""
    folder.mkdir()
    ledger = Ledger(folder)
    for path in (ledger.started, ledger.acknowledged):
        Ledger.note(path)
    with create(folder / "index") as index:
        History(seed).change(0).apply(index)
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(process("read_history", folder / "index", folder, seed, flat_limit))
            for _ in range(N_READERS)
        ]
        deadline = time.monotonic() + PATIENCE
        while len(list(folder.glob(f"{_READER_PREFIX}*"))) < N_READERS and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            written = run_within(seconds + PATIENCE, "write_history", folder / "index", folder, seed, seconds)
        finally:
            ledger.stop.touch()
        read = [output(reader) for reader in readers]
    assert written["writes"] == ledger.last_acknowledged() == ledger.last_started()
    return Counts(
        sum(one["observations"] for one in read),
        sum(one["refreshes"] for one in read),
        written["writes"],
        written["compactions"],
    )


def run_within(seconds: float, call: str, *arguments: Any) -> dict[str, Any]:
    with process(call, *arguments) as running:
        return output(running, seconds)


@pytest.mark.parametrize("flat_limit", [stage_one.FLAT_LIMIT, 5], ids=["flat", "graph"])
def test_readers_in_other_processes_see_committed_states_only(flat_limit: int, tmp_path: Path) -> None:
    counts = read_while_another_process_writes(tmp_path / "run", 2, flat_limit, flat_limit)
    assert counts.observations > 0
    assert counts.refreshes > 0
    assert counts.compactions > 0


def serve(path: str) -> None:
    """A reading process that does what each line says, and prints the outcome."""
    with MuveraIndex.open(path, ENCODER, read_only=True) as index:
        commands: dict[str, Callable[[], Any]] = {
            "refresh": index.refresh,
            "answers": lambda: answers(index),
            "unfiltered": lambda: unfiltered_answers(index),
        }
        print("open", flush=True)
        for line in sys.stdin:
            print(json.dumps(commands[line.strip()]()), flush=True)


def ask(server: subprocess.Popen[str], command: str) -> Any:
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stderr is not None
    print(command, file=server.stdin, flush=True)
    line = server.stdout.readline()
    assert line, server.stderr.read()
    return json.loads(line)


@contextlib.contextmanager
def serving(path: Path) -> Iterator[subprocess.Popen[str]]:
    with process("serve", path) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        assert server.stdout.readline() == "open\n", server.stderr.read()
        yield server


def test_a_reader_keeps_answering_while_the_writer_compacts_and_old_token_files_go(tmp_path: Path) -> None:
    history = History(1)
    path = tmp_path / "index"
    with create(path) as index:
        for number in range(30):
            history.change(number).apply(index)
        before = as_json(answers(index))
        with serving(path) as idle, serving(path) as busy:
            assert ask(busy, "answers") == before
            files = {file.name for file in path.glob("tokens*")}
            size = folder_size(path, "tokens*")
            index.compact()
            assert folder_size(path, "tokens*") < size
            assert {file.name for file in path.glob("tokens*")}.isdisjoint(files), "the old token file is still there"
            assert as_json(answers(index)) == before
            assert ask(busy, "answers") == before
            assert ask(idle, "answers") == before
            history.change(30).apply(index)
            between = as_json(answers(index))
            history.change(31).apply(index)
            index.compact()
            after = as_json(answers(index))
            assert after != before
            assert_in_order(ask(busy, "answers"), [before, between, after])
            for reader in (busy, idle):
                ask(reader, "refresh")
                assert ask(reader, "answers") == after
                assert ask(reader, "refresh") is False


def test_a_reader_that_does_not_refresh_never_mixes_states_nor_goes_back(tmp_path: Path) -> None:
    history = History(2)
    path = tmp_path / "index"
    with create(path) as index:
        history.change(0).apply(index)
        states = [as_json(answers(index))]
        with serving(path) as reader:
            seen = 0
            for number in range(1, 12):
                history.change(number).apply(index)
                states.append(as_json(answers(index)))
                seen = assert_in_order(ask(reader, "answers"), states, seen)
            history.change(12).apply(index)
            assert ask(reader, "refresh") is True
            assert ask(reader, "answers") == as_json(answers(index))
            assert ask(reader, "refresh") is False


def test_what_was_only_added_is_seen_after_a_refresh(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with create(path) as index:
        History(2).change(0).apply(index)
        before = as_json(unfiltered_answers(index))
        with serving(path) as reader:
            for number in range(5):
                # The best answer to every question, if it were seen.
                index.add_embeddings(QUESTIONS, ids=[f"new {number} {i}" for i in range(len(QUESTIONS))])
                assert ask(reader, "unfiltered") == before
            assert ask(reader, "refresh") is True
            after = ask(reader, "unfiltered")
            assert after != before
            assert after == as_json(unfiltered_answers(index))


def test_a_reader_sees_what_was_committed_before_a_writer_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with create(path) as index:
        History(3).change(0).apply(index)
    with serving(path) as reader:
        with process("write_until_killed", path, 3) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "written\n"
            writer.kill()
            writer.wait(PATIENCE)
        assert ask(reader, "refresh") is True
        found = ask(reader, "answers")
    with MuveraIndex.open(path, ENCODER) as index:
        assert as_json(answers(index)) == found
        assert_state(index, History(3), 5)


# Readers beside a writer that optimizes


class Warnings(logging.Handler):
    """Collects what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def read_what_is_tuned(path: str, stop: str) -> None:
    """A reading process: refreshes, and searches as the present tuning has it, until it is told to stop."""
    logged = Warnings()
    logging.getLogger("muvera_core").addHandler(logged)
    refreshes, searches = 0, 0
    with MuveraIndex.open(path, ENCODER, read_only=True) as index:
        exact = [{h.id: h.score for h in index.search_embeddings(q, 1000, exact=True)} for q in QUESTIONS]
        print("open", flush=True)
        while True:
            stopped = Path(stop).exists()
            refreshes += index.refresh()
            for question, scores in zip(QUESTIONS, exact, strict=True):
                hits = index.search_embeddings(question, 5)
                assert [hit.score for hit in hits] == sorted((scores[hit.id] for hit in hits), reverse=True)
                assert len({hit.id for hit in hits}) == 5
                searches += 1
            if stopped:
                break
        assert not index.refresh(), "nothing was written since the last refresh"
        found = unfiltered_answers(index), index.default_candidates()
    print(json.dumps({"refreshes": refreshes, "searches": searches, "found": found, "logged": logged.messages}))


def test_a_reading_process_takes_up_one_tuning_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, seeds = LearnedSetEncoder.fit, count()

    def fit_quickly(
        sample: TokenEmbeddings, config: LearnedSetEncoderConfig, queries: TokenEmbeddings
    ) -> LearnedSetEncoder:
        """Another encoder each time."""
        small = {"num_features": 32, "num_anchors": 50, "num_query_tokens": 100, "num_sample_tokens": 200}
        return fit(sample, replace(config, **small, seed=next(seeds)), queries)

    monkeypatch.setattr(LearnedSetEncoder, "fit", fit_quickly)
    monkeypatch.setattr(encodings, "WIDTHS", (16,))
    monkeypatch.setattr(optimizing, "_reranks_all", lambda *_: False)
    monkeypatch.setattr(choose, "_could_be_faster", lambda *_: True)
    path, stop = tmp_path / "index", tmp_path / "stop"
    with create(path) as index:
        History(5).change(0).apply(index)
        with process("read_what_is_tuned", path, stop) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "open\n"
            names = set()
            for number in range(12):
                # By turns the index's first encoding and a learned one.
                monkeypatch.setattr(choose, "best", lambda choices, _, which=-(number % 3 > 0): choices[which])
                names.add(index.optimize(n_queries=10, k=3).weights)
            stop.touch()
            read = output(reader)
        assert len(names) == 1 + 8
        # A reader that is faster than the writer's saving derives stage one by itself.
        assert [line for line in read["logged"] if "derives stage one" not in line] == []
        assert read["refreshes"] > 0
        assert read["searches"] > 0
        assert read["found"] == as_json([unfiltered_answers(index), index.default_candidates()])


def assert_in_order(found: list[Any], states: list[list[Any]], first: int = 0) -> int:
    """Check that each answer is one of the states', and none of an earlier state than the one before it.

    Where what it has seen is gone for good, a reader that wasn't refreshed may move on to a later state by itself.

    Returns:
        The state of the last answer.
    """
    for place, answer in enumerate(found):
        fitting = [number for number in range(first, len(states)) if states[number][place] == answer]
        assert fitting, f"answer {place} is of no state from {first} to {len(states) - 1}"
        first = fitting[0]
    return first


def folder_size(path: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in path.glob(pattern))


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def assert_state(index: MuveraIndex, history: History, number: int) -> None:
    observations: tuple[Observation, ...] = OBSERVATIONS
    for observe in observations:
        Witness(history).check(observe.__name__, observe(index), number, number)


# One writer


def try_to_write(path: str) -> None:
    """Another writing process."""
    try:
        MuveraIndex.open(path, ENCODER).close()
    except MuveraError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
    else:
        print(json.dumps({"error": None}))


def write_until_killed(path: str, seed: int) -> None:
    """A writing process that holds the index until it is killed."""
    history = History(seed)
    index = MuveraIndex.open(path, ENCODER)
    for number in range(1, 6):
        history.change(number).apply(index)
    print("written", flush=True)
    while True:
        time.sleep(PATIENCE)


def test_a_second_writing_process_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    with create(tmp_path / "index"):
        assert run("try_to_write", tmp_path / "index")["error"] == "IndexLockedError"
    assert run("try_to_write", tmp_path / "index")["error"] is None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_writer_does_not_block_the_next(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with create(path) as index:
        History(3).change(0).apply(index)
    with process("write_until_killed", path, 3) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        with pytest.raises(IndexLockedError):
            MuveraIndex.open(path, ENCODER)
        writer.kill()
        assert writer.wait(PATIENCE) == -signal.SIGKILL
    with MuveraIndex.open(path, ENCODER) as index:
        assert_state(index, History(3), 5)
        History(3).change(6).apply(index)
        assert_state(index, History(3), 6)


# Forks


def outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except BaseException as error:
        return type(error).__name__
    return "done"


def fork() -> int:
    with warnings.catch_warnings():
        # Newer Pythons warn where there are threads, and NumPy's BLAS has some that a fork does no harm to.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def fork_with_an_open_index(path: str, ending: str, read_only: bool) -> None:
    """Fork, use the index in the child, let the child end in some way, and go on in the parent."""
    history = History(4)
    index = MuveraIndex.open(path, ENCODER, read_only=read_only)
    if not read_only:
        history.change(1).apply(index)  # so that there is something to save at the end, for the child to keep off
    before = answers(index)
    files_before = folder_content(path)
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        _in_child(index, writing, ending)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        in_child = json.load(pipe)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    printed = {
        "child": in_child,
        "status": status,
        "same_files": folder_content(path) == files_before,
        "same_answers": answers(index) == before,
        "other_writer": other_writer(path),
    }
    if not read_only:
        history.change(2).apply(index)
        assert_state(index, history, 2)
        index.compact()
        assert_state(index, history, 2)
        printed["other_writer_after_a_write"] = other_writer(path)
    index.close()
    printed["other_writer_after_close"] = other_writer(path)
    print(json.dumps(printed))


def _in_child(index: MuveraIndex, pipe: int, ending: str) -> NoReturn:
    history = History(4)
    calls: dict[str, Callable[[], Any]] = {
        "search": lambda: answers(index),
        "get": lambda: index.get("d1"),
        "len": lambda: len(index),
        "add": lambda: history.change(2).apply(index),
        "delete": lambda: index.delete("d1"),
        "close": index.close,
        "search after close": lambda: answers(index),
    }
    os.write(pipe, json.dumps({name: outcome(call) for name, call in calls.items()}).encode())
    os.close(pipe)
    if ending == "_exit":
        os._exit(0)
    if ending == "collected":
        del index, calls
        gc.collect()
    sys.exit(0)


def other_writer(path: str) -> str | None:
    error: str | None = run("try_to_write", path)["error"]
    return error


def folder_content(path: str) -> list[list[Any]]:
    return sorted([file.name, file.read_bytes().hex()] for file in Path(path).iterdir())


@needs_fork
@pytest.mark.parametrize("ending", ["_exit", "exit", "collected"])
def test_a_forked_child_can_neither_use_an_index_nor_harm_it(ending: str, tmp_path: Path) -> None:
    with create(tmp_path / "index") as index:
        History(4).change(0).apply(index)
    found = run("fork_with_an_open_index", tmp_path / "index", ending, False)
    forked = ForkedIndexError.__name__
    assert found["child"] == {
        **dict.fromkeys(["search", "get", "len", "add", "delete", "search after close"], forked),
        "close": "done",
    }
    assert found["status"] == 0
    assert found["same_files"]
    assert found["same_answers"]
    assert found["other_writer"] == found["other_writer_after_a_write"] == "IndexLockedError"
    assert found["other_writer_after_close"] is None
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert_state(index, History(4), 2)


@needs_fork
@pytest.mark.parametrize("ending", ["_exit", "exit", "collected"])
def test_a_forked_child_cannot_use_a_reader_either(ending: str, tmp_path: Path) -> None:
    with create(tmp_path / "index") as index:
        History(4).change(0).apply(index)
    found = run("fork_with_an_open_index", tmp_path / "index", ending, True)
    assert {found["child"][name] for name in ("search", "get", "len")} == {ForkedIndexError.__name__}
    assert found["child"]["close"] == "done"
    assert found["status"] == 0
    assert found["same_files"]
    assert found["same_answers"]
    assert found["other_writer"] is None


def open_anew_after_a_fork(path: str) -> None:
    """Fork while the index is open, and open it by its path in the child."""
    index = MuveraIndex.open(path, ENCODER)
    before = answers(index)
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        mine: list[Any] = []

        def read() -> None:
            with MuveraIndex.open(path, ENCODER, read_only=True, refresh_interval=None) as reader:
                mine.append(answers(reader))

        told = {
            "read": outcome(read),
            "same": mine == [before],
            "write": outcome(lambda: MuveraIndex.open(path, ENCODER)),
        }
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        in_child = json.load(pipe)
    os.waitpid(child, 0)
    print(json.dumps({"child": in_child, "same_answers": answers(index) == before, "other": other_writer(path)}))
    index.close()


@needs_fork
def test_a_forked_child_can_open_the_folder_anew_for_reading(tmp_path: Path) -> None:
    with create(tmp_path / "index") as index:
        History(4).change(0).apply(index)
    found = run("open_anew_after_a_fork", tmp_path / "index")
    assert found["child"] == {"read": "done", "same": True, "write": "IndexLockedError"}
    assert found["same_answers"]
    assert found["other"] == "IndexLockedError"


# Processes that are spawned


def test_an_index_cannot_be_handed_to_a_spawned_process(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with create(tmp_path / "index") as index:
        History(5).change(0).apply(index)
        with pytest.raises(MuveraError, match=r"cannot be pickled.*Pass its path"):
            spawn.Process(target=len, args=(index,)).start()
        assert_state(index, History(5), 0)


def test_a_spawned_process_can_open_the_folder_for_reading(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with create(tmp_path / "index") as index:
        History(5).change(0).apply(index)
        with ProcessPoolExecutor(2, mp_context=spawn) as pool:
            found = [pool.submit(answers_of_folder, str(tmp_path / "index")) for _ in range(2)]
            assert [one.result(PATIENCE) for one in found] == [answers(index)] * 2
