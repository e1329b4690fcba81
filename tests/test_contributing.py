"""CONTRIBUTING.md, the changelog, the citation and the hooks agree with the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import room_map
import yaml

ROOT = Path(__file__).parents[1]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_map_of_rooms_is_up_to_date() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert room_map.with_map(text) == text, "run: python tools/room_map.py --write"


def test_every_room_says_something_on_the_map() -> None:
    rooms = [room for layer in room_map.layers() for room in layer]
    assert [room for room in rooms if len(room_map.first_sentence(room)) < 20] == []


def test_a_text_without_marks_is_refused() -> None:
    with pytest.raises(SystemExit, match="has lost the lines"):
        room_map.with_map("# Contributing\n")


def test_files_that_are_named_exist() -> None:
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        named = re.findall(r"\b(?:tools|tests|docs|core|integrations)/[\w./-]*\w", text)
        assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_changelog_begins_with_what_is_in_the_packages() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}|unreleased))?$", text, flags=re.MULTILINE)
    named = [version for version, _ in versions if version != "Unreleased"]
    assert named[0] == VERSION
    assert named == sorted(named, key=lambda version: tuple(map(int, version.split("."))), reverse=True)
    sections = set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_complete_and_of_this_version() -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == VERSION
    assert citation["license"] == "Apache-2.0"
    assert all(citation[field] for field in ("message", "title", "type", "abstract", "keywords"))
    assert all("name" in author or "family-names" in author for author in citation["authors"])
    papers = {identifier["value"] for each in citation["references"] for identifier in each["identifiers"]}
    assert "10.48550/arXiv.2405.19504" in papers


def test_hooks_check_with_the_version_that_the_tests_check_with() -> None:
    requirements = (ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    [ruff] = [line for line in requirements if line.startswith("ruff")]
    hooks = {hook["id"]: hook for repo in read_yaml(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]}
    assert hooks["ruff-check"]["additional_dependencies"] == [ruff]
    assert hooks["ruff-format"]["additional_dependencies"] == [ruff]
    assert "mypy" in hooks["mypy"]["entry"]
