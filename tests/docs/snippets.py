"""Runs the code blocks of the repository's Markdown pages, each page in order, in one namespace and one folder.

``python tests/docs/snippets.py --list`` prints what is run, what is parsed, and what is not run and why.

``setup/NAME.py`` runs before the page ``docs/NAME.md`` (``setup/langchain-README.py`` before
``integrations/langchain/README.md``): it defines names that the page takes for given, such as ``texts``. If it sets
``START_AFRESH = True``, every section of level 2 has a folder and a namespace of its own.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from configurations import PARSERS
from markdown_pages import ROOT, Block, blocks_of, pages
from not_run import reason_not_to_run

HERE = Path(__file__).parent
# Where the pages expect a service, and what a machine has none of.
_ADDRESS = re.compile(r"(127\.0\.0\.1|localhost):8000")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_OURS = re.compile(r"^(muvera_|langchain_muvera|llama_index\.retrievers\.muvera)")
# Far beyond what a command takes on a busy machine.
_PATIENCE = 300.0


class SnippetError(AssertionError):
    """A block does not do what its page says; the message names the page and the line."""


@dataclass(frozen=True)
class Step:
    """What is done with a block, or with one command of it: "run", "parsed", or "not run" and why."""

    block: Block
    code: str
    what: str
    reason: str = ""


def steps_of(block: Block) -> list[Step]:
    """What is done with a block.

    Raises:
        SnippetError: nothing is known about blocks of this language.
    """
    if block.language == "python":
        reason = reason_not_to_run(block.page, "python", block.code)
        return [Step(block, block.code, "run" if reason is None else "not run", reason or "")]
    if block.language == "bash":
        found = []
        for command in commands_of(block):
            reason = reason_not_to_run(block.page, "bash", command)
            found.append(Step(block, command, "run" if reason is None else "not run", reason or ""))
        return found
    if block.language in PARSERS:
        return [Step(block, block.code, "parsed")]
    known = ", ".join(["bash", "python", *sorted(PARSERS)])
    raise SnippetError(f"{block.place}: a block in {block.language or 'no language'!r}. Known are {known}")


def commands_of(block: Block) -> list[str]:
    """The commands of a bash block: lines that belong together are joined, comments and blank lines left out."""
    commands, open_line = [], ""
    for line in block.code.splitlines():
        open_line += line
        if open_line.endswith("\\"):
            open_line = open_line[:-1]
            continue
        try:
            words = shlex.split(open_line, comments=True)
        except ValueError:  # within quotes
            open_line += "\n"
            continue
        if words:
            commands.append(open_line.strip())
        open_line = ""
    if open_line.strip():
        raise SnippetError(f"{block.place}: the last command does not end: {open_line!r}")
    return commands


def check_not_run(step: Step) -> None:
    """Checks what can be checked of code that is not run.

    Raises:
        SnippetError: it does not compile, imports what does not exist, or names an extra, a script or an option that
            does not exist.
    """
    if step.block.language == "python":
        _check_python(step)
    elif "pip install" in step.code:
        _check_extras(step)
    elif match := re.search(r"\bmuvera ([a-z-]+) (.*)", step.code, flags=re.DOTALL):
        _check_command(step, match[1], match[2])
    elif match := re.search(r"\b((?:tests|tools|examples)/\S+\.(?:py|sh))(.*)", step.code, flags=re.DOTALL):
        script = ROOT / match[1]
        text = script.read_text(encoding="utf-8") if script.is_file() else None
        if text is None:
            raise SnippetError(f"{step.block.place}: there is no {match[1]}")
        missing = [option for option in re.findall(r"(?<=\s)--[a-z0-9-]+", match[2]) if not _has_option(text, option)]
        if missing and script.suffix == ".py":
            raise SnippetError(f"{step.block.place}: {match[1]} has no option {missing[0]}")


def _check_command(step: Step, name: str, arguments: str) -> None:
    from muvera_core.cli import main

    command = main.get_command(click.Context(main), name)
    if command is None or command.ignore_unknown_options:
        return  # of a distribution that is not here
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    missing = [option for option in re.findall(r"(?<!\S)--[a-z0-9-]+", arguments) if option not in known]
    if missing:
        raise SnippetError(f"{step.block.place}: muvera {name} has no option {missing[0]}")


def _has_option(script: str, option: str) -> bool:
    return f'"{option}"' in script or f'"{option},' in script or option.lstrip("-").replace("-", "_") in script


def _check_python(step: Step) -> None:
    tree = ast.parse(step.code)
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not _OURS.match(node.module or ""):
            continue
        try:
            module = importlib.import_module(node.module or "")
        except ImportError:
            continue  # needs a package that is not here
        for alias in node.names:
            if not hasattr(module, alias.name):
                raise SnippetError(f"{step.block.place}: {node.module} has no {alias.name}")


def _check_extras(step: Step) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"muvera-core\[([^\]]+)\]", step.code):
        for extra in extras.split(","):
            if extra not in project["optional-dependencies"]:
                raise SnippetError(f"{step.block.place}: muvera-core has no extra [{extra}]")


@dataclass
class PageRun:
    """The blocks of one page, run in a folder.

    Attributes:
        page: the page's path below the root.
        folder: an empty folder.
        sections: headings of level 2 whose blocks are run; all of them if there are none.
        output: what the latest block that was run has printed.
        ran: steps that were run or parsed.
    """

    page: str
    folder: Path
    sections: frozenset[str] = frozenset()
    output: str = ""
    ran: list[Step] = field(default_factory=list)
    _port: int = 0

    def run(self) -> None:
        """Runs all blocks.

        Raises:
            SnippetError: a command failed, or a block shows another output than its code has.
            Exception: whatever a block of Python raises, with the page and the line in its traceback.
        """
        blocks = [block for block in blocks_of(self.page) if not self.sections or block.section in self.sections]
        afresh = "START_AFRESH = True" in self._setup()
        self._port = _free_port()
        for section, members in groupby(blocks, key=lambda block: block.section if afresh else ""):
            folder = self.folder / (re.sub(r"\W+", "-", section) or "page")
            folder.mkdir(exist_ok=True)
            with contextlib.chdir(folder), _service_ended(folder), _closed() as namespace:
                self._python(f"setup of {self.page}", 0, self._setup(), namespace)
                for block in members:
                    self._block(block, folder, namespace)

    def _block(self, block: Block, folder: Path, namespace: dict[str, Any]) -> None:
        steps = steps_of(block)
        for step in steps:
            if step.what == "not run":
                check_not_run(step)
        ran = [step for step in steps if step.what != "not run"]
        self.ran += ran
        if not ran:
            return
        if block.language == "python":
            self.output = self._python(str(ROOT / block.page), block.line, block.code, namespace)
        elif block.language == "bash":
            self.output = self._bash(block, [step.code for step in ran], folder)
        else:
            PARSERS[block.language](block)
            if self.output and block.follows and block.language in ("text", "json"):
                self._compare(block)
            self.output = ""

    def _python(self, name: str, line: int, code: str, namespace: dict[str, Any]) -> str:
        code = "\n" * line + self._with_port(code)  # so that a traceback has the line of the page
        printed = io.StringIO()
        compiled = compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with contextlib.redirect_stdout(printed):
            if compiled.co_flags & inspect.CO_COROUTINE:
                asyncio.run(eval(compiled, namespace))
            else:
                exec(compiled, namespace)
        return printed.getvalue()

    def _bash(self, block: Block, commands: list[str], folder: Path) -> str:
        script = self._with_port("\n".join(["set -euo pipefail", *commands]))
        environment = dict(os.environ, PATH=f"{HERE / 'bin'}:{os.environ['PATH']}", DOCS_PYTHON=sys.executable)
        if "examples/" in script and not (folder / "examples").exists():
            (folder / "examples").symlink_to(ROOT / "examples")
        environment |= {"DOCS_PORT": str(self._port), "PYTHONWARNINGS": "default"}
        done = subprocess.run(
            ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=_PATIENCE
        )
        if done.returncode != 0:
            raise SnippetError(f"{block.place}: exit status {done.returncode} of\n{script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _with_port(self, code: str) -> str:
        return _ADDRESS.sub(rf"\1:{self._port}", code).replace("0.0.0.0", "127.0.0.1")

    def _compare(self, block: Block) -> None:
        """Compares a block that shows output with the output of the block before it, but for its numbers."""
        printed = [re.sub(r"\s+", " ", _like(line)).strip() for line in self.output.splitlines()]
        for line in block.code.splitlines():
            shown = re.escape(re.sub(r"\s+", " ", _like(line)).strip()).replace("…", ".*")
            if shown and not any(re.fullmatch(shown, each) for each in printed):
                raise SnippetError(f"{block.place}: shows {line!r}, but the code before it printed\n{self.output}")

    def _setup(self) -> str:
        path = HERE / "setup" / f"{setup_name(self.page)}.py"
        return path.read_text(encoding="utf-8") if path.exists() else ""


def setup_name(page: str) -> str:
    """The name of a page's setup file: that of the page, and for a README that of its folder before it."""
    path = Path(page)
    return path.stem if path.stem != "README" or path.parent == Path() else f"{path.parent.name}-{path.stem}"


