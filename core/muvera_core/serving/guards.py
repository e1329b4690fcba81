"""What a request has to pass before the application sees it: token, size, number of requests, and time.

A request is answered by the application, or refused with ``{"error": {"type": ..., "message": ...}}``; the type is the
name of one of muvera's errors.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Protocol

from muvera_core.serving.settings import ServiceSettings

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CALLS = "/v1/"
_FOR_ALL = frozenset({"/health", "/ready"})
_DOCS = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})
_METRICS = "/metrics"
# Seconds for which a body that is too large is read and thrown away, so that its sender comes to hear why.
_PATIENCE = 5.0
_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Is told what happens to requests."""

    def began(self) -> None:
        """A request came."""

    def ended(self, path: str, status: int, seconds: float) -> None:
        """It was answered; status 499 if its sender went away before that."""

    def waits(self, change: int) -> None:
        """One more (1) or one less (-1) request waits for a place."""


class RefusedError(Exception):
    """A request is not let in.

    Attributes:
        status: HTTP status.
        error: name of one of muvera's errors.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, error: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.error, self.headers = status, error, headers

    async def answer(self, send: Send) -> None:
        """Send this as the whole answer."""
        body = json.dumps({"error": {"type": self.error, "message": str(self)}}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **self.headers}
        encoded = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})


class Places:
    """The places of requests that run at the same time, and the room in which others wait."""

    def __init__(self, n_places: int, max_waiting: int) -> None:
        self._free = asyncio.Semaphore(n_places)
        self._room, self._n_inside = n_places + max_waiting, 0

    def enter(self) -> None:
        """Come in. Raises RefusedError if there is no room. What came in has to ``leave``, or to ``end`` in a place."""
        if self._n_inside >= self._room:
            said = "the service has as many requests as it can take: try again"
            raise RefusedError(503, "ServiceError", said, retry_after="1")
        self._n_inside += 1

    def leave(self) -> None:
        """Go out without having taken a place."""
        self._n_inside -= 1

    @property
    def are_taken(self) -> bool:
        """Whether a request has to wait for a place."""
        return self._free.locked()

    async def take(self, deadline: float) -> None:
        """Wait for a place. Raises RefusedError if none becomes free in time."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
        except TimeoutError:
            said = "the service was busy for all the time that a request may take: try again"
            raise RefusedError(503, "ServiceError", said, retry_after="1") from None

    def end(self, work: object) -> None:
        """Give a place back, and go out; called when the work that took it is done."""
        self._free.release()
        self._n_inside -= 1


