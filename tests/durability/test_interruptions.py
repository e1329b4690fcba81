"""Ctrl-C at any point of a call: afterwards an index answers from the state before the call or the one after it."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from reference_model import (
    BEACON,
    ENCODER,
    OBSERVATIONS,
    ModelDocument,
    ReferenceModel,
    add_to,
    beacon_tokens,
    create,
    model_document,
    tokens_from,
)
from test_threads import Crew

import muvera_core
from muvera_core import MuveraIndex, check_index
from muvera_core.errors import IndexClosedError
from muvera_core.stage_one import flat, hnsw, stage_one
from muvera_core.storage import database, store

# Where CPython looks for signals: when a function is entered, and after a call of one in C. (And where a loop jumps
# back, but loops that call nothing are short.)
LOOKS_FOR_SIGNALS = ("call", "c_return")
PACKAGE = Path(muvera_core.__file__).parent
OUR_FILES = {path.name for path in PACKAGE.rglob("*.py")}
# The moments in which a change becomes visible, and in which one that failed is undone.
DECISIVE = {
    "apply",
    "commit",
    "prepare",
    "publish",
    "discard",
    "roll_back",
    "write",
    "_settle",
    "__enter__",
    "__exit__",
}
# The moments in which a read begins and ends (one that doesn't end keeps writers out), and a reader moves on.
READING_CODE = {
    "read_one_state",
    "load",
    "_load",
    "matching",
    "read_exclusively",
    "read_snapshot_rows",
    "_read_in_pages",
    "_select",
    "fetch",
    "_run_limited",
    "catch_up",
    "_take_in_anew",
    "publish",
    "discard",
}
N_SAMPLES = 6
# How far a vector of unit length may move when it is kept in 8 bits. Those of different documents are farther apart.
MOST_ROUNDING = 0.03
FEW_QUESTIONS = [tokens_from(seed, 4) for seed in range(800_000, 800_008)]
WHERE = ("memory", "folder")
STAGE_ONE = ("flat", "graph", "growing")

# An interrupted call leaves it to the garbage collector to close a file.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass(frozen=True)
class Point:
    """A place in the code where an interruption can strike: the ``number``-th that a call comes by."""

    number: int
    file: str
    function: str
    line: int

    def __str__(self) -> str:
        return f"point {self.number}, {self.file}:{self.line} in {self.function}"


class Interruption:
    """Raises KeyboardInterrupt at one of the points at which CPython would, in code of this library."""

    def __init__(self, at: int | None = None) -> None:
        """Interrupt at the point of this number, from 0 on; None only lists them."""
        self.at = at
        self.points: list[Point] = []

    def strike(self, call: Callable[[], object]) -> BaseException | None:
        """Make the call. Returns what it raised, with its traceback, as an interactive session keeps it."""
        look = self._look  # CPython borrows it, and an interruption within a finalizer would let go of it meanwhile
        profiling = sys.getprofile()
        # So that a call comes by the same points each time, whatever earlier ones left behind.
        gc.disable()
        sys.setprofile(look)
        try:
            call()
        except BaseException as error:
            return error
        finally:
            sys.setprofile(profiling)
            gc.enable()
        return None

    def _look(self, frame: FrameType, event: str, arg: object) -> None:
        if event in LOOKS_FOR_SIGNALS and _is_ours(frame):
            code = frame.f_code
            self.points.append(Point(len(self.points), Path(code.co_filename).name, code.co_name, frame.f_lineno))
            if self.at == self.points[-1].number:
                raise KeyboardInterrupt


def _is_ours(frame: FrameType | None) -> bool:
    """Whether a frame runs code of this library, or of context managers that this library uses."""
    while frame is not None and frame.f_code.co_filename == contextlib.__file__:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(str(PACKAGE))


class State:
    """What an index has to answer in one state, the approximate searches included."""

    def __init__(self, model: ReferenceModel) -> None:
        self.model = model
        with create(None) as fresh:
            add_to(fresh, list(model.documents.values()))
            self.few = few(fresh)


def few(index: MuveraIndex) -> list[list[str]]:
    """What searches find in which stage one decides: of so few documents the graph finds what a scan does."""
    return [[hit.id for hit in index.search_embeddings(question, 3, 4)] for question in FEW_QUESTIONS]


def assert_state(index: MuveraIndex, states: Sequence[State]) -> State:
    """Check that all of an index's answers are those of one of the states, and return it."""
    agree = {observe.__name__: observe(index) for observe in OBSERVATIONS}
    found = few(index)
    lacking = [
        [*(name for name, agrees in agree.items() if not agrees(state.model)), *["few"] * (found != state.few)]
        for state in states
    ]
    assert [] in lacking, f"the answers differ from those of each state: {lacking}"
    assert_stage_one(index)
    return states[lacking.index([])]


