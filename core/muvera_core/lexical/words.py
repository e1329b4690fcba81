"""Splits a text into tokens: words, pairs of characters where words have no spaces between them, or trigrams."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from muvera_core.lexical.characters import RUNS, SPACELESS, folded, without_accents
from muvera_core.lexical.config import LexicalConfig
from muvera_core.lexical.stemming import stemmer

_POSSESSIVE = re.compile(r"['\u2019]s\b", re.IGNORECASE)
_GRAM = 3


def tokenize(config: LexicalConfig, text: str, *, question: bool = False) -> list[str]:
    """The tokens of a text, in order. They consist of letters, numbers and marks.

    Args:
        config: the settings.
        text: any text.
        question: whether it is a question's. Of a run of characters that are stored in pairs, a document has the last
            one by itself, too, so that each one begins a token.
    """
    if config.tokenizer == "trigram":
        return [gram for run in text.split() for gram in _trigrams(without_accents(folded(run)))]
    if config.language == "english" and ("'" in text or "\u2019" in text):
        text = _POSSESSIVE.sub("", text)
    text, token = folded(text), stemmer(config.language)
    if text.isascii() or not SPACELESS.search(text):
        return [token(word) for word in text.split()]
    return list(_mixed(text, token, question=question))


def _mixed(text: str, token: Callable[[str], str], *, question: bool) -> Iterator[str]:
    for run in RUNS.findall(text):
        if not SPACELESS.match(run):
            yield token(run)
        elif question and len(run) == 1:
            yield f"{run}*"  # see ``LexicalQuery``
        else:
            yield from (run[i : i + 2] for i in range(len(run) - 1))
            if not question:
                yield run[-1]


def _trigrams(words: str) -> Iterator[str]:
    """The trigrams of words that stood together without spaces, such as the parts of a part number."""
    run = "".join(words.split())
    if 0 < len(run) < _GRAM:
        yield run
    for i in range(len(run) - _GRAM + 1):
        yield run[i : i + _GRAM]
