"""A script in whose way a fault gets: its calls raise or succeed, and nothing is lost either way."""

from __future__ import annotations

import os
import sqlite3
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from crash_checks import BLOCKED, which
from crash_workload import ENCODER, Model, Operation, apply, perform

from muvera_core import MuveraIndex, errors
from muvera_core.errors import MuveraError

if TYPE_CHECKING:
    from crash_worker import IoLog

# What a fault may raise: muvera's own errors, once there is one for this.
EXPECTED_ERRORS: tuple[type[Exception], ...] = (
    (MuveraError,) if hasattr(errors, "StorageError") else (MuveraError, OSError, sqlite3.Error)
)


def is_expected(error: Exception) -> bool:
    """Whether a disk error may come up as this: what says that the index is damaged is wrong, since nothing is."""
    return isinstance(error, EXPECTED_ERRORS) and not isinstance(error, errors.CorruptIndexError)


def run_through_fault(script: list[Operation], folder: Path, iolog: IoLog, acks: int) -> tuple[list[str], list[str]]:
    """Run a script with a fault armed, heal it at the first error, try again and go on to the end.

    Returns:
        What was wrong, and notes on what happened.
    """
    problems: list[str] = []
    notes: list[str] = []
    index: MuveraIndex | None = None
    model: Model = {}
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
            except errors.IndexExistsError:
                return problems, [*notes, BLOCKED]
            except Exception as second:
                return [*problems, f"{where}: after {described(error)}: {described(second)}"], notes
        model = apply(model, operation)
        os.write(acks, f"{number}\n".encode())
    assert index is not None
    try:
        index.close()
    except Exception as error:
        notes.append(f"close raised {type(error).__name__}")
        if not is_expected(error):
            problems.append(f"close at the end: raised {described(error)}")
    if iolog.heal() and not notes:
        notes.append("nothing raised")
    return problems, notes


def described(error: Exception) -> str:
    """An error with the place where it came up."""
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} ({error}) at {Path(innermost.filename).name}:{innermost.lineno}"


def _go_on(
    index: MuveraIndex | None, model: Model, operation: Operation, folder: Path, iolog: IoLog, notes: list[str]
) -> MuveraIndex:
    """After an error: nothing wrong is read while the fault lasts, and once it is gone the operation works."""
    allowed = [model, apply(model, operation)]
    if operation.kind in ("create", "reopen"):
        iolog.heal()
        if index is not None:
            index.close()
        index = _create_or_open(operation, folder)
        _require_one_of(index, allowed, "after opening again")
        return index
    assert index is not None
    try:
        held = _require_one_of(index, allowed, "while the fault lasts")
    except EXPECTED_ERRORS as error:
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


def _create_or_open(operation: Operation, folder: Path) -> MuveraIndex:
    if operation.kind == "reopen":
        return MuveraIndex.open(folder, ENCODER)
    try:
        return perform(None, operation, folder)
    except errors.IndexExistsError as blocked:
        try:
            return MuveraIndex.open(folder, ENCODER)
        except MuveraError:
            raise blocked from None
