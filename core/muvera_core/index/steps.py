"""Code that calls an index, written once for callers that wait and callers that await.

Such code is a generator: it yields each call of the index, and is sent the result. Whoever runs it makes the calls, now
or asynchronously. The frameworks' classes are written this way:

    class Store:
        @stepwise
        def texts(self, ids: list[str]) -> Steps[list[str]]:
            documents = yield IndexCall(IndexCalls.get, ids)
            return [document.text for document in documents]

        async def atexts(self, ids: list[str]) -> list[str]:
            return await awaited(self.texts, ids)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, ParamSpec, TypeVar

from muvera_core.index.calls import IndexCalls, call_async

P = ParamSpec("P")
R = TypeVar("R")


class IndexCall:
    """A call of an index that has not been made.

    Args:
        method: a method of ``IndexCalls``. An index's own method of that name is called.
        *arguments: of the method.
        **options: of the method.
    """

    def __init__(
        self, method: Callable[Concatenate[IndexCalls, P], Any], /, *arguments: P.args, **options: P.kwargs
    ) -> None:
        self.name = method.__name__
        self.arguments, self.options = arguments, options

    def make(self, index: IndexCalls) -> Any:
        """Make the call, and return its result."""
        return getattr(index, self.name)(*self.arguments, **self.options)

    async def make_async(self, index: IndexCalls) -> Any:
        """Make the call without blocking the event loop, and return its result."""
        return await call_async(index, self.name, *self.arguments, **self.options)


# Yields calls, is sent their results, and returns what it makes of them.
Steps = Generator[IndexCall, Any, R]


def perform(index: IndexCalls, steps: Steps[R]) -> R:
    """Run steps. A call that fails raises its error where the steps yield it."""
    try:
        call = next(steps)
        while True:
            try:
                result = call.make(index)
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def perform_async(index: IndexCalls, steps: Steps[R]) -> R:
    """Run steps, and await their calls. See ``perform``."""
    try:
        call = next(steps)
        while True:
            try:
                result = await call.make_async(index)
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def stepwise(method: Callable[P, Steps[R]]) -> Callable[P, R]:
    """A method that runs the steps of the decorated one on the object's ``index``. ``awaited`` awaits them."""

    @wraps(method)
    def performed(*args: P.args, **kwargs: P.kwargs) -> R:
        return perform(args[0].index, method(*args, **kwargs))  # type: ignore[attr-defined]

    performed.steps = method  # type: ignore[attr-defined]
    # What users see in help() is what they get.
    whole = signature(method)
    result = str(whole.return_annotation).removeprefix("Steps[").removesuffix("]")
    performed.__signature__ = whole.replace(return_annotation=result)  # type: ignore[attr-defined]
    return performed


def steps_of(method: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Steps[R]:
    """The steps of an object's ``stepwise`` method, to ``yield from`` in another one.

    A method that is not stepwise, such as that of a subclass, is called, and has no steps.
    """
    steps = getattr(method, "steps", None)
    if steps is None:
        return method(*args, **kwargs)
    return (yield from steps(method.__self__, *args, **kwargs))  # type: ignore[attr-defined, no-any-return]


async def awaited(method: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Await an object's ``stepwise`` method.

    An index that can wait asynchronously does so, without a thread. For any other index the method runs in a thread,
    with the caller's context variables. So does a method that is not stepwise, such as that of a subclass.
    """
    index = method.__self__.index  # type: ignore[attr-defined]
    if not hasattr(method, "steps") or not hasattr(index, "acall"):
        return await asyncio.to_thread(method, *args, **kwargs)
    return await perform_async(index, steps_of(method, *args, **kwargs))
