from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError

pytest.importorskip("muvera_chat", reason="needs muvera-core[chat]")

from muvera_chat import Library, UploadLimits, Uploads
from muvera_chat.documents import Progress
from muvera_chat.documents.uploads import safe_name

OWLS = "Barn owls hunt at night. They nest in church towers and barns."


@pytest.fixture
def library(tmp_path: Path, encoder: BundledEncoder) -> Iterator[Library]:
    with MuveraIndex.create(tmp_path / "documents.muvera", encoder) as index:
        limits = UploadLimits(max_file_bytes=1000, max_total_bytes=1500, max_files=3)
        yield Library(index, Uploads(tmp_path / "documents-uploads", (".txt", ".md", ".jsonl"), limits))


def add(library: Library, tmp_path: Path, name: str, text: str | bytes) -> list[Progress]:
    given = tmp_path / "given"
    given.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(library.upload(given, name))


def names(library: Library) -> list[str]:
    return [file.name for file in library.files()]


def test_a_file_is_kept_indexed_and_listed(library: Library, tmp_path: Path) -> None:
    reports = add(library, tmp_path, "owls.txt", OWLS)
    assert [report.stage for report in reports][:2] == ["waiting", "saving"]
    assert {"reading", "indexing"} <= {report.stage for report in reports}
    assert (reports[-1].stage, reports[-1].said) == ("done", "1 passage")
    (file,) = library.files()
    assert (file.path, file.n_passages, file.is_upload) == ("documents-uploads/owls.txt", 1, True)
    assert library.uploads is not None
    assert [path.read_text() for path in library.uploads.files()] == [OWLS]


def test_a_file_of_the_same_name_replaces_the_first(library: Library, tmp_path: Path) -> None:
    add(library, tmp_path, "a.txt", OWLS)
    add(library, tmp_path, "a.txt", "Rye bread is baked from rye flour.")
    assert [document.text for document in library.index.find()] == ["Rye bread is baked from rye flour."]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.txt", "", "empty"),
        ("a.txt", " \n\t", "empty"),
        ("a.xyz", OWLS, "cannot be read; these can: .txt, .md, .jsonl"),
        ("a.jsonl", "no json\n", "not JSON"),
        ("a.txt", "x" * 1001, "at most"),
        ("...", OWLS, "cannot be used as the name"),
    ],
)
def test_a_file_that_cannot_be_used_leaves_nothing(
    library: Library, tmp_path: Path, name: str, text: str, reason: str
) -> None:
    report = add(library, tmp_path, name, text)[-1]
    assert report.stage == "unusable"
    assert reason in report.said
    assert library.files() == []
    assert library.uploaded() == []
    folder = tmp_path / "documents-uploads"
    assert not folder.exists() or [file.name for file in folder.iterdir()] == [".muvera-uploads"]


def test_a_bad_new_version_leaves_the_old_one(library: Library, tmp_path: Path) -> None:
    add(library, tmp_path, "a.txt", OWLS)
    assert add(library, tmp_path, "a.txt", "")[-1].stage == "unusable"
    assert add(library, tmp_path, "a.txt", "x" * 2000)[-1].stage == "unusable"
    assert (tmp_path / "documents-uploads" / "a.txt").read_text() == OWLS
    assert len(library.index) == 1


