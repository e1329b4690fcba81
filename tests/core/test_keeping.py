"""Keeping an index: refreshing, compacting, saving stage one, looking for damage and repairing it."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from folder_format import stage_one_file

from muvera_core import FDEConfig, MuveraIndex, TokenEmbeddings, check_index, repair_index
from muvera_core.collection import writer
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import (
    CorruptIndexError,
    EncoderMismatchError,
    IndexExistsError,
    IndexLockedError,
    NotAnIndexError,
    ReadOnlyIndexError,
    StageOneNotSavedWarning,
    StorageError,
    UnsupportedFormatError,
)
from muvera_core.stage_one.stage_one import StageOne
from muvera_core.storage import manifest, store
from muvera_core.storage.manifest import Manifest

D = 16
ENCODER = PrecomputedEmbeddings(D, "random")
FDE = FDEConfig(dimension=D, num_repetitions=8, num_simhash_projections=3, projection_dimension=8)


class Lengths(PrecomputedEmbeddings):
    """Encodes a text as as many tokens as it has characters."""

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        return TokenEmbeddings.from_list([np.eye(D)[np.arange(len(text)) % D] for text in texts], D)


LENGTHS = Lengths(D, "lengths")


def tokens(seed: int, n: int, length: int = 5) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).standard_normal((n, length, D)).astype(np.float32))


def ids(n: int, first: int = 0) -> list[str]:
    return [f"d{i}" for i in range(first, first + n)]


def token_file(folder: Path) -> Path:
    (path,) = folder.glob("tokens-*.bin")
    return path


def found(index: MuveraIndex) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in index.search_embeddings(tokens(9, 1)[0], k=1000)]


# Compacting


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_compacting_drops_the_tokens_of_deleted_documents_and_changes_no_answer(where: str, tmp_path: Path) -> None:
    with MuveraIndex.create(None if where == "memory" else tmp_path / "index", ENCODER, FDE) as index:
        index.add_embeddings(tokens(0, 200, 50), ids=ids(200))
        index.delete(ids(150))
        before = found(index)
        freed = index.compact()
        assert len(index.engine.collection.store.snapshot.tokens) == index.n_tokens == 50 * 50
        assert found(index) == before
        index.add_embeddings(tokens(1, 1), ids=["new"])
        assert len(found(index)) == 51
        if where == "memory":
            assert freed == 0
            return
        assert freed >= 150 * 50 * (D + 4)
        assert token_file(tmp_path / "index").name == "tokens-1.bin"
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert len(found(index)) == 51
    assert check_index(tmp_path / "index").ok


def test_compacting_what_has_no_waste_changes_nothing(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", ENCODER, FDE) as index:
        assert index.compact() == 0
        index.add_embeddings(tokens(0, 20), ids=ids(20))
        assert index.compact() == 0
        assert token_file(tmp_path / "index").name == "tokens-0.bin"
        index.clear()
        assert index.compact() > 0
        assert token_file(tmp_path / "index").stat().st_size == 0


def test_waste_is_compacted_by_itself_and_want_of_room_for_it_does_not_fail_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "_MIN_WASTE", 1000)
    with MuveraIndex.create(tmp_path / "index", ENCODER, FDE) as index:
        index.add_embeddings(tokens(0, 100), ids=ids(100))

        def no_room(*_: object) -> None:
            raise StorageError("no room")

        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(store.Store, "_new_log", no_room)
            assert index.delete(ids(40)) == 40
        assert "could not be compacted" in caplog.text
        assert len(index) == len(found(index)) == 60
        assert token_file(tmp_path / "index").name == "tokens-0.bin"
        index.delete(["d40"])
        assert token_file(tmp_path / "index").name == "tokens-1.bin"
        assert len(index) == len(found(index)) == 59


def test_a_reader_cannot_compact(tmp_path: Path) -> None:
    MuveraIndex.create(tmp_path / "index", ENCODER, FDE).close()
    with MuveraIndex.open(tmp_path / "index", ENCODER, read_only=True) as reader, pytest.raises(ReadOnlyIndexError):
        reader.compact()


# Refreshing


def test_a_reader_sees_what_was_added_after_a_refresh(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", ENCODER, FDE) as index:
        index.add_embeddings(tokens(0, 10), ids=ids(10))
        assert index.refresh() is False
        with MuveraIndex.open(tmp_path / "index", ENCODER, read_only=True, refresh_interval=None) as reader:
            assert reader.refresh() is False
            index.add_embeddings(tokens(1, 5), ids=ids(5, 10))
            assert len(found(reader)) == len(reader) == 10
            assert reader.refresh() is True
            assert found(reader) == found(index)
            index.delete(["d3"])
            index.compact()
            assert reader.refresh() is True
            assert found(reader) == found(index)


# Saving stage one


def test_stage_one_is_saved_before_a_crash_could_cost_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MIN_TO_SAVE", 50)
    encoded: list[int] = []
    with MuveraIndex.create(tmp_path / "index", ENCODER, FDE) as index:
        for start in range(0, 120, 10):
            index.add_embeddings(tokens(start, 10), ids=ids(10, start))
        shutil.copytree(tmp_path / "index", tmp_path / "crashed")
    stage = StageOne.stage

    def counted(self: StageOne, keys: np.ndarray, embeddings: TokenEmbeddings) -> None:
        encoded.append(len(keys))
        stage(self, keys, embeddings)

    monkeypatch.setattr(StageOne, "stage", counted)
    with MuveraIndex.open(tmp_path / "crashed", ENCODER) as index:
        assert len(found(index)) == 120
    assert 0 < sum(encoded) <= 60


def test_stage_one_that_cannot_be_saved_is_a_warning_and_derived_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = MuveraIndex.create(tmp_path / "index", ENCODER, FDE)
    index.add_embeddings(tokens(0, 20), ids=ids(20))
    (tmp_path / "index" / "stage_one.json").mkdir()
    with pytest.warns(StageOneNotSavedWarning, match="next opening derives it again"):
        index.close()
    with pytest.warns(StageOneNotSavedWarning), MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert len(found(index)) == 20


# Creating


def test_an_interrupted_creation_can_be_done_again_and_one_with_tokens_is_never_touched(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        (tmp_path / "index").rename(tmp_path / "crashed")
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Manifest, "write", interrupt)
        with pytest.raises((KeyboardInterrupt, StorageError)):
            MuveraIndex.create(tmp_path / "index", ENCODER, FDE)
    assert "documents.sqlite" in {path.name for path in (tmp_path / "crashed").iterdir()}
    with MuveraIndex.create(tmp_path / "crashed", ENCODER, FDE) as index:
        index.add_embeddings(tokens(0, 5), ids=ids(5))
    (tmp_path / "crashed" / "manifest.json").unlink()
    with pytest.raises(IndexExistsError):
        MuveraIndex.create(tmp_path / "crashed", ENCODER, FDE)
    with pytest.raises(NotAnIndexError, match="repair_index"):
        MuveraIndex.open(tmp_path / "crashed", ENCODER)
    repair_index(tmp_path / "crashed", ENCODER)
    with MuveraIndex.open(tmp_path / "crashed", ENCODER) as index:
        assert len(index) == 5


def test_a_creation_that_fails_leaves_nothing_but_the_folder(tmp_path: Path) -> None:
    def no_room(*_: object) -> None:
        raise StorageError("no room")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Manifest, "write", no_room)
        with pytest.raises(StorageError):
            MuveraIndex.create(tmp_path / "index", ENCODER, FDE)
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["write.lock"]
    MuveraIndex.create(tmp_path / "index", ENCODER, FDE).close()


# Checking and repairing


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """d0 to d9 with texts, x without one; the tokens of d0, d9 and x are damaged."""
    with MuveraIndex.create(tmp_path / "index", LENGTHS, FDE) as index:
        index.add([f"text {i}" for i in range(10)], ids=ids(10), metadatas=[{"n": i} for i in range(10)])
        index.add_embeddings([np.eye(3, D)], ids=["x"])
    path = token_file(tmp_path / "index")
    content = bytearray(path.read_bytes())
    row = D + 4
    for place in (3, 6 * 9 * row + 3, 6 * 10 * row + 3):
        content[place] ^= 1
    path.write_bytes(content)
    return tmp_path / "index"


def test_damaged_tokens_are_found_at_the_first_read_and_named(damaged: Path) -> None:
    with MuveraIndex.open(damaged, LENGTHS) as index:
        with pytest.raises(CorruptIndexError, match="tokens of document 'd0' are damaged"):
            index.search_embeddings(np.eye(1, D))
        assert len(index.get(ids(10))) == 10
    assert [problem.ids for problem in check_index(damaged).problems] == [("d0", "d9", "x")]
    assert "'d0', 'd9', 'x'" in str(check_index(damaged))


def test_repairing_encodes_again_what_has_a_text_and_sets_aside_what_is_lost(damaged: Path) -> None:
    report = repair_index(damaged, LENGTHS)
    assert (report.n_documents, report.reencoded, report.lost) == (10, ("d0", "d9"), ("x",))
    assert report.quarantine is not None
    (left,) = json.loads((report.quarantine / "lost.json").read_text())["documents"]
    assert (left["id"], left["text"], left["metadata"]) == ("x", None, {})
    assert {path.name for path in report.quarantine.iterdir()} == {"lost.json", "documents.sqlite", "tokens-0.bin"}
    assert str(report.quarantine) in str(report)
    assert check_index(damaged).ok
    with MuveraIndex.open(damaged, LENGTHS) as index:
        assert sorted(index.get(ids(10)), key=lambda d: d.id) == sorted(index.find(), key=lambda d: d.id)
        assert [d.metadata["n"] for d in index.find({"n": {"$gte": 8}})] == [8, 9]
        assert len(index.search_embeddings(np.eye(6, D), k=20)) == 10
        assert index.n_tokens == 60
    assert repair_index(damaged, LENGTHS).n_documents == 10


def test_tokens_are_not_made_by_another_encoder(damaged: Path) -> None:
    before = {path: path.read_bytes() for path in damaged.iterdir()}
    with pytest.raises(EncoderMismatchError, match="pass the index's encoder"):
        repair_index(damaged, ENCODER)
    assert {path: path.read_bytes() for path in damaged.iterdir()} == before


def test_without_an_encoder_for_text_the_text_is_set_aside(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", ENCODER, FDE) as index:
        index.add_embeddings(tokens(0, 3), ids=ids(3), texts=["a", "b", "c"])
    token_file(tmp_path / "index").write_bytes(b"")
    report = repair_index(tmp_path / "index", ENCODER)
    assert (report.n_documents, report.lost) == (0, ("d0", "d1", "d2"))
    assert report.quarantine is not None
    left = json.loads((report.quarantine / "lost.json").read_text())["documents"]
    assert [document["text"] for document in left] == ["a", "b", "c"]


def test_only_stage_one_being_damaged_costs_no_rebuilding(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", ENCODER, FDE) as index:
        index.add_embeddings(tokens(0, 30), ids=ids(30))
        before = found(index)
    stage_one_file(tmp_path / "index", ".codes").write_bytes(b"nonsense")
    (problem,) = check_index(tmp_path / "index").problems
    assert problem.derived
    inode = token_file(tmp_path / "index").stat().st_ino
    repair_index(tmp_path / "index", ENCODER)
    assert token_file(tmp_path / "index").stat().st_ino == inode
    assert check_index(tmp_path / "index").ok
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert found(index) == before


def test_a_table_whose_name_is_no_text_any_more_is_damage(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", ENCODER, FDE) as index:
        index.add_embeddings(tokens(0, 5), ids=ids(5))
        before = found(index)
    path = tmp_path / "index" / "documents.sqlite"
    content = path.read_bytes().replace(b"tabledocumentsdocuments", b"tabled\xb8cumentsdocuments")
    path.write_bytes(content.replace(b"TABLE documents (", b"TABLE documents x"))
    with pytest.raises(CorruptIndexError, match=r"documents\.sqlite"):
        MuveraIndex.open(tmp_path / "index", ENCODER, read_only=True)
    assert not check_index(tmp_path / "index").ok
    repair_index(tmp_path / "index", ENCODER)
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert found(index) == before


def test_what_is_no_index_or_in_use_is_neither_checked_nor_repaired(tmp_path: Path) -> None:
    for call in (check_index, repair_index):
        with pytest.raises(NotAnIndexError):
            call(tmp_path)
    with MuveraIndex.create(tmp_path / "index", ENCODER, FDE):
        for call in (check_index, repair_index):
            with pytest.raises(IndexLockedError):
                call(tmp_path / "index")
    path = tmp_path / "index" / "manifest.json"
    newer = {**json.loads(path.read_text()), "format_version": 99}
    path.write_text(json.dumps({**newer, "checksum": manifest._checksum(newer)}))
    for call in (check_index, repair_index):
        with pytest.raises(UnsupportedFormatError):
            call(tmp_path / "index")


def test_a_report_tells_what_is_derived_from_the_documents(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", PrecomputedEmbeddings(2, "any")) as index:
        index.add_embeddings([[[1.0, 0.0]]], ids=["a"], metadatas=[{"group": 1}])
    with sqlite3.connect(tmp_path / "index" / "documents.sqlite") as db:
        db.execute("DELETE FROM fields WHERE path = 'group'")
    db.close()
    (problem,) = check_index(tmp_path / "index").problems
    assert (problem.file, problem.derived) == ("documents.sqlite", True)
    assert "metadata field 'group'" in problem.message
    report = repair_index(tmp_path / "index")
    assert (report.n_documents, report.reencoded, report.lost) == (1, (), ())
    assert check_index(tmp_path / "index").ok
