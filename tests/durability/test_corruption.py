"""Damage to any file of an index is found, or changes nothing; it never changes an answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from corruption_run import describe, prepare, run, table
from damaged_folders import ENCODER, KINDS, WAYS, answers, files, make

from muvera_core import check_index, repair_index


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_never_a_wrong_answer(kind: str, tmp_path: Path) -> None:
    prepare(tmp_path, kind)
    results = run(tmp_path, kind, len(WAYS) * len(files(tmp_path / "index")), seed=1)
    failures = [result for result in results if result["outcome"] == "FAILURE"]
    assert not failures, f"{table(results)}\n{failures}"
    assert any(result["outcome"] in ("open", "read") for result in results)


def test_a_sound_index_is_found_sound_and_left_alone(tmp_path: Path) -> None:
    path = make(tmp_path, "flat")
    before = {name: (path / name).read_bytes() for name in files(path)}
    assert check_index(path).ok
    assert "no damage" in str(check_index(path))
    assert repair_index(path, ENCODER).lost == ()
    assert {name: (path / name).read_bytes() for name in files(path) if name in before} == before


def test_a_case_that_ends_its_process_is_a_failure_of_that_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, "flat")
    killer = tmp_path / "sitecustomize.py"
    killer.write_text(
        "import os, random\n"
        "seeded = random.Random.__init__\n"
        "def die(self, x=None):\n"
        "    os.abort() if x == '5 3 place' else seeded(self, x)\n"
        "random.Random.__init__ = die\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    results = run(tmp_path, "flat", 6, seed=5)
    assert [result["case"] for result in results if result["outcome"] == "FAILURE"] == [3]
    assert "exit -6" in results[3]["error"]
    assert results[3]["file"] == describe(tmp_path, 3, 5)["file"]
    assert len(results) == 6


def test_a_lost_folder_is_no_index(tmp_path: Path) -> None:
    path = make(tmp_path, "flat")
    shutil.rmtree(path)
    assert answers(path, read_only=True) == "NotAnIndexError"