def _like(line: str) -> str:
    return _NUMBER.sub("0", line)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextlib.contextmanager
def _closed() -> Iterator[dict[str, Any]]:
    """A namespace, whose indexes, stores and clients are closed at the end."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        yield namespace
    finally:
        for value in namespace.values():
            close: Callable[[], object] | None = getattr(value, "close", None)
            if not isinstance(value, type) and _OURS.match(type(value).__module__ + ".") and callable(close):
                close()


@contextlib.contextmanager
def _service_ended(folder: Path) -> Iterator[None]:
    """Ends the service that ``bin/muvera serve`` has started in a folder."""
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((folder / ".service.pid").read_text()), signal.SIGTERM)


def all_steps() -> list[Step]:
    """What is done with all blocks of all pages."""
    return [step for page in pages() for block in blocks_of(page) for step in steps_of(block)]


def _print_list() -> None:
    steps = all_steps()
    for step in steps:
        [first, *rest] = step.code.strip().splitlines() or [""]
        code = first + (" …" if rest else "")
        what = f"not run ({step.reason})" if step.reason else step.what
        print(f"{step.block.place}\t{step.block.language}\t{what}\t{code}")
    counts = {what: sum(step.what == what for step in steps) for what in ("run", "parsed", "not run")}
    print(", ".join(f"{count} {what}" for what, count in counts.items()), f"on {len(pages())} pages", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:] != ["--list"]:
        raise SystemExit("usage: python tests/docs/snippets.py --list")
    _print_list()
