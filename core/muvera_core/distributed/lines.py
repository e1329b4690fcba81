"""A direct line to the process of a shard, for reads: a TCP connection that both sides have authenticated.

A call of a Ray actor costs about a millisecond of processor time, and a search asks every shard. A line takes a tenth
of it, and breaks at once when the process dies. Who may use a line gets its key through Ray; as in Ray itself, nothing
is encrypted, and what comes over a line is trusted.
"""

from __future__ import annotations

import hmac
import logging
import pickle
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from muvera_core.distributed.answers import Answer, answer
from muvera_core.errors import MuveraError

_LENGTH = struct.Struct("<Q")
_NONCE_BYTES = 32
_DIGEST_BYTES = 32
# Seconds for what takes milliseconds in a network that works.
_HANDSHAKE_TIMEOUT = 5.0
# Seconds that a caller may take to receive an answer before the shard gives up sending it.
_SEND_TIMEOUT = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LineAddress:
    """Where a shard's process can be reached.

    Attributes:
        host: address of its node.
        port: the port that it listens on.
        key: the secret that both sides prove to know. A new process has a new one, so a line never leads to another.
    """

    host: str
    port: int
    key: bytes = field(repr=False)


class LineServer:
    """Answers calls that come over lines. Each line has a thread, which makes one call after the other."""

    def __init__(self, host: str, call: Callable[..., Any]) -> None:
        """Listen at a free port.

        Args:
            host: address of this node, which the others reach it by.
            call: makes a call: its name and its arguments.
        """
        self._call = call
        self._socket = socket.create_server((host, 0), backlog=128)
        self.address = LineAddress(host, self._socket.getsockname()[1], secrets.token_bytes(32))
        threading.Thread(target=self._accept, name="muvera-lines", daemon=True).start()

    def close(self) -> None:
        """Accept no more lines. Those that exist stay until the other side closes them."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(line,), name="muvera-line", daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        with line, suppress(OSError, EOFError):
            _prepare(line)
            if not _is_known_caller(line, self.address.key):
                return
            while True:
                name, arguments = _receive(line, None)
                _send_answer(line, name, answer(self._call, name, *arguments))


class Line:
    """The caller's end of a line. One thread uses it at a time, for one call after the other."""

    def __init__(self, address: LineAddress, deadline: float) -> None:
        """Connect. ``deadline`` is a time of ``time.monotonic``. Raises OSError or EOFError."""
        limit = min(deadline, time.monotonic() + _HANDSHAKE_TIMEOUT)
        self._socket = socket.create_connection((address.host, address.port), timeout=_seconds_to(limit))
        try:
            _prepare(self._socket)
            _introduce(self._socket, address.key, limit)
        except BaseException:
            self._socket.close()
            raise

    def ask(self, name: str, arguments: Sequence[Any], deadline: float) -> None:
        """Send a call. Raises OSError."""
        _send(self._socket, (name, tuple(arguments)), deadline)

    def answer(self, deadline: float) -> Answer:
        """Receive its answer.

        Raises:
            TimeoutError: there is none until the deadline. The line cannot be used any more.
            OSError, EOFError: the line is broken.
        """
        received: Answer = _receive(self._socket, deadline)
        return received

    def close(self) -> None:
        """Close the line."""
        self._socket.close()


def _prepare(line: socket.socket) -> None:
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _is_known_caller(line: socket.socket, key: bytes) -> bool:
    """The shard's part of the handshake: send a nonce, check the caller's proof, and prove the same to the caller."""
    limit = time.monotonic() + _HANDSHAKE_TIMEOUT
    mine = secrets.token_bytes(_NONCE_BYTES)
    _send_bytes(line, mine, limit)
    received = bytes(_receive_bytes(line, _NONCE_BYTES + _DIGEST_BYTES, limit))
    theirs, proof = received[:_NONCE_BYTES], received[_NONCE_BYTES:]
    if not hmac.compare_digest(proof, _proof(key, b"caller", mine + theirs)):
        _log.warning("refused a connection to a shard: the caller does not know the key")
        return False
    _send_bytes(line, _proof(key, b"shard", mine + theirs), limit)
    return True


def _introduce(line: socket.socket, key: bytes, limit: float) -> None:
    """The caller's part of the handshake. Raises EOFError if the other side is not the shard."""
    theirs = bytes(_receive_bytes(line, _NONCE_BYTES, limit))
    mine = secrets.token_bytes(_NONCE_BYTES)
    _send_bytes(line, mine + _proof(key, b"caller", theirs + mine), limit)
    proof = bytes(_receive_bytes(line, _DIGEST_BYTES, limit))
    if not hmac.compare_digest(proof, _proof(key, b"shard", theirs + mine)):
        raise EOFError("the other side is not the shard")


def _proof(key: bytes, role: bytes, nonces: bytes) -> bytes:
    return hmac.digest(key, role + nonces, "sha256")


def _send_answer(line: socket.socket, name: str, content: Answer) -> None:
    deadline = time.monotonic() + _SEND_TIMEOUT
    try:
        _send(line, content, deadline)
    except (TypeError, AttributeError, pickle.PicklingError) as error:  # nothing was sent yet
        _send(line, Answer(error=MuveraError(f"the result of {name} cannot be sent: {error}")), deadline)


def _send(line: socket.socket, content: Any, deadline: float) -> None:
    data = pickle.dumps(content, protocol=5)
    _send_bytes(line, _LENGTH.pack(len(data)) + data, deadline)


def _receive(line: socket.socket, deadline: float | None) -> Any:
    (length,) = _LENGTH.unpack(_receive_bytes(line, _LENGTH.size, deadline))
    return pickle.loads(_receive_bytes(line, length, deadline))  # noqa: S301 - from an authenticated process of ours


def _send_bytes(line: socket.socket, data: bytes, deadline: float) -> None:
    line.settimeout(_seconds_to(deadline))
    line.sendall(data)


def _receive_bytes(line: socket.socket, n: int, deadline: float | None) -> bytearray:
    """The next ``n`` bytes. Raises EOFError if the other side has closed the line."""
    data = bytearray(n)
    view = memoryview(data)
    while view:
        line.settimeout(None if deadline is None else _seconds_to(deadline))
        received = line.recv_into(view)
        if not received:
            raise EOFError("the line was closed")
        view = view[received:]
    return data


def _seconds_to(deadline: float) -> float:
    """Seconds until a deadline, but more than 0, which would mean not to wait at all."""
    return max(0.001, deadline - time.monotonic())
