"""The distributions agree with each other, and say about themselves what a package index needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from build_packages import PACKAGES
from set_home import distributions, with_absolute_links, with_urls

ROOT = Path(__file__).parents[2]
NAMES = distributions(ROOT)
PROJECTS: dict[str, dict[str, Any]] = {
    name: tomllib.loads((ROOT / name / "pyproject.toml").read_text(encoding="utf-8")) for name in NAMES
}


def test_every_pyproject_belongs_to_a_known_distribution() -> None:
    found = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*/pyproject.toml")} | {"."}
    assert sorted(found) == sorted(NAMES)
    assert set(NAMES) <= set(PACKAGES)


def test_all_have_the_version_of_the_core_and_ask_for_it() -> None:
    versions = {project["project"]["version"] for project in PROJECTS.values()}
    assert len(versions) == 1
    major, minor, *_ = versions.pop().split(".")
    ours = {project["project"]["name"] for project in PROJECTS.values()}
    for project in PROJECTS.values():
        for requirement in project["project"].get("dependencies", []):
            found = re.fullmatch(r"([\w-]+)(?:\[.*?\])?(.*)", requirement.replace(" ", ""))
            assert found is not None, requirement
            name, limits = found.groups()
            if name in ours and limits:
                assert limits == f">={major}.{minor},<{major}.{int(minor) + 1}"


@pytest.mark.parametrize("name", NAMES)
def test_a_distribution_says_what_a_package_index_shows(name: str) -> None:
    project = PROJECTS[name]["project"]
    assert project["readme"] == "README.md"
    assert len(project["description"]) < 140
    assert project["keywords"]
    assert project["authors"]
    assert project["maintainers"]
    assert project["requires-python"] == ">=3.11"
    assert "Typing :: Typed" in project["classifiers"]
    assert (ROOT / PACKAGES[name][0] / "py.typed").exists()


@pytest.mark.parametrize("name", NAMES)
def test_licences_are_named_as_pep_639_asks(name: str) -> None:
    project = PROJECTS[name]["project"]
    assert set(project["license"].split(" AND ")) <= {"Apache-2.0", "MIT"}
    assert not any(classifier.startswith("License ::") for classifier in project["classifiers"])
    for file in project["license-files"]:
        assert (ROOT / name / file).is_file()
    assert (ROOT / name / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_classifiers_are_known_and_in_order(name: str) -> None:
    known = pytest.importorskip("trove_classifiers", reason="needs trove-classifiers").classifiers
    classifiers = PROJECTS[name]["project"]["classifiers"]
    assert [each for each in classifiers if each not in known] == []
    assert len(set(classifiers)) == len(classifiers)


def test_llamahub_finds_each_public_class() -> None:
    from llama_index.retrievers import muvera

    hub = PROJECTS["integrations/llama-index"]["tool"]["llamahub"]
    assert hub["import_path"] == muvera.__name__
    classes = {name for name in muvera.__all__ if isinstance(getattr(muvera, name), type)}
    assert set(hub["class_authors"]) == classes
    assert set(hub["class_authors"].values()) == {"muvera"}
    assert hub["contains_example"] is False
    readme = (ROOT / "integrations" / "llama-index" / "README.md").read_text(encoding="utf-8")
    assert f"pip install {PROJECTS['integrations/llama-index']['project']['name']}" in readme
    assert all(f"`{name}`" in readme for name in classes)


# Links of what is published


@pytest.mark.parametrize("name", NAMES)
def test_published_readmes_link_to_files_that_exist(name: str) -> None:
    readme = (ROOT / name / "README.md").read_text(encoding="utf-8")
    text = with_absolute_links(readme, name, "https://code.example/o/n", "v1")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"""(?:\]\(|(?:src|srcset|href)=")([^)\s"]+)""", prose)
    assert [target for target in targets if not re.match("https?://|#", target)] == []
    files = [target for target in targets if target.startswith("https://code.example/")]
    for target in files:
        kind, path = re.fullmatch(r"https://code\.example/o/n/(blob|raw)/v1/([^#]*)(?:#.*)?", target).groups()  # type: ignore[union-attr]
        assert (ROOT / path).exists(), target
        assert (kind == "raw") == path.endswith((".svg", ".png")), target


def test_code_and_addresses_stay_as_they_are() -> None:
    readme = '[a](https://x.example) [b](#c)\n```python\nd["e"](f)\n```\n<img src="docs/g.svg"> [h](../i.md#j)\n'
    assert with_absolute_links(readme, "k/l", "https://x.example/o/n", "v1") == (
        '[a](https://x.example) [b](#c)\n```python\nd["e"](f)\n```\n'
        '<img src="https://x.example/o/n/raw/v1/k/l/docs/g.svg"> [h](https://x.example/o/n/blob/v1/k/i.md#j)\n'
    )


@pytest.mark.parametrize("name", NAMES)
def test_urls_are_written_once_into_the_project(name: str) -> None:
    text = (ROOT / name / "pyproject.toml").read_text(encoding="utf-8")
    once = with_urls(text, {"Homepage": "https://x.example"})
    assert tomllib.loads(once)["project"] == {**PROJECTS[name]["project"], "urls": {"Homepage": "https://x.example"}}
    assert {key: value for key, value in tomllib.loads(once).items() if key != "project"} == {
        key: value for key, value in PROJECTS[name].items() if key != "project"
    }
    assert tomllib.loads(with_urls(once, {"Issues": "https://y.example"}))["project"]["urls"] == {
        "Issues": "https://y.example"
    }


def test_the_home_must_be_an_address() -> None:
    tool = ROOT / "tools" / "set_home.py"
    done = subprocess.run([sys.executable, tool, "example.com", "--ref", "v1"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "must start with https://" in done.stderr
