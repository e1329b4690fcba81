"""Commands that other distributions bring to the program ``muvera``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import click

print("imported")

@click.command()
@click.argument("name")
def greet(name):
    click.echo(f"hello {name}")

@click.command()
def search():
    click.echo("not ours")

number = 3
"""
ENTRY_POINTS = """
[muvera.commands]
greet = plugin_for_tests:greet
search = plugin_for_tests:search
broken = no_such_module_for_tests:run
number = plugin_for_tests:number
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder in which a distribution with commands is installed."""
    (tmp_path / "plugin_for_tests.py").write_text(MODULE)
    information = tmp_path / "plugin_for_tests-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-for-tests\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    return tmp_path


def muvera(site: Path, *arguments: str) -> tuple[int, str, str]:
    code = f"import sys; sys.path.append({str(site)!r}); from muvera_core.cli import main; main({list(arguments)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_command_of_another_distribution_is_run(site: Path) -> None:
    assert muvera(site, "greet", "owl") == (0, "imported\nhello owl\n", "")


def test_the_list_of_commands_imports_none_of_them(site: Path) -> None:
    status, out, _ = muvera(site, "--help")
    assert status == 0
    assert "imported" not in out
    lines = [line.split(None, 1) for line in out.splitlines()]
    assert ["greet", "From plugin-for-tests."] in lines
    assert "broken" in [line[0] for line in lines if line]


def test_a_command_that_cannot_be_loaded_says_so_and_disturbs_no_other(site: Path) -> None:
    status, out, message = muvera(site, "broken", "--anything", "x")
    assert (status, out) == (1, "")
    assert "the command broken of plugin-for-tests cannot be loaded (ModuleNotFoundError" in message
    assert "number is no click.Command" in muvera(site, "number")[2].replace("plugin_for_tests:", "")
    status, _, message = muvera(site, "search", "nowhere.muvera", "owls")
    assert (status, "nowhere.muvera is not a muvera index" in message) == (1, True)  # our own comes first
    assert "No such command 'unknown'" in muvera(site, "unknown")[2]


def test_a_command_that_is_not_installed_names_its_extra(site: Path) -> None:
    (site / "plugin_for_tests-1.0.dist-info" / "entry_points.txt").write_text("[muvera.commands]\n")
    from importlib.metadata import entry_points

    if entry_points(group="muvera.commands", name="chat"):
        pytest.skip("muvera-chat is installed")
    status, out, message = muvera(site, "chat", "notes.muvera", "--port", "1")
    assert (status, out) == (1, "")
    assert message == "Error: muvera chat is not installed: pip install 'muvera-core[chat]'\n"
