"""Starts the processes of a service, looks after them, and stops them.

One worker answers everything in this process. Several workers are processes that read; they share the listening
sockets, and pass on what changes the index to one more process, which writes. Then this process only looks after them.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import FrameType

from muvera_core.errors import InvalidInputError, MissingExtraError, ServiceError
from muvera_core.serving.ending import handling_signals
from muvera_core.serving.listening import is_loopback, listen, url_of
from muvera_core.serving.plan import WorkerPlan
from muvera_core.serving.settings import ServiceSettings
from muvera_core.serving.worker_process import SAVING_TIMEOUT, WorkerProcess
from muvera_core.validation import require_count, require_path

_TICK = 0.05
# Processes in a row that a worker may lose before a service without a working reader gives up.
_MOST_FAILURES = 5
# Most bytes of the path of the temporary folder. That of a Unix domain socket in it can have about a hundred.
_MAX_TEMPORARY_PATH = 70
_log = logging.getLogger(__name__)


def serve(
    path: str | os.PathLike[str],
    settings: ServiceSettings | None = None,
    *,
    hosts: Sequence[str] = ("127.0.0.1",),
    port: int = 8000,
    workers: int = 1,
    read_only: bool = False,
    create: bool = False,
    encoder: str | None = None,
    encoder_device: str | None = None,
    device: str = "cpu",
    without_token: bool = False,
    stop_timeout: float = 30.0,
    access_log: bool = False,
    on_ready: Callable[[list[str]], None] | None = None,
) -> None:
    """Serve an index over HTTP until a signal comes: SIGINT, SIGTERM, or SIGHUP.

    Requests that are running may then end, and the index is closed. A second signal ends everything at once. Call this
    from the main thread.

    Args:
        path: the index's folder.
        settings: limits of the service. None takes the defaults.
        hosts: names or addresses of this machine to listen on.
        port: the port. 0 takes a free one.
        workers: number of processes that answer requests. From 2 on, one more process writes.
        read_only: refuse what changes the index. Another process may then write to it.
        create: make the index if there is none.
        encoder: name of a packaged encoder, or a model's folder. None takes the one that the index takes by itself.
        encoder_device: the device that the encoder computes on. None takes the encoder's own default.
        device: the device to search on.
        without_token: let everybody in who can reach a host that other machines can reach.
        stop_timeout: seconds that running requests get to end.
        access_log: whether to log every request.
        on_ready: called with the service's URLs when all workers answer requests.

    Raises:
        InvalidInputError: an argument cannot be used, or there is neither a token nor ``without_token``.
        MissingExtraError: a package of the extra "serve" is not installed.
        ServiceError: the port is in use, or a worker cannot start.
        MuveraError: the index cannot be opened.
    """
    _require_extra()
    settings = ServiceSettings() if settings is None else settings
    workers = require_count("workers", workers)
    if workers > 1 and sys.platform == "win32":
        raise InvalidInputError(f"Windows cannot share a socket among workers, got workers={workers}: use 1")
    if create and read_only:
        raise InvalidInputError("an index cannot be made by a service that only reads: leave out create or read_only")
    folder = require_path("path", path)
    _require_token(hosts, settings, without_token)
    plan = WorkerPlan(
        str(folder),
        settings,
        read_only=read_only,
        create=create,
        encoder=encoder,
        encoder_device=encoder_device,
        device=device,
        stop_timeout=stop_timeout,
        access_log=access_log,
    )
    with ExitStack() as held:
        sockets = [held.enter_context(one) for one in listen(hosts, port)]
        urls = [url_of(one) for one in sockets]

        def announce() -> None:
            if on_ready is not None:
                on_ready(urls)

        if workers == 1:
            from muvera_core.serving.worker import run_worker

            run_worker(plan, sockets, on_ready=announce)
        else:
            temporary = held.enter_context(_private_folder())
            _Supervisor(*_plan_processes(plan, sockets, workers, temporary), stop_timeout).run(announce)


def _require_extra() -> None:
    for package in ("fastapi", "uvicorn", "httpx", "prometheus_client"):
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(f"serving needs {package}: run pip install 'muvera-core[serve]'") from error


def _require_token(hosts: Sequence[str], settings: ServiceSettings, without_token: bool) -> None:
    if isinstance(hosts, str) or not hosts:
        raise InvalidInputError(f"hosts must be a list of at least one name or address, got {hosts!r}")
    if settings.tokens or without_token:
        return
    for host in hosts:
        if not is_loopback(host):
            raise InvalidInputError(
                f"everybody who reaches {host} could read and change the index: set a token (--token-file, or "
                "tokens of ServiceSettings), or say that it is for everybody (--no-token, or without_token=True)"
            )


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A temporary folder that only this user can enter."""
    parent = None if len(os.fsencode(tempfile.gettempdir())) <= _MAX_TEMPORARY_PATH else "/tmp"
    folder = Path(tempfile.mkdtemp(prefix="muvera-serve-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plan_processes(
    plan: WorkerPlan, sockets: Sequence[socket.socket], workers: int, temporary: Path
) -> tuple[WorkerProcess | None, list[WorkerProcess]]:
    """The process that writes, if there is one, and those that read."""
    metrics = temporary / "metrics"
    metrics.mkdir()
    writer, writes_at = None, None
    if not plan.read_only:
        writes_at = str(temporary / "writer")
        # Only this user's processes reach it, and the readers have checked token and size.
        unguarded = replace(plan.settings, tokens=(), max_body_bytes=4 * plan.settings.max_body_bytes)
        of_writer = replace(plan, name="writer", settings=unguarded, listens_at=writes_at, access_log=False)
        writer = WorkerProcess(of_writer, [], workers)
    reading = replace(plan, read_only=True, create=False, writer=writes_at, metrics_folder=str(metrics))
    readers = [
        WorkerProcess(replace(reading, name=f"reader-{number}"), sockets, workers) for number in range(1, workers + 1)
    ]
    return writer, readers


class _Supervisor:
    """Looks after the processes of a service until a signal comes."""

    def __init__(self, writer: WorkerProcess | None, readers: Sequence[WorkerProcess], stop_timeout: float) -> None:
        self._writers = [] if writer is None else [writer]
        self._readers, self._stop_timeout = list(readers), stop_timeout
        self._signals: list[int] = []
        self._was_ready = False

    def run(self, announce: Callable[[], None]) -> None:
        """Start the processes, and stop them at the end, whatever ends it."""
        with handling_signals(self._note):
            try:
                while not self._signals:
                    self._look_after()
                    if not self._was_ready and all(worker.is_ready for worker in self._writers + self._readers):
                        self._was_ready = True
                        announce()
                    time.sleep(_TICK)
                _log.info("stopping: running requests get %g s", self._stop_timeout)
                # Readers first, because what they have begun may need the writer.
                self._stop(self._readers)
                self._stop(self._writers)
            finally:
                for worker in self._readers + self._writers:
                    worker.kill()

    def _look_after(self) -> None:
        for worker in self._writers:
            worker.look_after()
        # Before it has been ready, the writer may have to make the index, or to bring it to a new format.
        if self._was_ready or all(worker.is_ready for worker in self._writers):
            for worker in self._readers:
                worker.look_after()
        for worker in self._writers + self._readers:
            if not self._was_ready and worker.problem and not worker.is_running:
                raise ServiceError(worker.problem)
            in_vain = worker.failures >= _MOST_FAILURES
            if in_vain and not (self._was_ready and any(reader.is_ready for reader in self._readers)):
                last = f", the last time because {worker.problem}" if worker.problem else ""
                raise ServiceError(
                    f"the service's process {worker.name} ended {worker.failures} times in a row{last}: "
                    "see the messages above"
                )

    def _stop(self, workers: Sequence[WorkerProcess]) -> None:
        for worker in workers:
            worker.stop()
        deadline = time.monotonic() + self._stop_timeout + SAVING_TIMEOUT + 1.0
        while any(worker.is_running for worker in workers) and time.monotonic() < deadline and len(self._signals) < 2:
            time.sleep(_TICK)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)
