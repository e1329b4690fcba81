"""Reduces words to their stems, by Snowball's algorithms (snowballstem.org)."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.metadata import version
from threading import Lock

import snowballstemmer

from muvera_core.lexical.characters import CHARACTER_RULES, without_accents

# Longest word, in characters. What is longer is no word: encoded data, or text without spaces.
LONGEST_WORD = 64
# Words whose stems are kept in memory. Snowball in Python takes about 20 microseconds for a word.
_KEPT_WORDS = 1 << 16


@cache
def languages() -> tuple[str, ...]:
    """The languages whose words can be stemmed, by their English names."""
    return tuple(sorted(snowballstemmer.algorithms()))


@cache
def rules() -> str:
    """Names the rules by which words are made. Libraries bring newer ones, which make other words of some texts."""
    unicode, snowball = unicodedata.unidata_version, version("snowballstemmer")
    return f"muvera {CHARACTER_RULES}, unicode {unicode}, snowball {snowball}"


@cache
def stemmer(language: str | None) -> Callable[[str], str]:
    """A function that makes a token of a word without separators, in lower case. Any thread may call it."""
    if language is None:
        return lru_cache(_KEPT_WORDS)(lambda word: without_accents(word[:LONGEST_WORD]))
    snowball, lock = snowballstemmer.stemmer(language), Lock()
    # The rules of English know no accents. Those of other languages do, so accents go after the stem was found.
    prepared = without_accents if language == "english" else str

    @lru_cache(_KEPT_WORDS)
    def token(word: str) -> str:
        with lock:  # a stemmer keeps the word that it works on
            stem = snowball.stemWord(prepared(word[:LONGEST_WORD]))
        return without_accents(stem) or without_accents(word[:LONGEST_WORD])

    return token
