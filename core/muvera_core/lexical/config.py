"""The settings of a word index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from muvera_core.errors import InvalidInputError
from muvera_core.lexical.stemming import languages
from muvera_core.validation import require_choice, require_iterable, require_unicode, shown

Tokenizer = Literal["words", "trigram"]


@dataclass(frozen=True)
class LexicalConfig:
    """What lexical search (BM25) finds, and how.

    Attributes:
        tokenizer: "words" compares words. "trigram" compares any three characters in a row, so that parts of words,
            such as of part numbers, are found; the word index is then several times larger.
        language: reduces words to their stems by the rules of this language: "connected" finds "connection". It is the
            English name of a language that Snowball knows (``muvera_core.lexical.languages()``). None compares words as
            they are. Trigrams are never stemmed.
        fields: metadata fields whose texts are searched, too, such as ("title", "author.name").
        field_weight: how much a word in one of these fields counts, compared with a word in the text: from 0.01 to 100.

    Raises:
        InvalidInputError: a setting is invalid.
    """

    tokenizer: Tokenizer = "words"
    language: str | None = "english"
    fields: tuple[str, ...] = ()
    field_weight: float = 2.0

    def __post_init__(self) -> None:
        require_choice("tokenizer", self.tokenizer, get_args(Tokenizer))
        if self.language is not None:
            require_choice("language", self.language, languages())
        if isinstance(self.fields, str):
            raise InvalidInputError(f"fields must be a list of metadata fields, got the string {shown(self.fields)}")
        fields = tuple(require_unicode("fields", path) for path in require_iterable("fields", self.fields))
        if "" in fields or len(set(fields)) < len(fields):
            raise InvalidInputError(f"fields must be distinct and not empty, got {shown(fields)}")
        weight = self.field_weight
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0.01 <= weight <= 100:
            raise InvalidInputError(f"field_weight must be a number from 0.01 to 100, got {shown(weight)}")
        object.__setattr__(self, "fields", fields)
        object.__setattr__(self, "field_weight", float(weight))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LexicalConfig:
        """The settings as ``dataclasses.asdict`` and JSON give them. Raises like the class, or TypeError."""
        return cls(**content)


def resolve_lexical(lexical: LexicalConfig | bool) -> LexicalConfig | None:
    """The settings for a user's argument: True stands for the defaults, False for no word index."""
    if isinstance(lexical, LexicalConfig):
        return lexical
    if not isinstance(lexical, bool):
        raise InvalidInputError(f"lexical must be a LexicalConfig, True or False, got {shown(lexical)}")
    return LexicalConfig() if lexical else None
