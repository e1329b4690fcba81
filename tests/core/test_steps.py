"""Calls of an index that are written once, and made or awaited."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest
from awaited_index import AwaitedIndex, NoThreads

from muvera_core import IndexCalls, MuveraIndex
from muvera_core.errors import InvalidInputError
from muvera_core.index import IndexCall, Steps, awaited, perform, perform_async, steps_of, stepwise

BIRDS = {"owl": "Owls hunt at night.", "swift": "Swifts sleep while they fly."}
WHO = ContextVar("WHO", default="nobody")


class Names:
    """Works on an index by steps."""

    def __init__(self, index: IndexCalls) -> None:
        self.index = index
        self.seen: list[tuple[int, str]] = []

    @stepwise
    def texts(self, ids: list[str], *, end: str = "") -> Steps[list[str]]:
        self.seen.append((threading.get_ident(), WHO.get()))
        documents = yield IndexCall(IndexCalls.get, ids)
        return [f"{document.text}{end}" for document in documents]

    @stepwise
    def texts_and_count(self, ids: list[str]) -> Steps[tuple[list[str], int]]:
        texts = yield from steps_of(self.texts, ids, end="!")
        n = yield IndexCall(IndexCalls.count)
        return texts, n

    @stepwise
    def first(self, k: int) -> Steps[str]:
        try:
            hits = yield IndexCall(IndexCalls.search, "night", k)
        except InvalidInputError:
            hits = yield IndexCall(IndexCalls.search, "night", 1)
        return str(hits[0].id)


@pytest.fixture(scope="module")
def birds() -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None) as index:
        index.add(list(BIRDS.values()), list(BIRDS))
        yield index


def test_steps_are_made_now(birds: MuveraIndex) -> None:
    assert Names(birds).texts(["owl"]) == ["Owls hunt at night."]
    assert Names(birds).texts_and_count(["owl"]) == (["Owls hunt at night.!"], 2)


async def test_an_index_that_can_wait_is_awaited_without_a_thread(birds: MuveraIndex) -> None:
    asyncio.get_running_loop().set_default_executor(NoThreads())
    index = AwaitedIndex(birds)
    assert await awaited(Names(index).texts_and_count, ["owl"]) == (["Owls hunt at night.!"], 2)
    assert index.awaited == ["get", "count"]


async def test_a_local_index_is_asked_in_one_thread_with_the_callers_context(birds: MuveraIndex) -> None:
    WHO.set("me")
    names = Names(birds)
    assert await awaited(names.texts_and_count, ["owl"]) == (["Owls hunt at night.!"], 2)
    [(thread, who)] = names.seen
    assert (thread != threading.get_ident(), who) == (True, "me")


async def test_an_error_of_the_index_arrives_where_the_call_is_written(birds: MuveraIndex) -> None:
    assert Names(birds).first(0) == "owl"
    for index in (birds, AwaitedIndex(birds)):
        assert await awaited(Names(index).first, 0) == "owl"


@pytest.mark.parametrize("error", [InvalidInputError("no"), StopIteration("no"), KeyboardInterrupt()])
async def test_any_error_ends_the_steps(error: BaseException) -> None:
    class Failing(IndexCalls):
        def __init__(self) -> None:
            pass

        def clear(self) -> int:
            raise error

        async def acall(self, name: str) -> None:
            raise error

    def steps() -> Steps[None]:
        yield IndexCall(IndexCalls.clear)

    # Python forbids StopIteration in generators.
    expected = RuntimeError if isinstance(error, StopIteration) else type(error)
    with pytest.raises(expected):
        perform(Failing(), steps())
    if not isinstance(error, StopIteration):  # nor in coroutines
        with pytest.raises(expected):
            await perform_async(Failing(), steps())


async def test_a_method_that_is_not_stepwise_still_works(birds: MuveraIndex) -> None:
    class Loud(Names):
        def texts(self, ids: list[str], *, end: str = "") -> list[str]:
            return [text.upper() for text in super().texts(ids, end=end)]

    assert await awaited(Loud(birds).texts, ["owl"]) == ["OWLS HUNT AT NIGHT."]
    assert await awaited(Loud(birds).texts_and_count, ["owl"]) == (["OWLS HUNT AT NIGHT.!"], 2)


def test_help_shows_what_a_call_returns() -> None:
    assert str(inspect.signature(Names.texts)).endswith("-> 'list[str]'")
