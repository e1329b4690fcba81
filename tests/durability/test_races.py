"""Unlucky moments: savings beside openings, failures after a commit, repairs of what was cut short."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_format import DATABASE, graph_file, run_sql, vouch_for_stage_one
from reference_model import (
    ENCODER,
    FDE,
    D,
    ReferenceModel,
    SeedEncoder,
    add_to,
    answers,
    create,
    model_document,
    search_all,
    search_exactly,
)
from test_interruptions import assert_stage_one, few

from muvera_core import (
    FDEConfig,
    MuveraIndex,
    TokenEmbeddings,
    check_index,
    repair_index,
)
from muvera_core.collection import writer
from muvera_core.errors import CorruptIndexError, IndexExistsError, IndexLockedError, MuveraError, StorageError
from muvera_core.files import plain
from muvera_core.stage_one import hnsw, stage_one
from muvera_core.stage_one.graph_file import check_graph_file
from muvera_core.stage_one.graph_parameters import DEFAULT_GRAPH
from muvera_core.storage import database, store

DOCUMENTS = [model_document(f"d{i}", i, {"group": i % 4}) for i in range(30)]
OTHERS = [model_document(f"o{i}", 100 + i, {"group": i % 4}) for i in range(12)]
IDS = [document.id for document in DOCUMENTS]
DELETED = IDS[:12]
LEFT = ReferenceModel().with_documents(DOCUMENTS).without(DELETED)
HNSW_HEADER = struct.Struct("<QQQQQQiIQQQdQ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with create(tmp_path / "index") as index:
        add_to(index, DOCUMENTS)
    return tmp_path / "index"


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_one, "FLAT_LIMIT", 10)


def assert_answers(index: MuveraIndex, model: ReferenceModel) -> None:
    assert search_exactly(index)(model)
    assert search_all(index)(model)
    assert index.find() == model.find()
    assert_stage_one(index)


def once(call: Callable[[], object]) -> Callable[[], None]:
    """The call, which does nothing when it is made again."""
    calls = [call]

    def first() -> None:
        while calls:
            calls.pop()()

    return first


# A reader beside a writer


def opened_while_the_writer_saves(folder: Path, patch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """Open a reader, and let the writer save other vectors as soon as the reader has called a function."""
    real = getattr(module, name)
    with MuveraIndex.open(folder, ENCODER) as writer:

        def save() -> None:
            writer.delete(DELETED)
            add_to(writer, OTHERS)  # as many as were deleted: only their keys and vectors are others
            writer.compact()

        save_once = once(save)

        def read_and_save(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            save_once()
            return result

        patch.setattr(module, name, read_and_save)
        with MuveraIndex.open(folder, ENCODER, read_only=True, refresh_interval=None) as reader:
            assert "o1" in writer, "the writer hasn't saved"
            assert_stage_one(reader)
            reader.refresh()
            assert_answers(reader, LEFT.with_documents(OTHERS))
            assert few(reader) == few(writer)


def test_vectors_saved_while_a_reader_loads_them_are_not_taken_for_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_while_the_writer_saves(folder, monkeypatch, np, "fromfile")


@pytest.mark.usefixtures("graph")
def test_a_graph_saved_while_a_reader_loads_it_is_not_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(tmp_path / "index") as index:
        add_to(index, DOCUMENTS)
    opened_while_the_writer_saves(tmp_path / "index", monkeypatch, hnsw, "read_graph_file")


@pytest.mark.parametrize("change", ["deleted", "deleted and added"])
def test_a_refresh_after_an_interrupted_one_shows_the_latest_state(
    change: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    expected = LEFT
    with (
        MuveraIndex.open(folder, ENCODER, read_only=True, refresh_interval=None) as reader,
        MuveraIndex.open(folder, ENCODER) as writer,
    ):
        assert_answers(reader, ReferenceModel().with_documents(DOCUMENTS))
        writer.delete(DELETED)
        if change == "deleted and added":
            add_to(writer, OTHERS)
            expected = LEFT.with_documents(OTHERS)
        writer.compact()
        with monkeypatch.context() as patch:
            patch.setattr(stage_one.StageOne, "publish", interrupted)
            patch.setattr(stage_one.StageOne, "stage", interrupted)
            with pytest.raises(KeyboardInterrupt):
                reader.refresh()
        reader.refresh()
        assert_answers(reader, expected)
        assert answers(reader) == answers(writer)


def test_a_commit_amid_a_refresh_does_not_look_like_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT", 0.2)
    checksum = database._state_checksum
    with (
        MuveraIndex.open(folder, ENCODER) as writer,
        MuveraIndex.open(folder, ENCODER, read_only=True, refresh_interval=None) as reader,
    ):

        def write() -> None:
            with contextlib.suppress(IndexLockedError):  # the reader is in its way
                writer.delete(DELETED)

        write_once = once(write)

        def checksum_after_a_write(db: sqlite3.Connection) -> int:
            write_once()
            return checksum(db)

        monkeypatch.setattr(database, "_state_checksum", checksum_after_a_write)
        reader.refresh()
        writer.delete(DELETED)
        reader.refresh()
        assert_answers(reader, LEFT)


@pytest.mark.parametrize("module", [plain, database], ids=["at opening", "at checking the database's files"])
def test_a_journal_that_a_commit_removes_while_a_reader_looks_at_it_is_no_error(
    module: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer removes its journal at each commit: here between a look at it and its opening."""
    journal = folder / f"{database.DATABASE_NAME}-journal"
    is_plain_file = plain.is_plain_file

    def found_and_removed(path: Path) -> bool:
        found = is_plain_file(path)
        if path == journal and found:
            journal.unlink()
        return found

    journal.write_bytes(b"")
    monkeypatch.setattr(module, "is_plain_file", found_and_removed)
    with MuveraIndex.open(folder, ENCODER, read_only=True, refresh_interval=None) as reader:
        assert_answers(reader, ReferenceModel().with_documents(DOCUMENTS))


