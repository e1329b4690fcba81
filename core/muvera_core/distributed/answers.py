"""What a shard in another process answers: a result or an error, and the warnings that were given meanwhile."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from muvera_core.encoders import GivenWarning, collecting_warnings, warn
from muvera_core.errors import MuveraError, ServiceError
from muvera_core.storage import warn_or_log


@dataclass(frozen=True)
class Answer:
    """The answer to a call.

    Attributes:
        value: the result. None if the call failed.
        error: what the call raised. None if it did not fail.
        warnings: muvera's own warnings that it gave, in order.
    """

    value: Any = None
    error: Exception | None = None
    warnings: tuple[GivenWarning, ...] = ()


def answer(call: Callable[..., Any], *arguments: Any) -> Answer:
    """Make a call in the process of a shard. Never raises an Exception."""
    with collecting_warnings() as collected:
        try:
            return Answer(call(*arguments), None, tuple(collected))
        except Exception as error:
            return Answer(None, _portable(error), tuple(collected))


def give_warnings(answers: Iterable[Answer], *, after_write: bool = False) -> None:
    """Give the answers' warnings in this process, each once.

    Args:
        answers: the answers.
        after_write: only log a warning that the user has made an error. What was written is not undone by it.
    """
    for given in dict.fromkeys(warning for each in answers for warning in each.warnings):
        (warn_or_log if after_write else warn)(given.message, given.category)


def _portable(error: Exception) -> Exception:
    """The error if it can be pickled, or one that says the same. Errors that are bugs tell where they were raised."""
    if not isinstance(error, MuveraError):
        error.add_note("raised in the process of a shard:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:
        return ServiceError(f"a shard failed with {type(error).__name__}: {error}")
    return error
