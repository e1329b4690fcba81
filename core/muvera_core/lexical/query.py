"""A question as terms that documents can have: words and phrases."""

from __future__ import annotations

import re
from dataclasses import dataclass

from muvera_core.lexical.characters import SPACELESS, folded
from muvera_core.lexical.config import LexicalConfig
from muvera_core.lexical.words import tokenize

# One token, or several that follow each other in a document. "x*" stands for every token that begins with x.
Term = tuple[str, ...]

_QUOTED = re.compile('["\u201c\u201d\u201e\u201f]([^"\u201c\u201d\u201e\u201f]+)["\u201c\u201d\u201e\u201f]')
# Most terms of a question, the first ones. A question has ten; a whole passage that is used as one has some hundred.
MOST_TERMS = 256
# Longest phrase that is made of words joined by punctuation, such as a name or a number. A longer run is a whole path
# or a sentence, of which other documents have parts.
_LONGEST_RUN = 8
_LONGEST_PHRASE = 64


@dataclass(frozen=True)
class LexicalQuery:
    """What a question asks documents for. BM25 adds up the terms that a document has.

    Attributes:
        terms: distinct words and phrases. None match nothing.
    """

    terms: tuple[Term, ...]

    def __bool__(self) -> bool:
        return bool(self.terms)


def parse_query(config: LexicalConfig, text: str) -> LexicalQuery:
    """The terms of a question.

    These are its words; the words in each pair of double quotes, as a phrase; and each run of words that only
    punctuation joins ("ERR-4012", "parse_json_lines", "3.5mm"), as a phrase, so that documents with the very same run
    come first. A word in camelCase is one word. With trigrams, each word and each run is a phrase of its trigrams.

    Args:
        config: the settings of the word index.
        text: the question. No character has a special meaning, apart from double quotes.
    """
    terms: dict[Term, None] = {}

    def add(tokens: list[str]) -> None:
        if tokens:
            terms[tuple(tokens[:_LONGEST_PHRASE])] = None

    for run in text.split():
        parts = folded(run).split()
        if config.tokenizer == "trigram":
            for part in [*parts, run]:
                add(tokenize(config, part))
            continue
        for token in tokenize(config, run, question=True):
            add([token])
        phrase = _phrase(config, run) if len(parts) > 1 else []
        if len(phrase) <= _LONGEST_RUN:
            add(phrase)
    for quoted in _QUOTED.findall(text):
        add(_phrase(config, quoted))
    return LexicalQuery(tuple(terms)[:MOST_TERMS])


def _phrase(config: LexicalConfig, text: str) -> list[str]:
    """The tokens of a phrase, as a document has them. It may go on where the phrase ends."""
    tokens = tokenize(config, text)
    if len(tokens) > 1 and len(tokens[-1]) == 1 and SPACELESS.match(tokens[-1]) and tokens[-2].endswith(tokens[-1]):
        tokens.pop()
    return tokens
