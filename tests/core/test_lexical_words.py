"""The words that lexical search compares: those of documents, and the terms of questions."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera_core.errors import InvalidInputError
from muvera_core.lexical import LexicalConfig, document_words, parse_query, tokenize

ENGLISH, PLAIN, TRIGRAMS = LexicalConfig(), LexicalConfig(language=None), LexicalConfig("trigram")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Connections, connected!", ["connect", "connect"]),
        ("The dog's bone", ["the", "dog", "bone"]),
        ("Café RÉSUMÉ ﬁne", ["cafe", "resume", "fine"]),
        ("soft\u00adhyphen", ["softhyphen"]),
        ("3.5mm", ["3", "5mm"]),
        ("東京都 is big", ["東京", "京都", "都", "is", "big"]),
        ("?! … —", []),
    ],
)
def test_a_text_is_split_into_folded_words(text: str, words: list[str]) -> None:
    config = ENGLISH if "onnect" in text or "dog" in text else PLAIN
    assert tokenize(config, text) == words


def test_trigrams_find_a_part_of_a_number() -> None:
    assert parse_query(TRIGRAMS, "4012").terms == (("401", "012"),)
    assert tokenize(TRIGRAMS, "ERR-4012")[-2:] == ["401", "012"]


@pytest.mark.parametrize(
    ("question", "terms"),
    [
        ("ERR-4012 code", (("err",), ("4012",), ("err", "4012"), ("code",))),
        ("an \u201cowl at night\u201d", (("an",), ("owl",), ("at",), ("night",), ("owl", "at", "night"))),
        ("fox fox FOX", (("fox",),)),
        ("猫", (("猫*",),)),
        ("getUserName", (("getusername",),)),
        ('?!" -', ()),
        ("", ()),
    ],
)
def test_a_question_has_words_and_phrases_as_terms(question: str, terms: tuple[tuple[str, ...], ...]) -> None:
    assert parse_query(PLAIN, question).terms == terms


@settings(deadline=None)
@given(st.text())
def test_every_token_survives_fts5_as_one_token(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE words USING fts5(text, tokenize = 'ascii')")
    db.execute("CREATE VIRTUAL TABLE instances USING fts5vocab(words, instance)")
    for config in (ENGLISH, PLAIN, TRIGRAMS):
        tokens = tokenize(config, text)
        db.execute("DELETE FROM words")
        db.execute("INSERT INTO words VALUES (?)", (" ".join(tokens),))
        assert [term for (term,) in db.execute("SELECT term FROM instances ORDER BY offset")] == tokens
    db.close()


def test_fields_are_found_by_their_paths() -> None:
    config = LexicalConfig(language=None, fields=("title", "author.name", "tags"))
    metadata: dict[str, Any] = {"title": "Owls", "author": {"name": "Ada", "born": 1815}, "tags": ["red", 7, True]}
    assert document_words(config, "text", metadata) == ("owls ada red 7", "text")
    assert document_words(config, None, {"other": "x"}) is None


@pytest.mark.parametrize(
    "settings",
    [{"language": "klingon"}, {"tokenizer": "x"}, {"fields": "title"}, {"fields": ("a", "a")}, {"field_weight": 0}],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        LexicalConfig(**settings)


def test_an_unknown_language_is_told_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="'english'"):
        LexicalConfig(language="klingon")
