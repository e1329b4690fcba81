"""Runs the chat as users do, in a process of its own, and opens it in a browser."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interrupts import heeding_interrupts

# Far beyond what any of it takes on a busy machine.
PATIENCE = 120.0
# What ``muvera chat`` runs, also where the package is not installed but on the path.
MUVERA = """
from muvera_chat.command import chat
from muvera_core.cli.program import main
main.add_command(chat)
main()
"""
_URL = re.compile(r"http://127\.0\.0\.1:\d+")


class RunningChat:
    """A chat that serves.

    Attributes:
        url: its address.
        lines: what it printed.
    """

    def __init__(self, *command: str | Path, folder: Path) -> None:
        self.lines: list[str] = []
        self.url = ""
        self._is_ready = threading.Event()
        with heeding_interrupts():
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if match := _URL.search(line):
                self.url = match[0]
                self._is_ready.set()
        self._is_ready.set()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_until_ready(self) -> None:
        assert self._is_ready.wait(PATIENCE), self.output
        assert self.url, self.output

    def stop(self) -> int:
        """End it as Ctrl-C does. Returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self._reader.join(PATIENCE)
            assert self.process.stdout is not None
            self.process.stdout.close()


@contextmanager
def running(*command: str | Path, folder: Path) -> Iterator[RunningChat]:
    """Run a Python program that serves a chat, in a folder."""
    chat = RunningChat(*command, folder=folder)
    try:
        chat.wait_until_ready()
        yield chat
    finally:
        chat.stop()


@contextmanager
def running_command(*arguments: str | Path, folder: Path) -> Iterator[RunningChat]:
    """Run ``muvera chat`` with these arguments, in a folder."""
    with running("-c", MUVERA, "chat", *arguments, "--port", "0", folder=folder) as chat:
        yield chat


def find_browser() -> str | None:
    """The path of a browser that can be driven. None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Reader:
    """A user with a browser of their own.

    Attributes:
        page: the page of Playwright.
        foreign: addresses at other hosts that the page has asked for.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.foreign: list[str] = []
        page.set_default_timeout(PATIENCE * 1000)
        page.on("request", self._note)
        page.goto(url)
        page.wait_for_selector("#mv-box textarea")

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.foreign.append(request.url)

    def ask(self, question: str, *, wait: bool = True) -> Any:
        """Ask, and wait for the whole answer. Returns its element."""
        n = self.page.locator(".mv-turn").count()
        self.page.fill("#mv-box textarea", question)
        self.page.press("#mv-box textarea", "Enter")
        self.page.wait_for_function(f"document.querySelectorAll('.mv-turn').length > {n}")
        turn = self.page.locator("#mv-current .mv-turn")
        if wait:
            turn.locator(":is(.mv-answered, .mv-not_found, .mv-failed)").wait_for()
        return turn

    def upload(self, *files: Path) -> None:
        """Add files, and wait until all of them are done or refused."""
        self.page.set_input_files("#mv-drop input[type=file]", [str(file) for file in files])
        for file in files:
            shown = f"#mv-documents li:is(.mv-unusable, :not([class])):has-text('{file.stem}')"
            self.page.locator(shown).first.wait_for()
        time.sleep(0.2)

    def files(self) -> list[str]:
        """The names of the files that are listed."""
        return [str(text) for text in self.page.locator("#mv-files li .mv-path").all_inner_texts()]

    def wait_for_files(self, *names: str) -> None:
        """Wait until these files, and no others, are listed."""
        deadline = time.monotonic() + PATIENCE
        while sorted(self.files()) != sorted(names):
            assert time.monotonic() < deadline, f"waited in vain for {names}, there are {self.files()}"
            time.sleep(0.05)