def assert_stage_one(index: MuveraIndex) -> None:
    """Check that stage one holds the documents that there are, each with the vector that its tokens give."""
    collection = index.engine.collection
    snapshot, stage = collection.snapshot(), collection.stage_one
    assert stage.candidates.keys().tolist() == snapshot.keys.tolist()
    assert len(stage.candidates) == len(snapshot)
    held = stage.candidates.vectors(snapshot.keys)
    derived = stage.encode_documents(collection.store.embeddings(snapshot, snapshot.keys))
    distances = np.linalg.norm(held - derived, axis=1)
    assert distances.max(initial=0) <= MOST_ROUNDING, "stage one holds other documents' vectors"


# What is done to an index


FIRST = [
    *(model_document(f"d{i}", i, {"group": i % 4}) for i in range(22)),
    ModelDocument(BEACON, "version 0", {"kind": BEACON}, beacon_tokens()),
]
DEAD = ["d0", "d7", "d11"]
NEW = [model_document(f"n{i}", 100 + i, {"group": i % 4}) for i in range(6)]
REPLACING = [model_document(f"d{i}", 200 + i, {"group": 3}) for i in (2, 5)] + NEW[:2]
MANY = [f"d{i}" for i in range(1, 15)]
LATER = model_document("later", 300, {"group": 1})


@dataclass(frozen=True)
class Operation:
    """A change of an index, and of the model."""

    apply: Callable[[MuveraIndex], object]
    result: Callable[[ReferenceModel], ReferenceModel] = lambda model: model


OPERATIONS = {
    "add": Operation(lambda index: add_to(index, NEW), lambda model: model.with_documents(NEW)),
    "replace": Operation(lambda index: add_to(index, REPLACING), lambda model: model.with_documents(REPLACING)),
    "delete": Operation(lambda index: index.delete(["d3", "d5"]), lambda model: model.without(["d3", "d5"])),
    # So many that what they leave behind is given back at once.
    "delete many": Operation(lambda index: index.delete(MANY), lambda model: model.without(MANY)),
    "compact": Operation(lambda index: index.compact()),
    "find": Operation(lambda index: index.find({"$or": [{"group": 1}, {"kind": {"$like": "bea%"}}]})),
}
READING = ("refresh", "refresh after compaction")
CALLS = [
    *((name, where) for name in OPERATIONS for where in WHERE),
    *((name, "folder") for name in (*READING, "close", "open")),
]


@cache
def before() -> State:
    return State(ReferenceModel().with_documents(FIRST).without(DEAD))


@cache
def after(operation: str) -> State:
    return State(OPERATIONS[operation].result(before().model))


@cache
def with_later(state: State) -> State:
    return State(state.model.with_documents([LATER]))


def fill(index: MuveraIndex) -> MuveraIndex:
    add_to(index, FIRST)
    index.delete(DEAD)
    return index


def use(kind: str, patch: pytest.MonkeyPatch) -> None:
    """Let stage one be of a kind from here on, and let everything grow and be given back early."""
    limit = {"flat": stage_one.FLAT_LIMIT, "graph": 5, "growing": len(FIRST)}[kind]
    patch.setattr(stage_one, "FLAT_LIMIT", limit)
    patch.setattr(stage_one, "_BATCH", 4)
    for module in (flat, hnsw):
        patch.setattr(module, "INITIAL_CAPACITY", 4)
    patch.setattr(store, "_MIN_WASTE", 0)
    patch.setattr(database, "_BUSY_TIMEOUT", 2.0)
    patch.setattr(os, "fsync", lambda _: None)  # what a power cut leaves is tested elsewhere


