"""Shows why a passage was found: its words are shaded by their late-interaction similarity with the question."""

from __future__ import annotations

from muvera_chat.shading.passage_html import MAX_WORDS, hover_rules, passage_html, question_html
from muvera_chat.shading.words import Mark, QuestionWord, marks_of, words_of

__all__ = [
    "MAX_WORDS",
    "Mark",
    "QuestionWord",
    "hover_rules",
    "marks_of",
    "passage_html",
    "question_html",
    "words_of",
]
