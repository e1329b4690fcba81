"""The workflows run what is in the repository, and publish every distribution after those that it needs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from build_packages import PACKAGES
from set_home import distributions

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[str, Any]] = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}
RELEASE = WORKFLOWS["release"]["jobs"]
PUBLISHING = {name: job for name, job in RELEASE.items() if name.startswith("publish-")}


def projects_of(name: str) -> list[str]:
    """The projects that a job publishes, by the names of their files."""
    job = PUBLISHING[name]
    projects: list[str] = job["strategy"]["matrix"]["project"] if "strategy" in job else [job["name"].split()[-1]]
    return projects


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_programs_that_are_run_are_in_the_repository(name: str) -> None:
    commands = [step["run"] for job in WORKFLOWS[name]["jobs"].values() for step in job["steps"] if "run" in step]
    named = {path for command in commands for path in re.findall(r"(?:tools|tests|\.ci)/[\w./-]+", command)}
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_jobs_end_and_have_few_rights(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    for job_name, job in WORKFLOWS[name]["jobs"].items():
        assert job["timeout-minutes"] <= 60
        assert job.get("permissions", {}) == ({"id-token": "write"} if job_name in PUBLISHING else {})
        assert "secrets." not in str(job)


def test_the_tests_are_those_of_a_developer() -> None:
    assert any(step.get("run") == "bash .ci/run" for step in WORKFLOWS["test"]["jobs"]["all"]["steps"])


def test_every_distribution_is_published_after_what_it_needs() -> None:
    order = [set(projects_of(name)) for name in ("publish-data", "publish-core", "publish-integrations")]
    assert RELEASE["publish-data"]["needs"] == "try"
    assert RELEASE["publish-core"]["needs"] == "publish-data"
    assert RELEASE["publish-integrations"]["needs"] == "publish-core"
    assert set(PUBLISHING) == {"publish-data", "publish-core", "publish-integrations"}
    published: set[str] = set()
    projects = {}
    for name in distributions(ROOT):
        project = tomllib.loads((ROOT / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        projects[project["name"].replace("-", "_")] = project
    for step in order:
        for name in step & set(projects):
            needed = {re.split(r"[^\w-]", each)[0].replace("-", "_") for each in projects[name].get("dependencies", [])}
            assert needed & set(projects) <= published | step, name
        published |= step
    assert set(projects) <= published
    assert len(published) == len(PACKAGES)


def test_only_a_tag_publishes_to_pypi() -> None:
    for job in PUBLISHING.values():
        assert job["environment"] == "${{ github.ref_type == 'tag' && 'pypi' || 'testpypi' }}"
        assert job["steps"][-1]["with"]["repository-url"] == "${{ vars.INDEX_URL }}"
        assert job["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