# After a commit


def test_a_delete_that_is_committed_does_not_fail_because_a_reader_is_in_the_way_of_compacting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_MIN_WASTE", 0)
    monkeypatch.setattr(database, "_BUSY_TIMEOUT", 0.2)
    compact = store.Store.compact
    compactions = []
    with (
        MuveraIndex.open(folder, ENCODER) as index,
        contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as reader,
    ):

        def compact_under_a_reader(self: store.Store) -> None:
            compactions.append(1)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM documents").fetchall()
            compact(self)

        with monkeypatch.context() as patch:
            patch.setattr(store.Store, "compact", compact_under_a_reader)
            assert index.delete(IDS[:25]) == 25
        assert compactions
        left = ReferenceModel().with_documents(DOCUMENTS[25:])
        assert_answers(index, left)
        reader.execute("ROLLBACK")
        add_to(index, OTHERS)
        assert not (folder / "tokens-0.bin").exists(), "the next write hasn't made up for it"
        assert_answers(index, left.with_documents(OTHERS))
    with MuveraIndex.open(folder, ENCODER) as index:
        assert_answers(index, left.with_documents(OTHERS))


def test_an_add_that_is_committed_does_not_fail_because_centring_meets_a_damaged_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MIN_TOKENS_FOR_MEAN", 100)
    centring = FDEConfig(dimension=D, num_repetitions=8, num_simhash_projections=3, projection_dimension=8, center=True)
    path = tmp_path / "index"
    with MuveraIndex.create(path, ENCODER, centring) as index:
        add_to(index, DOCUMENTS[:5])
        assert index.n_tokens < 100
    tokens = path / "tokens-0.bin"
    with MuveraIndex.open(path, ENCODER) as index:
        content = bytearray(tokens.read_bytes())
        content[0] ^= 1
        with tokens.open("r+b") as file:
            file.write(content)
        for added, n in ((DOCUMENTS[5:], 30), (OTHERS, 42)):
            add_to(index, added)
            assert len(index) == n
        assert index.n_tokens > 100
        with pytest.raises(CorruptIndexError, match="'d0'"):
            index.search_embeddings(np.eye(1, D), exact=True)
        index.delete("d0")
        add_to(index, DOCUMENTS[:1])
        assert_stage_one(index)
        assert len(index) == 42


# A write within a write


@pytest.mark.parametrize("write", ["add", "delete", "compact"])
@pytest.mark.parametrize("where", ["folder", "memory"])
def test_an_encoder_that_writes_to_its_own_index_is_told_so(where: str, write: str, tmp_path: Path) -> None:
    class Writing(SeedEncoder):
        def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
            writes: dict[str, Callable[[], object]] = {
                "add": lambda: add_to(index, OTHERS),
                "delete": lambda: index.delete("d1"),
                "compact": lambda: index.compact(),
            }
            writes[write]()
            return super().encode_documents(texts)

    state = ReferenceModel().with_documents(DOCUMENTS)
    with MuveraIndex.create(tmp_path / "index" if where == "folder" else None, Writing(D, "seeds"), FDE) as index:
        add_to(index, DOCUMENTS)
        with pytest.raises(MuveraError, match="an encoder cannot write to the index"):
            index.add(["7", "8"], ids=["x", "d2"])
        assert_answers(index, state)
        add_to(index, OTHERS)
        assert_answers(index, state.with_documents(OTHERS))


