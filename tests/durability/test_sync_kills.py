"""A process that is killed while it brings an index in step with files: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from muvera_core import MuveraIndex, check_index, sync_files

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
N_FILES = 40


def write_files(folder: Path, edition: int) -> None:
    """Files of two passages each. Every third file of a later edition is new, gone, or changed."""
    folder.mkdir(exist_ok=True)
    for i in range(N_FILES):
        kind = i % 4 if edition else 0
        name = f"{i}-new.md" if kind == 1 else f"{i}.md"
        changed = f" In edition {edition} it is another." if kind == 2 else ""
        if kind in (1, 3):
            (folder / f"{i}.md").unlink()
        if kind != 3:
            part = "It has some words about it, and a few more of them. " * 8
            (folder / name).write_text(f"# Part one of {i}\n\n{part}{changed}\n\n# Part two of {i}\n\n{part}\n")


def state(index: Path) -> str:
    """Something that changes with every commit."""
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{index}/documents.sqlite?mode=ro", uri=True)) as db,
    ):
        return str(db.execute("SELECT count(*), max(key) FROM documents").fetchone())
    return ""


def kill_at_a_commit(index: Path, folder: Path, options: list[str]) -> bool:
    """Start ``muvera index`` and kill it after its first commit. Returns whether it was still running."""
    command = [sys.executable, "-m", "muvera_core.cli", "index", str(index), str(folder), *options]
    before = state(index)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and state(index) in ("", "(0, None)", before):
            time.sleep(0.002)
        process.kill()
        return process.wait() == -signal.SIGKILL


def documents(index: MuveraIndex) -> dict[str, tuple[str | None, object]]:
    return {each.id: (each.text, each.metadata) for each in index.find()}


def test_a_killed_run_is_continued_without_loss_and_without_doubles(tmp_path: Path) -> None:
    killed, folder = tmp_path / "killed", tmp_path / "notes"
    n_killed = 0
    for edition, options in ((0, ["--max-tokens", "150"]), (1, []), (1, ["--max-tokens", "60"])):
        if not options or edition == 0:
            write_files(folder, edition)
        n_killed += kill_at_a_commit(killed, folder, options)
        with MuveraIndex.open(killed) as index:
            sync_files(index, folder)
            again = sync_files(index, folder)
            assert (again.added, again.replaced, again.deleted) == (0, 0, 0)
            found = documents(index)
        with MuveraIndex.create(tmp_path / f"whole-{edition}-{len(options)}") as index:
            sync_files(index, folder, reading=again.reading)
            assert found == documents(index)
        assert not check_index(killed).problems
    assert again.reading.max_tokens == 60
    assert n_killed > 0
