"""What a remote index does about a service that is silent, busy, broken or gone."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from local_service import PATIENCE
from served import Service

from muvera_core import MuveraIndex, RemoteMuveraIndex
from muvera_core.errors import InvalidInputError, ReadOnlyIndexError, ServiceError, ServiceTimeoutError

SILENCE = b"silence"
CUT = b""


def answer(content: Any, status: int = 200, *headers: str) -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


BUSY = answer({"error": {"type": "ServiceError", "message": "busy"}}, 503, "retry-after: 1")
UNAVAILABLE = answer({"error": {"type": "ServiceError", "message": "closing"}}, 503)
SEVEN = answer({"result": 7})


class Script:
    """A service that gives one answer after the other, and the last one again and again. It notes what it is asked."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.answers, self.requests = list(answers), list[tuple[str, dict[str, Any]]]()
        self.ended = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                if self.ended.is_set():
                    return
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(1 << 16)
            if not part:
                return
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields.get(b"content-length", 0)):
            body += connection.recv(1 << 16)
        self.requests.append((head.split(b" ")[1].decode().removeprefix("/v1/"), json.loads(body)))
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if given == SILENCE:
            self.ended.wait(PATIENCE)
        elif given != CUT:
            connection.sendall(given)

    def close(self) -> None:
        self.ended.set()
        socket.create_connection(self._listening.getsockname()).close()
        self._thread.join(PATIENCE)
        self._listening.close()


@contextmanager
def scripted(*answers: bytes, **options: Any) -> Iterator[tuple[Script, RemoteMuveraIndex]]:
    script = Script(answers)
    try:
        with RemoteMuveraIndex(script.url, **options) as remote:
            yield script, remote
    finally:
        script.close()


def names(script: Script) -> list[str]:
    return [name for name, _ in script.requests]


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


def test_a_silent_service_is_not_waited_for_for_ever() -> None:
    with scripted(SILENCE, timeout=0.3, write_timeout=0.3) as (script, remote):
        started = time.monotonic()
        with pytest.raises(ServiceTimeoutError, match=r"did not answer search within 0\.3 s$"):
            remote.search("owl")
        with pytest.raises(ServiceTimeoutError, match="may be written or not"):
            remote.add(["a"])
        assert time.monotonic() - started < PATIENCE / 2
        assert names(script)[0] == "search"


async def test_a_silent_service_is_not_awaited_for_ever() -> None:
    with scripted(SILENCE, timeout=0.3) as (_, remote):
        with pytest.raises(ServiceTimeoutError):
            await remote.acall("search", "owl")
        await remote.aclose()


def test_a_service_that_is_not_there_is_an_error() -> None:
    with RemoteMuveraIndex(free_address()) as remote:
        with pytest.raises(ServiceError, match="is the service running"):
            remote.search("owl")
        with pytest.raises(ServiceError) as error:
            remote.delete("owl")
    assert "may be written" not in str(error.value)


def test_all_attempts_together_end_in_time() -> None:
    with RemoteMuveraIndex(free_address(), timeout=0.5, retries=1000) as remote:
        started = time.monotonic()
        with pytest.raises(ServiceError):
            remote.search("owl")
        assert time.monotonic() - started < PATIENCE / 2


@pytest.mark.parametrize("failure", [CUT, BUSY, UNAVAILABLE, answer(b"<html>", 502), answer(b"", 504)])
def test_a_read_is_repeated(failure: bytes) -> None:
    with scripted(failure, failure, SEVEN) as (script, remote):
        assert remote.count({"a": 1}) == 7
        assert script.requests == [("count", {"filter": {"a": 1}})] * 3


def test_a_read_is_repeated_so_often_and_no_more() -> None:
    with scripted(CUT, retries=1) as (script, remote):
        with pytest.raises(ServiceError, match="cannot be reached"):
            remote.count()
        assert len(script.requests) == 2
    with scripted(UNAVAILABLE, retries=0) as (script, remote):
        with pytest.raises(ServiceError, match="closing"):
            remote.count()
        assert len(script.requests) == 1


async def test_an_awaited_read_is_repeated() -> None:
    with scripted(CUT, BUSY, SEVEN) as (script, remote):
        assert await remote.acall("count") == 7
        assert len(script.requests) == 3
        await remote.aclose()


