"""The HTML of a question's words and of a passage whose words are shaded. All text in it is escaped.

Each word of the question has a class, ``mv-q0`` and so on. The words of a passage have the classes of the question's
words that they match. ``hover_rules`` are the style rules by which pointing at one of them leaves only its matches
shaded: nothing is scripted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape

from muvera_chat.shading.words import Mark, QuestionWord

_BLANK_LINES = re.compile(r"\n\s*\n")
# A line that begins with a letter goes on with the one before. Others may be items of a list, rows or headings.
_LINE_BREAK = re.compile(r"[ \t]*\n[ \t]*(?=[^\W\d_]|\Z)")
# Words of longer questions are shaded, but pointing at them changes nothing.
MAX_WORDS = 48


def question_html(words: Sequence[QuestionWord]) -> str:
    """The question's words as buttons, each shaded by the similarity of what matched it best."""
    return "".join(
        f'<button type="button" class="mv-word {_class(i)}" style="--mv-s:{_strength(word.similarity)}" '
        f'title="best match: {word.similarity:.2f}">{escape(word.text)}</button>'
        for i, word in enumerate(words)
    )


def passage_html(text: str, marks: Sequence[Mark], words: Sequence[QuestionWord]) -> str:
    """A passage with its marks.

    Args:
        text: the passage.
        marks: the words to shade.
        words: the question's words, which the marks' numbers mean.
    """
    return "".join(_parts(text, marks, words))


def hover_rules() -> str:
    """The style rules for pointing at a word, or reaching it by the keyboard; see above."""
    rules = []
    for i in range(MAX_WORDS):
        pointed = f".mv-why:has(.{_class(i)}:is(:hover,:focus-visible))"
        rules.append(f"{pointed} :is(.mv-word,.mv-mark):not(.{_class(i)}){{--mv-s:0!important;opacity:.55}}")
        rules.append(f"{pointed} .{_class(i)}{{outline:2px solid var(--mv-accent)}}")
    return "\n".join(rules)


def _parts(text: str, marks: Sequence[Mark], words: Sequence[QuestionWord]) -> Iterator[str]:
    end = 0
    for mark in marks:
        yield _plain(text[end : mark.start])
        classes = " ".join(_class(i) for i in mark.matched)
        said = ", ".join(f"{words[i].text} {similarity:.2f}" for i, similarity in mark.matched.items())
        yield (
            f'<mark class="mv-mark {classes}" style="--mv-s:{mark.strength:.2f}" title="{escape(said)}">'
            f"{escape(text[mark.start : mark.end])}</mark>"
        )
        end = mark.end
    yield _plain(text[end:])


def _plain(text: str) -> str:
    """A part of a passage without blank lines, and without the line breaks inside of paragraphs."""
    blocks = _BLANK_LINES.split(text)
    return escape("\n".join(_LINE_BREAK.sub(" ", block) for block in blocks))


def _class(word: int) -> str:
    return f"mv-q{word}" if word < MAX_WORDS else "mv-late"


def _strength(similarity: float) -> str:
    return f"{Mark(0, 0, similarity, {}).strength:.2f}"
