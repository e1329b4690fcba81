from __future__ import annotations

import pytest

from muvera_core.validation import has_visible_text, repaired


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b\u2060\ufeff", "\x00\x1f", "\u00a0\u2028", "\ud800"])
def test_whitespace_controls_and_formats_are_not_visible(text: str) -> None:
    assert not has_visible_text(text)


@pytest.mark.parametrize("text", ["a", "\u200bдом", " .", "\u0e31", "🍐", "\ue000", "\ufffd"])
def test_one_visible_character_makes_a_text_visible(text: str) -> None:
    assert has_visible_text(text)


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        pytest.param("pear 🍐", "pear 🍐", id="nothing to repair"),
        pytest.param("a\ud83cb", "a\ufffdb", id="first half alone"),
        pytest.param("a\udf50", "a\ufffd", id="second half alone"),
        pytest.param("\ud83c\ud83c\udf50", "\ufffd🍐", id="both halves"),
    ],
)
def test_half_of_a_surrogate_pair_becomes_the_replacement_character(broken: str, text: str) -> None:
    assert repaired(broken) == text


def test_a_repaired_subclass_is_a_plain_string() -> None:
    class Name(str):
        __slots__ = ()

    assert type(repaired(Name("Ann"))) is str
