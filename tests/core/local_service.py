"""A web server in a thread of the tests' process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from muvera_core import IndexCalls

# Far beyond what starting or ending takes on a busy machine.
PATIENCE = 60.0


@contextmanager
def serving(index: IndexCalls) -> Iterator[str]:
    """The address of a service over an index."""
    for package in ("fastapi", "uvicorn", "httpx"):
        pytest.importorskip(package, reason=f"needs {package}")

    from muvera_core.serving import create_app

    with running(create_app(index)) as address:
        yield address


@contextmanager
def running(app: Any, *, at: str | None = None) -> Iterator[str]:
    """The address of a web server that runs an application.

    Args:
        app: the application.
        at: path of the Unix domain socket to listen on. None listens on a free port.
    """
    import uvicorn

    with _listening(at) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, loop="asyncio", http="h11", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            deadline = time.monotonic() + PATIENCE
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                assert time.monotonic() < deadline, "the server did not start in time"
                time.sleep(0.005)
            yield "http://service" if at is not None else f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the server did not end in time"


def _listening(at: str | None) -> socket.socket:
    if at is not None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(at)
    else:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    return listening
