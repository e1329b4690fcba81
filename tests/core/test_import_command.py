"""`muvera import` and import_documents: what is written, and what a second call does."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from muvera_core import MuveraIndex
from muvera_core.cli import main
from muvera_core.hits import Document
from muvera_core.imports import BadRecord, Imported, import_documents

RECORDS = [{"page_content": f"Passage {i} is about owls.", "id": f"p{i}", "metadata": {"n": i}} for i in range(5)]


def muvera(*arguments: object, status: int = 0) -> Result:
    # Before click 8.2, the two streams were mixed by default.
    apart: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    result = CliRunner(**apart).invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.stdout, result.stderr, result.exception)
    return result


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "documents.json", RECORDS)


def write(file: Path, records: Any) -> Path:
    file.write_text(json.dumps(records))
    return file


def test_documents_are_imported_and_found(tmp_path: Path, source: Path) -> None:
    index = tmp_path / "notes.muvera"
    lines = muvera("import", index, source).stdout.splitlines()
    assert lines[0] == f"{source}: langchain"
    assert lines[1].startswith("5 added, 0 replaced, 0 unchanged in ")
    assert lines[2] == f'ask it: muvera search {index} "your question"'
    [hit] = muvera("search", index, "passage 3", "-k", 1, "--mode", "lexical", "--json").stdout.splitlines()
    assert json.loads(hit)["id"] == "p3"
    assert json.loads(hit)["metadata"] == {"n": 3}


def test_a_second_import_writes_only_what_differs(tmp_path: Path, source: Path) -> None:
    index = tmp_path / "notes.muvera"
    muvera("import", index, source)
    write(source, [*RECORDS[:3], {**RECORDS[3], "page_content": "Ants."}, {**RECORDS[4], "metadata": {"n": True}}])
    assert "0 added, 2 replaced, 3 unchanged" in muvera("import", index, source, "--dry-run").stdout
    assert "0 added, 2 replaced, 3 unchanged" in muvera("import", index, source).stdout
    assert "0 added, 0 replaced, 5 unchanged" in muvera("import", index, source).stdout


def test_a_dry_run_writes_nothing(tmp_path: Path, source: Path) -> None:
    index = tmp_path / "notes.muvera"
    result = muvera("import", index, source, "--dry-run")
    assert "dry run, nothing was written: 5 added, 0 replaced, 0 unchanged" in result.stdout
    assert not index.exists()


def test_bad_records_are_named_and_left_out(tmp_path: Path, source: Path) -> None:
    write(source, [*RECORDS, {"page_content": ""}, {"page_content": "Twice.", "id": "p0"}, *[1] * 30])
    index = tmp_path / "notes.muvera"
    result = muvera("import", index, source)
    assert "5 added, 0 replaced, 0 unchanged, 32 bad records in" in result.stdout
    assert result.stderr.splitlines()[:2] == [
        "documents.json#6: its text is empty",
        "p0: an earlier record has the same id",
    ]
    assert result.stderr.splitlines()[-1] == "… and 12 more"


def test_strict_changes_nothing_if_there_are_bad_records(tmp_path: Path, source: Path) -> None:
    write(source, [*RECORDS, {"page_content": ""}])
    result = muvera("import", tmp_path / "notes.muvera", source, "--strict", status=1)
    assert "documents.json#6: its text is empty" in result.stderr
    assert "1 record cannot be used, and nothing was changed" in result.stderr
    assert not (tmp_path / "notes.muvera").exists()


def test_a_source_that_cannot_be_read_makes_no_index(tmp_path: Path) -> None:
    (tmp_path / "index.pkl").touch()
    result = muvera("import", tmp_path / "notes.muvera", tmp_path, status=1)
    assert result.stderr.startswith("Error: ")
    assert "is a pickle" in result.stderr
    assert not (tmp_path / "notes.muvera").exists()


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path, source: Path) -> None:
    result = muvera("import", tmp_path, source, status=1)
    assert "Error: " in result.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"documents.json"}


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_killed_import_goes_on_where_it_ended(tmp_path: Path) -> None:
    records = [{"page_content": f"Passage {i}. " + "Owls hunt at night. " * 30, "id": f"p{i}"} for i in range(400)]
    source, index = write(tmp_path / "documents.json", records), tmp_path / "notes.muvera"
    command = [sys.executable, "-m", "muvera_core.cli", "import", str(index), str(source)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while time.monotonic() < end and not has_documents(index):
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    with MuveraIndex.open(index, read_only=True) as read:
        kept = len(read)
    assert kept > 0
    assert f"{400 - kept} added, 0 replaced, {kept} unchanged" in muvera("import", index, source).stdout


def has_documents(folder: Path) -> bool:
    try:
        with MuveraIndex.open(folder, read_only=True) as index:
            return len(index) > 0
    except Exception:  # it is just being made
        return False


def test_python_callers_choose_what_they_import() -> None:
    def records() -> Iterator[Imported]:
        yield Document("owl", "Owls hunt at night.", {"legs": 2})
        yield BadRecord("ant", "its text is empty")
        yield Document("heron", "Herons stand still.")

    counts: list[int] = []
    with MuveraIndex.create(None) as index:
        report = import_documents(index, records(), on_progress=counts.append)
        assert (report.n_added, report.bad) == (2, [BadRecord("ant", "its text is empty")])
        assert str(report) == "2 added, 0 replaced, 0 unchanged, 1 bad record"
        assert index.get("owl") == [Document("owl", "Owls hunt at night.", {"legs": 2})]
        assert import_documents(index, records()).n_unchanged == 2
    assert counts == [2]
