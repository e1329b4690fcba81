"""A worker of a service, seen from the process that looks after it."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from muvera_core.serving.metrics import forget_live_numbers
from muvera_core.serving.plan import WorkerPlan, variables_of_worker

# What a worker says when it answers requests, and what it is told to make it end.
READY, STOP = "ready", "stop"
# Seconds that saving stage one may take after the last request ended, until the process ends without it.
SAVING_TIMEOUT = 20.0
# Seconds until an ended worker is started again: after its first failure, doubled after each further one, at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
# A worker that has been ready for so many seconds did not fail to start.
_SOUND_AFTER = 10.0
_log = logging.getLogger(__name__)


class WorkerProcess:
    """A process that answers requests, and the next one that takes its place when it ends.

    Attributes:
        name: the worker's name, which its processes have one after the other.
        failures: processes in a row that ended before they had worked for some time.
        problem: why the last one could not start, if it said so.
    """

    def __init__(self, plan: WorkerPlan, sockets: Sequence[socket.socket], n_workers: int) -> None:
        """Describe a worker. ``look_after`` starts it.

        Args:
            plan: what the worker does.
            sockets: where it listens.
            n_workers: number of workers that share the cores.
        """
        self.name, self.failures = plan.name, 0
        self.problem: str | None = None
        self._plan, self._sockets, self._n_workers = plan, sockets, n_workers
        self._process: subprocess.Popen[str] | None = None
        self._ready = threading.Event()
        self._listener = threading.Thread()
        self._started_at = self._due = 0.0

    @property
    def is_running(self) -> bool:
        """Whether its process exists."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_ready(self) -> bool:
        """Whether it answers requests."""
        return self.is_running and self._ready.is_set()

    def look_after(self) -> None:
        """Notice that the process has ended, and start the next one when it is time."""
        if self.is_running:
            return
        if self._process is not None:
            self._note_the_end(self._process)
        if time.monotonic() >= self._due:
            self._start()

    def stop(self) -> None:
        """Tell the process to answer what it has begun, and to end."""
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(OSError):
                self._process.stdin.write(STOP)
            _close(self._process.stdin)

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        numbers = [one.fileno() for one in self._sockets]
        modules = os.pathsep.join(folder for folder in sys.path if folder)
        self._ready.clear()
        self.problem, self._started_at = None, time.monotonic()
        process = subprocess.Popen(
            # -P: a file in the current folder must not take the place of a module.
            [sys.executable, "-P", "-m", "muvera_core.serving.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            pass_fds=numbers,
            env={**os.environ, **variables_of_worker(self._n_workers), "PYTHONPATH": modules},
        )
        self._process = process
        self._listener = threading.Thread(target=self._listen, args=[process], daemon=True)
        self._listener.start()
        if process.stdin is not None:
            with suppress(OSError):  # it has ended already
                process.stdin.write(self._plan.as_json(numbers) + "\n")
                process.stdin.flush()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            try:
                said = json.loads(line)
            except ValueError:
                continue  # a library printed something
            if said == READY:
                _log.info("%s is ready (process %d)", self.name, process.pid)
                self._ready.set()
            else:
                self.problem = str(said)

    def _note_the_end(self, process: subprocess.Popen[str]) -> None:
        self._listener.join(1.0)
        self._process = None
        _close(process.stdin)
        _close(process.stdout)
        if self._plan.metrics_folder is not None:
            forget_live_numbers(self._plan.metrics_folder, self.name)
        now = time.monotonic()
        was_sound = self._ready.is_set() and now - self._started_at > _SOUND_AFTER
        self.failures = 0 if was_sound else self.failures + 1
        pause = 0.0 if was_sound else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self.failures - 1, 20))
        self._due = now + pause
        said = f" ({self.problem})" if self.problem else ""
        _log.warning(
            "%s (process %d) %s%s; another one starts in %.1f s",
            self.name,
            process.pid,
            _end_of(process.returncode),
            said,
            pause,
        )


def _end_of(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def _close(pipe: IO[str] | None) -> None:
    if pipe is not None:
        with suppress(OSError):
            pipe.close()
