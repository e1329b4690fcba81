"""Sends requests that no honest client sends to a service, and notes what it answers."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_CALLS = ("search", "search_batch", "add", "add_embeddings", "delete", "get", "find", "count", "explain", "nonsense")
_WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    10**400,
    "x",
    "\ud800",
    "\x00",
    [],
    {},
    [[[[]]]],
    {"$where": 1},
    [None],
    "\u202e" * 9,
)
_NAMES = ("query", "queries", "texts", "ids", "k", "filter", "metadatas", "mode", "min_score", "limit", "nonsense")
_PATIENCE = 60.0
# Kinds that say less than they announce. The service would wait for the rest.
_UNFINISHED = ("giant length", "random bytes")
# Requests at a time.
_CLIENTS = 16


@dataclass
class Survived:
    """What a service answered.

    Attributes:
        statuses: number of answers by kind of request and HTTP status; status 0 stands for a closed connection.
        traces: bodies that show a stack trace.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    traces: list[str] = field(default_factory=list)

    @property
    def n_server_errors(self) -> int:
        """Answers that blame the service, other than that it is busy."""
        return sum(n for (_, status), n in self.statuses.items() if status >= 500 and status != 503)


def send_malformed(host: str, port: int, token: str, n: int, *, seed: int = 0) -> Survived:
    """Send ``n`` malformed requests of all kinds.

    Args:
        host: of the service.
        port: of the service.
        token: that the service asks for.
        n: number of requests.
        seed: of their content.
    """
    return asyncio.run(_send_all(host, port, token, n, seed))


async def _send_all(host: str, port: int, token: str, n: int, seed: int) -> Survived:
    survived, kinds, numbers = Survived(), list(_KINDS.items()), iter(range(n))

    async def client() -> None:
        for number in numbers:
            kind, make = kinds[number % len(kinds)]
            data = make(random.Random(f"{seed} {number}"), token)
            status, body = await _send(host, port, kind, data)
            survived.statuses[kind, status] += 1
            if b"Traceback" in body:
                survived.traces.append(body.decode(errors="replace"))

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return survived


async def _send(host: str, port: int, kind: str, data: bytes) -> tuple[int, bytes]:
    """The status and body of the answer to some bytes; status 0 if the connection was closed without one."""
    async with asyncio.timeout(_PATIENCE):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(data)
            if kind.startswith("cut"):
                await asyncio.sleep(0)
                writer.transport.abort()
                return 0, b""
            if kind in _UNFINISHED:
                writer.write_eof()
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            body = await (reader.read() if length is None else reader.readexactly(int(length[1])))
        except (ConnectionError, asyncio.IncompleteReadError):
            return 0, b""
        finally:
            writer.close()
    return int(head.split(b" ", 2)[1]), body


def _request(random: random.Random, token: str, body: bytes, *, length: int | None = None, call: str = "") -> bytes:
    head = f"POST /v1/{call or random.choice(_CALLS)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


def _broken_json(random: random.Random, token: str) -> bytes:
    whole = json.dumps({"query": "owl", "k": 3, "filter": {"a": [1, 2]}}).encode()
    place = random.randrange(len(whole))
    broken = random.choice(
        [whole[:place], whole[:place] + b"\xff" + whole[place:], whole + whole, b"", b"NaN", b"\x00", b"'x'"]
    )
    return _request(random, token, broken)


def _wrong_types(random: random.Random, token: str) -> bytes:
    chosen = {name: random.choice(_WRONG) for name in random.sample(_NAMES, random.randrange(1, 5))}
    return _request(random, token, json.dumps(random.choice([chosen, [chosen], random.choice(_WRONG)])).encode())


def _deep(random: random.Random, token: str) -> bytes:
    depth = random.choice([100, 10_000, 200_000])
    start, end = random.choice([("[", "]"), ('{"$and":', "}"), ('{"filter":[', "]}")])
    return _request(random, token, (start * depth + "1" + end * depth).encode())


def _huge_number(random: random.Random, token: str) -> bytes:
    return _request(random, token, b'{"query": "owl", "k": ' + b"9" * random.choice([30, 5000, 100_000]) + b"}")


def _giant(random: random.Random, token: str) -> bytes:
    return _request(random, token, b'{"query": "' + b"x" * (3 << 20) + b'"}', call="search")


def _says_giant(random: random.Random, token: str) -> bytes:
    return _request(random, token, b"{}", length=10 ** random.choice([9, 15, 40]))


def _chunked(random: random.Random, token: str) -> bytes:
    head = f"POST /v1/search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    return head.encode() + random.choice([chunk * 40, b"zz\r\nx\r\n", b"-1\r\n", chunk + b"ffffffffffffffffffff\r\n"])


def _bad_token(random: random.Random, token: str) -> bytes:
    return _request(random, random.choice([token[:-1], token + "x", "", "\u00ff", "x" * 10_000]), b'{"query": "owl"}')


def _bad_head(random: random.Random, token: str) -> bytes:
    return random.choice([
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 30_000 + b"\r\n",
        b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /v1/search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token.encode() + b"\r\n\r\n",
    ])  # fmt: skip


def _random_bytes(random: random.Random, token: str) -> bytes:
    return random.randbytes(random.choice([1, 100, 10_000]))


def _cut_in_head(random: random.Random, token: str) -> bytes:
    whole = _request(random, token, b"{}")
    return whole[: random.randrange(1, len(whole))]


def _cut_in_body(random: random.Random, token: str) -> bytes:
    return _request(random, token, b'{"query": "owl', length=100_000)


def _cut_before_answer(random: random.Random, token: str) -> bytes:
    return _request(random, token, b'{"query": "Which bird hunts at night?", "k": 10}', call="search")


_KINDS: dict[str, Callable[[random.Random, str], bytes]] = {
    "broken JSON": _broken_json,
    "wrong types": _wrong_types,
    "deep nesting": _deep,
    "huge number": _huge_number,
    "giant body": _giant,
    "giant length": _says_giant,
    "chunked body": _chunked,
    "bad token": _bad_token,
    "bad head": _bad_head,
    "random bytes": _random_bytes,
    "cut in the head": _cut_in_head,
    "cut in the body": _cut_in_body,
    "cut before the answer": _cut_before_answer,
}
