"""SQL's LIKE patterns: ``%`` stands for any text, ``_`` for one character, and a backslash makes either literal.

Each part between two ``%`` is matched where it first fits after the part before it. That decides the match, so no
pattern is tried in more than one way, however many ``%`` it has.

Without regard to case, texts and patterns are compared after ``str.casefold``, in which some characters become two or
three: ``ß`` becomes ``ss``. For ``_``, they are still one character.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from functools import cached_property
from itertools import groupby

# Joins the characters that one character becomes. No stored text holds it: it is half of a surrogate pair.
_JOINT = "\ud800"
_ONE_JOINED = f"(?<!{_JOINT})[^{_JOINT}](?:{_JOINT}[^{_JOINT}])*+"


class _Wildcard(Enum):
    ANY = "%"
    ONE = "_"


_Token = str | _Wildcard


class LikePattern:
    """A pattern that texts are matched with, as a whole.

    Attributes:
        longest_literal: the longest text that is in every text that matches; with ``fold_case``, case-folded.
    """

    def __init__(self, pattern: str, *, fold_case: bool) -> None:
        self._fold_case = fold_case
        self._tokens = _fold(_tokens(pattern)) if fold_case else _tokens(pattern)
        literals = groupby(self._tokens, key=lambda token: isinstance(token, str))
        self.longest_literal = max(
            ("".join(map(str, tokens)) for is_literal, tokens in literals if is_literal), key=len, default=""
        )

    def matches(self, text: str) -> bool:
        """Whether a text without surrogates matches."""
        if not self._fold_case:
            return self._plain.match(text) is not None
        folded = text.casefold()
        if len(folded) == len(text):  # each character became one
            return self._plain.match(folded) is not None
        return self._joined.match("".join(_JOINT.join(character.casefold()) for character in text)) is not None

    @cached_property
    def _plain(self) -> re.Pattern[str]:
        return _regex(self._tokens, "", ".")

    @cached_property
    def _joined(self) -> re.Pattern[str]:
        return _regex(self._tokens, f"{_JOINT}?+", _ONE_JOINED)


def _tokens(pattern: str) -> list[_Token]:
    found = re.findall(r"\\[%_\\]|.", pattern, re.DOTALL)
    return [_Wildcard(token) if token in ("%", "_") else token[-1] for token in found]


def _fold(tokens: Sequence[_Token]) -> list[_Token]:
    return [part for token in tokens for part in (token.casefold() if isinstance(token, str) else [token])]


def _regex(tokens: Sequence[_Token], between_literals: str, one: str) -> re.Pattern[str]:
    first, *others = _split(tokens)
    parts = [_part(first, between_literals, one)]
    parts += [f"(?>.*?{_part(part, between_literals, one)})" for part in others[:-1] if part]
    if others and others[-1]:
        parts.append(f".*{_part(others[-1], between_literals, one)}")
    end = "" if others and not others[-1] else r"\Z"
    return re.compile("".join(parts) + end, re.DOTALL)


def _split(tokens: Sequence[_Token]) -> list[list[_Token]]:
    """The parts between two ``%``."""
    parts: list[list[_Token]] = [[]]
    for token in tokens:
        if token is _Wildcard.ANY:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _part(tokens: Sequence[_Token], between_literals: str, one: str) -> str:
    runs = groupby(tokens, key=lambda token: isinstance(token, str))
    return "".join(
        between_literals.join(re.escape(str(token)) for token in run) if is_literal else one * len(list(run))
        for is_literal, run in runs
    )
