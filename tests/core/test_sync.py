"""Keeping an index in step with files: what is added, replaced, deleted, and not encoded again."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from muvera_core import MuveraIndex, Reading, SyncProgress, SyncReport, TokenEmbeddings, sync_files
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import FilesGoneError, InvalidInputError, ReadOnlyIndexError
from muvera_core.sync import count_ignored, recall_reading

SENTENCES = ["Owls hunt at night.", "Herons stand still.", "Ants live in colonies.", "Storks nest on chimneys."]
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX links and file names")


class CountingEncoder(BundledEncoder):
    """Notes which documents it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode_documents(self, texts: Any) -> TokenEmbeddings:
        self.encoded += texts
        return super().encode_documents(texts)


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def index(tmp_path: Path, encoder: CountingEncoder) -> Iterator[MuveraIndex]:
    with MuveraIndex.create(tmp_path / "i.muvera", encoder) as made:
        yield made


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "owls.txt").write_text("Owls hunt at night.")
    (folder / "sub" / "ants.md").write_text("Ants live in colonies.")
    (folder / "birds.jsonl").write_text(
        '{"id": "stork", "text": "Storks nest on chimneys."}\n{"text": "Swifts sleep."}\n'
    )
    return folder


def counts(report: SyncReport) -> tuple[int, int, int, int]:
    return report.added, report.replaced, report.unchanged, report.deleted


def ids(index: MuveraIndex) -> set[str]:
    return {document.id for document in index.find()}


def many_files(folder: Path, n: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i}.txt" for i in range(n)]
    for i, file in enumerate(files):
        file.write_text(f"Note {i} is about {SENTENCES[i % 4]}")
    return files


# What is written


def test_only_what_differs_is_written(index: MuveraIndex, notes: Path, encoder: CountingEncoder) -> None:
    report = sync_files(index, notes)
    assert counts(report) == (4, 0, 0, 0)
    assert str(report).startswith("4 added in ")
    assert str(report).endswith(" s, from 3 files")
    assert ids(index) == {"notes/owls.txt", "notes/sub/ants.md", "stork", "notes/birds.jsonl#2"}
    encoder.encoded.clear()
    assert counts(sync_files(index, notes)) == (0, 0, 4, 0)
    (notes / "owls.txt").write_text("Owls sleep by day.")
    (notes / "birds.jsonl").write_text('{"id": "stork", "text": "Storks nest on chimneys.", "year": 2020}\n')
    (notes / "new.txt").write_text("Frogs croak.")
    assert counts(sync_files(index, [notes])) == (1, 2, 1, 1)
    assert encoder.encoded == ["Frogs croak.", "Owls sleep by day."]
    assert index.get("stork")[0].metadata["year"] == 2020


