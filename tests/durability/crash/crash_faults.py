"""A script in whose way a fault gets: its calls raise or succeed, and nothing is lost either way."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from crash_checks import described, which
from crash_workload import Model, Operation, apply, perform

from muvera_core import MuveraIndex
from muvera_core.errors import CorruptIndexError, IndexExistsError, MuveraError, StageOneNotSavedWarning

if TYPE_CHECKING:
    from crash_worker import IoLog


def is_expected(error: Exception) -> bool:
    """Whether a disk error may come up as this: what says that the index is damaged is wrong, since nothing is."""
    return isinstance(error, MuveraError) and not isinstance(error, CorruptIndexError)


SILENT = "nothing raised"


class _Said(logging.Handler):
    """What the library logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(str(record.msg))


def run_through_fault(
    script: list[Operation],
    start: Model,
    folder: Path,
    iolog: IoLog,
    returned: Callable[[int, MuveraIndex], None],
) -> tuple[list[str], list[str]]:
    """Run a script with a fault armed, heal it at the first error, try again and go on to the end.

    Args:
        script: what to do.
        start: the documents that are there.
        folder: the index folder.
        iolog: where the fault is armed.
        returned: called after each operation.

    Returns:
        What was wrong, and notes on what happened.
    """
    said = _Said()
    logging.getLogger("muvera_core").addHandler(said)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        problems, notes = _run(script, start, folder, iolog, returned)
    problems += [f"warned {w.message!r}" for w in warned if w.category is not StageOneNotSavedWarning]
    if iolog.heal() and not notes:
        if said.messages:
            notes.append(f"nothing raised, logged: {said.messages[0]}")
        elif warned:
            notes.append(f"nothing raised, warned: {warned[0].category.__name__}")
        else:
            notes.append(SILENT)
    return problems, notes


def _run(
    script: list[Operation],
    start: Model,
    folder: Path,
    iolog: IoLog,
    returned: Callable[[int, MuveraIndex], None],
) -> tuple[list[str], list[str]]:
    problems: list[str] = []
    notes: list[str] = []
    index: MuveraIndex | None = None
    model = start
    for number, operation in enumerate(script):
        try:
            index = perform(index, operation, folder)
        except Exception as error:
            where = f"operation {number}, {operation}"
            notes.append(f"{operation.kind} raised {type(error).__name__}")
            if not is_expected(error):
                problems.append(f"{where}: raised {described(error)}")
            try:
                index = _go_on(index, model, operation, folder, iolog, notes)
            except Exception as second:
                return [*problems, f"{where}: after {described(error)}: {described(second)}"], notes
        model = apply(model, operation)
        returned(number, index)
    assert index is not None
    try:
        index.close()
    except Exception as error:
        notes.append(f"close raised {type(error).__name__}")
        if not is_expected(error):
            problems.append(f"close at the end: raised {described(error)}")
    return problems, notes


def _go_on(
    index: MuveraIndex | None, model: Model, operation: Operation, folder: Path, iolog: IoLog, notes: list[str]
) -> MuveraIndex:
    """After an error: nothing wrong is read while the fault lasts, and once it is gone the operation works."""
    allowed = [model, apply(model, operation)]
    if operation.kind in ("create", "reopen", "repair"):
        iolog.heal()
        if index is not None:
            index.close()
        try:
            index = perform(None, operation, folder)
        except IndexExistsError:  # the error came after all was done: then it must be an index
            index = perform(None, Operation("reopen"), folder)
        _require_one_of(index, allowed, "after opening again")
        return index
    assert index is not None
    try:
        held = _require_one_of(index, allowed, "while the fault lasts")
    except MuveraError as error:
        if not is_expected(error):
            raise
        notes.append(f"reading raised {type(error).__name__} while the fault lasted")
        held = None
    iolog.heal()
    _require_one_of(index, allowed if held is None else [held], "after the fault")
    return perform(index, operation, folder)


def _require_one_of(index: MuveraIndex, models: list[Model], when: str) -> Model:
    held, reason = which(index, models)
    if held is None:
        raise AssertionError(f"state {when}: {reason}")
    return held
