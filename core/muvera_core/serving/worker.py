"""A process of a service: it opens the index and answers requests until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from muvera_core.errors import MuveraError
from muvera_core.remote import RemoteMuveraIndex
from muvera_core.serving.app import create_app
from muvera_core.serving.ending import end_at_once
from muvera_core.serving.logs import log_to_stderr
from muvera_core.serving.metrics import Metrics
from muvera_core.serving.plan import WorkerPlan
from muvera_core.serving.web_server import WebServer
from muvera_core.serving.worker_process import READY, SAVING_TIMEOUT, STOP
from muvera_core.wire import CALLS

_WRITER = "writer"
# Only names it: the writer listens on a socket.
_WRITER_URL = "http://writer"
_log = logging.getLogger(__name__)


def run_worker(
    plan: WorkerPlan,
    sockets: Sequence[socket.socket],
    *,
    on_ready: Callable[[], None],
    stopping: threading.Event | None = None,
) -> None:
    """Answer requests until the process is told to stop. Then let running ones end, and close the index.

    Args:
        plan: what to do.
        sockets: where to listen, unless the plan says where.
        on_ready: called when requests are answered.
        stopping: see ``WebServer``.

    Raises:
        MuveraError: the index cannot be opened.
    """
    with plan.open_index() as index:
        metrics = None
        if plan.name != _WRITER:
            metrics = Metrics(CALLS, folder=plan.metrics_folder, worker=plan.name)
        writer = None
        if plan.writer is not None:
            writer = RemoteMuveraIndex(_WRITER_URL, uds=plan.writer, write_timeout=plan.settings.write_timeout)
        app = create_app(index, plan.settings, writer=writer, metrics=metrics, worker=plan.name)
        server = WebServer(
            app,
            on_ready=on_ready,
            stopping=stopping,
            listens_at=plan.listens_at,
            stop_timeout=plan.stop_timeout,
            access_log=plan.access_log,
        )
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(server.serve(list(sockets) or None))
        finally:
            loop.close()
            overdue = threading.Timer(SAVING_TIMEOUT, end_at_once, [1])
            overdue.daemon = True
            overdue.start()
    overdue.cancel()


def main() -> None:
    """Run the worker that standard input describes, until that ends."""
    for name in ("SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # the parent tells its workers
    plan, numbers = WorkerPlan.from_json(sys.stdin.readline())
    log_to_stderr(plan.name)
    life = _Life(plan)
    threading.Thread(target=life.wait_for_the_parent, daemon=True).start()
    sockets = [socket.socket(fileno=number) for number in numbers]
    status = 0
    try:
        run_worker(plan, sockets, on_ready=life.begin, stopping=life.stopping)
    except MuveraError as error:
        status = 1
        if life.has_begun.is_set():
            _log.error("%s", error)
        else:
            _tell(str(error))
    life.end(status)


class _Life:
    """How long a worker lives: until its parent closes its standard input, or until its parent dies, which does so."""

    def __init__(self, plan: WorkerPlan) -> None:
        self._plan, self._is_orphan = plan, False
        self.stopping, self.has_begun = threading.Event(), threading.Event()

    def begin(self) -> None:
        """Tell the parent that requests are answered."""
        self.has_begun.set()
        _tell(READY)

    def wait_for_the_parent(self) -> None:
        """Wait for the order to stop, and end the process if it does not end by itself then."""
        self._is_orphan = sys.stdin.read() != STOP
        self.stopping.set()
        if not self.has_begun.is_set():
            self.end(0)
        time.sleep(self._plan.stop_timeout + SAVING_TIMEOUT)
        self.end(1)

    def end(self, status: int) -> None:
        """End the process, also if a call that timed out still runs in a thread."""
        if self._is_orphan and self._plan.shared_folder is not None:
            shutil.rmtree(self._plan.shared_folder, ignore_errors=True)  # the parent cannot do it
        end_at_once(status)


def _tell(line: str) -> None:
    """Tell the parent, if it is still there."""
    with suppress(OSError):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
