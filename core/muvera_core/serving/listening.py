"""The sockets that a service listens on."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from muvera_core.errors import InvalidInputError, ServiceError

# Connections that may wait until a worker takes them.
BACKLOG = 2048
# Of several addresses of a name, such as localhost, those that this machine does not have are left out.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def listen(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Listen on every address of some hosts.

    Args:
        hosts: names or addresses, IPv4 or IPv6.
        port: the port. 0 takes a free one, the same for all addresses.

    Raises:
        InvalidInputError: a host has no address.
        ServiceError: an address cannot be used, for instance because another program listens there.
    """
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for host in hosts:
            problem = None
            n_before = len(sockets)
            for family, address in _addresses(host):
                try:
                    one = opened.enter_context(_listen_at(family, address, port))
                except (OSError, OverflowError) as error:
                    problem = f"cannot listen on {address}, port {port}: {error}. Choose another --host or --port"
                    if getattr(error, "errno", None) not in _NOT_HERE:
                        raise ServiceError(problem) from None
                    continue
                port = one.getsockname()[1]
                sockets.append(one)
            if problem is not None and len(sockets) == n_before:
                raise ServiceError(problem)
        opened.pop_all()
    return sockets


def _listen_at(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    # Without the protocol, asyncio does not know that it may turn Nagle's algorithm off, and answers take 40 ms more.
    one = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there it lets two programs have one port
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, port))
        one.listen(BACKLOG)
    except BaseException:
        one.close()
        raise
    return one


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host. Raises InvalidInputError if it has no address."""
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for _, address in _addresses(host))


def url_of(listening: socket.socket) -> str:
    """The address of a socket as a URL."""
    address, port = listening.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        if not host:
            raise OSError("it is empty")
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(f"host must be a name or address of this machine, got {host!r}: {error}") from None
    known = (socket.AF_INET, socket.AF_INET6)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found if family in known))