def test_documents_are_added_again_under_the_same_ids() -> None:
    with scripted(CUT, CUT, answer({"result": ["ignored"]})) as (script, remote):
        ids = remote.add(["a", "b"])
        assert script.requests == [("add", {"texts": ["a", "b"], "ids": ids})] * 3


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.delete("a"),
        lambda index: index.update_metadata("a", {}),
        lambda index: index.clear(),
        lambda index: index.optimize(),
    ],
)
def test_what_could_be_done_twice_is_repeated_only_if_it_was_not_begun(
    change: Callable[[RemoteMuveraIndex], Any],
) -> None:
    for failure in (CUT, UNAVAILABLE):
        with scripted(failure) as (script, remote):
            with pytest.raises(ServiceError):
                change(remote)
            assert len(script.requests) == 1
    with scripted(BUSY) as (script, remote):
        with pytest.raises(ServiceError, match="busy"):
            change(remote)
        assert len(script.requests) == 3


def test_a_refusal_is_not_repeated() -> None:
    refusal = answer({"error": {"type": "ReadOnlyIndexError", "message": "only read"}}, 403)
    with scripted(refusal) as (script, remote):
        with pytest.raises(ReadOnlyIndexError, match="only read"):
            remote.add(["a"])
        assert len(script.requests) == 1


@pytest.mark.parametrize(
    "given",
    [
        answer(b"<html>welcome</html>"),
        answer(b"\xff\xff"),
        answer([]),
        answer({}),
        answer({"result": "seven"}),
        answer({"result": {"hits": [{"text": "no id"}]}}),
        answer({"result": {"hits": [3]}}),
        answer({"result": {"hits": []}, "warnings": [3]}),
        answer(b"<html>not found</html>", 404),
        answer({"error": "no"}, 500),
        answer({"error": {"type": 3}}, 500),
        answer(b"[" * 100_000),
    ],
)
def test_an_answer_of_something_else_is_an_error(given: bytes) -> None:
    with scripted(given) as (_, remote), pytest.raises(ServiceError):
        remote.search("owl")


def test_a_newer_service_is_understood() -> None:
    hit = {"id": "a", "text": "b", "metadata": {}, "score": 1.5, "colour": "red"}
    content = {"result": {"hits": [hit], "more": 1}, "trace": "x", "warnings": [{"type": "NewWarning", "message": "m"}]}
    error = answer({"error": {"type": "NewError", "message": "new", "x": 1}}, 422)
    with scripted(answer(content), error) as (_, remote):
        with pytest.warns(UserWarning, match="m"):
            (found,) = remote.search("owl")
        assert (found.id, found.score) == ("a", 1.5)
        with pytest.raises(ServiceError, match="new"):
            remote.search("owl")


def test_a_redirection_is_not_followed() -> None:
    with scripted(answer(b"", 307, "location: http://192.0.2.1/")) as (_, remote), pytest.raises(ServiceError):
        remote.search("owl")


def test_a_token_that_the_service_does_not_know(tmp_path: Path) -> None:
    unknown = answer({"error": {"type": "ServiceError", "message": "the token is not known"}}, 401)
    with scripted(unknown, token="wrong") as (_, remote), pytest.raises(ServiceError, match="token") as error:
        remote.search("owl")
    assert "wrong" not in str(error.value)


def test_an_image_that_cannot_be_sent_is_refused() -> None:
    with scripted(SEVEN) as (script, remote):
        with pytest.raises(InvalidInputError, match="image"):
            remote.add_images([3])  # type: ignore[list-item]
        assert script.requests == []


def test_a_service_that_is_killed_is_noticed_by_all_threads(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index"):
        pass
    with Service(tmp_path / "index") as service, RemoteMuveraIndex(service.url, timeout=PATIENCE) as remote:
        failed: list[Exception] = []

        def ask() -> None:
            try:
                while True:
                    assert "owl" not in remote
            except ServiceError as error:
                failed.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        service.process.kill()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(failed) == 4


def test_the_loop_goes_on_while_a_call_waits_to_be_repeated() -> None:
    async def ask(remote: RemoteMuveraIndex) -> int:
        n = 0

        async def tick() -> None:
            nonlocal n
            while True:
                n += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        async with remote:
            assert await remote.acall("count") == 7
        ticking.cancel()
        return n

    with scripted(BUSY, BUSY, SEVEN) as (_, remote):
        assert asyncio.run(ask(remote)) > 10