def test_all_files_together_are_limited(library: Library, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        assert add(library, tmp_path, name, name + "x" * 700)[-1].stage == "done"
    assert "all files together" in add(library, tmp_path, "c.txt", "x" * 700)[-1].said
    assert add(library, tmp_path, "c.txt", OWLS)[-1].stage == "done"
    assert "remove some" in add(library, tmp_path, "d.txt", OWLS)[-1].said
    assert add(library, tmp_path, "a.txt", OWLS)[-1].stage == "done"  # in place of the first one


def test_a_folder_of_somebody_else_is_not_used(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "documents-uploads"
    folder.mkdir()
    (folder / "thesis.txt").write_text(OWLS)
    assert library.follow([folder]).added == 1
    assert library.uploaded() == []
    for name in ("a.txt", "thesis.txt"):
        report = add(library, tmp_path, name, "Rye bread is baked from rye flour.")[-1]
        assert report.stage == "unusable"
        assert "holds other files than uploads" in report.said
    library.remove("thesis.txt")
    library.remove_all()
    assert (folder / "thesis.txt").read_text() == OWLS
    assert names(library) == ["thesis.txt"]


def test_an_upload_does_not_take_the_ids_of_other_documents(library: Library, tmp_path: Path) -> None:
    (tmp_path / "bread.md").write_text("Rye bread is baked from rye flour.")
    library.follow([tmp_path / "bread.md"])
    report = add(library, tmp_path, "a.jsonl", '{"id": "bread.md", "text": "Buy mine."}\n{"text": "Owls."}\n')[-1]
    assert (report.stage, report.done) == ("done", 1)
    assert "its id 'bread.md' is also the id of bread.md" in report.said
    library.remove_all()
    assert [document.text for document in library.index.find()] == ["Rye bread is baked from rye flour."]


def test_uploads_are_removed_and_other_documents_stay(library: Library, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "bread.md").write_text("Rye bread is baked from rye flour.")
    assert library.follow([notes]).added == 1
    for name in ("a.txt", "b.txt"):
        add(library, tmp_path, name, f"{name} {OWLS}")
    assert names(library) == ["a.txt", "b.txt", "bread.md"]
    library.remove("../notes/bread.md")
    library.remove("bread.md")
    assert (notes / "bread.md").exists()
    library.remove("a.txt")
    assert names(library) == ["b.txt", "bread.md"]
    library.remove_all()
    assert names(library) == ["bread.md"]
    assert library.uploaded() == []


def test_nobody_changes_a_library_without_uploads(encoder: BundledEncoder, tmp_path: Path) -> None:
    with MuveraIndex.create(None, encoder) as index:
        library = Library(index)
        assert not library.can_change
        assert "cannot be changed" in add(library, tmp_path, "a.txt", OWLS)[-1].said
        for change in (library.remove_all, lambda: library.remove("a.txt")):
            with pytest.raises(InvalidInputError, match="cannot be changed"):
                change()


def test_users_who_upload_at_the_same_time_wait_for_one_another(library: Library, tmp_path: Path) -> None:
    last: list[Progress] = []

    def upload(i: int) -> None:
        given = tmp_path / f"given{i}"
        given.write_text(f"{i}: {OWLS}")
        last.append(list(library.upload(given, f"{i}.txt"))[-1])

    threads = [threading.Thread(target=upload, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.stage for report in last] == ["done"] * 3
    assert len(library.index) == 3


def test_an_index_that_grows_is_calibrated(library: Library, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for i in range(22):
        (notes / f"{i}.txt").write_text(f"The box {i} holds {i * 7} red and {i * 3} blue marbles.")
    assert not library.index.calibration
    library.follow([notes])
    assert library.index.calibration


def test_a_full_disk_is_reported(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", fail)
    report = add(library, tmp_path, "a.txt", OWLS)[-1]
    assert report.stage == "unusable"
    assert "No space left on device" in report.said


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("notes.txt", "notes.txt"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\win.ini", "win.ini"),
        ("/abs/olute.md", "olute.md"),
        ("a/../b.md", "b.md"),
        (".bashrc", "_.bashrc"),
        ("a\0b\n.txt", "a_b_.txt"),
        ("<img src=x>.md", "_img src=x_.md"),
        ("con.txt", "_con.txt"),
        ("a.txt. . ", "a.txt"),
        ("e\u0301.txt", "\u00e9.txt"),
        ("evil\u202egpj.txt", "evil_gpj.txt"),
        ("é" * 200 + ".txt", "é" * 88 + ".txt"),
        ("\udcff.txt", "_.txt"),
    ],
)
def test_names_are_made_harmless(given: str, safe: str) -> None:
    assert safe_name(given) == safe


@pytest.mark.parametrize("given", ["", "..", "/", "a/..", "\0", " . ", "x." + "y" * 300])
def test_names_without_anything_usable_are_refused(given: str) -> None:
    with pytest.raises(InvalidInputError, match="rename it"):
        safe_name(given)


@pytest.mark.parametrize("name", ["max_file_bytes", "max_total_bytes", "max_files"])
def test_limits_are_checked(name: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        UploadLimits(**{name: 0})
