"""The files of stage one: how they are saved beside readers, on a full disk, and after an interruption."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_format import stage_one_files
from reference_model import ENCODER, ReferenceModel, add_to, create, model_document, search_all, search_exactly
from test_interruptions import assert_stage_one

from muvera_core import FDEConfig, LearnedSetEncoder, LearnedSetEncoderConfig, MuveraIndex, TokenEmbeddings, check_index
from muvera_core.collection import Collection
from muvera_core.collection import writer as writer_module
from muvera_core.errors import CorruptIndexError, StageOneNotSavedWarning, StorageError
from muvera_core.files import file_checksum
from muvera_core.set_encoders import FixedDimensionalEncoder, LearnedMatrices
from muvera_core.stage_one import DESCRIPTION_NAME, Tuning, load_weights, save_weights, saved, stage_one
from muvera_core.stage_one.graph_file import check_graph_file
from muvera_core.stage_one.graph_parameters import DEFAULT_GRAPH
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.stage_one.stage_one import StageOne

DOCUMENTS = [model_document(f"d{i}", i, {"group": i % 4}) for i in range(30)]
OTHERS = [model_document(f"o{i}", 100 + i, {"group": i % 4}) for i in range(12)]
ALL = ReferenceModel().with_documents([*DOCUMENTS, *OTHERS])
KINDS = pytest.mark.parametrize("kind", ["flat", "graph"])
TERABYTE = 1 << 40


def use(kind: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stage_one, "FLAT_LIMIT", 10_000 if kind == "flat" else 10)


@pytest.fixture
def folder(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    use(kind, monkeypatch)
    with create(tmp_path / "index") as index:
        add_to(index, DOCUMENTS)
    return tmp_path / "index"


def learned_encoder() -> LearnedSetEncoder:
    """An encoder with random matrices."""
    config = LearnedSetEncoderConfig(dimension=8, output_dimension=8, num_features=16, num_anchors=16)
    shapes, rng = LearnedMatrices.shapes(config), np.random.default_rng(0)
    return LearnedSetEncoder(config, LearnedMatrices(*(rng.random(shape, dtype=np.float32) for shape in shapes)))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("stage_one*")}


def described(folder: Path) -> set[str]:
    return {"stage_one.json", *(path.name for path in stage_one_files(folder))}


def n_derived(folder: Path, **options: Any) -> int:
    """How many documents' vectors opening an index derives."""
    derived: list[int] = []
    stage = StageOne.stage

    def counted(self: StageOne, keys: np.ndarray, embeddings: TokenEmbeddings) -> None:
        derived.append(len(keys))
        stage(self, keys, embeddings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageOne, "stage", counted)
        with MuveraIndex.open(folder, ENCODER, **options) as index:
            assert_stage_one(index)
    return sum(derived)


# Saving beside readers, and interruptions


@KINDS
def test_a_reader_that_opens_at_any_moment_of_a_saving_derives_nothing(folder: Path) -> None:
    seen: list[tuple[str, int]] = []
    reading: list[bool] = []
    steps = ["sync_file", "sync_folder", "file_checksum", "write_json", "remove_unnamed_files"]
    with MuveraIndex.open(folder, ENCODER) as index:
        add_to(index, OTHERS)
        with pytest.MonkeyPatch.context() as patch:
            for name in steps:
                patch.setattr(saved, name, watched(getattr(saved, name), name, folder, seen, reading))
            index.compact()
    assert {name for name, _ in seen} >= set(steps)
    assert {n for _, n in seen} == {0, len(OTHERS)}
    assert n_derived(folder, read_only=True) == 0
    assert names(folder) == described(folder)


def watched(
    call: Callable[..., Any], name: str, folder: Path, seen: list[tuple[str, int]], reading: list[bool]
) -> Callable[..., Any]:
    """The call. Before and after it, a reader opens the index."""

    def watching(*arguments: Any) -> Any:
        read()
        result = call(*arguments)
        read()
        return result

    def read() -> None:
        if not reading:
            reading.append(True)
            seen.append((name, n_derived(folder, read_only=True)))
            reading.clear()

    return watching


