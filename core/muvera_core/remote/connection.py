"""HTTP requests to a service, in threads or on event loops: connections are kept, and failed requests repeated."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary

from muvera_core.errors import MissingExtraError, ServiceError, ServiceTimeoutError
from muvera_core.wire import error_from_json

if TYPE_CHECKING:
    import httpx

# Seconds after which an idle connection is not used again. Uvicorn closes it after 5.
_KEPT = 4.0
_MAX_CONNECTIONS = 256
# Seconds until a request is repeated: the first time, doubled each further time, at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_UNAVAILABLE = (502, 503, 504)


@dataclass(frozen=True)
class Post:
    """A request.

    Attributes:
        name: name of the call.
        body: its arguments, as JSON.
        seconds: time for all attempts together.
        repeatable: whether making it twice does the same as making it once.
        writes: whether it changes something.
    """

    name: str
    body: bytes
    seconds: float
    repeatable: bool
    writes: bool


@dataclass(frozen=True)
class _Send:
    """Send the request, and wait so many seconds for the answer."""

    seconds: float


@dataclass(frozen=True)
class _Pause:
    """Wait so many seconds."""

    seconds: float


_Outcome = Any  # an answer, or the httpx.TransportError that came instead
_Steps = Generator[_Send | _Pause, _Outcome, "httpx.Response"]


class Connection:
    """Sends requests to one service. Any number of threads and event loops may use it."""

    def __init__(self, url: str, token: str | None, retries: int, uds: str | None) -> None:
        """Describe the service. Nothing is sent.

        Args:
            url: the service's address, without "/v1".
            token: its bearer token. None sends none.
            retries: how often a request is repeated.
            uds: path of the Unix domain socket to connect to, whatever the address.
        """
        self._url, self._token, self._retries, self._uds = url, token, retries, uds
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._of_threads: httpx.Client | None = None
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    def post(self, post: Post) -> httpx.Response:
        """Send a request, and return its answer, whose status is 200.

        Raises:
            ServiceTimeoutError: there was no answer in time.
            ServiceError: the service cannot be reached.
            MuveraError: what the service answered.
        """
        httpx = require_httpx()
        client, steps, outcome = self._client(), self._steps(post), None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            if isinstance(step, _Pause):
                time.sleep(step.seconds)
                outcome = None
                continue
            try:
                outcome = client.post(f"/v1/{post.name}", content=post.body, timeout=step.seconds)
            except httpx.TransportError as error:
                outcome = error

    async def apost(self, post: Post) -> httpx.Response:
        """The same on the running event loop."""
        httpx = require_httpx()
        client, steps, outcome = self._async_client(), self._steps(post), None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            if isinstance(step, _Pause):
                await asyncio.sleep(step.seconds)
                outcome = None
                continue
            try:
                outcome = await client.post(f"/v1/{post.name}", content=post.body, timeout=step.seconds)
            except httpx.TransportError as error:
                outcome = error

    def close(self) -> None:
        """Close the connections of threads. Those of event loops close with ``aclose``, or when they are forgotten."""
        with self._lock:
            client, self._of_threads = self._of_threads, None
        if client is not None and self._pid == os.getpid():
            client.close()

    async def aclose(self) -> None:
        """Close the connections of threads and of the running event loop."""
        self.close()
        with self._lock:
            client = self._of_loops.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _steps(self, post: Post) -> _Steps:
        """What to do one after the other until there is an answer. It is sent what came of each step."""
        kinds, deadline = require_httpx(), time.monotonic() + post.seconds
        for attempt in range(self._retries + 1):
            left = deadline - time.monotonic()
            outcome = yield _Send(max(left, 0.001))
            if isinstance(outcome, kinds.Response):
                response: httpx.Response = outcome
                if response.status_code == 200:
                    return response
                may_repeat = outcome.status_code in _UNAVAILABLE and (post.repeatable or _was_not_begun(outcome))
            else:
                may_repeat = post.repeatable or _was_not_sent(outcome)
            pause = random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
            if attempt == self._retries or not may_repeat or time.monotonic() + pause >= deadline:
                self._fail(post, outcome)
            yield _Pause(pause)
        raise AssertionError("the last attempt fails or returns")

    def _fail(self, post: Post, outcome: _Outcome) -> NoReturn:
        httpx = require_httpx()
        if isinstance(outcome, httpx.Response):
            raise self._error_in(outcome)
        doubt = ""
        if post.writes and not _was_not_sent(outcome):
            doubt = ". What was to be written may be written or not"
        if isinstance(outcome, httpx.TimeoutException):
            raise ServiceTimeoutError(
                f"{self._url} did not answer {post.name} within {post.seconds:g} s{doubt}"
            ) from outcome
        reason = str(outcome) or type(outcome).__name__
        raise ServiceError(f"{self._url} cannot be reached ({reason}): is the service running?{doubt}") from outcome

    def _error_in(self, response: httpx.Response) -> Exception:
        try:
            return error_from_json(response.json()["error"])
        except (KeyError, TypeError, ValueError, RecursionError):
            return ServiceError(
                f"{self._url} answered with status {response.status_code}, and not as a service of muvera does: "
                "is the address right?"
            )

    def _client(self) -> httpx.Client:
        with self._lock:
            self._forget_after_fork()
            client = self._of_threads
            if client is None:
                httpx = require_httpx()
                transport = None if self._uds is None else httpx.HTTPTransport(uds=self._uds, limits=self._limits())
                client = self._of_threads = httpx.Client(transport=transport, **self._options())
            return client

    def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        with self._lock:
            self._forget_after_fork()
            client = self._of_loops.get(loop)
            if client is None:
                httpx = require_httpx()
                transport = None
                if self._uds is not None:
                    transport = httpx.AsyncHTTPTransport(uds=self._uds, limits=self._limits())
                client = self._of_loops[loop] = httpx.AsyncClient(transport=transport, **self._options())
            return client

    def _options(self) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        return {
            "base_url": self._url,
            "headers": headers,
            "limits": self._limits(),
            # It takes long to load the certificates.
            "verify": self._url.startswith("https"),
            "trust_env": self._uds is None,
        }

    def _limits(self) -> Any:
        return require_httpx().Limits(
            max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEPT
        )

    def _forget_after_fork(self) -> None:
        """In a forked child, begin anew: the connections are the parent's."""
        if self._pid != os.getpid():
            self._pid, self._of_threads, self._of_loops = os.getpid(), None, WeakKeyDictionary()


def require_httpx() -> ModuleType:
    """The module ``httpx``. Raises MissingExtraError if it is not installed."""
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError("a remote index needs httpx: pip install 'muvera-core[client]'") from error
    module: ModuleType = httpx
    return module


def _was_not_sent(error: Any) -> bool:
    """Whether a request failed before the service can have seen it."""
    httpx = require_httpx()
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _was_not_begun(response: httpx.Response) -> bool:
    """Whether a service has refused a request because it is busy."""
    return response.status_code == 503 and "retry-after" in response.headers
