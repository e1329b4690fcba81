"""Runs ``muvera serve`` as users do, and talks to its workers."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

# Far beyond what any of it takes on a busy machine.
PATIENCE = 90.0


# Made once, because that takes long.
_NO_TLS = ssl.create_default_context()


def _client() -> httpx.Client:
    return httpx.Client(timeout=PATIENCE, verify=_NO_TLS)


def wait_until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait until something is true, and fail if it does not become so."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


class Service:
    """A running ``muvera serve``."""

    def __init__(self, index: Path, *options: str, token: str | None = None) -> None:
        self.index, self.lines = index, list[str]()
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        command = [sys.executable, "-m", "muvera_core.cli", "serve", str(index), "--port", "0", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def url(self) -> str:
        found = re.search(r"served at (http://\S+)", self.output)
        assert found is not None, self.output
        return found[1]

    def started(self) -> Self:
        """Wait until it answers."""
        wait_until(lambda: "served at" in self.output or self.process.poll() is not None, "the service started")
        assert self.process.poll() is None, self.output
        return self

    @property
    def pids(self) -> dict[str, int]:
        """The newest process of each worker that was ready."""
        return {name: int(pid) for name, pid in re.findall(r"(\S+) is ready \(process (\d+)\)", self.output)}

    def wait_for_another(self, worker: str, pid: int) -> None:
        """Wait until another process took the place of one of a worker."""
        wait_until(lambda: self.pids[worker] != pid, f"{worker} was replaced: {self.output}")

    def call(self, name: str, client: httpx.Client | None = None, **arguments: Any) -> httpx.Response:
        """Make a call of the index, on a new connection if none is given."""
        if client is None:
            with _client() as new:
                return self.call(name, new, **arguments)
        return client.post(f"{self.url}/v1/{name}", json=arguments, headers=self.headers)

    def get(self, path: str) -> httpx.Response:
        with _client() as client:
            return client.get(self.url + path, headers=self.headers)

    @contextmanager
    def connections(self, *workers: str) -> Iterator[dict[str, httpx.Client]]:
        """A connection to each of these workers."""
        found: dict[str, httpx.Client] = {}
        deadline = time.monotonic() + PATIENCE
        try:
            while not set(workers) <= set(found):
                assert time.monotonic() < deadline, f"reached only {sorted(found)} of {workers}"
                client = _client()
                name = client.get(f"{self.url}/health").headers["x-muvera-worker"]
                if found.setdefault(name, client) is not client:
                    client.close()
            yield {name: found[name] for name in workers}
        finally:
            for client in found.values():
                client.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it, and return its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, patience: float = PATIENCE) -> int:
        status = self.process.wait(patience)
        self._reader.join(patience)
        return status

    def __enter__(self) -> Self:
        return self.started()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.wait()
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
