"""Times of a search's parts, measured so that other work on the machine matters little."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import TypeVar

# The fastest of so many calls counts: what else the machine does only ever makes a call slower.
_REPETITIONS = 3
_T = TypeVar("_T")


def seconds(call: Callable[[_T], object], arguments: Iterable[_T]) -> float:
    """The median over ``arguments`` of the shortest time that a call takes."""
    return median(min(_once(call, argument) for _ in range(_REPETITIONS)) for argument in arguments)


def _once(call: Callable[[_T], object], argument: _T) -> float:
    start = time.perf_counter()
    call(argument)
    return time.perf_counter() - start
