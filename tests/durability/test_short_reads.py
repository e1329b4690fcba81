"""Long reads are made of short ones, so that neither searches nor commits wait for them."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_format import DATABASE
from reference_model import ENCODER, FDE, ReferenceModel, add_to, answers, create, model_document, search_exactly
from test_threads import PATIENCE, Crew

from muvera_core import MuveraIndex
from muvera_core.collection import Collection, copying
from muvera_core.errors import CorruptIndexError, IndexClosedError
from muvera_core.filters import conditions, table
from muvera_core.storage import committed, database, documents, filter_reader

N = 160
DOCUMENTS = [
    model_document(
        f"d{i}", i, {"n": i % 20, "name": f"Name {i}", "tags": ["a", f"t{i % 3}"], "some": i if i % 2 else 0.5}
    )
    for i in range(N)
]
MODEL = ReferenceModel().with_documents(DOCUMENTS)
FILTERS: list[dict[str, Any]] = [
    {"n": 3},
    {"n": {"$gte": 7}},
    {"n": {"$lt": 5}},
    {"n": {"$lte": 5, "$gt": 1}},
    {"n": {"$nin": [1, 2, 19]}},
    {"n": {"$in": list(range(1, 20, 2))}},
    {"n": {"$exists": True}},
    {"n": {"$exists": False}},
    {"n": -1},
    {"name": "Name 4"},
    {"name": {"$ilike": "%E 1%"}},
    {"name": {"$like": "%5%"}},
    {"name": {"$contains": "9"}},
    {"name": {"$icontains": "NAME"}},
    {"tags": "a"},
    {"tags": "t2"},
    {"tags": ["a", "t1"]},
    {"tags": {"$empty": False}},
    {"some": {"$gt": 0.25}},
    {"some": {"$gte": 0.5, "$lte": 31}},
    {"none": None},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with create(tmp_path / "index") as index:
        add_to(index, DOCUMENTS)
    return tmp_path / "index"


def read_in_pages(patch: pytest.MonkeyPatch, n: int) -> None:
    """Read ``n`` documents or fields at a time, and stop every statement that may be stopped."""
    for module in (conditions, table):
        patch.setattr(module, "FIELDS_AT_ONCE", n)
    patch.setattr(filter_reader, "_MAX_TIMES", 0)
    patch.setattr(filter_reader, "_STEPS_AT_ONCE", 1)
    patch.setattr(documents, "_READ_TOGETHER", n)
    patch.setattr(committed, "_ROWS_AT_ONCE", n)
    patch.setattr(copying, "_COPIED_TOGETHER", n)


@pytest.fixture(params=[1, 7], ids=lambda n: f"pages of {n}")
def pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    read_in_pages(monkeypatch, request.param)


def ids(index: MuveraIndex, filter: dict[str, Any]) -> list[str]:
    return [document.id for document in index.find(filter)]


@pytest.mark.parametrize("n", [1, 7, N])
def test_filters_that_are_answered_in_pages_admit_the_same_documents(
    n: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MuveraIndex.open(folder, ENCODER) as index:
        at_once = [ids(index, filter) for filter in FILTERS]
        assert len({len(found) for found in at_once}) > 5
    read_in_pages(monkeypatch, n)
    with MuveraIndex.open(folder, ENCODER) as index:
        for filter, expected in zip(FILTERS, at_once, strict=True):
            assert ids(index, filter) == expected


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.usefixtures("pages")
def test_reads_in_pages_give_everything(read_only: bool, folder: Path, tmp_path: Path) -> None:
    with MuveraIndex.open(folder, ENCODER, read_only=read_only) as index:
        assert index.find() == MODEL.find()
        reverse = [f"d{i}" for i in reversed(range(N))]
        assert index.get([*reverse, "none"]) == MODEL.get(reverse)
        index.copy_to(tmp_path / "copy")
        with MuveraIndex.open(tmp_path / "copy", ENCODER) as copy:
            assert copy.find() == MODEL.find()
            assert answers(copy) == answers(index)


def without_the_lock(collection: list[Collection], call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, which fails in a thread that holds the lock that searches take."""

    def checked(*arguments: Any) -> Any:
        if collection:
            lock: Any = collection[0].locks.state
            assert not lock._is_owned()
        return call(*arguments)

    return checked


def test_documents_and_fields_are_parsed_without_the_lock_that_searches_take(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Collection] = []
    parsed = count()
    for module, name in ((documents, "_document"), (table, "field_hash"), (documents, "id_hash")):
        call = getattr(module, name)
        monkeypatch.setattr(module, name, without_the_lock(opened, lambda *a, call=call: (next(parsed), call(*a))[1]))
    with MuveraIndex.open(folder, ENCODER) as index:
        opened.append(index.engine.collection)
        index.find()
        for filter in FILTERS:
            index.find(filter)
        index.get([f"d{i}" for i in range(N)])
        index.copy_to(tmp_path / "copy")
        index.delete([f"d{i}" for i in range(10)])
        index.delete(filter={"name": {"$contains": "3"}})
    assert next(parsed) > 4 * N


def test_searches_go_on_while_a_filter_is_answered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crew, found = Crew(), list[int]()
    with MuveraIndex.open(folder, ENCODER) as index:
        is_sound = table._is_sound

        def search_meanwhile(fetch: Any, path: str) -> bool:
            crew.start(lambda: found.append(len(index.search_embeddings(np.eye(1, FDE.dimension), k=3))))
            crew.join(PATIENCE)
            return is_sound(fetch, path)

        monkeypatch.setattr(table, "_is_sound", search_meanwhile)
        assert ids(index, {"n": 3}) == [f"d{i}" for i in range(3, N, 20)]
    assert found == [3]


