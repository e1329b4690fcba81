"""Files that claim to be a terabyte long are neither read nor copied to their end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from folder_format import DATABASE
from reference_model import ENCODER, ReferenceModel, add_to, answers, create, model_document, search_exactly

from muvera_core import MuveraIndex, check_index, repair_index
from muvera_core.errors import CorruptIndexError
from muvera_core.files import copy_plain, end_of_data
from muvera_core.maintenance import read_info

resource = pytest.importorskip("resource")
TERABYTE = 1 << 40
DOCUMENTS = [model_document(f"d{i}", i, {"group": i % 4}) for i in range(30)]
MODEL = ReferenceModel().with_documents(DOCUMENTS)
JOURNAL = f"{DATABASE}-journal"
SUPER_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def is_sparse_here(folder: Path) -> bool:
    """Whether the system has holes in files, and tells where they are."""
    probe = folder / "probe"
    probe.touch()
    os.truncate(probe, TERABYTE)
    found = hasattr(os, "SEEK_DATA") and end_of_data(probe) == 0
    probe.unlink()
    return found


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    if not is_sparse_here(folder):
        pytest.skip("this system has no holes in files")
    with create(folder / "index") as index:
        add_to(index, DOCUMENTS)
    return folder / "index"


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    for file in pristine.iterdir():
        (tmp_path / "index" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "index"


@pytest.fixture(autouse=True)
def limit_of_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def stretch(path: Path) -> None:
    """Make a file a terabyte long, and let this process fail if it writes another large one."""
    path.touch()
    os.truncate(path, TERABYTE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def opened(folder: Path, **options: Any) -> None:
    with MuveraIndex.open(folder, ENCODER, **options) as index:
        assert search_exactly(index)(MODEL)


STRETCHED = (DATABASE, JOURNAL, "tokens-0.bin", "tokens-7.bin", "write.lock", "manifest.json.tmp", "manifest.json")
CALLS: dict[str, Callable[[Path], object]] = {
    "open": opened,
    "read": lambda folder: opened(folder, read_only=True),
    "check": check_index,
    "info": read_info,
    "repair": lambda folder: repair_index(folder, ENCODER),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", STRETCHED)
def test_a_file_of_a_terabyte_is_not_read_to_its_end(name: str, call: str, folder: Path) -> None:
    stretch(folder / name)
    if name == "manifest.json" and call in ("open", "read", "info"):
        with pytest.raises(CorruptIndexError, match="larger than 65536 bytes"):
            CALLS[call](folder)
    else:
        CALLS[call](folder)


@pytest.mark.parametrize("name", STRETCHED)
def test_an_index_with_a_file_of_a_terabyte_is_whole_after_repair(name: str, folder: Path) -> None:
    stretch(folder / name)
    assert check_index(folder).n_documents == len(DOCUMENTS)
    assert repair_index(folder, ENCODER).n_documents == len(DOCUMENTS)
    assert check_index(folder).ok
    opened(folder)


def test_a_check_says_how_much_is_behind_the_database(folder: Path) -> None:
    size = (folder / DATABASE).stat().st_size
    stretch(folder / DATABASE)
    (problem,) = check_index(folder).problems
    assert problem.message == f"{TERABYTE - size} bytes behind its end are not part of it"
    assert problem.derived
    repair_index(folder, ENCODER)
    assert (folder / DATABASE).stat().st_size < 2 * size


def test_lost_documents_are_put_aside_without_holes(folder: Path) -> None:
    content = bytearray((folder / "tokens-0.bin").read_bytes())
    content[:40] = bytes(40)
    (folder / "tokens-0.bin").write_bytes(content)
    database = (folder / DATABASE).read_bytes()
    (folder / DATABASE).write_bytes(database.replace(b"d1", b"d?", 1))
    os.truncate(folder / DATABASE, TERABYTE)
    os.truncate(folder / "tokens-0.bin", TERABYTE)
    report = repair_index(folder, ENCODER)
    assert report.lost
    assert report.quarantine is not None
    copies = [report.quarantine / name for name in (DATABASE, "tokens-0.bin")]
    assert [file.stat().st_size for file in copies] == [TERABYTE] * 2
    assert all(file.stat().st_blocks * 512 < 1 << 22 for file in copies)
    with MuveraIndex.open(folder, ENCODER) as index:
        assert len(index) == report.n_documents
        assert answers(index)


def test_a_journal_whose_hole_hides_another_journal_s_name_is_refused(folder: Path) -> None:
    (folder / JOURNAL).write_bytes(bytes(4096 - 8) + SUPER_JOURNAL_MAGIC)
    stretch(folder / JOURNAL)
    with pytest.raises(CorruptIndexError, match="names another journal"):
        check_index(folder)


def test_a_copy_has_the_content_and_the_holes_of_the_file(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        for place, content in ((0, b"first"), (1 << 24, b"middle" * 100_000), (1 << 30, b"last")):
            file.seek(place)
            file.write(content)
        file.truncate((1 << 30) + 100_000)
    copy_plain(tmp_path / "file", tmp_path / "copy")
    copy_plain(tmp_path / "file", tmp_path / "short", 1 << 25)
    with (tmp_path / "file").open("rb") as one, (tmp_path / "copy").open("rb") as other:
        for place in (0, (1 << 24) - 3, 1 << 24, (1 << 24) + 600_000 - 5, 1 << 25, (1 << 30) - 2):
            one.seek(place)
            other.seek(place)
            assert one.read(5000) == other.read(5000)
    assert (tmp_path / "copy").stat().st_size == (tmp_path / "file").stat().st_size
    assert (tmp_path / "short").stat().st_size == 1 << 25
    if is_sparse_here(tmp_path):
        assert (tmp_path / "copy").stat().st_blocks * 512 < 1 << 24
