"""The options that say what the words of an index are, and the settings that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_args

import click

from muvera_core.lexical import LexicalConfig, Tokenizer, languages

_UNSTEMMED = "none"
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class WordOptions:
    """What was asked for. None stands for an option that was left out.

    Attributes:
        tokenizer: see ``LexicalConfig``.
        language: a language, or "none".
        fields: metadata fields. Empty if there was none.
    """

    tokenizer: Tokenizer | None = None
    language: str | None = None
    fields: tuple[str, ...] = ()

    @property
    def given(self) -> dict[str, tuple[str, Any]]:
        """For each option that was given, the name of its setting and the setting's value."""
        found: dict[str, tuple[str, Any]] = {}
        if self.tokenizer is not None:
            found["--tokenizer"] = ("tokenizer", self.tokenizer)
        if self.language is not None:
            found["--language"] = ("language", None if self.language == _UNSTEMMED else self.language)
        if self.fields:
            found["--search-field"] = ("fields", self.fields)
        return found

    def change(self, settings: LexicalConfig) -> LexicalConfig:
        """Settings of a word index, with what was asked for."""
        return replace(settings, **dict(self.given.values()))


def word_options(command: _F) -> _F:
    """Give a command the options ``--tokenizer``, ``--language`` and ``--search-field``."""
    options = (
        click.option(
            "--tokenizer",
            type=click.Choice(get_args(Tokenizer)),
            help="What lexical search compares: words, or any three characters in a row, which find parts of words.",
        ),
        click.option(
            "--language",
            type=click.Choice([*languages(), _UNSTEMMED]),
            metavar="NAME",
            help="The language whose rules reduce words to their stems, such as german; none compares words as they "
            "are. An index is made with english.",
        ),
        click.option(
            "--search-field",
            "search_fields",
            multiple=True,
            metavar="FIELD",
            help="A metadata field whose words are searched, too, such as title. Give the option once for each field.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def words_as_text(settings: LexicalConfig | None) -> str:
    """The settings of a word index in one line."""
    if settings is None:
        return "none"
    if settings.tokenizer == "trigram":
        words = "parts of words, of three characters or more"
    else:
        words = "words as they are" if settings.language is None else f"words, by the stems of {settings.language}"
    if settings.fields:
        words += f", of the texts and of {', '.join(settings.fields)} (counted {settings.field_weight:g} times)"
    return words
