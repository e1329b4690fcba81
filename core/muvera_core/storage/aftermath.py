"""Work that follows a commit. The change is made, so nothing here may raise: what fails is only logged.

An interruption, such as Ctrl-C, still ends the call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from muvera_core.encoders import warn

_log = logging.getLogger(__name__)


def follow_up(work: Callable[[], object], problem: str) -> bool:
    """Do work that follows a commit.

    Args:
        work: the work. It is done again after a later write, or at the next opening, or can be left out.
        problem: what the log says if it fails.

    Returns:
        Whether it was done.
    """
    try:
        work()
    except Exception as error:
        log_failure(problem, error)
        return False
    return True


def log_failure(problem: str, error: Exception) -> None:
    """Log an error of work that follows a commit.

    A record of the log does not hold the error: its traceback would keep the index, and its folder's lock, alive.
    """
    _log.warning("%s: %s: %s", problem, type(error).__name__, str(error))


def warn_or_log(message: str, category: type[Warning]) -> None:
    """Give a warning. If warnings are errors, log it instead."""
    try:
        warn(message, category)
    except category:
        _log.warning("%s", message)