@pytest.mark.parametrize("error", [StorageError("the disk is full"), KeyboardInterrupt()], ids=repr)
def test_a_copy_that_failed_can_be_made_again(
    error: BaseException, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    with MuveraIndex.open(folder, ENCODER) as index:
        with monkeypatch.context() as patch:
            patch.setattr(store.Store, "append_rows", fail)
            with pytest.raises(type(error)):
                index.copy_to(tmp_path / "copy")
        index.copy_to(tmp_path / "copy")
        with MuveraIndex.open(tmp_path / "copy", ENCODER) as copy:
            assert answers(copy) == answers(index)


def test_a_copy_into_a_folder_in_use_removes_nothing_there(folder: Path, tmp_path: Path) -> None:
    with MuveraIndex.open(folder, ENCODER) as index:
        index.copy_to(tmp_path / "copy")
        with pytest.raises(IndexExistsError):
            index.copy_to(tmp_path / "copy")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("dear")
        with pytest.raises(IndexExistsError):
            index.copy_to(tmp_path / "mine")
        assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
        with MuveraIndex.open(tmp_path / "copy", ENCODER) as copy:
            assert answers(copy) == answers(index)


# Repairs and damage


def test_repair_takes_the_token_file_that_fits_where_a_compaction_was_cut_short_and_the_state_is_damaged(
    folder: Path,
) -> None:
    with MuveraIndex.open(folder, ENCODER) as index:
        index.delete(DELETED)
    (folder / "tokens-1.bin").write_bytes(bytes(500))
    run_sql(folder, "UPDATE state SET value = value + 1 WHERE name = 'version'")
    assert not check_index(folder).ok
    report = repair_index(folder, ENCODER)
    assert (report.n_documents, report.lost, report.reencoded) == (len(LEFT), (), ())
    with MuveraIndex.open(folder, ENCODER) as index:
        assert_answers(index, LEFT)
    assert check_index(folder).ok


def test_vectors_of_deleted_documents_do_not_come_back_after_a_repair(folder: Path, tmp_path: Path) -> None:
    killed, killed_again = tmp_path / "killed", tmp_path / "killed again"
    with MuveraIndex.open(folder, ENCODER) as index:
        index.delete(IDS[-1])
        shutil.copytree(folder, killed)
    run_sql(killed, "UPDATE state SET value = value + 1 WHERE name = 'version'")
    assert repair_index(killed, ENCODER).n_documents == len(DOCUMENTS) - 1
    with MuveraIndex.open(killed, ENCODER) as index:
        add_to(index, OTHERS[:1])
        shutil.copytree(killed, killed_again)
    with MuveraIndex.open(killed_again, ENCODER) as index:
        assert_answers(index, ReferenceModel().with_documents([*DOCUMENTS[:-1], OTHERS[0]]))


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_the_format_version_is_damage_and_not_another_version(bit: int, folder: Path) -> None:
    path = folder / "manifest.json"
    whole = path.read_bytes()
    content = bytearray(whole)
    name = b'"format_version": '
    content[whole.index(name) + len(name)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(CorruptIndexError):
        MuveraIndex.open(folder, ENCODER)
    assert [problem.file for problem in check_index(folder).problems] == ["manifest.json"]
    repair_index(folder, ENCODER)
    assert path.read_bytes() == whole
    with MuveraIndex.open(folder, ENCODER) as index:
        assert_answers(index, ReferenceModel().with_documents(DOCUMENTS))


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize(("top", "entry"), [(-1, 0xFFFFFFFF), (40, 1 << 24)])
def test_a_graph_file_without_elements_is_damage(top: int, entry: int, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with create(folder) as index:
        add_to(index, DOCUMENTS)
    path = graph_file(folder)
    header = list(HNSW_HEADER.unpack(path.read_bytes()[: HNSW_HEADER.size]))
    assert header[2] == len(DOCUMENTS)
    header[2], header[6], header[7] = 0, top, entry
    path.write_bytes(HNSW_HEADER.pack(*header))
    vouch_for_stage_one(folder)
    with pytest.raises(CorruptIndexError):
        check_graph_file(path, FDE.output_dimension, DEFAULT_GRAPH)
    with MuveraIndex.open(folder, ENCODER) as index:
        add_to(index, OTHERS)
        assert_answers(index, ReferenceModel().with_documents([*DOCUMENTS, *OTHERS]))