def test_files_that_are_the_same_are_not_read_again(
    index: MuveraIndex, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_files(index, notes)
    with monkeypatch.context() as patch:
        patch.setattr("muvera_core.sync.plan.read_documents", None)
        assert counts(sync_files(index, notes)) == (0, 0, 4, 0)
    index.delete("notes/birds.jsonl#2")
    assert counts(sync_files(index, notes)) == (1, 0, 3, 0)


def test_a_document_that_was_changed_in_the_index_comes_back_with_its_file(index: MuveraIndex, notes: Path) -> None:
    sync_files(index, notes)
    index.add(["something else"], ["notes/owls.txt"])
    assert counts(sync_files(index, notes)) == (0, 1, 3, 0)
    assert index.get("notes/owls.txt")[0].text == "Owls hunt at night."


def test_a_file_that_went_back_to_an_earlier_content_is_read_again(index: MuveraIndex, tmp_path: Path) -> None:
    text = tmp_path / "a.md"
    first = "# One\n\nOwls hunt at night.\n\n# Two\n\nAnts live in colonies.\n"
    reading = Reading(max_tokens=10)
    text.write_text(first)
    sync_files(index, text, reading=reading)
    text.write_text(first.replace("Ants live", "Bees live"))
    original = index.update_metadata
    with pytest.MonkeyPatch.context() as patch:  # dies before the file is sealed

        def die_at_the_seal(ids: Any, metadatas: Any, **options: Any) -> int:
            if any("digest" in metadata["indexed_from"] for metadata in metadatas):
                raise KeyboardInterrupt
            return original(ids, metadatas, **options)

        patch.setattr(index, "update_metadata", die_at_the_seal)
        with pytest.raises(KeyboardInterrupt):
            sync_files(index, text)
    text.write_text(first)
    assert counts(sync_files(index, text)) == (0, 1, 1, 0)
    assert "Ants live in colonies." in [document.text.splitlines()[-1] for document in index.find() if document.text]


def test_passages_that_only_moved_within_a_file_are_not_encoded_again(
    index: MuveraIndex, tmp_path: Path, encoder: CountingEncoder
) -> None:
    parts = [f"Paragraph {i} says: {SENTENCES[i % 4]}" for i in range(150)]
    text, reading = tmp_path / "long.txt", Reading(max_tokens=14)
    text.write_text("\n\n".join(parts))
    assert sync_files(index, text, reading=reading).added == 150
    before = {hit.text: hit.score for hit in index.search("Which bird is active after dark?", k=20, exact=True)}
    encoder.encoded.clear()
    text.write_text("\n\n".join(["Something new comes first here.", *parts]))
    report = sync_files(index, text)
    assert counts(report) == (1, 150, 0, 0)
    # Each batch of 64 documents overwrites the text that the next batch begins with.
    assert report.reused >= 147
    assert len(encoder.encoded) <= 4
    after = {hit.text: hit.score for hit in index.search("Which bird is active after dark?", k=20, exact=True)}
    assert {text: pytest.approx(score, abs=1e-3) for text, score in before.items()} == {
        text: score for text, score in after.items() if text in before
    } | {text: before[text] for text in before if text not in after}
    assert len(before.keys() & after.keys()) >= 19


@pytest.mark.parametrize("settings", [{"keep_tokens": 0.5}, {"token_precision": "4bit"}], ids=str)
def test_tokens_that_were_reduced_are_reused_only_if_they_stay_the_same(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "owls.txt").write_text(" ".join(SENTENCES))
    with MuveraIndex.create(tmp_path / "i", **settings) as index:
        sync_files(index, tmp_path / "a")
        before = index.get_embeddings("a/owls.txt")["a/owls.txt"]
        (tmp_path / "a" / "owls.txt").rename(tmp_path / "a" / "eulen.txt")
        report = sync_files(index, tmp_path / "a")
        assert (counts(report), report.reused) == ((1, 0, 0, 1), int("keep_tokens" not in settings))
        assert index.get_embeddings("a/eulen.txt")["a/eulen.txt"] == pytest.approx(before, abs=1e-3)


# What goes away


def test_what_is_gone_from_files_goes_away_and_nothing_else(index: MuveraIndex, notes: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    many_files(other, 2)
    sync_files(index, [notes, other])
    index.add(["added in Python"], ids=["mine"])
    (notes / "sub" / "ants.md").unlink()
    (notes / "birds.jsonl").write_text('{"text": "Swifts sleep."}\n')
    (other / "0.txt").unlink()
    assert counts(sync_files(index, notes)) == (1, 0, 1, 3)
    assert ids(index) == {"notes/owls.txt", "notes/birds.jsonl#1", "other/0.txt", "other/1.txt", "mine"}


def test_missing_files_are_kept_if_asked_but_not_old_parts_of_a_text(index: MuveraIndex, notes: Path) -> None:
    (notes / "owls.txt").write_text("\n\n".join(SENTENCES))
    sync_files(index, notes, reading=Reading(max_tokens=9))
    assert "notes/owls.txt#4" in ids(index)
    (notes / "sub" / "ants.md").unlink()
    (notes / "birds.jsonl").write_text("")
    (notes / "owls.txt").write_text("\n\n".join(SENTENCES[:2]))
    assert counts(sync_files(index, notes, delete_missing=False)) == (0, 0, 2, 2)
    assert ids(index) == {"notes/owls.txt#1", "notes/owls.txt#2", "notes/sub/ants.md", "stork", "notes/birds.jsonl#2"}
    assert sync_files(index, notes).deleted == 3


def test_documents_of_files_that_cannot_be_read_are_not_missing(index: MuveraIndex, notes: Path) -> None:
    sync_files(index, notes)
    (notes / "birds.jsonl").write_text("{\n")
    (notes / "owls.txt").rename(notes / "owls.xyz")
    (notes / "sub" / "ants.md").unlink()
    report = sync_files(index, notes)
    assert report.deleted == 2
    assert ids(index) == {"stork", "notes/birds.jsonl#2"}
    assert sorted(entry.kind for entry in report.ignored) == ["bad line", "unknown type .xyz"]


def test_an_empty_path_deletes_nothing_unless_that_is_meant(index: MuveraIndex, notes: Path) -> None:
    sync_files(index, notes)
    shutil.move(notes, notes.with_name("hidden"))
    with pytest.raises(FilesGoneError, match=r"notes does not exist, but the index has documents of 3 files of it"):
        sync_files(index, notes)
    notes.mkdir()
    with pytest.raises(
        FilesGoneError, match=r"notes has no files any more.* Is everything mounted\?.*allow_empty=True"
    ):
        sync_files(index, notes)
    assert len(index) == 4
    assert counts(sync_files(index, notes, delete_missing=False)) == (0, 0, 0, 0)
    assert counts(sync_files(index, notes, allow_empty=True)) == (0, 0, 0, 4)


def test_most_files_are_not_deleted_at_once_unless_that_is_meant(index: MuveraIndex, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    files = many_files(folder, 30)
    others = many_files(folder / "disk", 10)
    sync_files(index, folder)
    for file in others:
        file.unlink()
    with pytest.raises(FilesGoneError, match="many/disk is empty"):  # as a folder where a disk was mounted
        sync_files(index, folder)
    (folder / "disk").rmdir()
    assert sync_files(index, folder).deleted == 10
    for file in files[:16]:
        file.unlink()
    with pytest.raises(FilesGoneError, match="many has lost 16 of 30 files, but the index has their documents"):
        sync_files(index, folder)
    assert len(index) == 30
    for file in files[:3]:
        file.write_text("Now there is another text.")
    assert counts(sync_files(index, folder)) == (0, 3, 14, 13)


# Moving and naming


def test_a_renamed_folder_is_neither_indexed_twice_nor_encoded_again(
    index: MuveraIndex, tmp_path: Path, encoder: CountingEncoder
) -> None:
    (tmp_path / "docs").mkdir()
    many_files(tmp_path / "docs" / "old", 12)
    sync_files(index, tmp_path / "docs")
    encoder.encoded.clear()
    (tmp_path / "docs" / "old").rename(tmp_path / "docs" / "new")
    report = sync_files(index, tmp_path / "docs")
    assert (counts(report), report.reused, encoder.encoded) == ((12, 0, 0, 12), 12, [])
    assert ids(index) == {f"docs/new/{i}.txt" for i in range(12)}


def test_a_file_that_moved_to_a_new_path_leaves_the_old_one(
    index: MuveraIndex, notes: Path, tmp_path: Path, encoder: CountingEncoder
) -> None:
    sync_files(index, notes)
    encoder.encoded.clear()
    (tmp_path / "archive").mkdir()
    (notes / "owls.txt").rename(tmp_path / "archive" / "owls.txt")
    shutil.copy(notes / "sub" / "ants.md", tmp_path / "archive" / "ants.md")
    report = sync_files(index, tmp_path / "archive")
    assert (counts(report), encoder.encoded) == ((2, 0, 0, 1), ["Ants live in colonies."])
    assert {"archive/owls.txt", "archive/ants.md", "notes/sub/ants.md"} <= ids(index)
    assert "notes/owls.txt" not in ids(index)


def test_files_of_another_machine_have_not_moved_here(index: MuveraIndex, notes: Path, tmp_path: Path) -> None:
    sync_files(index, notes / "owls.txt")
    (sealed,) = index.find()
    name = "/of-another/machine/owls.txt"
    elsewhere = {"path": name, "indexed_from": {**sealed.metadata["indexed_from"], "file": name}}
    index.add([sealed.text or ""], [name], [elsewhere])
    (tmp_path / "copy").mkdir()
    shutil.copy(notes / "owls.txt", tmp_path / "copy")
    report = sync_files(index, tmp_path / "copy")
    assert (counts(report), report.reused) == ((1, 0, 0, 0), 0)
    assert len(index) == 3


def test_a_folder_its_parent_and_folders_with_equal_names_agree(index: MuveraIndex, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "docs" / name).mkdir(parents=True)
        (tmp_path / "docs" / name / "README.md").write_text(f"This is {name}.")
    for paths in (["one", "two"], ["."], ["one/README.md", "two", "one"], ["one/../two"]):
        sync_files(index, [tmp_path / "docs" / path for path in paths])
        assert ids(index) == {"docs/one/README.md", "docs/two/README.md"}
    assert counts(sync_files(index, tmp_path)) == (0, 0, 2, 0)


def test_an_index_and_its_files_move_together(tmp_path: Path) -> None:
    (tmp_path / "a" / "notes").mkdir(parents=True)
    many_files(tmp_path / "a" / "notes", 3)
    with MuveraIndex.create(tmp_path / "a" / "i") as index:
        sync_files(index, tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    with MuveraIndex.open(tmp_path / "b" / "i") as index:
        assert counts(sync_files(index, tmp_path / "b" / "notes")) == (0, 0, 3, 0)


def test_files_elsewhere_have_their_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Owls hunt.")
    (tmp_path / "apart").mkdir()
    expected = (tmp_path / "a.txt").as_posix()
    for folder in (None, tmp_path / "apart" / "i"):
        with MuveraIndex.create(folder) as index:
            sync_files(index, tmp_path / "a.txt")
            assert ids(index) == {expected}
            assert counts(sync_files(index, tmp_path / "apart" / ".." / "a.txt")) == (0, 0, 1, 0)


@posix_only
def test_links_lead_to_one_name_for_each_file(index: MuveraIndex, notes: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "way").symlink_to(tmp_path)
    sync_files(index, notes)
    assert counts(sync_files(index, tmp_path / "other" / "way" / "notes")) == (0, 0, 4, 0)  # inside by a link
    (tmp_path / "current").symlink_to(notes)
    assert sync_files(index, [notes, tmp_path / "current"]).unchanged == 4
    (tmp_path / "versions").mkdir()
    for version in ("one", "two"):
        many_files(tmp_path / "versions" / version, 2)
        (tmp_path / "versions" / version / "0.txt").write_text(f"Version {version}.")
        (tmp_path / "latest").unlink(missing_ok=True)
        (tmp_path / "latest").symlink_to(tmp_path / "versions" / version)
        sync_files(index, tmp_path / "latest")
    assert index.get("latest/0.txt")[0].text == "Version two."
    assert len(index) == 6


@posix_only
def test_names_are_the_same_in_both_unicode_forms(index: MuveraIndex, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "küçük.txt") for form in ("NFC", "NFD"))
    (tmp_path / decomposed).write_text("Dükkân açık.")
    sync_files(index, tmp_path / decomposed)
    assert ids(index) == {composed}
    (tmp_path / decomposed).rename(tmp_path / composed)  # as when a folder is copied from one system to another
    assert counts(sync_files(index, tmp_path)) == (0, 0, 1, 0)


def test_what_programs_keep_in_a_folder_is_not_indexed(index: MuveraIndex, notes: Path) -> None:
    with MuveraIndex.create(notes / "other.muvera"):
        pass
    for name, mark in (("node_modules", ""), ("env", "pyvenv.cfg"), ("target", "CACHEDIR.TAG"), ("other.muvera", "")):
        (notes / name / "deeper").mkdir(parents=True)
        (notes / name / "deeper" / "inside.txt").write_text(f"not a document of {name}")
        if mark:
            (notes / name / mark).touch()
    assert sync_files(index, notes).added == 4
    assert sync_files(index, notes / "env").added == 1  # it was asked for


# How files are read


def test_the_index_remembers_how_files_are_read(index: MuveraIndex, notes: Path, tmp_path: Path) -> None:
    (notes / "owls.txt").write_text("\n\n".join(SENTENCES))
    assert recall_reading(index) is None
    assert sync_files(index, notes).reading == Reading()
    report = sync_files(index, notes, reading=Reading(max_tokens=9))
    assert (report.added, report.deleted) == (4, 1)
    assert recall_reading(index) == Reading(max_tokens=9)
    assert counts(sync_files(index, notes)) == (0, 0, 7, 0)
    index.copy_to(tmp_path / "copy")
    index.close()
    for folder in ("i.muvera", "copy"):
        with MuveraIndex.open(tmp_path / folder) as opened:
            assert counts(sync_files(opened, notes)) == (0, 0, 7, 0)
            assert opened.notes() == {"reading": {"max_tokens": 9, "overlap": 0, "encoding": None}}


def test_a_note_of_a_newer_version_is_not_misread(index: MuveraIndex, notes: Path) -> None:
    index.write_note("reading", {"max_tokens": 9, "dialect": "new"})
    with pytest.raises(InvalidInputError, match=r"upgrade muvera-core"):
        sync_files(index, notes)
    assert sync_files(index, notes, reading=Reading()).added == 4


def test_notes_are_small_objects(index: MuveraIndex) -> None:
    index.write_note("a", {"x": [1, None]})
    index.write_note("b", {})
    assert index.notes() == {"a": {"x": [1, None]}, "b": {}}
    index.write_note("a", None)
    index.write_note("nothing", None)
    assert index.notes() == {"b": {}}
    with pytest.raises(InvalidInputError, match="note must be a mapping or None, got 3"):
        index.write_note("a", 3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="larger than 16 kB"):
        index.write_note("a", {"x": "y" * 20_000})
    with pytest.raises(InvalidInputError, match="name"):
        index.write_note(" ", {})


# What is told


def test_progress_counts_files_and_then_documents(index: MuveraIndex, notes: Path) -> None:
    seen: list[SyncProgress] = []
    sync_files(index, notes, on_progress=seen.append)
    assert [(each.stage, each.done, each.total) for each in seen] == [
        *(("reading", done, 3) for done in range(4)),
        ("indexing", 0, 4),
        ("indexing", 4, 4),
    ]
    assert [each.path for each in seen[:3]] == ["", "notes/birds.jsonl", "notes/owls.txt"]


def test_what_is_ignored_is_counted_by_reason_and_type(index: MuveraIndex, notes: Path) -> None:
    for name in ("a.xyz", "b.xyz", "c.exe", "noending", "d.png"):
        (notes / name).write_text("x")
    (notes / "empty.txt").write_text("")
    (notes / "bad.jsonl").write_text("{\n")
    report = sync_files(index, notes)
    assert report.added == 4
    assert str(report).endswith(
        "; ignored: 2 .xyz, 1 bad line .jsonl entry, 1 .exe, 1 .png, 1 empty .txt, 1 without a suffix"
    )
    with pytest.raises(InvalidInputError, match=r"1 file or line cannot be used.*\n.*bad.jsonl:1: it is not JSON"):
        sync_files(index, notes, skip_unusable=False)


def test_what_cannot_be_synced_is_refused(index: MuveraIndex, notes: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for paths, problem in (
        ([], "one or more paths"),
        (3, "one or more paths"),
        ([3], r"paths\[0\]"),
        (tmp_path / "none", "there are no files with a text to index"),
        (tmp_path / "nowhere", "nowhere does not exist"),
    ):
        with pytest.raises(InvalidInputError, match=problem):
            sync_files(index, paths)  # type: ignore[arg-type]
    index.close()
    with MuveraIndex.open(tmp_path / "i.muvera", read_only=True) as opened, pytest.raises(ReadOnlyIndexError):
        sync_files(opened, notes)


def test_ids_that_several_files_give_are_told(index: MuveraIndex, notes: Path) -> None:
    (notes / "more.jsonl").write_text(json.dumps({"id": "stork", "text": "A second stork."}))
    for _ in range(2):
        report = sync_files(index, notes)
        (entry,) = report.ignored
        assert str(entry).startswith(f"{notes / 'more.jsonl'}:1: its id 'stork' is also the id of {notes / 'birds'}")
    assert index.get("stork")[0].text == "Storks nest on chimneys."
    assert count_ignored(report.ignored) == "1 duplicate .jsonl entry"


def test_ids_of_other_documents_are_not_taken(index: MuveraIndex, notes: Path, tmp_path: Path) -> None:
    sync_files(index, notes)
    index.add(["Mine, from Python."], ["mine"])
    other = tmp_path / "other"
    other.mkdir()
    lines = [{"id": id, "text": f"Not {id}."} for id in ("mine", "stork", "notes/owls.txt", "new")]
    (other / "more.jsonl").write_text("\n".join(map(json.dumps, lines)))
    before = {document.id: document.text for document in index.find()}
    for added in (1, 0):
        report = sync_files(index, other)
        assert counts(report) == (added, 0, 1 - added, 0)
        assert count_ignored(report.ignored) == "3 duplicate .jsonl entry"
        assert "its id 'stork' is also the id of notes/birds.jsonl, which the index has" in str(report.ignored[1])
    assert {document.id: document.text for document in index.find()} == before | {"new": "Not new."}
    (other / "more.jsonl").write_text(json.dumps(lines[-1]))
    sync_files(index, other)
    assert before.keys() <= ids(index)


def test_ids_go_over_to_a_file_if_theirs_is_gone(index: MuveraIndex, notes: Path, tmp_path: Path) -> None:
    sync_files(index, notes)
    (notes / "birds.jsonl").unlink()
    (tmp_path / "later.jsonl").write_text('{"id": "stork", "text": "Storks nest on towers."}')
    assert counts(sync_files(index, tmp_path / "later.jsonl")) == (0, 1, 0, 0)
    assert index.get("stork")[0].metadata["path"] == "later.jsonl"


def test_an_index_that_moves_beside_its_files_has_them_once(
    encoder: CountingEncoder, notes: Path, tmp_path: Path
) -> None:
    (tmp_path / "away").mkdir()
    with MuveraIndex.create(tmp_path / "away" / "i.muvera", encoder) as index:
        sync_files(index, notes)
    shutil.move(tmp_path / "away" / "i.muvera", tmp_path / "i.muvera")
    encoder.encoded.clear()
    with MuveraIndex.open(tmp_path / "i.muvera", encoder) as index:
        for file in [file for file in notes.rglob("*") if file.is_file()]:
            file.rename(tmp_path / file.name)
        with pytest.raises(FilesGoneError):
            sync_files(index, notes)
        for name in ("owls.txt", "birds.jsonl"):
            (tmp_path / name).rename(notes / name)
        assert counts(sync_files(index, notes)) == (2, 1, 0, 3)
        assert ids(index) == {"notes/owls.txt", "notes/birds.jsonl#2", "stork"}
        assert counts(sync_files(index, notes)) == (0, 0, 3, 0)
    assert not [text for text in encoder.encoded if "Storks" not in text]


def no_error(question: Callable[[Path], bool]) -> Callable[[Path], bool]:
    """The question with the answer False in place of an OSError."""

    def ask(path: Path) -> bool:
        try:
            return question(path)
        except OSError:
            return False

    return ask


@posix_only
def test_files_that_cannot_be_looked_at_are_not_missing(
    index: MuveraIndex, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_files(index, notes)
    for name in ("is_dir", "is_file", "is_symlink"):  # as they are since Python 3.14
        monkeypatch.setattr(Path, name, no_error(getattr(Path, name)))
    look = os.stat

    def fail(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(notes / "sub")):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", fail)
    report = sync_files(index, notes)
    assert report.deleted == 0
    assert str(report.ignored[0]) == f"{notes / 'sub'}: it cannot be read (Permission denied)"


@pytest.mark.parametrize("call", ["evaluate", "optimize", "calibrate"])
def test_labels_of_documents_that_were_split_are_refused(index: MuveraIndex, tmp_path: Path, call: str) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps({"id": "d", "text": " ".join(SENTENCES)}))
    sync_files(index, tmp_path / "d.jsonl", reading=Reading(max_tokens=8))
    index.add(["Swans swim."], ["swan"])
    measure = getattr(index, call)
    with pytest.raises(InvalidInputError, match=r"1 relevant document such as 'd' cannot be found: .* \('d#1', …\)"):
        measure(queries=["owls", "swans"], relevant=[["d"], ["swan"]])
    if call == "evaluate":
        assert measure(queries=["owls", "swans"], relevant=[["d#1"], ["swan", "unknown"]]).hit_rate == (1, 1)
