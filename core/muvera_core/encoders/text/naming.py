"""Shared by all encoders: the check of texts, and the warnings about texts that are not encoded as they are."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from muvera_core.validation import require_sequence, require_unicode

_SHOWN_CHARACTERS = 40
_PACKAGE = __name__.partition(".")[0]
_NAMES: ContextVar[tuple[str | int, ...]] = ContextVar("names of the texts", default=())
_COLLECTED: ContextVar[list[GivenWarning] | None] = ContextVar("where warnings are collected", default=None)
_IS_QUIET: ContextVar[bool] = ContextVar("whether nothing is said about the texts", default=False)


def require_unicode_texts(texts: Sequence[str]) -> list[str]:
    """The texts, as a list. Raises InvalidInputError unless they are a sequence of strings that UTF-8 can encode."""
    return [require_unicode(f"texts[{i}]", text) for i, text in enumerate(require_sequence("texts", texts))]


@contextmanager
def naming(names: Sequence[str | int]) -> Iterator[None]:
    """Give the texts of ``encode_documents`` names, such as the documents' ids, which warnings then show.

    The names count in this thread or asyncio task only, for each call inside the block that has one text per name.

    Args:
        names: one per text, in order. A number is the text's place, from 0, in the list that the user gave.

    Example:
        >>> with naming(["a", "b"]):
        ...     embeddings = encoder.encode_documents(["text a", "text b"])
    """
    token = _NAMES.set(tuple(names))
    try:
        yield
    finally:
        _NAMES.reset(token)


@contextmanager
def unreported() -> Iterator[None]:
    """Encode texts that the user did not write, such as parts of documents, without warnings about them."""
    token = _IS_QUIET.set(True)
    try:
        yield
    finally:
        _IS_QUIET.reset(token)


class GivenWarning(NamedTuple):
    """A warning that was collected instead of issued."""

    message: str
    category: type[Warning]


@contextmanager
def collecting_warnings() -> Iterator[list[GivenWarning]]:
    """Collect muvera's own warnings of this thread or asyncio task, to issue them elsewhere. Nothing filters them."""
    collected: list[GivenWarning] = []
    token = _COLLECTED.set(collected)
    try:
        yield collected
    finally:
        _COLLECTED.reset(token)


def document_name(texts: Sequence[str], i: int) -> str:
    """What a warning calls document ``texts[i]``: its name if it has one, else its place and its first words."""
    names = _NAMES.get()
    name = names[i] if len(names) == len(texts) else i
    return f"document {name!r}" if isinstance(name, str) else f"text {_at_place(name, texts[i])}"


def query_name(texts: Sequence[str], i: int) -> str:
    """What a warning calls query ``texts[i]``."""
    return "the question" if len(texts) == 1 else f"question {_at_place(i, texts[i])}"


def _at_place(place: int, text: str) -> str:
    words = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return f"{place + 1} of this call ({words!r})"


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning that points at the line outside of muvera whose call led here. Not in ``unreported``."""
    if _IS_QUIET.get():
        return
    collected = _COLLECTED.get()
    if collected is not None:
        collected.append(GivenWarning(message, category))
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