class Case:
    """One call in one place, to be interrupted as often as one likes, each time from the same state on."""

    def __init__(self, call: str, where: str, folder: Path, *, thorough: bool = False) -> None:
        """Prepare it.

        Args:
            call: one of ``CALLS``.
            where: one of ``WHERE``.
            folder: for the index's folders.
            thorough: look for damage every time, too.
        """
        self.call, self.where, self.folder, self._thorough = call, where, folder, thorough
        folder.mkdir(exist_ok=True)
        self._template = folder / "template"
        self._n = 0
        if where == "folder":
            with create(self._template) as index:
                fill(index)

    def points(self) -> list[Point]:
        """All points that the call comes by."""
        return self.interrupt(None).points

    def interrupt(self, at: int | None) -> Interruption:
        """Make the call, interrupted at a point, and check the index.

        Raises:
            AssertionError: it gives wrong answers, or hangs.
            Exception: it can't be used.
        """
        interruption = Interruption(at)
        self._n += 1
        path = self.folder / str(self._n)
        if self.where == "folder":
            shutil.copytree(self._template, path)
        if self.call in OPERATIONS:
            self._change(interruption, path)
        elif self.call in READING:
            self._refresh(interruption, path)
        else:
            self._open_or_close(interruption, path)
        shutil.rmtree(path, ignore_errors=True)
        return interruption

    def _change(self, interruption: Interruption, path: Path) -> None:
        index = fill(create(None)) if self.where == "memory" else MuveraIndex.open(path, ENCODER)
        kept = interruption.strike(lambda: OPERATIONS[self.call].apply(index))
        assert_struck(interruption, kept)
        states = [before(), after(self.call)] if kept else [after(self.call)]
        seen: list[State] = []

        def go_on() -> None:
            seen.append(assert_state(index, states))
            add_to(index, [LATER])
            seen.append(assert_state(index, [with_later(seen[0])]))

        # In another thread: a lock that the interrupted call still holds would not stop its own.
        in_another_thread(go_on)
        index.close()
        if self.where == "folder":
            with MuveraIndex.open(path, ENCODER) as index:
                assert_state(index, seen[-1:])
            if self._thorough:
                report = check_index(path)
                assert report.ok, str(report)

    def _refresh(self, interruption: Interruption, path: Path) -> None:
        with (
            MuveraIndex.open(path, ENCODER, read_only=True, refresh_interval=None) as reader,
            MuveraIndex.open(path, ENCODER) as writer,
        ):
            OPERATIONS["replace"].apply(writer)
            if self.call == "refresh after compaction":
                writer.compact()
            kept = interruption.strike(reader.refresh)
            assert_struck(interruption, kept)

            def go_on() -> None:
                if kept is not None:
                    assert_one_after_the_other(reader, [before(), after("replace")])
                    reader.refresh()
                assert_state(reader, [after("replace")])
                assert reader.refresh() is False
                add_to(writer, [LATER])  # a lock that the reader still holds would keep the writer out
                assert reader.refresh() is True
                assert_state(reader, [with_later(after("replace"))])

            in_another_thread(go_on)

    def _open_or_close(self, interruption: Interruption, path: Path) -> None:
        opened: list[MuveraIndex] = []
        kept: BaseException | None
        if self.call == "open":
            kept = interruption.strike(lambda: opened.append(MuveraIndex.open(path, ENCODER)))
            kept = None if isinstance(kept, KeyboardInterrupt) else kept  # its frames may hold the folder's lock
        else:
            opened.append(MuveraIndex.open(path, ENCODER))
            add_to(opened[0], [LATER])
            kept = interruption.strike(opened[0].close)
        assert_struck(interruption, kept)
        state = with_later(before()) if self.call == "close" else before()

        def go_on() -> None:
            for index in opened:
                with contextlib.suppress(IndexClosedError):
                    assert_state(index, [state])
                index.close()
            with MuveraIndex.open(path, ENCODER) as index:
                assert_state(index, [state])

        in_another_thread(go_on)


