"""Uvicorn, as a worker runs it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from muvera_core.serving.ending import end_at_once, handling_signals
from muvera_core.serving.listening import BACKLOG

# Seconds within which a connection has to send the head of a request.
_HEAD_TIMEOUT = 30.0


class WebServer(uvicorn.Server):
    """Answers requests until it is told to stop, and closes connections that send none."""

    def __init__(
        self,
        app: Any,
        *,
        on_ready: Callable[[], None],
        stopping: threading.Event | None = None,
        listens_at: str | None = None,
        stop_timeout: float = 30.0,
        access_log: bool = False,
    ) -> None:
        """Make a server; ``serve`` starts it.

        Args:
            app: an ASGI application.
            on_ready: called when requests are answered.
            stopping: set to stop the server. Then signals only stop it, too, however many there are. Without it, the
                second signal ends the process at once.
            listens_at: path of a Unix domain socket to listen on, instead of the sockets that ``serve`` gets.
            stop_timeout: seconds that running requests get to end.
            access_log: whether to log every request.
        """
        config = uvicorn.Config(
            app,
            uds=listens_at,
            # The most connections that this worker takes at a time, so that the others get some, too.
            backlog=1,
            http="h11",  # its parser has a limit for headers
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="info" if access_log else "warning",
            access_log=access_log,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(stop_timeout)),
        )
        super().__init__(config)
        self._on_ready, self._stopping = on_ready, stopping
        # By connection: what it sent last, and since when it has sent no more.
        self._silent: dict[Any, tuple[Any, float]] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets=sockets)
        if self.should_exit:
            return
        for one in sockets or ():
            one.listen(BACKLOG)  # uvicorn has set the queue's length to its ``backlog``
        self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Look ten times a second whether to stop."""
        if counter % 10 == 0:
            self._close_silent_connections()
        if self._stopping is not None and self._stopping.is_set():
            self.should_exit = True
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal. Uvicorn would raise it again at the end, before the index is closed."""
        with handling_signals(self.handle_exit):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, or, if told so again, end at once."""
        if self.should_exit and self._stopping is None:
            end_at_once(128 + sig)
        self.should_exit = True

    def _close_silent_connections(self) -> None:
        now, before, self._silent = time.monotonic(), self._silent, {}
        for connection in list(self.server_state.connections):
            request: Any = getattr(connection, "cycle", None)
            if request is not None and not request.response_complete:
                continue
            last, since = before.get(connection, (request, now))
            if last is not request:
                since = now
            self._silent[connection] = request, since
            if now - since > _HEAD_TIMEOUT:
                connection.transport.close()
