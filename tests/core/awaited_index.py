"""An index that is awaited, as the client of a service is. It notes how it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from muvera_core import IndexCalls, MuveraIndex
from muvera_core.token_embeddings import IntArray, TokenEmbeddings


class NoThreads(ThreadPoolExecutor):
    """Fails where a test must do without threads: ``asyncio.get_running_loop().set_default_executor(NoThreads())``."""

    def submit(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("a thread was used")


class AwaitedEncoder:
    """An encoder that can be asked for nothing where there is an event loop, because that would block it."""

    def __init__(self, index: MuveraIndex) -> None:
        self._inner = index.encoder

    @property
    def dimension(self) -> int:
        _refuse_event_loop("dimension")
        return self._inner.dimension

    @property
    def fingerprint(self) -> str:
        _refuse_event_loop("fingerprint")
        return self._inner.fingerprint

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        _refuse_event_loop("encode_documents")
        return self._inner.encode_documents(texts)

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        _refuse_event_loop("encode_queries")
        return self._inner.encode_queries(texts)

    def document_spans(self, text: str) -> IntArray:
        _refuse_event_loop("document_spans")
        return self._inner.document_spans(text)

    def query_spans(self, text: str) -> IntArray:
        _refuse_event_loop("query_spans")
        return self._inner.query_spans(text)


class AwaitedIndex(IndexCalls):
    """Asks another index. Its calls must be awaited where there is an event loop.

    Attributes:
        awaited: names of the calls that were awaited.
        most_at_once: the largest number of calls that were waiting together.
    """

    def __init__(self, inner: MuveraIndex) -> None:
        self.inner = inner
        self.awaited: list[str] = []
        self.most_at_once = 0
        self._n_waiting = 0

    @property
    def encoder(self) -> AwaitedEncoder:
        return AwaitedEncoder(self.inner)

    async def acall(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        self.awaited.append(name)
        self._n_waiting += 1
        self.most_at_once = max(self.most_at_once, self._n_waiting)
        try:
            await asyncio.sleep(0)
            return getattr(self.inner, name)(*arguments, **options)
        finally:
            self._n_waiting -= 1


def _refuse_event_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise AssertionError(f"{name} was called on the event loop")


def _call(name: str) -> Callable[..., Any]:
    def call(self: AwaitedIndex, *arguments: Any, **options: Any) -> Any:
        _refuse_event_loop(name)
        return getattr(self.inner, name)(*arguments, **options)

    return call


for _name in dir(IndexCalls):
    if _name in ("__len__", "__contains__") or (not _name.startswith("_") and callable(getattr(IndexCalls, _name))):
        setattr(AwaitedIndex, _name, _call(_name))
