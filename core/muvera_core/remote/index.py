"""An index behind a service."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, NoReturn, Self, cast
from urllib.parse import urlsplit

from muvera_core.calibration import Calibration
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import CLOSED, IndexClosedError, InvalidInputError
from muvera_core.hits import Document, DocumentPage
from muvera_core.index import IndexCalls
from muvera_core.lexical import LexicalConfig
from muvera_core.remote.connection import Connection, Post
from muvera_core.remote.encoder import RemoteEncoder
from muvera_core.remote.requesting import Request
from muvera_core.storage import TokenPrecision
from muvera_core.validation import (
    require_count,
    require_interval,
    require_known_names,
    require_path,
    require_unicode,
    shown,
)
from muvera_core.wire import CALLS, Call, ServiceInfo

# Documents that one request reads.
_PAGE = 256


class RemoteMuveraIndex(IndexCalls):
    """An index behind a service, such as ``muvera serve`` starts. It has the calls of ``MuveraIndex``.

    Calls return what the service's index returns, raise the errors that it raises, and give its warnings. ``acall``
    makes any of them asynchronously. Any number of threads and event loops may use it. Connections are opened when
    they are needed, and kept. It can be pickled, with its token.

    What cannot be sent to a service: ``clock``, the function of ``search_with_cross_encoder``, and ``copy_to``.
    ``show_progress`` shows nothing. Images that are given as paths are read here.

    Args:
        url: the service's address, such as "http://127.0.0.1:8000".
        token: the service's bearer token. None sends none.
        timeout: seconds that a call may take, with all its attempts.
        write_timeout: the same for calls that change the index, and for ``evaluate``.
        retries: how often a call is repeated if the service cannot be reached or is busy. One that changes the index
            is repeated only if that cannot change it twice.
        uds: path of the Unix domain socket on which the service listens. None connects to the address.

    Raises:
        InvalidInputError: an argument cannot be used.

    Example:
        >>> index = RemoteMuveraIndex("http://127.0.0.1:8000", token="secret")
        >>> index
        <RemoteMuveraIndex 'http://127.0.0.1:8000'>
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        write_timeout: float = 600.0,
        retries: int = 2,
        uds: str | os.PathLike[str] | None = None,
    ) -> None:
        # Not IndexCalls' own, which takes documents in this process.
        self._url, self._token = _require_url(url), _require_token(token)
        self._timeout = _require_seconds("timeout", timeout)
        self._write_timeout = _require_seconds("write_timeout", write_timeout)
        self._retries = require_count("retries", retries, 0)
        self._uds = None if uds is None else str(require_path("uds", uds))
        self._connection = Connection(self._url, self._token, self._retries, self._uds)
        self._remote_encoder, self._is_open = RemoteEncoder(self.call), True

    # Calls

    def call(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        """Make a call by its name in the service's table of calls, such as "search" or "len"."""
        request = self._request(name, arguments, options)
        return request.result(self._connection.post(self._post(request)))

    async def acall(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        """Make a call on the running event loop, and wait for it without a thread.

        Args:
            name: name of a method, such as "search"; or "len" or "contains".
            *arguments: of the method.
            **options: of the method.

        Example: ``hits = await index.acall("search", "Which bird hunts at night?", k=3)``
        """
        if name == "find":
            return await self._afind(*arguments, **options)
        if name in _NOT_SENT:
            raise InvalidInputError(_NOT_SENT[name])
        request = self._request(name, arguments, options)
        return request.result(await self._connection.apost(self._post(request)))

    def info(self) -> ServiceInfo:
        """Facts about the service and its index."""
        info: ServiceInfo = self.call("info")
        return info

    def find(
        self, filter: Mapping[str, Any] | None = None, limit: int | None = None, *, offset: int = 0
    ) -> list[Document]:
        """See ``MuveraIndex.find``. What one request cannot read is read page by page."""
        if limit is not None and require_count("limit", limit) <= _PAGE:
            found: list[Document] = self.call("find", filter, limit, offset=offset)
            return found
        offset = require_count("offset", offset, 0)
        return list(islice(self.iterate(filter), offset, None if limit is None else offset + limit))

    async def _afind(
        self, filter: Mapping[str, Any] | None = None, limit: int | None = None, *, offset: int = 0
    ) -> list[Document]:
        if limit is not None and require_count("limit", limit) <= _PAGE:
            request = self._request("find", (filter, limit), {"offset": offset})
            return cast(list[Document], request.result(await self._connection.apost(self._post(request))))
        offset, found = require_count("offset", offset, 0), list[Document]()
        n = None if limit is None else offset + limit
        async for document in self.aiterate(filter):
            found.append(document)
            if len(found) == n:
                break
        return found[offset:]

    def iterate(self, filter: Mapping[str, Any] | None = None, *, batch_size: int = _PAGE) -> Iterator[Document]:
        """See ``MuveraIndex.iterate``."""
        first: DocumentPage = self.call("page", filter, limit=require_count("batch_size", batch_size))
        return self._documents_from(first, filter, batch_size)

    def _documents_from(
        self, page: DocumentPage, filter: Mapping[str, Any] | None, batch_size: int
    ) -> Iterator[Document]:
        yield from page.documents
        while page.next is not None:
            page = self.call("page", filter, after=page.next, limit=batch_size)
            yield from page.documents

    async def aiterate(
        self, filter: Mapping[str, Any] | None = None, *, batch_size: int = _PAGE
    ) -> AsyncIterator[Document]:
        """``iterate`` on the running event loop, for ``async for``."""
        after: str | None = None
        while True:
            page: DocumentPage = await self.acall("page", filter, after=after, limit=batch_size)
            for document in page.documents:
                yield document
            if page.next is None:
                return
            after = page.next

    def search_with_cross_encoder(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raises InvalidInputError: a function cannot be sent to a service."""
        raise InvalidInputError(_NOT_SENT["search_with_cross_encoder"])

    def copy_to(self, path: str | os.PathLike[str]) -> NoReturn:
        """Raises InvalidInputError: a client names no folders of the service's machine."""
        raise InvalidInputError(_NOT_SENT["copy_to"])

    def __len__(self) -> int:
        return int(self.call("len"))

    def __contains__(self, id: object) -> bool:
        try:
            wanted = require_unicode("id", id)
        except InvalidInputError:
            return False  # no document can have such an id
        return bool(self.call("contains", wanted))

    # Facts

    @property
    def url(self) -> str:
        """The service's address."""
        return self._url

    @property
    def path(self) -> None:
        """None: the folder is the service's."""
        return None

    @property
    def encoder(self) -> TokenEncoder:
        """The index's encoder. It encodes at the service."""
        return self._remote_encoder

    @property
    def n_tokens(self) -> int:
        """The number of token vectors of all documents."""
        return int(self.call("n_tokens"))

    @property
    def device(self) -> str:
        """The device that searches use at the service."""
        return self.info().device

    @property
    def token_precision(self) -> TokenPrecision:
        """How token vectors are stored; see ``MuveraIndex.create``."""
        return self.info().token_precision

    @property
    def pool_factor(self) -> int:
        """About one in ``pool_factor`` tokens of a document is stored; see ``MuveraIndex.create``."""
        return self.info().pool_factor

    @property
    def keep_tokens(self) -> float:
        """The share of a document's tokens that is kept before they are pooled; see ``MuveraIndex.create``."""
        return self.info().keep_tokens

    @property
    def lexical(self) -> LexicalConfig | None:
        """Settings of the word index; see ``MuveraIndex.create``. None if there is none."""
        return self.info().lexical

    @property
    def calibration(self) -> Mapping[str, Calibration]:
        """What ``calibrate`` learned, by mode of search. Empty if the index is not calibrated."""
        return self.info().calibration

    # Closing

    def close(self) -> None:
        """Close the connections. The service and its index stay open."""
        self._is_open = False
        self._connection.close()

    async def aclose(self) -> None:
        """Close the connections, also those of the running event loop."""
        self._is_open = False
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> tuple[Any, ...]:  # type: ignore[override]  # other indexes cannot be pickled
        options: dict[str, Any] = {
            "token": self._token,
            "timeout": self._timeout,
            "write_timeout": self._write_timeout,
            "retries": self._retries,
            "uds": self._uds,
        }
        return functools.partial(type(self), self._url, **options), ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url!r}{'' if self._is_open else ': closed'}>"

    def _request(self, name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Request:
        if not self._is_open:
            raise IndexClosedError(CLOSED)
        require_known_names("a remote index", [name], CALLS)
        return Request.of(CALLS[name], arguments, options)

    def _post(self, request: Request) -> Post:
        call = request.call
        seconds = self._write_timeout if call.slow else self._timeout
        return Post(call.name, request.body, seconds, call.repeatable, call.kind != "read")


# Methods of an index that a service does not make, and what to do instead.
_NOT_SENT = {
    "search_with_cross_encoder": (
        "a cross-encoder cannot be sent to a service: call search, and let it rank the hits' texts here"
    ),
    "copy_to": "a client cannot name a folder of the service's machine: copy the index there",
    "iterate": "an iterator cannot be awaited: use `async for document in index.aiterate(...)`",
}


def _sent(call: Call) -> Callable[..., Any]:
    """The method of an index that makes a call at the service, with the same signature."""

    @functools.wraps(call.function)
    def method(self: RemoteMuveraIndex, *arguments: Any, **options: Any) -> Any:
        return self.call(call.name, *arguments, **options)

    return method


for _call in CALLS.values():
    if _call.is_method and _call.name not in vars(RemoteMuveraIndex):
        setattr(RemoteMuveraIndex, _call.name, _sent(_call))


def _require_url(url: object) -> str:
    advice = 'url must be the address of a service, such as "http://127.0.0.1:8000"'
    if not isinstance(url, str):
        raise InvalidInputError(f"{advice}, got {shown(url)}")
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.query or parts.fragment or parts.username is not None:
        raise InvalidInputError(f"{advice}, got {shown(url)}")
    return url.rstrip("/")


def _require_token(token: object) -> str | None:
    if token is None:
        return None
    # The value is not shown, because it is a secret.
    if not isinstance(token, str) or not token or not all("!" <= character <= "~" for character in token):
        raise InvalidInputError("token must have only visible ASCII characters, and at least one")
    return token


def _require_seconds(name: str, value: object) -> float:
    seconds = require_interval(name, value)
    if not seconds or seconds == float("inf"):
        raise InvalidInputError(f"{name} must be a number of seconds above 0, got {shown(value)}")
    return seconds
