"""One index object in many threads: every answer is that of one committed state, and nothing waits forever."""

from __future__ import annotations

import contextlib
import faulthandler
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from reference_model import (
    ENCODER,
    FDE,
    OBSERVATIONS,
    D,
    History,
    Observation,
    ReferenceModel,
    SeedEncoder,
    Witness,
    create,
    model_document,
    search_all,
    search_exactly,
)

from muvera_core import MuveraIndex, TokenEmbeddings
from muvera_core.errors import IndexClosedError
from muvera_core.stage_one import stage_one

# Far beyond what any of it takes on a busy machine.
PATIENCE = 60.0
N_SEARCHING = 8
COMPACT_EVERY = 15
MIN_WRITES = 2 * COMPACT_EVERY


class Crew:
    """Threads that stop at the first failure of one of them, and a watchdog that shows where they hang."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], object]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # raised again by join
                self.failures.append(error)
                self.stop.set()

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self, seconds: float = PATIENCE) -> None:
        """Wait for all of them.

        Raises:
            AssertionError: they hang.
            BaseException: the first failure of one of them.
        """
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0, end - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            with tempfile.TemporaryFile("w+") as file:
                faulthandler.dump_traceback(file, all_threads=True)
                file.seek(0)
                raise AssertionError(f"threads hang:\n{file.read()}")
        if self.failures:
            raise self.failures[0]


@dataclass
class Progress:
    """Numbers of states: those from ``acknowledged`` to ``started`` can be what a search sees."""

    acknowledged: int = 0
    started: int = 0


@dataclass(frozen=True)
class Counts:
    """What a run did."""

    observations: int
    writes: int
    compactions: int


def observe_while_writing(
    index: MuveraIndex, seconds: float, seed: int, observations: Sequence[Observation] = OBSERVATIONS
) -> Counts:
    """Let threads ask everything of an index while one changes it, and check each answer."""
    history, progress, crew = History(seed), Progress(), Crew()
    history.change(0).apply(index)
    witnesses = [Witness(history) for _ in range(N_SEARCHING)]
    compactions = 0

    def search(number: int) -> None:
        turn = number
        while not crew.stop.is_set():
            observe = observations[turn % len(observations)]
            first = progress.acknowledged
            agrees = observe(index)
            witnesses[number].check(observe.__name__, agrees, first, progress.started)
            turn += 1

    def write() -> None:
        nonlocal compactions
        end = time.monotonic() + seconds
        while (time.monotonic() < end or progress.started < MIN_WRITES) and not crew.stop.is_set():
            number = progress.started + 1
            change = history.change(number)
            progress.started = number
            change.apply(index)
            progress.acknowledged = number
            if number % COMPACT_EVERY == 0:
                index.compact()
                compactions += 1
        crew.stop.set()

    for number in range(N_SEARCHING):
        crew.start(partial(search, number))
    crew.start(write)
    crew.join(seconds + PATIENCE)
    for observe in observations:
        Witness(history).check(observe.__name__, observe(index), progress.started, progress.started)
    return Counts(sum(witness.n_checked for witness in witnesses), progress.started, compactions)


@pytest.mark.parametrize("flat_limit", [stage_one.FLAT_LIMIT, 5], ids=["flat", "graph"])
@pytest.mark.parametrize("where", ["folder", "memory"])
def test_every_answer_is_what_one_committed_state_gives(
    where: str, flat_limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_one, "FLAT_LIMIT", flat_limit)
    with create(tmp_path / "index" if where == "folder" else None) as index:
        counts = observe_while_writing(index, 1.5, seed=flat_limit)
    assert counts.observations > 0
    assert counts.compactions > 0
    if where == "folder":
        history = History(flat_limit)
        with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
            for observe in OBSERVATIONS:
                Witness(history).check(observe.__name__, observe(index), counts.writes, counts.writes)


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_closing_gives_searches_an_answer_or_says_that_it_is_closed(where: str, tmp_path: Path) -> None:
    history = History(1)
    for round_ in range(8):
        index = create(tmp_path / str(round_) if where == "folder" else None)
        history.change(0).apply(index)
        close_under_searches(index, history, 0.002 * round_)


def close_under_searches(index: MuveraIndex, history: History, delay: float) -> None:
    crew = Crew()
    begun = threading.Barrier(N_SEARCHING + 1)

    def search(number: int) -> None:
        witness, turn = Witness(history), number
        begun.wait(PATIENCE)
        while True:
            observe = OBSERVATIONS[turn % len(OBSERVATIONS)]
            try:
                agrees = observe(index)
            except IndexClosedError:
                return
            witness.check(observe.__name__, agrees, 0, 0)
            turn += 1

    for number in range(N_SEARCHING):
        crew.start(partial(search, number))
    begun.wait(PATIENCE)
    time.sleep(delay)
    index.close()
    crew.join()


def test_closing_while_another_thread_writes_leaves_whole_writes(tmp_path: Path) -> None:
    history = History(2)
    for round_ in range(6):
        index, crew, progress = create(tmp_path / str(round_)), Crew(), Progress()
        history.change(0).apply(index)

        def write(index: MuveraIndex = index, progress: Progress = progress) -> None:
            with contextlib.suppress(IndexClosedError):
                while True:
                    progress.started += 1
                    history.change(progress.started).apply(index)
                    progress.acknowledged = progress.started

        crew.start(write)
        time.sleep(0.01 * (round_ + 1))
        index.close()
        crew.join()
        with MuveraIndex.open(tmp_path / str(round_), ENCODER) as index:
            for observe in OBSERVATIONS:
                Witness(history).check(observe.__name__, observe(index), progress.acknowledged, progress.acknowledged)


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_threads_that_write_at_once_all_succeed(where: str, tmp_path: Path) -> None:
    with create(tmp_path / "index" if where == "folder" else None) as index:
        crew, begun = Crew(), threading.Barrier(3)

        def add(name: str) -> None:
            begun.wait(PATIENCE)
            for i in range(15):
                index.add([str(i), str(i + 100)], ids=[f"{name}{i}", "shared"])

        def delete() -> None:
            begun.wait(PATIENCE)
            for _ in range(15):
                index.delete(["shared"])

        crew.start(lambda: add("a"))
        crew.start(lambda: add("b"))
        crew.start(delete)
        crew.join()
        index.delete("shared")
        expected = ReferenceModel().with_documents(
            [model_document(f"{name}{i}", i) for name in "ab" for i in range(15)],
        )
        assert sorted(document.id for document in index.find()) == sorted(expected.documents)
        assert search_all(index)(expected)
        assert search_exactly(index)(expected)


class Held(SeedEncoder):
    """Encodes when it is told to."""

    def __init__(self) -> None:
        super().__init__(D, "seeds")
        self.entered, self.released = threading.Event(), threading.Event()

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        self.entered.set()
        assert self.released.wait(PATIENCE)
        return super().encode_documents(texts)


def test_searches_do_not_wait_for_a_write_that_is_encoding_and_writes_do() -> None:
    encoder, history = Held(), History(3)

    def check(observe: Observation) -> None:
        Witness(history).check(observe.__name__, observe(index), 0, 0)

    with MuveraIndex.create(None, encoder, FDE) as index:
        history.change(0).apply(index)
        adding, deleting = Crew(), Crew()
        adding.start(lambda: index.add(["7"], ids=["d1"]))
        assert encoder.entered.wait(PATIENCE)
        searching = Crew()
        for observe in OBSERVATIONS:
            searching.start(partial(check, observe))
        searching.join()
        deleting.start(lambda: index.delete("d1"))
        encoder.released.set()
        adding.join()
        deleting.join()
        assert "d1" not in index
        assert len(index) == len(history.state(0).without(["d1"]))


def test_closing_while_an_add_is_encoding_leaves_all_of_it_or_none(tmp_path: Path) -> None:
    encoder, history = Held(), History(4)
    index = MuveraIndex.create(tmp_path / "index", encoder, FDE)
    history.change(0).apply(index)
    crew = Crew()
    added = []

    def add() -> None:
        with contextlib.suppress(IndexClosedError):
            added.extend(index.add(["7", "8"], ids=["x", "y"], batch_size=1))

    crew.start(add)
    assert encoder.entered.wait(PATIENCE)
    crew.start(index.close)
    time.sleep(0.05)
    encoder.released.set()
    crew.join()
    state = history.state(0).with_documents([model_document("x", 7), model_document("y", 8)] if added else [])
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert index.find() == state.find()
        assert search_exactly(index)(state)