# Commits between the pages


def between_pages(monkeypatch: pytest.MonkeyPatch, calls: Iterator[Callable[[], object]], *, every: int = 5) -> None:
    """Make one of the calls each time that a page of fields, documents or places has been read ``every`` times."""
    pages = count(1)
    busy = threading.local()

    def hooked(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if not getattr(busy, "now", False) and next(pages) % every == 0:
                busy.now = True
                next(calls, lambda: None)()
                busy.now = False
            return call(*arguments, **options)

        return run

    for module, name in (
        (filter_reader, "read_version"),
        (documents, "select_by_key"),
        (committed, "read_snapshot_rows"),
    ):
        monkeypatch.setattr(module, name, hooked(getattr(module, name)))


def writes(index: MuveraIndex, states: list[ReferenceModel], n: int) -> Iterator[Callable[[], object]]:
    """Calls that replace a document and delete another, and note the two states that follow."""

    def change(i: int) -> None:
        new = model_document(f"d{i}", 1000 + i, {"n": 3, "name": f"Newer {i}"})
        add_to(index, [new])
        states.append(states[-1].with_documents([new]))
        index.delete([f"d{N - 1 - i}"])
        states.append(states[-1].without([f"d{N - 1 - i}"]))

    return (lambda i=i: change(i) for i in range(n))  # type: ignore[misc]


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize("n_writes", [1, 12])
def test_a_reader_answers_from_one_state_while_the_writer_commits_between_its_pages(
    n_writes: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT", 0.5)
    states = [MODEL]
    with MuveraIndex.open(folder, ENCODER) as index, MuveraIndex.open(folder, ENCODER, read_only=True) as reader:
        with monkeypatch.context() as patch:
            # The last attempt keeps the writer out, which would wait for itself in one thread.
            patch.setattr("muvera_core.collection.collection._ATTEMPTS", 30)
            between_pages(patch, writes(index, states, n_writes))
            found = reader.find({"n": 3})
        assert found == states[-1].find(lambda document: document.metadata["n"] == 3)
        assert reader.find() == index.find()


@pytest.mark.usefixtures("pages")
def test_a_copy_by_a_reader_is_of_one_state_while_the_writer_commits_between_its_pages(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [MODEL]
    with MuveraIndex.open(folder, ENCODER) as index, MuveraIndex.open(folder, ENCODER, read_only=True) as reader:
        with monkeypatch.context() as patch:
            patch.setattr(copying, "_ATTEMPTS", 30)
            between_pages(patch, writes(index, states, 8), every=3)
            reader.copy_to(tmp_path / "copy")
        with MuveraIndex.open(tmp_path / "copy", ENCODER) as copy:
            (state,) = (state for state in states if state.find() == copy.find())
            assert search_exactly(copy)(state)
            add_to(copy, [model_document("new", 5)])
            assert "new" in copy


def test_the_last_attempt_to_read_makes_writers_wait_but_not_searches(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew, written = Crew(), threading.Event()
    with MuveraIndex.open(folder, ENCODER) as index:
        collection, attempts = index.engine.collection, count(1)

        def write() -> None:
            add_to(index, [model_document("later", 7)])
            written.set()

        def read(snapshot: Any) -> list[str]:
            if next(attempts) < 4:
                raise documents.StaleError
            crew.start(write)
            crew.start(lambda: index.search_embeddings(np.eye(1, FDE.dimension), k=3))
            crew._threads[-1].join(PATIENCE)
            assert not crew._threads[-1].is_alive()
            assert not written.is_set()
            return [each.id for each in collection.store.documents(snapshot, snapshot.keys)]

        assert "later" not in collection.read_with_retry(read)
        crew.join(PATIENCE)
        assert "later" in index


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize(("module", "name"), [(documents, "_document"), (table, "field_hash")])
def test_an_index_that_is_closed_between_pages_says_so(
    module: Any, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MuveraIndex.open(folder, ENCODER) as index:
        call = getattr(module, name)

        def close_and_call(*arguments: Any) -> Any:
            index.close()
            return call(*arguments)

        monkeypatch.setattr(module, name, close_and_call)
        with pytest.raises(IndexClosedError):
            index.find({"n": {"$gte": 0}})


# Damage


@pytest.mark.parametrize("table_of_pages", ["fields", "directory"])
def test_a_table_with_pages_in_the_wrong_places_is_found(
    table_of_pages: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (conditions, table):
        monkeypatch.setattr(module, "FIELDS_AT_ONCE", 7)
    monkeypatch.setattr(committed, "_ROWS_AT_ONCE", 7)
    swap_pages(folder / DATABASE, table_of_pages)
    with pytest.raises(CorruptIndexError), MuveraIndex.open(folder, ENCODER) as index:
        index.find({"name": {"$contains": "N"}})


def swap_pages(path: Path, name: str) -> None:
    """Let the root page of a table name its first child in every place."""
    with sqlite3.connect(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    content = bytearray(path.read_bytes())
    page = content[(root - 1) * database.PAGE_SIZE : root * database.PAGE_SIZE]
    start = 100 if root == 1 else 0
    n_cells = int.from_bytes(page[start + 3 : start + 5], "big")
    assert page[start] in (2, 5)  # it has children
    right = page[start + 8 : start + 12]
    for i in range(n_cells):
        cell = int.from_bytes(page[start + 12 + 2 * i : start + 14 + 2 * i], "big")
        page[cell : cell + 4] = right
    content[(root - 1) * database.PAGE_SIZE : root * database.PAGE_SIZE] = page
    path.write_bytes(content)
