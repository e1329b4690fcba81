"""The options that say how files are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from muvera_core.corpus import Reading
from muvera_core.errors import InvalidInputError

_DETECT = "detect"
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ReadingOptions:
    """What was asked for. None stands for an option that was left out.

    Attributes:
        max_tokens: see ``Reading``.
        overlap: see ``Reading``.
        no_split: whether texts are not split.
        encoding: see ``Reading``; "detect" stands for its None.
    """

    max_tokens: int | None = None
    overlap: int | None = None
    no_split: bool = False
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.no_split and (self.max_tokens is not None or self.overlap):
            raise InvalidInputError("--no-split makes no passages: leave it, or --max-tokens and --overlap out")

    def change(self, reading: Reading) -> Reading:
        """A reading, with what was asked for."""
        given: dict[str, Any] = {}
        if self.no_split:
            given |= {"max_tokens": None, "overlap": 0}
        if self.max_tokens is not None:
            given["max_tokens"] = self.max_tokens
            if self.overlap is None and reading.overlap > self.max_tokens // 2:
                given["overlap"] = 0  # the overlap that is remembered does not fit
        if self.overlap is not None:
            given["overlap"] = self.overlap
        if self.encoding is not None:
            given["encoding"] = None if self.encoding == _DETECT else self.encoding
        return replace(reading, **given)


def reading_options(command: _F) -> _F:
    """Give a command the options ``--max-tokens``, ``--overlap``, ``--no-split`` and ``--encoding``."""
    options = (
        click.option(
            "--max-tokens",
            type=click.IntRange(min=1),
            metavar="N",
            show_default=str(Reading().max_tokens),
            help="Split texts into passages of at most N tokens, at headings, paragraphs and sentences.",
        ),
        click.option(
            "--overlap",
            type=click.IntRange(min=0),
            metavar="N",
            show_default=str(Reading().overlap),
            help="Let a passage repeat up to N tokens of the one before it.",
        ),
        click.option("--no-split", is_flag=True, help="Make one document of each text, whatever its length."),
        click.option(
            "--encoding",
            metavar="NAME",
            show_default=_DETECT,
            help="The encoding of text files, such as cp1252, if it is not found out correctly.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def reading_as_text(reading: Reading) -> str:
    """How files are read, in a few words."""
    if reading.max_tokens is None:
        text = "texts are not split"
    else:
        text = f"passages of up to {reading.max_tokens} tokens"
        text += f" that repeat up to {reading.overlap}" if reading.overlap else ""
    return text + ("" if reading.encoding is None else f", text files in {reading.encoding}")
