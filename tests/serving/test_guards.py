"""The guards around applications of a few lines, called as a web server calls them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from muvera_core.serving import ServiceSettings
from muvera_core.serving.guards import Application, Guards, Message, Receive, Scope, Send

# Far beyond what any of it takes on a busy machine.
PATIENCE = 30.0
HUGE = 1 << 20


@dataclass
class Reply:
    """What the guards sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_complete: bool = False

    @property
    def error(self) -> dict[str, str]:
        assert self.headers["content-type"] == "application/json"
        content = json.loads(self.body)
        assert list(content) == ["error"]
        assert sorted(content["error"]) == ["message", "type"]
        error: dict[str, str] = content["error"]
        return error


class Client:
    """Sends a request to an application, part by part."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(
        self,
        path: str = "/v1/search",
        *,
        parts: Iterable[bytes] = (b"{}",),
        headers: dict[str, str] | None = None,
        method: str = "POST",
        stays: bool = True,
    ) -> Reply:
        messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        if stays:
            messages.append({"type": "http.request", "body": b"", "more_body": False})
        messages.append({"type": "http.disconnect"})
        coming = iter(messages)
        reply = Reply()

        async def receive() -> Message:
            message = next(coming)
            if message["type"] == "http.disconnect" and stays:
                await asyncio.sleep(PATIENCE)
            return message

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                assert reply.status == 0, "a second answer"
                reply.status = message["status"]
                reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                reply.body += message.get("body", b"")
                reply.is_complete = not message.get("more_body", False)

        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        scope: Scope = {"type": "http", "method": method, "path": path, "headers": raw}
        async with asyncio.timeout(PATIENCE):
            await self.app(scope, receive, send)
        return reply


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body that it got."""
    message = await receive() if scope["method"] == "POST" else {"body": b""}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


