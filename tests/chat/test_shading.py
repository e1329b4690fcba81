from __future__ import annotations

import re

import pytest

from muvera_core import MuveraIndex, TokenMatch
from muvera_core.encoders import BundledEncoder

pytest.importorskip("muvera_chat", reason="needs muvera-core[chat]")

from muvera_chat.shading import MAX_WORDS, hover_rules, marks_of, passage_html, question_html, words_of

QUERY = "Do barnowls' eyes see?"
TEXT = "Owls' eyes are <large>."


def match(query_span: tuple[int, int], document_span: tuple[int, int] | None, similarity: float) -> TokenMatch:
    document = None if document_span is None else TEXT[slice(*document_span)]
    return TokenMatch(QUERY[slice(*query_span)], query_span, document, document_span, similarity)


MATCHES = [
    match((0, 0), (0, 0), 0.99),  # a marker
    match((3, 7), (0, 3), 0.7),  # "barn" and "owls'" are parts of one word
    match((7, 11), (0, 4), 0.9),
    match((13, 17), (6, 10), 0.8),
    match((18, 21), (6, 10), 0.5),
    match((21, 22), (22, 23), 0.95),  # punctuation
    match((0, 2), (11, 14), 0.2),  # too weak
]


def test_tokens_are_joined_to_words() -> None:
    assert [(word.text, word.similarity) for word in words_of(QUERY, MATCHES)] == [
        ("Do", 0.2),
        ("barnowls", 0.9),
        ("eyes", 0.8),
        ("see", 0.5),
    ]
    marks = marks_of(QUERY, MATCHES, TEXT)
    assert [(TEXT[mark.start : mark.end], mark.similarity, mark.matched) for mark in marks] == [
        ("Owls", 0.9, {1: 0.9}),
        ("eyes", 0.8, {2: 0.8, 3: 0.5}),
    ]
    assert marks[0].strength > marks[1].strength > 0


def test_matches_outside_a_passage_are_left_out() -> None:
    part = TEXT[6:]  # "eyes are <large>."
    marks = marks_of(QUERY, MATCHES, part, start=6)
    assert [part[mark.start : mark.end] for mark in marks] == ["eyes"]


def test_images_have_no_words_to_mark() -> None:
    assert marks_of(QUERY, [match((3, 7), None, 0.9)], "") == []


def test_the_html_is_escaped_and_keeps_the_text() -> None:
    words, marks = words_of(QUERY, MATCHES), marks_of(QUERY, MATCHES, TEXT)
    html = passage_html(TEXT, marks, words)
    assert html.count("<mark") == 2
    assert 'class="mv-mark mv-q2 mv-q3"' in html
    assert 'title="eyes 0.80, see 0.50"' in html
    assert "&lt;large&gt;" in html
    assert re.sub("<[^>]+>", "", html) == "Owls&#x27; eyes are &lt;large&gt;."
    assert passage_html("<b>\n\n \nc", [], []) == "&lt;b&gt;\nc"
    asked = question_html(words_of("<i>x", [TokenMatch("x", (3, 4), None, None, 0.5)]))
    assert "<i>" not in asked


def test_every_word_has_rules_and_long_questions_do_no_harm() -> None:
    assert f".mv-q{MAX_WORDS - 1}" in hover_rules()
    query = " ".join(f"w{i}" for i in range(MAX_WORDS + 5))
    assert question_html(words_of(query, [])).count("mv-late") == 5


def test_what_an_index_explains_is_shaded(encoder: BundledEncoder) -> None:
    text = "Barn owls hunt at night."
    with MuveraIndex.create(None, encoder) as index:
        index.add([text], ids=["owl"])
        matches = index.explain("When do owls hunt?", "owl")
    marks = marks_of("When do owls hunt?", matches, text)
    assert {"owls", "hunt"} <= {text[mark.start : mark.end] for mark in marks}
