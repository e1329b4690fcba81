"""After a commit the change is made, so no call raises for what follows: compaction, savings, the manifest, the GPU."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from reference_model import ENCODER, ReferenceModel, add_to, create, model_document, search_all, search_exactly
from test_races import assert_answers

from muvera_core import MuveraIndex
from muvera_core.collection import stage_one_source, writer
from muvera_core.errors import StageOneNotSavedWarning, StorageError
from muvera_core.stage_one import StageOne, saved
from muvera_core.storage import Manifest, Store, store
from muvera_core.tuning import optimizing

DOCUMENTS = [model_document(f"d{i}", i, {"group": i % 4}) for i in range(40)]
OTHERS = [model_document(f"o{i}", 100 + i, {"group": i % 4}) for i in range(12)]
DELETED = [document.id for document in DOCUMENTS[:30]]
MODEL = ReferenceModel().with_documents(DOCUMENTS)
CALLS: dict[str, tuple[Callable[[MuveraIndex], object], ReferenceModel]] = {
    "add": (lambda index: add_to(index, OTHERS), MODEL.with_documents(OTHERS)),
    "delete": (lambda index: index.delete(DELETED), MODEL.without(DELETED)),
    "delete by filter": (
        lambda index: index.delete(filter={"group": 1}),
        MODEL.without([f"d{i}" for i in range(1, 40, 4)]),
    ),
    "clear": (lambda index: index.clear(), ReferenceModel()),
    "compact": (lambda index: index.compact(), MODEL),
    "close": (lambda index: index.close(), MODEL),
    "copy": (lambda index: index.copy_to(f"{index.path}-copy"), MODEL),
}
PLACES: dict[str, tuple[Any, str]] = {
    "publish": (StageOne, "publish"),
    "compact stage one": (StageOne, "compact"),
    "save stage one": (stage_one_source, "save_stage_one"),
    "checksums of stage one": (saved, "file_checksum"),
    "vacuum": (Store, "_vacuum"),
    "leftovers": (Store, "_remove_leftovers"),
    "compact the store": (Store, "compact"),
    "mean": (writer.Writer, "_freeze_mean"),
}
ERRORS = (MemoryError(), RuntimeError("hnswlib has no room"), OSError(5, "Input/output error"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with create(tmp_path / "index") as index:
        add_to(index, DOCUMENTS)
    return tmp_path / "index"


@pytest.fixture(autouse=True)
def all_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every write be followed by everything that can follow one."""
    monkeypatch.setattr(store, "_MIN_WASTE", 1)
    monkeypatch.setattr(writer, "_MIN_TO_SAVE", 1)


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("call", "place"),
    # The others are what the call is for, or a part of opening the copy.
    sorted({*product(CALLS, PLACES)} - {("compact", "compact the store"), ("copy", "publish"), ("copy", "leftovers")}),
)
def test_what_follows_a_commit_may_fail(call: str, place: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, expected = CALLS[call]
    index = MuveraIndex.open(folder, ENCODER)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(*PLACES[place], failing(ERRORS[len(call + place) % len(ERRORS)]))
        make(index)
        if call != "close":
            index.engine.collection.n_unsaved += 1
            index.close()
    with MuveraIndex.open(folder, ENCODER) as again:
        assert_answers(again, expected)


@pytest.mark.parametrize("place", ["publish", "compact stage one", "vacuum"])
@pytest.mark.parametrize("call", ["add", "delete"])
def test_an_index_answers_correctly_after_what_follows_a_commit_has_failed(
    call: str, place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, expected = CALLS[call]
    with MuveraIndex.open(folder, ENCODER) as index:
        with monkeypatch.context() as patch:
            patch.setattr(*PLACES[place], failing(MemoryError()))
            make(index)
        assert_answers(index, expected)
        add_to(index, OTHERS)
        assert_answers(index, expected.with_documents(OTHERS))


@pytest.mark.parametrize("place", PLACES)
def test_an_interruption_of_what_follows_a_commit_ends_the_call(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MuveraIndex.open(folder, ENCODER) as index:
        with monkeypatch.context() as patch:
            patch.setattr(*PLACES[place], failing(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                index.delete(DELETED)
        assert_answers(index, MODEL.without(DELETED))


def test_a_reader_is_up_to_date_after_what_follows_a_refresh_has_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        MuveraIndex.open(folder, ENCODER) as index,
        MuveraIndex.open(folder, ENCODER, read_only=True, refresh_interval=None) as reader,
    ):
        index.delete(DELETED)
        with monkeypatch.context() as patch:
            patch.setattr(StageOne, "compact", failing(MemoryError()))
            assert reader.refresh()
        assert search_exactly(reader)(MODEL.without(DELETED))
        assert search_all(reader)(MODEL.without(DELETED))


# Failures that the system makes


@contextlib.contextmanager
def blocked(path: Path) -> Iterator[None]:
    """A folder in the place of a file, so that the file cannot be written, also not by the superuser."""
    path.mkdir()
    yield
    path.rmdir()


@pytest.mark.parametrize("strict", [False, True])
def test_stage_one_that_cannot_be_saved_is_a_warning_or_if_that_is_an_error_a_line_in_the_log(
    strict: bool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = MuveraIndex.open(folder, ENCODER)
    with warnings.catch_warnings(record=True) as given, blocked(folder / "stage_one.json.tmp"):
        warnings.simplefilter("error" if strict else "always")
        for change in (lambda: add_to(index, OTHERS), lambda: index.delete(DELETED), index.compact, index.close):
            change()
            said = [warning for warning in given if warning.category is StageOneNotSavedWarning]
            logged = [line for line in caplog.messages if "could not be saved" in line]
            assert bool(said) != strict
            assert bool(logged) == strict
            assert all(warning.filename == __file__ or "reference_model" in warning.filename for warning in said)
            given.clear()
            caplog.clear()
    with MuveraIndex.open(folder, ENCODER) as index:
        assert_answers(index, MODEL.with_documents(OTHERS).without(DELETED))


def test_a_folder_that_is_gone_does_not_keep_an_index_from_closing(folder: Path) -> None:
    index = MuveraIndex.open(folder, ENCODER)
    add_to(index, OTHERS)
    index.engine.collection.n_unsaved = 1
    shutil.rmtree(folder)
    with pytest.warns(StageOneNotSavedWarning):
        index.close()
    assert not index.engine.collection.is_open


def test_documents_stay_deleted_where_there_is_no_room_to_compact(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    long = [model_document(f"l{i}", i) for i in range(20)]
    for document in long:
        object.__setattr__(document, "tokens", document.tokens.repeat(2_000, axis=0))
    monkeypatch.setattr(writer, "_MIN_TO_SAVE", 1_000)
    with create(tmp_path / "long") as index:
        index.add_embeddings([document.tokens for document in long], ids=[document.id for document in long])
    size = (tmp_path / "long" / "tokens-0.bin").stat().st_size
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    index = MuveraIndex.open(tmp_path / "long", ENCODER)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 3, hard))
        assert index.delete([f"l{i}" for i in range(8)]) == 8
        with pytest.raises(StorageError, match="no room"):
            index.compact()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be compacted" in caplog.text
    assert [document.id for document in index.find()] == [f"l{i}" for i in range(8, 20)]
    index.close()


def test_a_choice_of_optimize_is_kept_where_the_manifest_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizing, "_reranks_all", lambda *_: False)
    with MuveraIndex.open(folder, ENCODER) as index, warnings.catch_warnings():
        warnings.simplefilter("error")
        with blocked(folder / "manifest.json.tmp"):
            chosen = index.optimize(0.5, n_queries=20, k=3)
        assert index.engine.collection.manifest.tuning == chosen
    assert Manifest.read(folder).tuning is None
    with MuveraIndex.open(folder, ENCODER, read_only=True, refresh_interval=None) as reader:
        assert reader.engine.collection.manifest.tuning == chosen
    with MuveraIndex.open(folder, ENCODER) as index:
        assert index.engine.collection.manifest.tuning == chosen
        assert search_exactly(index)(MODEL)
    assert Manifest.read(folder).tuning == chosen


def test_a_gpu_that_cannot_take_new_documents_is_a_line_in_the_log(folder: Path, caplog: Any) -> None:
    class FailingGpu:
        name, n_bytes = "cuda:0", 0

        def update_after_write(self, *_: object) -> None:
            raise MemoryError

        def close(self) -> None:
            raise RuntimeError("the context is destroyed")

    index = MuveraIndex.open(folder, ENCODER)
    index.engine.collection.accelerator = FailingGpu()  # type: ignore[assignment]
    assert index.delete(DELETED) == len(DELETED)
    index.close()
    assert "new documents could not be copied to cuda:0: MemoryError" in caplog.text
    assert "cuda:0 could not be freed: RuntimeError: the context is destroyed" in caplog.text