@KINDS
def test_a_reader_whose_files_are_removed_while_it_reads_takes_the_later_ones(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    described_by = saved._described
    with MuveraIndex.open(folder, ENCODER) as index:
        n_savings = iter(range(3))

        def described_and_saved(path: Path) -> dict[str, Any]:
            description = described_by(path)
            if sys._getframe(1).f_code.co_name == "load_candidates" and next(n_savings, None) is not None:
                index.compact()
            return description

        monkeypatch.setattr(saved, "_described", described_and_saved)
        assert n_derived(folder, read_only=True) == 0
        assert next(n_savings, None) is None


@KINDS
def test_an_interrupted_saving_leaves_what_was_saved_and_its_rest_is_removed(folder: Path) -> None:
    before = names(folder)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    index = MuveraIndex.open(folder, ENCODER)
    add_to(index, OTHERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved, "write_json", interrupt)
        patch.setattr(saved, "remove_unnamed_files", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            index.close()
    assert names(folder) > before
    assert n_derived(folder, read_only=True) == len(OTHERS)
    assert names(folder) > before  # a reader removes nothing
    with MuveraIndex.open(folder, ENCODER) as index:
        assert names(folder) == before
        assert search_all(index)(ALL)
    assert names(folder) == described(folder)


@KINDS
def test_an_index_whose_documents_were_all_deleted_is_saved(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with MuveraIndex.open(folder, ENCODER) as index:
        index.clear()
        index.compact()
    assert n_derived(folder) == 0
    with MuveraIndex.open(folder, ENCODER) as index:
        add_to(index, OTHERS)
    assert n_derived(folder) == 0
    assert caplog.messages == []


# Damage


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "lost file": lambda folder: stage_one_files(folder)[0].unlink(),
    "cut file": lambda folder: os.truncate(stage_one_files(folder)[-1], 40),
    "damaged description": lambda folder: (folder / "stage_one.json").write_text("{"),
    "lost description": lambda folder: (folder / "stage_one.json").unlink(),
    "changed file": lambda folder: flip(stage_one_files(folder)[0]),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@KINDS
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_deriving_stage_one_again_is_said_once_with_the_reason(
    folder: Path, damage: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    damage(folder)
    assert n_derived(folder) == len(DOCUMENTS)
    (message,) = caplog.messages
    assert "derives stage one of 30 documents again" in message
    assert "stage_one" in message.split("again: ")[1]
    assert n_derived(folder) == 0
    assert len(caplog.messages) == 1
    assert check_index(folder).ok
    assert names(folder) == described(folder)


@KINDS
def test_vectors_of_another_index_are_not_used_and_that_is_said(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with create(tmp_path / "other") as index:
        add_to(index, OTHERS + DOCUMENTS[:18])
    for name in names(folder):
        shutil.copyfile(tmp_path / "other" / name, folder / name)
    assert n_derived(folder) == len(DOCUMENTS)
    (message,) = caplog.messages
    assert "another index" in message


@pytest.mark.parametrize("kind", ["flat"])
def test_an_index_that_never_saved_stage_one_says_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in names(folder):
        (folder / name).unlink()
    assert n_derived(folder, read_only=True) == len(DOCUMENTS)
    assert caplog.messages == []


@KINDS
def test_a_terabyte_in_the_place_of_a_file_is_refused_before_it_is_read(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in stage_one_files(folder):
        before = path.read_bytes()
        os.truncate(path, TERABYTE)
        with monkeypatch.context() as patch:
            patch.setattr(saved, "file_checksum", None)
            assert n_derived(folder, read_only=True) == len(DOCUMENTS)
            with pytest.raises(CorruptIndexError, match=f"has {TERABYTE} bytes, not {len(before)}"):
                saved.read_description(folder)
        path.write_bytes(before)
    assert all(str(TERABYTE) in message for message in caplog.messages)


def test_a_terabyte_in_the_place_of_the_learned_encoder_is_refused_before_it_is_read(tmp_path: Path) -> None:
    learned = learned_encoder()
    tuning = save_weights(tmp_path, learned, Tuning(learned.config, None, None, 10, 100, 200, {}))
    assert tuning.weights is not None
    os.truncate(tmp_path / tuning.weights, TERABYTE)
    with pytest.raises(CorruptIndexError):
        load_weights(tmp_path, tuning)


def test_files_that_noted_no_sizes_and_have_no_numbers_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier versions wrote them."""
    for kind in ("flat", "graph"):
        use(kind, monkeypatch)
        with create(tmp_path / kind) as index:
            add_to(index, DOCUMENTS)
        path = tmp_path / kind / "stage_one.json"
        description = json.loads(path.read_text())
        del description["sizes"]
        description["files"] = {name.replace("-1", ""): sum for name, sum in description["files"].items()}
        for file in stage_one_files(tmp_path / kind):
            file.rename(file.with_name(file.name.replace("-1", "")))
        path.write_text(json.dumps(description))
        assert n_derived(tmp_path / kind) == 0
        with MuveraIndex.open(tmp_path / kind, ENCODER) as index:
            add_to(index, OTHERS)
        assert names(tmp_path / kind) == described(tmp_path / kind)
        assert n_derived(tmp_path / kind) == 0


@KINDS
def test_files_of_versions_without_codes_are_read(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with MuveraIndex.open(folder, ENCODER) as index:
        keys, candidates = index.engine.collection.snapshot().keys, index.engine.collection.stage_one.candidates
        assert candidates.kind == {"flat": "flat", "graph": "hnsw"}[kind]
        vectors = candidates.vectors(keys)
    description = json.loads((folder / DESCRIPTION_NAME).read_text())
    codes = {name for name in description["files"] if Path(name).suffix in (".codes", ".scales")}
    kept = [folder / name for name in description["files"] if name not in codes]
    if kind == "flat":
        kept.append(kept[0].with_suffix(".vectors"))
        kept[-1].write_bytes(vectors.astype("<f4").tobytes())
    else:
        kept = [file for file in kept if file.suffix != ".keys"]
    description["files"] = {file.name: file_checksum(file) for file in kept}
    description["sizes"] = {file.name: file.stat().st_size for file in kept}
    (folder / DESCRIPTION_NAME).write_text(json.dumps(description))
    for name in codes:
        (folder / name).unlink()

    def encode_anew(*_: object) -> None:
        raise AssertionError("the files were not used")

    monkeypatch.setattr(StageOne, "encode_documents", encode_anew)
    assert check_index(folder).ok
    for read_only in (True, False):
        with MuveraIndex.open(folder, ENCODER, read_only=read_only) as index:
            np.testing.assert_allclose(index.engine.collection.stage_one.candidates.vectors(keys), vectors, atol=0.02)
            assert search_all(index)(ReferenceModel().with_documents(DOCUMENTS))


def test_a_graph_file_is_checked_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    graph = HnswCandidates.from_vectors(np.arange(500), data)
    graph.publish([3])
    file = graph.save(tmp_path / "saved")[0]
    whole = check_graph_file(file, 16, DEFAULT_GRAPH)
    monkeypatch.setattr("muvera_core.stage_one.graph_file._AT_ONCE", 5000)
    pieces = check_graph_file(file, 16, DEFAULT_GRAPH)
    assert pieces.labels.tolist() == whole.labels.tolist()
    assert pieces.is_deleted.tolist() == whole.is_deleted.tolist()
    assert pieces.is_deleted.sum() == 1
    content = bytearray(file.read_bytes())
    first_link = 96 + 400 * (4 * 33 + 16 * 4 + 8) + 4
    content[first_link : first_link + 4] = b"\xff" * 4
    file.write_bytes(content)
    with pytest.raises(CorruptIndexError, match="links to elements that do not exist"):
        check_graph_file(file, 16, DEFAULT_GRAPH)


# Full disks

WRITE_WITH_LITTLE_ROOM = """
import resource, signal, sys, warnings
from pathlib import Path
sys.path[:0] = {path!r}
from reference_model import ENCODER, add_to, model_document
from muvera_core import MuveraIndex
from muvera_core.errors import StageOneNotSavedWarning
from muvera_core.stage_one import stage_one
stage_one.FLAT_LIMIT = {limit}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
index = MuveraIndex.open({folder!r}, ENCODER)
add_to(index, [model_document(f"o{{i}}", 100 + i, {{"group": i % 4}}) for i in range(12)])
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    index.close()
for warning in caught:
    print(warning.category.__name__, warning.message)
"""


@KINDS
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_full_disk_is_said_and_leaves_what_was_saved_before(
    folder: Path, kind: str, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.read_bytes() for path in (*stage_one_files(folder), folder / "stage_one.json")}
    largest = max(path.stat().st_size for path in stage_one_files(folder))
    script = WRITE_WITH_LITTLE_ROOM.format(
        path=sys.path, limit=stage_one.FLAT_LIMIT, folder=str(folder), room=int(largest * share)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert StageOneNotSavedWarning.__name__ in done.stdout
    assert "room" in done.stdout or "bytes" in done.stdout
    assert {path: path.read_bytes() for path in before} == before
    assert names(folder) == described(folder)
    assert n_derived(folder, read_only=True) == len(OTHERS)
    assert caplog.messages == []
    with MuveraIndex.open(folder, ENCODER) as index:
        assert search_exactly(index)(ALL)


def test_a_graph_of_which_hnswlib_wrote_only_a_part_is_not_taken_for_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = HnswCandidates.from_vectors(np.arange(50), np.eye(50, 16, dtype=np.float32))

    class Lazy:
        """An hnswlib index that writes all bytes but one, or one that is wrong."""

        def __init__(self, change: Callable[[bytes], bytes]) -> None:
            self.change, self.real = change, graph._graph

        def save_index(self, path: str) -> None:
            self.real.save_index(path)
            Path(path).write_bytes(self.change(Path(path).read_bytes()))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    for change, message in (
        (lambda content: content[:-1], "bytes of"),
        (lambda content: content[:96] + b"\xff" * 200 + content[296:], "not as it was written"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(graph, "_graph", Lazy(change))
            with pytest.raises(StorageError, match=message):
                graph.save(tmp_path / "saved")


def test_weights_that_cannot_be_written_leave_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = learned_encoder()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no room"):
        save_weights(tmp_path, learned, Tuning(learned.config, None, None, 10, 100, 200, {}))
    assert list(tmp_path.iterdir()) == []


# When stage one is saved


def n_savings(folder: Path, sizes: list[int], *, failing: bool = False) -> tuple[int, int]:
    """How often stage one is saved while an index grows by documents of these numbers, and how many are written."""
    written: list[int] = []
    save = Collection.save_stage_one

    def counted(self: Any) -> None:
        written.append(len(self.store.snapshot))
        if not failing:
            save(self)

    with create(folder) as index, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Collection, "save_stage_one", counted)
        first = 0
        for size in sizes:
            add_to(index, [model_document(f"d{i}", i, {}) for i in range(first, first + size)])
            first += size
    return len(written), sum(written)


def test_a_growing_index_is_saved_often_and_each_document_written_about_ten_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_MIN_TO_SAVE", 10)
    n, n_written = n_savings(tmp_path / "index", [4] * 60)
    assert n >= 15
    assert n_written <= 10.5 * 240


def test_a_saving_that_fails_is_not_tried_again_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_MIN_TO_SAVE", 10)
    n, _ = n_savings(tmp_path / "index", [2] * 30, failing=True)
    assert n == 6


# Searches beside writes


def test_few_documents_are_added_at_a_time_while_there_are_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_one, "FLAT_LIMIT", 5)
    monkeypatch.setattr(stage_one, "_LONGEST_HOLD", 0)
    encoder = FixedDimensionalEncoder(FDEConfig(dimension=8, num_repetitions=2, num_simhash_projections=1))
    stage, batches = StageOne(encoder), list[int]()
    vectors = np.random.default_rng(0).standard_normal((200, encoder.output_dimension)).astype(np.float32)
    stage.stage_vectors(np.arange(10), vectors[:10])
    stage.publish(np.empty(0, np.int64))
    add = HnswCandidates.stage

    def counted(self: HnswCandidates, keys: np.ndarray, vectors: np.ndarray) -> None:
        batches.append(len(keys))
        add(self, keys, vectors)

    monkeypatch.setattr(HnswCandidates, "stage", counted)
    stage.stage_vectors(np.arange(10, 100), vectors[10:100])
    assert max(batches) > 20
    batches.clear()
    stage.view()
    stage.stage_vectors(np.arange(100, 105), vectors[100:105])
    stage.search(vectors[0], 5)
    stage.stage_vectors(np.arange(105, 110), vectors[105:110])
    assert batches == [1] * 10
    monkeypatch.setattr(stage_one, "_LONGEST_HOLD", 60)
    stage.stage_vectors(np.arange(140, 160), vectors[140:160])
    assert batches[10:] == [1, 19]
    del batches[10:]
    monkeypatch.setattr(stage_one, "_RECENT", 0)
    stage.stage_vectors(np.arange(110, 140), vectors[110:140])
    assert batches[10:] == [30]
    stage.publish(np.empty(0, np.int64))
    assert stage.candidates.keys().tolist() == list(range(160))
