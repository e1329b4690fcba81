"""Tokenizes texts, and gives the tokens of a prefix, such as "query: ", with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muvera_core.encoders.text.tokenizing import LimitedTokenizer, Wordpieces


@dataclass(frozen=True)
class PrefixedText:
    """A text's wordpieces, and the ids of the tokens that come before them."""

    wordpieces: Wordpieces
    prefix: Sequence[int] = ()


class InsertedPrefix:
    """A prefix of fixed ids. The text is tokenized without it."""

    def __init__(self, tokenizer: LimitedTokenizer, ids: Sequence[int] = ()) -> None:
        self._tokenizer, self._ids = tokenizer, tuple(ids)

    def __call__(self, texts: Sequence[str], limit: int) -> list[PrefixedText]:
        """The first ``limit`` wordpieces of each text, and the prefix."""
        return [PrefixedText(wordpieces, self._ids) for wordpieces in self._tokenizer(texts, limit)]