class Gate:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.n_inside = self.n_done = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.n_inside += 1
        await self.opened.wait()
        self.n_done += 1
        await echo(scope, receive, send)

    async def holds(self, n: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.n_inside < n:
                await asyncio.sleep(0.001)


class Notes:
    """A watcher that notes what it is told."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, int]] = []
        self.n_in_flight = self.n_waiting = 0

    def began(self) -> None:
        self.n_in_flight += 1

    def ended(self, path: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.n_in_flight -= 1
        self.ends.append((path, status))

    def waits(self, change: int) -> None:
        self.n_waiting += change


# Tokens


async def test_without_tokens_everybody_is_let_in() -> None:
    reply = await Client(Guards(echo, ServiceSettings()))(parts=[b"a", b"b"])
    assert (reply.status, reply.body, reply.is_complete) == (200, b"ab", True)


@pytest.mark.parametrize("given", ["Bearer one", "bearer two", "BEARER  one "])
async def test_any_of_the_tokens_lets_a_request_in(given: str) -> None:
    ask = Client(Guards(echo, ServiceSettings(tokens=["one", "two"])))
    assert (await ask(headers={"Authorization": given})).status == 200


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Bearer three", "Bearer on", "Bearer onee", "Basic one", "one", "Bearer ÿ"]
)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/info", "/", "/metrics", "/docs", "/openapi.json", "/health/x"])
async def test_other_requests_are_refused(given: str | None, path: str) -> None:
    ask = Client(Guards(echo, ServiceSettings(tokens=["one", "two"])))
    reply = await ask(path, headers={} if given is None else {"Authorization": given})
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.error["type"] == "ServiceError"
    assert "Authorization: Bearer TOKEN" in reply.error["message"]


async def test_two_tokens_in_one_request_are_refused() -> None:
    guards = Guards(echo, ServiceSettings(tokens="one"))
    scope = {"type": "http", "method": "GET", "path": "/v1/info", "headers": [(b"authorization", b"Bearer one")] * 2}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await guards(scope, receive, send)
    assert sent[0]["status"] == 401


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_health_needs_no_token(path: str) -> None:
    assert (await Client(Guards(echo, ServiceSettings(tokens="one")))(path, method="GET")).status == 200


async def test_docs_and_metrics_can_be_for_all() -> None:
    ask = Client(Guards(echo, ServiceSettings(tokens="one", docs_need_token=False, metrics_need_token=False)))
    for path in ("/docs", "/openapi.json", "/metrics"):
        assert (await ask(path, method="GET")).status == 200
    assert (await ask("/v1/info", method="GET")).status == 401


# Bodies


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "11"}, {"Content-Length": "nonsense"}])
async def test_a_body_over_the_limit_is_refused_whatever_its_header_says(headers: dict[str, str]) -> None:
    ask = Client(Guards(echo, ServiceSettings(max_body_bytes=10)))
    assert (await ask(parts=[b"12345", b"67890"])).body == b"1234567890"
    reply = await ask(parts=[b"12345", b"678901"], headers=headers)
    assert reply.status == 413
    assert reply.headers["connection"] == "close"
    assert reply.error["type"] == "InvalidInputError"
    assert "at most 10 bytes" in reply.error["message"]


async def test_an_endless_body_is_not_read_to_its_end() -> None:
    taken = 0

    def endless() -> Iterable[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"x" * 100

    guards, sent = Guards(echo, ServiceSettings(max_body_bytes=1000)), list[Message]()
    parts = iter(endless())

    async def receive() -> Message:
        return {"type": "http.request", "body": next(parts), "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    await guards({"type": "http", "method": "POST", "path": "/v1/search", "headers": []}, receive, send)
    assert sent[0]["status"] == 413
    assert taken < 30


async def test_a_body_that_says_it_is_too_large_is_not_asked_for() -> None:
    ask = Client(Guards(echo, ServiceSettings(max_body_bytes=10)))
    headers = {"Content-Length": str(10**30), "Expect": "100-continue"}
    assert (await ask(parts=[], stays=False, headers=headers)).status == 413


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    guards = Guards(echo, ServiceSettings(request_timeout=0.05))
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(PATIENCE)
        raise AssertionError("waited for ever")

    async def send(message: Message) -> None:
        sent.append(message)

    await guards({"type": "http", "method": "POST", "path": "/v1/search", "headers": []}, receive, send)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["type"] == "ServiceTimeoutError"


async def test_a_client_that_goes_away_is_not_answered() -> None:
    notes = Notes()
    ask = Client(Guards(echo, ServiceSettings(), watcher=notes))
    assert (await ask(parts=[b"{"], stays=False)).status == 0
    assert notes.ends == [("/v1/search", 499)]


# Places


async def test_a_place_more_than_there_are_waits_and_one_more_is_refused() -> None:
    gate, notes = Gate(), Notes()
    ask = Client(Guards(gate, ServiceSettings(n_threads=2, max_waiting=1), watcher=notes))
    inside = [asyncio.create_task(ask()) for _ in range(2)]
    await gate.holds(2)
    waiting = asyncio.create_task(ask())
    async with asyncio.timeout(PATIENCE):
        while not notes.n_waiting:
            await asyncio.sleep(0.001)
    assert gate.n_inside == 2
    refused = await ask()
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "try again" in refused.error["message"]
    assert notes.n_in_flight == 3
    gate.opened.set()
    assert [reply.status for reply in await asyncio.gather(*inside, waiting)] == [200, 200, 200]
    assert (notes.n_in_flight, notes.n_waiting) == (0, 0)
    assert (await ask()).status == 200


async def test_writes_do_not_take_the_places_of_reads() -> None:
    gate = Gate()
    guards = Guards(gate, ServiceSettings(n_threads=1, max_waiting=0), writes={"add"})
    ask = Client(guards)
    writing = asyncio.create_task(ask("/v1/add"))
    await gate.holds(1)
    assert (await ask("/v1/add")).status == 503
    gate.opened.set()
    assert (await ask("/v1/search")).status == 200
    assert (await writing).status == 200


async def test_health_is_answered_when_all_places_are_taken() -> None:
    gate = Gate()
    ask = Client(Guards(gate, ServiceSettings(n_threads=1, max_waiting=0)))
    searching = asyncio.create_task(ask())
    await gate.holds(1)
    health = asyncio.create_task(ask("/health", method="GET"))
    await gate.holds(2)
    gate.opened.set()
    assert [(await task).status for task in (searching, health)] == [200, 200]


async def test_refused_bodies_and_gone_clients_leave_their_places() -> None:
    ask = Client(Guards(echo, ServiceSettings(n_threads=1, max_waiting=0, max_body_bytes=4)))
    for _ in range(3):
        assert (await ask(parts=[b"12345"])).status == 413
        assert (await ask(parts=[b"1"], stays=False)).status == 0
        assert (await ask(parts=[b"1234"])).status == 200


# Time


async def test_a_call_that_takes_too_long_is_answered_and_keeps_its_place() -> None:
    gate, notes = Gate(), Notes()
    settings = ServiceSettings(n_threads=1, max_waiting=1, request_timeout=0.05)
    ask = Client(Guards(gate, settings, watcher=notes))
    late = await ask()
    assert late.status == 504
    assert late.error["type"] == "ServiceTimeoutError"
    assert "longer than 0.05 s" in late.error["message"]
    assert gate.n_done == 0
    busy = await ask()
    assert (busy.status, busy.headers["retry-after"]) == (503, "1")
    assert gate.n_inside == 1, "the place was given away"
    gate.opened.set()
    async with asyncio.timeout(PATIENCE):
        while (await ask()).status != 200:
            await asyncio.sleep(0.001)
    assert [status for _, status in notes.ends[:2]] == [504, 503]


async def test_writes_have_more_time_and_their_outcome_is_not_known() -> None:
    gate = Gate()
    settings = ServiceSettings(n_threads=1, request_timeout=PATIENCE, write_timeout=0.05)
    late = await Client(Guards(gate, settings, writes={"add"}))("/v1/add")
    assert late.status == 504
    assert "may be written or not" in late.error["message"]
    gate.opened.set()


async def test_an_answer_that_has_begun_is_cut_when_time_is_up() -> None:
    ended = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    reply = await Client(Guards(endless, ServiceSettings(request_timeout=0.05)))()
    assert (reply.status, reply.is_complete) == (200, False)
    async with asyncio.timeout(PATIENCE):
        await ended.wait()


# The application's own failures


async def test_a_failure_of_the_application_is_counted_and_passed_on() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    notes = Notes()
    ask = Client(Guards(fails, ServiceSettings(n_threads=1, max_waiting=0), watcher=notes))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await ask()
    assert notes.ends == [("/v1/search", 500)] * 3


async def test_a_failure_after_time_is_up_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        raise ZeroDivisionError("late")

    assert (await Client(Guards(fails, ServiceSettings(request_timeout=0.05)))()).status == 504
    gate.set()
    async with asyncio.timeout(PATIENCE):
        while "ZeroDivisionError: late" not in caplog.text:
            await asyncio.sleep(0.001)


async def test_answers_name_their_worker() -> None:
    reply = await Client(Guards(echo, ServiceSettings(max_body_bytes=1), worker="reader-2"))(parts=[b"12"])
    assert reply.headers["x-muvera-worker"] == "reader-2"


async def test_other_protocols_are_passed_on() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return {}

    await Guards(app, ServiceSettings(tokens="one"))({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
