"""Operators on text: LIKE patterns, parts of texts, and case."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera_core import FDEConfig, MuveraIndex
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.filters.patterns import LikePattern

ENCODER = PrecomputedEmbeddings(4, "any")
FDE = FDEConfig(dimension=4, num_repetitions=2, num_simhash_projections=2, projection_dimension=None)
LIGATURE, DOTTED_I, COMBINED_E = "ﬃ", "İ", "e\u0301"


def matching(texts: list[str], filter: dict[str, Any]) -> list[str]:
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        index.add_embeddings([np.eye(1, 4)] * len(texts), metadatas=[{"t": text} for text in texts])
        return [document.metadata["t"] for document in index.find({"t": filter})]


@pytest.mark.parametrize(
    ("operator", "operand", "matched", "others"),
    [
        ("$ilike", "stra_e", ["Straße", "STRAxE"], ["strasse", "STRAẞ", "stra"]),
        ("$ilike", "strasse", ["Straße", "STRASSE", "STRAẞE"], ["strase"]),
        ("$ilike", "straße", ["Straße", "strasse"], ["strase"]),
        ("$ilike", "stras_e", ["strasse"], ["Straße"]),
        ("$ilike", "_", ["ß", LIGATURE, DOTTED_I, "x", "\n", "\0", "😀"], ["", "ss", COMBINED_E]),
        ("$ilike", "__", [COMBINED_E, "ßß", "aß", "ss"], ["ß", "é", LIGATURE]),
        ("$ilike", "%_", ["ß", "xß", "ab"], [""]),
        ("$ilike", "o%_x", ["oßx", "offx", "OaßX"], ["ox"]),
        ("$ilike", "%ffi%", [f"o{LIGATURE}ce", "OFFICE"], ["o fi ce"]),
        ("$ilike", "%sse", ["Straße", "MASSE"], ["Maßes"]),
        ("$ilike", "i\u0307%", [DOTTED_I, "i\u0307stanbul"], ["istanbul"]),
        ("$icontains", "SS", ["Straße", "masse"], ["s s"]),
        ("$icontains", "", ["", "a"], []),
        ("$icontains", "Σ", ["ς", "σ", "Σ"], ["s"]),
        ("$contains", "", ["", "a"], []),
        ("$contains", "%_\\", ["a%_\\b"], ["a%b", "ab"]),
        ("$contains", "a\0b", ["xa\0bx"], ["xa\0x", "ab"]),
        ("$icontains", "A\0B", ["xa\0bx"], ["xa", "ab"]),
        ("$like", "", [""], ["a", "\n"]),
        ("$like", "%", ["", "a", "a\nb", "\0"], []),
        ("$like", "%%", ["", "a"], []),
        ("$like", "a%", ["a", "a\nb", "a\0b"], ["A", "ba", ""]),
        ("$like", "a", ["a"], ["a\n", "a\0", "ab"]),
        ("$like", "%\0_", ["a\0b", "\0\n"], ["a\0", "a"]),
        ("$like", "é_", ["éx"], ["e\u0301"]),
        ("$like", "(a|b)+.[c]^$*?", ["(a|b)+.[c]^$*?"], ["ab.c", "a"]),
        ("$like", "[ab]", ["[ab]"], ["a"]),
        ("$like", "100\\%", ["100%"], ["1000", "100\\%", "100\\x"]),
        ("$like", "user\\_1%", ["user_1", "user_12"], ["userx1"]),
        ("$like", "C:\\\\a%", ["C:\\a.txt"], ["C:\\\\a.txt"]),
        ("$like", "C:\\a%", ["C:\\a.txt"], ["C:a.txt"]),
        ("$like", "a\\", ["a\\"], ["a"]),
        ("$ilike", "SS\\_%", ["ß_x", "ss_"], ["ssx"]),
    ],
)
def test_text_operators(operator: str, operand: str, matched: list[str], others: list[str]) -> None:
    assert matching([*others, *matched], {operator: operand}) == matched


def test_case_is_folded_one_character_at_a_time() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    text = "".join(characters)
    assert "".join(character.casefold() for character in characters) == text.casefold()


def test_many_wildcards_are_matched_in_one_way() -> None:
    """A matcher that tried every way would never end."""
    text = "a" * 4000
    for pattern, matches in [("%a" * 2000 + "b", False), ("%a" * 2000, True), ("%a_" * 1000 + "%b%", False)]:
        assert LikePattern(pattern, fold_case=False).matches(text) is matches
        assert LikePattern(pattern, fold_case=True).matches(text) is matches
        assert LikePattern(pattern, fold_case=True).matches("ß" + text) is matches


alphabet = "aAsSßﬃ\n."


@given(text=st.text(alphabet, max_size=8), pattern=st.text(alphabet[:6] + "%_", max_size=6), fold=st.booleans())
@settings(max_examples=400, deadline=None)
def test_generated_patterns_match_what_their_definition_says(text: str, pattern: str, fold: bool) -> None:
    pieces = [character.casefold() for character in text] if fold else list(text)
    starts = np.cumsum([0, *map(len, pieces)]).tolist()
    whole = "".join(pieces)

    def matches(at: int, rest: str) -> bool:
        """Whether the rest of the pattern matches the text from a place on."""
        if not rest:
            return at == len(whole)
        if rest[0] == "%":
            return any(matches(later, rest[1:]) for later in range(at, len(whole) + 1))
        if rest[0] == "_":
            return at in starts[:-1] and matches(starts[starts.index(at) + 1], rest[1:])
        literal = rest[0].casefold() if fold else rest[0]
        return whole.startswith(literal, at) and matches(at + len(literal), rest[1:])

    assert LikePattern(pattern, fold_case=fold).matches(text) is matches(0, pattern)