class Guards:
    """ASGI middleware that lets requests in."""

    def __init__(
        self,
        app: Application,
        settings: ServiceSettings,
        *,
        writes: Collection[str] = (),
        watcher: Watcher | None = None,
        worker: str = "",
    ) -> None:
        """Guard an application.

        Args:
            app: the application.
            settings: what it allows.
            writes: names of the calls that change the index. They have places and a time-out of their own.
            watcher: is told of every request.
            worker: name of this process, which answers then have in their header ``x-muvera-worker``.
        """
        self._app, self._settings, self._writes, self._watcher = app, settings, frozenset(writes), watcher
        self._worker = [(b"x-muvera-worker", worker.encode("latin-1"))] if worker else []
        self._tokens = [hashlib.sha256(token.encode()).digest() for token in settings.tokens]
        self._open = _FOR_ALL | (frozenset() if settings.docs_need_token else _DOCS)
        if not settings.metrics_need_token:
            self._open |= {_METRICS}
        self._reading = Places(settings.n_places, settings.max_waiting)
        self._writing = Places(settings.n_places, settings.max_waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._worker)
        start = time.perf_counter()
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._watcher is not None:
            self._watcher.began()
        try:
            await self._let_in(path, scope, receive, answer)
        except RefusedError as refused:
            await refused.answer(answer.send)
        except _GoneError:
            answer.status = 499
        finally:
            if self._watcher is not None:
                self._watcher.ended(path, answer.status, time.perf_counter() - start)

    async def _let_in(self, path: str, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if self._tokens and path not in self._open:
            self._require_token(scope)
        if not path.startswith(CALLS) or scope["method"] != "POST":
            await self._app(scope, receive, answer.send)
            return
        is_write = path.removeprefix(CALLS) in self._writes
        places = self._writing if is_write else self._reading
        seconds = self._settings.write_timeout if is_write else self._settings.request_timeout
        deadline = asyncio.get_running_loop().time() + seconds
        places.enter()
        running = None
        try:
            body = await _read_body(scope, receive, self._settings.max_body_bytes, deadline)
            await self._take(places, deadline)
            running = asyncio.ensure_future(self._app(scope, _replay(body, receive), answer.send))
            # A place stays taken until its work ends, also if nobody waits for that any more.
            running.add_done_callback(places.end)
        finally:
            if running is None:
                places.leave()
        await asyncio.wait({running}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        if running.done():
            running.result()
            return
        running.add_done_callback(_log_failure)
        # If a part of the answer was sent, the web server cuts it here.
        if not answer.abandon():
            advice = "what was to be written may be written or not" if is_write else "ask for less, or try again"
            message = f"the call took longer than {seconds:g} s: {advice}"
            await RefusedError(504, "ServiceTimeoutError", message).answer(answer.send_last)

    async def _take(self, places: Places, deadline: float) -> None:
        if self._watcher is None or not places.are_taken:
            await places.take(deadline)
            return
        self._watcher.waits(1)
        try:
            await places.take(deadline)
        finally:
            self._watcher.waits(-1)

    def _require_token(self, scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        digest = hashlib.sha256(token.strip()).digest()
        # All tokens are compared, each in the same time whatever is in it.
        known = [hmac.compare_digest(digest, one) for one in self._tokens]
        if scheme.lower() != b"bearer" or not any(known):
            said = "the token is not known" if given else "a token is missing"
            advice = "send the header `Authorization: Bearer TOKEN`"
            raise RefusedError(401, "ServiceError", f"{said}: {advice}", www_authenticate="Bearer")


class _GoneError(Exception):
    """The sender of a request has gone."""


class _AbandonedError(Exception):
    """Nobody waits for an answer any more, so the application can stop."""


class _Answer:
    """The answer to a request, and what became of it."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send, self._headers, self._abandoned = send, headers, False
        # What is counted if the application fails before it answers.
        self.status = 500
        self._begun = False

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on."""
        if self._abandoned:
            raise _AbandonedError
        await self.send_last(message)

    async def send_last(self, message: Message) -> None:
        """Pass a part of the answer on that takes the place of the application's."""
        if message["type"] == "http.response.start":
            self._begun, self.status = True, message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
        await self._send(message)

    def abandon(self) -> bool:
        """Take nothing more from the application. Returns whether a part of its answer was sent."""
        self._abandoned = True
        return self._begun


def _log_failure(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, _AbandonedError):
        _log.error("a call that nobody waits for any more failed: %s: %s", type(error).__name__, error)


async def _read_body(scope: Scope, receive: Receive, limit: int, deadline: float) -> bytes:
    """The whole body. Raises RefusedError if it is too large or too slow, whether it says its length or not."""
    headers = dict(scope["headers"])
    declared = headers.get(b"content-length", b"")
    parts, size = [], 0
    if declared.isdigit() and int(declared[:20]) > limit:
        if b"expect" not in headers:
            await _discard(receive, limit)
        raise _too_large(limit)
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    break
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        said = "the request's body did not arrive in time"
        raise RefusedError(408, "ServiceTimeoutError", said, connection="close") from None
    parts.clear()
    await _discard(receive, limit)
    raise _too_large(limit)


def _too_large(limit: int) -> RefusedError:
    said = f"the request's body must have at most {limit} bytes: send less at a time"
    return RefusedError(413, "InvalidInputError", said, connection="close")


async def _discard(receive: Receive, limit: int) -> None:
    """Read what still comes of a body, up to ``limit`` bytes."""
    try:
        async with asyncio.timeout(_PATIENCE):
            while limit > 0:
                message = await receive()
                limit -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the application a body that was read already, and then what follows it."""
    was_given = False

    async def again() -> Message:
        nonlocal was_given
        if was_given:
            return await receive()
        was_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