def assert_struck(interruption: Interruption, kept: BaseException | None) -> None:
    """Check that the call was interrupted where it should be, and raised nothing else."""
    if kept is not None and not isinstance(kept, KeyboardInterrupt):
        raise kept
    assert kept is None or interruption.at is not None


def assert_one_after_the_other(reader: MuveraIndex, states: Sequence[State]) -> None:
    """Check that each answer is that of a state, and none of one before that of the answer before it.

    A reader moves on to a later state by itself where what it has seen is gone.
    """
    first = 0
    for observe in OBSERVATIONS:
        agrees = observe(reader)
        fitting = [n for n in range(first, len(states)) if agrees(states[n].model)]
        assert fitting, f"{observe.__name__} is of no state"
        first = fitting[0]
    assert few(reader) in [state.few for state in states[first:]]


def in_another_thread(call: Callable[[], object]) -> None:
    crew = Crew()
    crew.start(call)
    crew.join(20)


def sample(points: Sequence[Point], n: int, rng: random.Random) -> list[Point]:
    """So many of the points, no two on one line of the code as long as there are others."""
    shuffled = rng.sample(points, len(points))
    lines: dict[tuple[str, int], list[Point]] = {}
    for point in shuffled:
        lines.setdefault((point.file, point.line), []).append(point)
    by_turns = sorted(
        ((turn, place, point) for place, line in enumerate(lines.values()) for turn, point in enumerate(line)),
        key=lambda entry: entry[:2],
    )
    return [point for *_, point in by_turns[:n]]


@pytest.fixture
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    chosen: str = request.param
    prepare()
    use(chosen, monkeypatch)
    return chosen


def prepare() -> None:
    """Work out the states that there can be, before anything is made small."""
    for name in OPERATIONS:
        with_later(after(name))
    with_later(before())


def interrupt_at(case: Case, points: Sequence[Point]) -> None:
    """Interrupt a call at each of the points, and say which one it was where a check fails."""
    for point in points:
        try:
            case.interrupt(point.number)
        except BaseException as error:
            error.add_note(f"{case.call} in {case.where}, interrupted at {point}")
            raise


@pytest.mark.parametrize("kind", STAGE_ONE, indirect=True)
@pytest.mark.parametrize(("call", "where"), CALLS)
def test_an_interrupted_call_leaves_the_state_before_it_or_after_it(
    call: str, where: str, kind: str, tmp_path: Path
) -> None:
    case = Case(call, where, tmp_path)
    interrupt_at(case, sample(case.points(), N_SAMPLES, random.Random(f"{call} {where} {kind}")))


@pytest.mark.parametrize("kind", ["flat", "graph"], indirect=True)
@pytest.mark.parametrize("call", ["replace", "compact"])
def test_an_interrupted_commit_is_done_or_undone(call: str, kind: str, tmp_path: Path) -> None:
    case = Case(call, "memory", tmp_path)
    decisive = [point for point in case.points() if point.file in OUR_FILES and point.function in DECISIVE]
    assert decisive
    interrupt_at(case, sample(decisive, 30, random.Random(call + kind)))


@pytest.mark.parametrize("kind", ["flat"], indirect=True)
@pytest.mark.parametrize(("call", "n"), [("find", 60), *((call, 40) for call in READING)])
def test_an_interrupted_read_keeps_no_writer_out_and_shows_one_state(
    call: str, n: int, kind: str, tmp_path: Path
) -> None:
    case = Case(call, "folder", tmp_path)
    points = case.points()
    decisive = [point for point in points if point.function in READING_CODE]
    decisive += [point for point in points if point.file == "contextlib.py"]
    assert decisive
    interrupt_at(case, sample(decisive, n, random.Random(call)))
