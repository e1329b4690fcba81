"""The command line: run in this process if that is enough, or else in a process of its own."""

from __future__ import annotations

import errno
import gzip
import inspect
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from interrupts import heeding_interrupts

from muvera_core import LearnedSetEncoder, MuveraIndex, TokenEmbeddings
from muvera_core.cli import main
from muvera_core.corpus import MAX_TEXT_BYTES
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings
from muvera_core.tuning import choose, encodings, optimizing, queries

OWLS = "# Owls\n\nOwls hunt at night. They hear very well.\n\nTheir flight is silent.\n"
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, pipes and file names")


def muvera(*arguments: object, status: int = 0, columns: int = 80) -> Result:
    # Before click 8.2, the two streams were mixed by default.
    apart: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    result = CliRunner(**apart).invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": str(columns)})
    assert result.exit_code == status, (result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    return result


def summary(result: Result) -> dict[str, int]:
    text = result.stdout.splitlines()[-1].split(" in ")[0]
    counts = [] if text == "no documents" else text.split(", ")
    return {name: int(number) for number, name in (count.split(" ", 1) for count in counts)}


def ignored(result: Result) -> str:
    return result.stdout.splitlines()[-1].partition("; ignored: ")[2]


def hits(index: Path, question: str, *options: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in muvera("search", index, question, "--json", *options).stdout.splitlines()]


def ids(index: Path) -> set[str]:
    return {hit["id"] for hit in hits(index, "anything", "-k", 1000)}


def as_process(*arguments: object, **settings: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **settings.pop("env", {})}
    command = [sys.executable, "-m", "muvera_core.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **settings)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "owls.md").write_text(OWLS)
    (folder / "sub" / "ants.txt").write_text("Ants live in colonies.\n")
    (folder / "birds.jsonl").write_text(
        '{"_id": 7, "title": "Heron", "text": "Herons stand still in shallow water.", "year": 2020}\n'
        "\n"
        '{"text": "Storks nest on chimneys.", "metadata": {"year": 1999}}\n'
    )
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "i.muvera"


@pytest.fixture(scope="module")
def shared_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "owls.md").write_text(OWLS)
    (folder / "ants.txt").write_text("Ants live in colonies.\n")
    muvera("index", folder / "i.muvera", folder)
    return folder / "i.muvera"


# Reading files


def test_a_folder_becomes_documents_with_ids_and_metadata(notes: Path, index: Path) -> None:
    assert summary(muvera("index", index, notes)) == {"added": 4}
    found = {hit["id"]: hit for hit in hits(index, "birds")}
    assert set(found) == {"notes/owls.md", "notes/sub/ants.txt", "7", "notes/birds.jsonl#3"}
    assert found["notes/owls.md"]["text"] == OWLS.strip()
    metadata = found["notes/sub/ants.txt"]["metadata"]
    assert metadata["path"] == metadata["indexed_from"]["file"] == "notes/sub/ants.txt"
    assert found["7"]["text"] == "Heron Herons stand still in shallow water."
    assert {"title": "Heron", "year": 2020, "path": "notes/birds.jsonl"}.items() <= found["7"]["metadata"].items()
    assert found["notes/birds.jsonl#3"]["metadata"]["year"] == 1999


def test_split_files_give_numbered_passages(notes: Path, index: Path) -> None:
    muvera("index", index, notes / "owls.md", "--max-tokens", 8)
    found = {hit["id"]: hit for hit in hits(index, "owls")}
    assert set(found) >= {"notes/owls.md#1", "notes/owls.md#2", "notes/owls.md#3"}
    last = found[f"notes/owls.md#{len(found)}"]
    assert last["text"] == "Their flight is silent."
    assert (last["metadata"]["path"], last["metadata"]["position"]) == ("notes/owls.md", len(found))


def test_compressed_lines_and_byte_order_marks_are_read(tmp_path: Path, index: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b'\xef\xbb\xbf{"id": "a", "text": "one"}\r\n{"id": "b", "text": "two"}')
    (tmp_path / "c.TXT").write_bytes(b"\xef\xbb\xbfthree\r\nlines\r\n")
    assert summary(muvera("index", index, tmp_path)) == {"added": 3}
    texts = {hit["id"]: hit["text"] for hit in hits(index, "one")}
    assert texts == {"a": "one", "b": "two", "c.TXT": "three\nlines"}  # the index is beside the file


@posix_only
def test_hidden_files_links_pipes_and_the_index_itself_are_skipped(notes: Path) -> None:
    (notes / ".git").mkdir()
    (notes / ".git" / "x.txt").write_text("hidden")
    (notes / ".y.txt").write_text("hidden")
    (notes / "loop").symlink_to(notes)
    (notes / "link.txt").symlink_to(notes / "sub" / "ants.txt")
    os.mkfifo(notes / "pipe.txt")
    (notes / "empty.txt").write_text("")
    (notes / "image.png").write_bytes(b"\x89PNG")
    index = notes / "i.muvera"
    assert summary(muvera("index", index, notes)) == {"added": 4}
    (index / "inside.txt").write_text("not a document")
    assert summary(muvera("index", index, notes)) == {"unchanged": 4}


@posix_only
def test_names_that_are_not_unicode_give_ids_that_are(tmp_path: Path, index: Path) -> None:
    folder = tmp_path / os.fsdecode(b"fold\xff")
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("coffee")
    (folder / os.fsdecode(b"bad\xe9.jsonl")).write_bytes(b"\xff")
    assert r"bad\xe9.jsonl:1" in muvera("index", index, folder, "--strict", status=1).stderr
    assert summary(muvera("index", index, folder)) == {"added": 1}
    assert summary(muvera("index", index, folder)) == {"unchanged": 1}
    assert ids(index) == {r"fold\xff/caf\xe9.txt"}


BAD_LINES = {
    "{nope": "not JSON",
    "[" * 100_000: "not JSON",
    "[1]": "JSON object",
    '{"no": "text"}': "text must be a string",
    '{"text": "x", "id": true}': "id must be",
    '{"text": "x", "id": " "}': "id is empty",
    '{"text": "x", "v": Infinity}': "is infinite",
    '{"text": "x", "metadata": [1]}': "metadata must be",
    '{"text": "x", "title": 3}': "title must be",
    '{"text": "x", "id": "good"}': "good.jsonl:1",
}


def test_lines_that_cannot_be_used_are_named_and_nothing_is_changed(tmp_path: Path, index: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"text": "fine", "id": "good"}\n')
    long = '{"text": "' + "x " * (MAX_TEXT_BYTES // 2) + '"}'
    (tmp_path / "lines.jsonl").write_text("\n".join([*BAD_LINES, long, '{"text": "also fine"}']))
    (tmp_path / "late.jsonl").write_bytes(b'{"text": "z"}\n{"text": "\xff"}\n')
    result = muvera("index", index, tmp_path, "--strict", status=1)
    assert not index.exists()
    assert result.stdout == ""
    assert "12 files or lines cannot be used, and nothing was changed" in result.stderr
    result = muvera("index", index, tmp_path, "--verbose")
    for number, why in enumerate([*BAD_LINES.values(), "16 MiB"], start=1):
        (line,) = (line for line in result.stderr.splitlines() if f"lines.jsonl:{number}: " in line)
        assert why in line
    assert "late.jsonl:2: it is not UTF-8 text" in result.stderr
    assert summary(result) == {"added": 3}
    assert ignored(result) == "11 bad line .jsonl entry, 1 duplicate .jsonl entry"
    brief = muvera("index", index, tmp_path).stderr
    assert brief.count("\n") == 11
    assert "… and 2 more; --verbose lists all" in brief


def test_blank_lines_and_pages_are_told_and_skipped_by_themselves(tmp_path: Path, index: Path) -> None:
    (tmp_path / "pages.jsonl").write_text('{"text": "Owls"}\n{"text": " "}\n{"text": "Ants \\ud835"}\n')
    (tmp_path / "blank.txt").write_text("\u200b\n", encoding="utf-8")
    result = muvera("index", index, tmp_path)
    assert summary(result) == {"added": 2}
    assert ignored(result) == "1 empty .txt, 1 empty .jsonl entry"
    assert "pages.jsonl:2: text is empty" in result.stderr
    assert ids(index) == {"pages.jsonl#1", "pages.jsonl#3"}


def test_a_lowest_score_leaves_out_hits(shared_index: Path) -> None:
    assert muvera("search", shared_index, "owls", "--min-score", 0).stdout
    result = muvera("search", shared_index, "owls", "--min-score", 1)
    assert (result.stdout, result.stderr) == ("", "no document reaches a score of 1.0\n")


def test_info_names_the_encoder_and_its_settings(shared_index: Path) -> None:
    assert "BundledEncoder(" in muvera("info", shared_index).stdout


def test_files_that_cannot_be_read_are_named(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.txt").write_text("fine")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:-20])
    (tmp_path / "zip.jsonl.gz").write_bytes(b"PK")
    (tmp_path / "closed.txt").write_text("secret")
    (tmp_path / "locked").mkdir()
    opening, listing = Path.open, Path.iterdir

    def refuse(path: Path) -> bool:
        if path.name in ("closed.txt", "locked"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return False

    # The tests may run as an administrator, who may read everything whatever the permissions.
    monkeypatch.setattr(Path, "open", lambda path, *args, **kwargs: refuse(path) or opening(path, *args, **kwargs))
    monkeypatch.setattr(Path, "iterdir", lambda path: refuse(path) or listing(path))
    message = muvera("index", index, tmp_path, "--strict", status=1).stderr
    for expected in [
        "cut.jsonl.gz: it cannot be read",
        "zip.jsonl.gz: it cannot be read",
        "closed.txt: it cannot be read (Permission denied)",
        "locked: it cannot be read (Permission denied)",
    ]:
        assert expected in message


def test_paths_without_readable_files_are_refused(tmp_path: Path, index: Path) -> None:
    (tmp_path / "a.xyz").write_text("x")
    expected = "there are no files with a text to index (ignored: 1 .xyz)"
    assert expected in muvera("index", index, tmp_path, status=1).stderr
    assert expected in muvera("index", index, tmp_path / "a.xyz", status=1).stderr
    assert "does not exist" in muvera("index", index, tmp_path / "nowhere", status=1).stderr
    assert not index.exists()


# Updating an index


def test_only_what_differs_is_written(notes: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    muvera("index", index, notes)
    with monkeypatch.context() as patch:
        patch.setattr(MuveraIndex, "add", None)
        assert summary(muvera("index", index, notes)) == {"unchanged": 4}
    (notes / "owls.md").write_text("Owls sleep by day.")
    lines = (notes / "birds.jsonl").read_text()
    (notes / "birds.jsonl").write_text(lines.replace("2020", "true"))
    (notes / "new.txt").write_text("new")
    assert summary(muvera("index", index, notes)) == {"added": 1, "replaced": 2, "unchanged": 2}
    assert hits(index, "owls", "-k", 1)[0]["text"] == "Owls sleep by day."
    (notes / "birds.jsonl").write_text(lines.replace("2020", "1"))
    assert summary(muvera("index", index, notes)) == {"replaced": 1, "unchanged": 4}


def test_files_are_read_as_the_last_time_unless_another_way_is_asked_for(notes: Path, index: Path) -> None:
    assert muvera("index", index, notes, "--max-tokens", 9).stderr == ""
    n = len(ids(index))
    assert n > 4
    assert "files      passages of up to 9 tokens\n" in muvera("info", index).stdout
    assert json.loads(muvera("info", index, "--json").stdout)["notes"]["reading"]["max_tokens"] == 9
    assert summary(muvera("index", index, notes)) == {"unchanged": n}
    changed = muvera("index", index, notes, "--no-split")
    assert "reading files anew: texts are not split, before passages of up to 9 tokens" in changed.stderr
    assert ids(index) == {"notes/owls.md", "notes/sub/ants.txt", "7", "notes/birds.jsonl#3"}
    assert summary(muvera("index", index, notes)) == {"unchanged": 4}
    (notes / "ants.txt").write_bytes("Ameisen hören.".encode("utf-16-be"))
    report = json.loads(muvera("index", index, notes, "--encoding", "utf-16-be", "--json").stdout)
    assert report["reading"] == {"max_tokens": None, "overlap": 0, "encoding": "utf-16-be"}
    assert (
        json.loads(muvera("index", index, notes, "--encoding", "detect", "--json").stdout)["reading"]["encoding"]
        is None
    )
    assert "--no-split makes no passages" in (
        muvera("index", index, notes, "--no-split", "--max-tokens", 9, status=1).stderr
    )
    assert "encoding must be the name" in muvera("index", index, notes, "--encoding", "x", status=1).stderr


def test_files_that_are_gone_are_deleted_unless_all_of_them_are(notes: Path, index: Path) -> None:
    muvera("index", index, notes)
    (notes / "sub" / "ants.txt").unlink()
    assert summary(muvera("index", index, notes, "--keep-missing")) == {"unchanged": 3}
    report = json.loads(muvera("index", index, notes, "--json").stdout)
    assert {"documents": 3, "files": 2, "deleted": 1, "ignored": ""}.items() <= report.items()
    notes.rename(notes.with_name("away"))
    message = muvera("index", index, notes, status=1).stderr
    assert "does not exist, but the index has documents of 2 files of it" in message
    assert "On the command line, that is --allow-empty" in message
    assert summary(muvera("index", index, notes, "--allow-empty")) == {"deleted": 3}


def test_a_record_does_not_replace_that_of_another_file(tmp_path: Path, index: Path) -> None:
    for name in ("monday", "tuesday"):
        records = [{"id": id, "text": f"The {id} of {name}."} for id in ("menu", f"news-{name}")]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    muvera("index", index, tmp_path / "monday.jsonl")
    result = muvera("index", index, tmp_path / "tuesday.jsonl")
    assert "1 added" in result.stdout
    assert "ignored: 1 duplicate .jsonl entry" in result.stdout
    assert "tuesday.jsonl:1: its id 'menu' is also the id of" in result.stderr
    assert sorted(hit["text"] for hit in hits(index, "menu news")) == [
        "The menu of monday.",
        "The news-monday of monday.",
        "The news-tuesday of tuesday.",
    ]


@pytest.fixture
def heeds_interrupts() -> Iterator[None]:
    with heeding_interrupts():
        yield


def n_committed(index: Path) -> int:
    """How many documents are in an index that another process writes, if there is one yet."""
    database = f"file:{index / 'documents.sqlite'}?mode=ro"
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(database, uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM documents").fetchone()[0])
    return 0


@posix_only
@pytest.mark.usefixtures("heeds_interrupts")
def test_an_interrupted_run_keeps_what_was_written_and_goes_on(tmp_path: Path, index: Path) -> None:
    lines = [json.dumps({"id": str(i), "text": f"Passage {i} has some words. " * 8}) for i in range(500)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines))
    command = ["index", index, tmp_path / "many.jsonl"]
    with as_process(*command) as process:
        deadline = time.monotonic() + 120
        while not n_committed(index) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, message = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, b"")
    assert message.startswith(b"Error: interrupted: ")
    assert message.count(b"\n") == 1
    n_kept = len(ids(index))
    assert 0 < n_kept < 500
    n_reported = int(message.split(b" keeps ")[1].split()[0])
    assert n_reported in (n_kept, n_kept - 64)  # the last batch may be committed and not yet counted
    assert summary(muvera(*command)) == {"added": 500 - n_kept, "unchanged": n_kept}


# Searching


def test_hits_are_printed_in_the_width_of_the_terminal(shared_index: Path) -> None:
    result = muvera("search", shared_index, "Which animal is active after dark?", "--explain", columns=40)
    lines = result.stdout.splitlines()
    assert lines[0].split()[0::2] == ["1.", "owls.md"]
    assert max(map(len, lines)) <= 40
    assert lines[1] == "   # Owls Owls hunt at night. They"
    assert "dark → night" in " ".join(result.stdout.split())
    assert result.stderr == ""


def test_lines_of_json_have_all_fields(shared_index: Path) -> None:
    first, second = hits(shared_index, "Which animal is active after dark?", "--explain")
    assert (first["rank"], first["id"], second["id"]) == (1, "owls.md", "ants.txt")
    assert first["score"] > second["score"]
    assert first["matches"][0]["similarity"] >= first["matches"][-1]["similarity"]
    assert {"query": "dark", "document": "night"}.items() <= next(
        match.items() for match in first["matches"] if match["query"] == "dark"
    )
    assert all(any(map(str.isalnum, match["document"])) for match in first["matches"])


def test_searches_are_restricted_as_asked(shared_index: Path) -> None:
    assert len(hits(shared_index, "x", "-k", 1)) == 1
    assert hits(shared_index, "owls", "--exact") == hits(shared_index, "owls", "--n-candidates", 2)
    assert [hit["id"] for hit in hits(shared_index, "owls", "--filter", '{"path": "ants.txt"}')] == ["ants.txt"]
    nothing = muvera("search", shared_index, "owls", "--filter", '{"path": "x"}')
    assert (nothing.stdout, nothing.stderr) == ("", "no document matches the filter\n")


def test_words_can_rank_alone_or_together_with_late_interaction(shared_index: Path) -> None:
    (found,) = hits(shared_index, "colonies", "--mode", "lexical", "--explain")
    assert (found["id"], found["score"]) == ("ants.txt", found["lexical_score"])
    assert found["matches"][0]["document"] == "colonies"
    both = hits(shared_index, "colonies", "--mode", "hybrid")
    assert [(hit["id"], hit["lexical_score"] > 0) for hit in both] == [("ants.txt", True), ("owls.md", False)]
    assert [hit["lexical_score"] for hit in hits(shared_index, "colonies")] == [None, None]
    late, words = (hits(shared_index, "night colonies", "--mode", "hybrid", "--lexical-weight", w)[1] for w in (0, 1))
    assert late["score"] < words["score"]
    by_ranks = hits(shared_index, "colonies", "--mode", "hybrid", "--fusion", "ranks")
    assert [hit["score"] for hit in by_ranks] != [hit["score"] for hit in both]


def test_options_that_a_mode_has_no_use_for_are_refused(shared_index: Path) -> None:
    for options, problem in (
        (["--lexical-weight", 0.5], "lexical_weight is for mode='hybrid'"),
        (["--fusion", "ranks"], "fusion is for mode='hybrid'"),
        (["--mode", "lexical", "--n-candidates", 5], "reranks no candidates"),
    ):
        assert problem in muvera("search", shared_index, "owls", *options, status=1).stderr
    muvera("search", shared_index, "owls", "--mode", "dense", status=2)
    nothing = muvera("search", shared_index, "zeppelin", "--mode", "lexical")
    assert (nothing.stdout, nothing.stderr) == ("", "no document has a word of the query\n")


def test_the_best_passage_is_printed_instead_of_the_beginning(tmp_path: Path, index: Path) -> None:
    text = "This page is about many things. " * 30 + "Owls hunt at night. " + "It ends with other things. " * 30
    (tmp_path / "page.txt").write_text(text)
    muvera("index", index, tmp_path / "page.txt", "--no-split")
    question = "Which bird is active after dark?"
    assert "Owls hunt" not in " ".join(muvera("search", index, question).stdout.split())
    assert "Owls hunt" in " ".join(muvera("search", index, question, "--passages", columns=300).stdout.split())
    (found,) = hits(index, question, "--passages")
    passage = found["passage"]
    assert "Owls hunt at night." in passage["text"]
    assert passage["text"] == found["text"][passage["start"] : passage["end"]]
    assert "passage" not in hits(index, question)[0]


def test_the_device_is_asked_for_by_name(shared_index: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("owls\n")
    for command in (
        ["search", shared_index, "owls"],
        ["evaluate", shared_index, questions],
        ["optimize", shared_index],
        ["calibrate", shared_index],
    ):
        refused = muvera(*command, "--device", "abacus", status=1)
        assert "device must be 'cpu', 'cuda', 'cuda:N' or 'auto', got 'abacus'" in " ".join(refused.stderr.split())


def test_falling_back_to_the_cpu_gives_one_line_of_warning(shared_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    result = muvera("search", shared_index, "owls", "--device", "auto")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Warning: searching on the CPU: ")


def test_text_cannot_control_the_terminal(tmp_path: Path, index: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a\x1b[2J\nb", "text": "red \x1b[31m\x07 words"}))
    muvera("index", index, tmp_path)
    assert not set("\x1b\x07") & set(muvera("search", index, "red").stdout)


@posix_only
def test_a_closed_pipe_ends_the_program_silently(shared_index: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "muvera_core.cli", "search", str(shared_index), "owls", "--json"]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # the default: Python flushes again when it ends
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=buffered, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")


@posix_only
@pytest.mark.parametrize("encoding", ["", "latin-1"])
def test_output_is_utf8_whatever_the_locale(encoding: str, tmp_path: Path, index: Path) -> None:
    (tmp_path / "küçük.txt").write_text("Dükkân açık 日本語", encoding="utf-8")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    with as_process("index", index, tmp_path, env=locale) as process:
        assert process.communicate()[1] == b""
    for options in (["--json"], ["--explain"]):
        with as_process("search", index, "dükkân", *options, env=locale) as process:
            out, message = process.communicate()
        assert (process.returncode, message) == (0, b"")
        assert "Dükkân açık 日本語" in out.decode("utf-8")
        assert "küçük.txt" in out.decode("utf-8")
    (match,) = hits(index, "dükkân", "--explain")[0]["matches"]
    assert match["document"] == "Dükkân"


# Maintaining an index


def test_information_adds_up(shared_index: Path) -> None:
    information = json.loads(muvera("info", shared_index, "--json").stdout)
    assert (information["documents"], information["format_version"]) == (2, 5)
    assert information["tokens"] > 20
    on_disk = {file.name: file.stat().st_size for file in shared_index.iterdir()}
    assert information["files"] == on_disk
    assert information["bytes"] == sum(on_disk.values())
    assert information["bytes_per_document"] == information["bytes"] / 2
    assert information["encoder"] in muvera("info", shared_index).stdout


def test_information_names_the_kernel_that_ranks(shared_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUVERA_KERNEL", "numpy")
    assert json.loads(muvera("info", shared_index, "--json").stdout)["kernel"] == "numpy"
    assert "kernel     numpy" in muvera("info", shared_index).stdout


def test_the_word_index_is_made_as_asked_and_changed_later(notes: Path, index: Path) -> None:
    muvera("index", index, notes, "--language", "none", "--search-field", "title", "--search-field", "path")
    assert "words      words as they are, of the texts and of title, path (counted 2 times)" in (
        muvera("info", index).stdout
    )
    search = ("--mode", "lexical")
    assert hits(index, "colony", *search) == []
    assert {hit["id"] for hit in hits(index, "sub", *search)} == {"notes/sub/ants.txt"}
    said = muvera("words", index, "--language", "english").stdout
    assert said == "word index: words, by the stems of english, of the texts and of title, path (counted 2 times)\n"
    assert [hit["id"] for hit in hits(index, "colony", *search)] == ["notes/sub/ants.txt"]
    muvera("words", index, "--tokenizer", "trigram", "--search-field", "title")
    assert [hit["id"] for hit in hits(index, "loni", *search)] == ["notes/sub/ants.txt"]
    settings = json.loads(muvera("info", index, "--json").stdout)["lexical"]
    assert (settings["tokenizer"], settings["fields"]) == ("trigram", ["title"])
    assert muvera("words", index, "--remove").stdout == "word index: none\n"
    assert "words      none" in muvera("info", index).stdout
    assert "`muvera words INDEX`" in muvera("search", index, "ants", *search, status=1).stderr
    assert "leave out --language" in muvera("words", index, "--remove", "--language", "none", status=1).stderr
    muvera("words", index, "--language", "elvish", status=2)
    muvera("check", index)


def test_an_index_keeps_the_words_and_the_share_of_tokens_that_it_was_made_with(notes: Path, index: Path) -> None:
    muvera("index", index, notes, "--keep-tokens", 0.5, "--language", "german")
    assert "0.5 of them kept" in muvera("info", index).stdout
    summary(muvera("index", index, notes, "--keep-tokens", 0.5, "--language", "german", "--tokenizer", "words"))
    assert "--keep-tokens 0.5" in muvera("index", index, notes, "--keep-tokens", 0.75, status=1).stderr
    for options in (["--language", "none"], ["--search-field", "title"], ["--no-words"]):
        message = muvera("index", index, notes, *options, status=1).stderr
        assert f"than {options[0]} asks for" in message
        assert "`muvera words`" in message
    muvera("index", index, notes, "--keep-tokens", 0.05, status=2)


def test_an_index_without_words_is_made_if_asked(notes: Path, index: Path) -> None:
    assert "leave out --tokenizer" in (
        muvera("index", index, notes, "--no-words", "--tokenizer", "words", status=1).stderr
    )
    muvera("index", index, notes, "--no-words")
    muvera("index", index, notes, "--no-words")
    assert json.loads(muvera("info", index, "--json").stdout)["lexical"] is None
    assert "has other words (none) than --tokenizer" in (
        muvera("index", index, notes, "--tokenizer", "words", status=1).stderr
    )
    assert "stems of english" in muvera("words", index).stdout
    assert hits(index, "colony", "--mode", "lexical")


def test_damage_is_listed_and_repaired(notes: Path, index: Path) -> None:
    muvera("index", index, notes)
    assert "no damage, 4 intact documents" in muvera("check", index).stdout
    tokens = bytearray((index / "tokens-0.bin").read_bytes())
    tokens[len(tokens) // 2] ^= 1
    (index / "tokens-0.bin").write_bytes(tokens)
    damaged = muvera("check", index, status=1)
    assert "DAMAGED, 3 intact documents" in damaged.stdout
    assert damaged.stderr == ""
    assert "1 of them encoded again" in muvera("repair", index).stdout
    assert "no damage, 4 intact documents" in muvera("check", index).stdout


def test_compaction_frees_space(notes: Path, index: Path) -> None:
    muvera("index", index, notes)
    (notes / "birds.jsonl").unlink()
    muvera("index", index, notes)
    before = json.loads(muvera("info", index, "--json").stdout)["bytes"]
    assert "freed" in muvera("compact", index).stdout
    assert json.loads(muvera("info", index, "--json").stdout)["bytes"] < before
    assert ids(index) == {"notes/owls.md", "notes/sub/ants.txt"}


def test_an_index_of_token_vectors_says_that_it_takes_no_text(notes: Path, index: Path) -> None:
    with MuveraIndex.create(index, PrecomputedEmbeddings(8, "mine")) as opened:
        opened.add_embeddings([np.eye(8)[:2]] * 2, ids=["a", "b"], texts=["x", "y"])
    for command in (["search", index, "x"], ["index", index, notes]):
        assert "made elsewhere (precomputed-mine-8)" in muvera(*command, status=1).stderr
    assert "documents  2" in muvera("info", index).stdout
    muvera("compact", index)
    generation = max(index.glob("tokens-*.bin"))
    generation.write_bytes(bytes([generation.read_bytes()[0] ^ 1]) + generation.read_bytes()[1:])
    muvera("check", index, status=1)
    assert "1 document lost" in muvera("repair", index).stdout
    muvera("check", index)


# Errors


@pytest.mark.parametrize(
    "command",
    [
        ["search", "{}", "x"],
        ["words", "{}"],
        ["calibrate", "{}"],
        ["calibrate", "{}", "--remove"],
        ["info", "{}"],
        ["check", "{}"],
        ["repair", "{}"],
        ["compact", "{}"],
    ],
    ids="-".join,
)
def test_a_folder_without_an_index_gives_one_line_and_status_1(tmp_path: Path, command: list[str]) -> None:
    result = muvera(*[argument.format(tmp_path) for argument in command], status=1)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "is not a muvera index" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [[], ["search", "i"], ["search", "i", "x", "-k", "0"], ["search", "i", "x", "--filter", "{"], ["nothing"]],
    ids=str,
)
def test_misuse_has_status_2(command: list[str]) -> None:
    arguments = command or ["index"]
    assert "Usage: " in muvera(*arguments, status=2).stderr


def test_errors_say_what_to_do_on_the_command_line(notes: Path, index: Path, tmp_path: Path) -> None:
    assert "is not empty" in muvera("index", notes, notes, status=1).stderr
    muvera("index", index, notes)
    assert "the query is empty" in muvera("search", index, " ").stderr
    with MuveraIndex.open(index):
        assert "is already open for writing in this process" in muvera("index", index, notes, status=1).stderr
        assert hits(index, "owls", "-k", 1)
    (index / "manifest.json").write_text("{")
    assert "`muvera repair INDEX`" in muvera("search", index, "owls", status=1).stderr
    muvera("repair", index)
    muvera("search", index, "owls")


# Measuring and tuning


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"_id": "q1", "text": "Which bird is active after dark?"}\n{"_id": "q2", "text": "insects"}\n')
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = LearnedSetEncoder.fit
    small = {"num_features": 32, "num_anchors": 40, "num_query_tokens": 80}
    monkeypatch.setattr(
        LearnedSetEncoder, "fit", lambda sample, config, queries: fit(sample, replace(config, **small), queries)
    )
    monkeypatch.setattr(encodings, "WIDTHS", (16,))
    monkeypatch.setattr(optimizing, "_reranks_all", lambda *_: False)


@pytest.fixture
def birds(index: Path) -> Path:
    with MuveraIndex.create(index) as made:
        made.add([f"Bird number {i} is seen in month {i % 12}." for i in range(40)], ids=[f"b{i}" for i in range(40)])
    return index


def test_evaluate_prints_what_it_measured(shared_index: Path, questions: Path, tmp_path: Path) -> None:
    found = muvera("evaluate", shared_index, questions).stdout
    assert found.startswith("2 documents, 2 questions, 400 candidates\nfidelity@10 to exact MaxSim: 1.0000\n")
    assert "nDCG" not in found
    judged = tmp_path / "qrels.tsv"
    judged.write_text("query-id\tcorpus-id\tscore\nq1\towls.md\t1\n")
    result = muvera("evaluate", shared_index, questions, "--relevant", judged, "-k", 1, "--n-candidates", 2, "--json")
    measured = json.loads(result.stdout)
    assert (measured["n_queries"], measured["k"], measured["n_candidates"]) == (1, 1, 2)
    assert measured["ndcg"] == measured["mrr"] == measured["recall"] == [1, 1]
    assert measured["by_question"][0]["found"] == ["owls.md"]
    assert result.stderr == ""


def test_evaluate_reads_gzipped_files_and_takes_a_mode(shared_index: Path, questions: Path, tmp_path: Path) -> None:
    packed, judged = tmp_path / "questions.jsonl.gz", tmp_path / "qrels.tsv.gz"
    packed.write_bytes(gzip.compress(questions.read_bytes()))
    judged.write_bytes(gzip.compress(b"query-id\tcorpus-id\tscore\nq1\towls.md\t1\n"))
    result = muvera("evaluate", shared_index, packed, "--relevant", judged, "--mode", "hybrid", "--json")
    measured = json.loads(result.stdout)
    assert (measured["n_queries"], measured["mode"]) == (1, "hybrid")
    muvera("evaluate", shared_index, packed, "--mode", "dense", status=2)
    muvera("evaluate", shared_index, packed, "--lexical-weight", 2, status=2)


def test_evaluate_names_the_error(shared_index: Path, questions: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bad.jsonl").write_text("{\n")
    assert "has no questions" in muvera("evaluate", shared_index, tmp_path / "empty.txt", status=1).stderr
    assert "line 1 is not JSON" in muvera("evaluate", shared_index, tmp_path / "bad.jsonl", status=1).stderr
    assert "is not a judgement" in muvera("evaluate", shared_index, questions, "--relevant", questions, status=1).stderr
    muvera("evaluate", shared_index, tmp_path / "nowhere.txt", status=2)
    muvera("evaluate", tmp_path / "nowhere", questions, status=1)


def test_evaluate_prints_even_if_it_cannot_draw(
    shared_index: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    result = muvera("evaluate", shared_index, questions, "--plot", tmp_path / "curve.svg", status=1)
    assert "fidelity@10" in result.stdout
    assert "pip install 'muvera-core[plot]'" in result.stderr


def test_optimize_prints_its_choice_and_info_shows_it(birds: Path, quick: None) -> None:
    assert "optimized" not in muvera("info", birds).stdout
    assert json.loads(muvera("info", birds, "--json").stdout)["tuning"] is None
    said = muvera("optimize", birds, "--target-recall", 0.9, "-k", 5, "--n-queries", 10).stdout.strip()
    assert "candidates for 5 hits: recall " in said
    assert f"optimized  {said}" in muvera("info", birds).stdout.splitlines()
    chosen = json.loads(muvera("info", birds, "--json").stdout)["tuning"]
    assert (chosen["k"], chosen["measured"]["target_recall"], chosen["measured"]["n_queries"]) == (5, 0.9, 10)
    assert f" {chosen['n_candidates']} candidates for 5 hits" in said
    assert len(hits(birds, "Which bird is seen in month 3?")) == 5
    muvera("check", birds)


def test_optimize_asks_in_the_documents_own_words(birds: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    encode = BundledEncoder.encode_queries

    def noting(self: BundledEncoder, texts: Sequence[str]) -> TokenEmbeddings:
        asked.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(BundledEncoder, "encode_queries", noting)
    monkeypatch.setattr(queries, "_PSEUDO_QUERIES", 30)
    monkeypatch.setattr(choose, "_could_be_faster", lambda *_: True)
    muvera("optimize", birds, "-k", 5, "--n-queries", 10)
    assert len(asked) == 30 + 10 // 2
    assert all(text in " ".join(f"Bird number {i} is seen in month {i % 12}." for i in range(40)) for text in asked)


def test_optimize_takes_questions(birds: Path, quick: None, questions: Path, tmp_path: Path) -> None:
    muvera("optimize", birds, "--questions", questions)
    assert json.loads(muvera("info", birds, "--json").stdout)["tuning"]["measured"]["n_queries"] == 2
    with MuveraIndex.create(tmp_path / "vectors", PrecomputedEmbeddings(4, "mine")) as made:
        made.add_embeddings([np.eye(4)[[i % 4]] + 0.1 * i for i in range(30)])
    muvera("optimize", tmp_path / "vectors", "--n-queries", 5)  # encodes no text
    assert "no text can" in muvera("optimize", tmp_path / "vectors", "--questions", questions, status=1).stderr
    assert "no text can" in muvera("optimize", tmp_path / "vectors", "--encoder", tmp_path, status=1).stderr
    assert "no text can" in muvera("evaluate", tmp_path / "vectors", questions, status=1).stderr


def test_optimize_chooses_the_share_of_words_by_judged_questions(
    birds: Path, quick: None, questions: Path, tmp_path: Path
) -> None:
    judged = tmp_path / "qrels.tsv"
    judged.write_text("query-id\tcorpus-id\tscore\nq1\tb3\t1\nq2\tb4\t1\n")
    said = muvera("optimize", birds, "--questions", questions, "--relevant", judged).stdout
    assert "; BM25's share chosen for each question: nDCG " in said
    with MuveraIndex.open(birds) as opened:
        opened.engine.writer.learn(replace(opened.engine.collection.learned, lexical_weight=0.3))
    assert "hybrid     BM25's share 0.3" in muvera("info", birds).stdout
    assert json.loads(muvera("info", birds, "--json").stdout)["lexical_weight"] == 0.3
    assert "give --questions, too" in muvera("optimize", birds, "--relevant", judged, status=1).stderr
    muvera("words", birds, "--remove")
    refused = muvera("optimize", birds, "--questions", questions, "--relevant", judged, status=1)
    assert "which --relevant needs: `muvera words INDEX`" in refused.stderr


def test_optimize_says_that_few_documents_gain_nothing(birds: Path) -> None:
    result = muvera("optimize", birds)
    assert "400 candidates for 10 hits" in result.stdout
    assert "optimize leaves stage one as it is: a search reranks up to 400 documents" in result.stderr
    assert json.loads(muvera("info", birds, "--json").stdout)["tuning"] is None


def test_optimize_needs_documents(shared_index: Path) -> None:
    assert "got 2" in muvera("optimize", shared_index, status=1).stderr
    muvera("optimize", shared_index, "--target-recall", 2, status=2)


def test_a_calibrated_index_prints_probabilities(birds: Path) -> None:
    asked = "Bird number 7 is seen in month 7."
    before = hits(birds, asked)[0]
    assert before["relevance"] == before["normalized_score"]
    assert "calibrated mode" not in muvera("info", birds).stdout
    report = muvera("calibrate", birds, "--n-queries", 30).stdout
    assert report.startswith("mode 'late', measured on 30 parts of documents, held out")
    found = hits(birds, asked)[0]
    assert (found["id"], found["score"], found["normalized_score"]) == (
        "b7",
        before["score"],
        before["normalized_score"],
    )
    assert found["relevance"] != found["normalized_score"]
    assert muvera("search", birds, asked).stdout.startswith(f"1. {found['relevance']:.3f}  b7\n")
    assert "calibrated mode late, by 0 judged questions and 30 parts of documents" in muvera("info", birds).stdout
    assert json.loads(muvera("info", birds, "--json").stdout)["calibration"]["late"]["n_made"] == 30
    least = (found["relevance"] + hits(birds, asked)[1]["relevance"]) / 2
    assert [hit["id"] for hit in hits(birds, asked, "--min-score", least)] == ["b7"]
    assert muvera("calibrate", birds, "--remove").stdout == "the calibration was removed\n"
    assert hits(birds, asked)[0] == before
    assert json.loads(muvera("calibrate", birds, "--remove", "--json").stdout) == {"removed": False}


def test_calibrate_takes_judged_questions_also_some_without_an_answer(birds: Path, tmp_path: Path) -> None:
    asked = [{"_id": f"q{i}", "text": f"When is bird number {i} seen?"} for i in range(12)]
    questions, judged = tmp_path / "questions.jsonl", tmp_path / "qrels.tsv"
    questions.write_text("\n".join(map(json.dumps, asked)))
    rows = [f"q{i}\tb{i}\t{int(i < 8)}" for i in range(10)]  # 8 with an answer, 2 without, 2 without a judgement
    judged.write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    arguments = ("--questions", questions, "--relevant", judged, "--n-queries", 20)
    report = json.loads(muvera("calibrate", birds, *arguments, "--json").stdout)
    assert (report["mode"], report["n_judged"], report["n_made"]) == ("late", 10, 20)
    assert "give both, or neither" in muvera("calibrate", birds, "--questions", questions, status=1).stderr
    assert "leave out --n-queries" in muvera("calibrate", birds, "--remove", "--n-queries", 30, status=1).stderr
    hybrid = json.loads(muvera("calibrate", birds, *arguments, "--mode", "hybrid", "--json").stdout)
    assert (hybrid["mode"], hybrid["n_judged"]) == ("hybrid", 10)
    assert "mode hybrid, by 10 judged questions and" in muvera("info", birds).stdout
    assert "give --questions and --relevant" in muvera("calibrate", birds, "--mode", "hybrid", status=1).stderr
    assert "n_queries must be at least 20" in muvera("calibrate", birds, "--n-queries", 5, status=1).stderr


def test_calibrate_encodes_no_text_for_token_vectors_that_were_made_elsewhere(questions: Path, tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(1), tmp_path / "vectors"
    with MuveraIndex.create(folder, PrecomputedEmbeddings(8, "mine")) as made:
        vectors = rng.standard_normal((30, 6, 8))
        made.add_embeddings(list(vectors / np.linalg.norm(vectors, axis=2, keepdims=True)))
    assert "parts of documents" in muvera("calibrate", folder, "--n-queries", 20).stdout
    given = ("--questions", questions, "--relevant", questions)
    assert "no text can" in muvera("calibrate", folder, *given, status=1).stderr


def test_texts_that_are_cut_give_one_line_of_warning(tmp_path: Path, index: Path) -> None:
    (tmp_path / "long.txt").write_text("word " * 20_000)
    result = muvera("index", index, tmp_path, "--no-split")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Warning: document 'long.txt' is too long: its characters 81919 to 99999 ")
    assert "--max-tokens" in line
    assert summary(result) == {"added": 1}


def test_an_index_keeps_the_dimension_that_it_was_made_with(notes: Path, index: Path, tmp_path: Path) -> None:
    muvera("index", index, notes, "--dimension", 64)
    assert hits(index, "Which bird is active after dark?")[0]["id"].startswith("notes/owls.md")
    assert "dimension=64" in muvera("info", index).stdout
    (notes / "frogs.txt").write_text("Frogs croak in ponds.")
    assert summary(muvera("index", index, notes))["added"] == 1
    questions = tmp_path / "questions.txt"
    questions.write_text("where do ants live\n")
    muvera("evaluate", index, questions)
    with MuveraIndex.open(index) as opened:
        assert opened.encoder.dimension == 64


def test_the_dimension_of_an_index_cannot_be_changed(notes: Path, index: Path) -> None:
    muvera("index", index, notes)
    result = muvera("index", index, notes, "--dimension", 64, status=1)
    assert "was made with --dimension 128, which cannot be changed, got 64" in result.stderr
    assert "up to 128" in " ".join(muvera("index", "--help").stdout.split())
    muvera("index", index, notes, "--dimension", 129, status=2)


def test_a_checkpoint_has_its_own_dimension(notes: Path, index: Path, tmp_path: Path) -> None:
    result = muvera("index", index, notes, "--dimension", 64, "--encoder", tmp_path, status=1)
    assert "leave out --dimension or --encoder" in result.stderr


def test_text_that_cannot_be_read_gives_one_line_of_warning(tmp_path: Path, index: Path) -> None:
    (tmp_path / "notes").mkdir()
    for name in ("one.txt", "two.txt"):
        (tmp_path / "notes" / name).write_text("أين تقع عاصمة فرنسا؟", encoding="utf-8")
    for result in (muvera("index", index, tmp_path / "notes"), muvera("search", index, "أين تقع عاصمة فرنسا؟")):
        [warning] = [line for line in result.stderr.splitlines() if line.startswith("Warning: the encoder cannot read")]
        assert "MultilingualEncoder()" in warning
        assert "--encoder names the encoder: 'multilingual', or the folder" in warning


def test_an_encoder_is_chosen_by_its_name(tmp_path: Path, index: Path) -> None:
    pytest.importorskip("muvera_multilingual", reason="needs muvera-core[multilingual]")
    (tmp_path / "notes").mkdir()
    for name, line in (("eule.txt", "Eulen jagen nachts."), ("ameise.txt", "Ameisen leben in Kolonien.")):
        (tmp_path / "notes" / name).write_text(line, encoding="utf-8")
    muvera("index", index, tmp_path / "notes", "--encoder", "multilingual")
    found = muvera("search", index, "夜间捕猎的是谁？", "-k", "1", "--encoder", "multilingual", "--json")
    assert json.loads(found.stdout)["id"] == "notes/eule.txt"
    assert json.loads(muvera("info", index, "--json").stdout)["encoder"].startswith("multilingual-e5-small")
    refused = muvera("search", index, "owls", "--encoder", "bundled", status=1)
    assert "--encoder names the encoder: 'multilingual'" in refused.stderr


def test_a_folder_without_a_checkpoint_is_refused(shared_index: Path, tmp_path: Path) -> None:
    result = muvera("search", shared_index, "owls", "--encoder", tmp_path / "nowhere", status=1)
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["info", "{}"], ["check", "{}"]], ids=str)
def test_no_model_is_imported_before_it_is_needed(shared_index: Path, command: list[str]) -> None:
    arguments = [argument.format(shared_index) for argument in command]
    code = (
        "import sys; from muvera_core.cli import main\n"
        f"try: main({arguments!r})\nfinally: print(sorted({{'onnxruntime', 'tokenizers', 'torch'}} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert out.splitlines()[-1] == "[]"
