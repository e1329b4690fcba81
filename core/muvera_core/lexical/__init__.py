"""Turns texts and questions into the words that lexical search (BM25) compares.

A document's words are computed here, in Python, and stored as words separated by spaces. So what a word is depends on
``LexicalConfig`` and on nothing in the database. ``parse_query`` makes the terms of a question by the same rules.
"""

from __future__ import annotations

from muvera_core.lexical.config import LexicalConfig, Tokenizer, resolve_lexical
from muvera_core.lexical.documents import document_words
from muvera_core.lexical.query import LexicalQuery, Term, parse_query
from muvera_core.lexical.stemming import languages, rules
from muvera_core.lexical.words import tokenize

__all__ = [
    "LexicalConfig",
    "LexicalQuery",
    "Term",
    "Tokenizer",
    "document_words",
    "languages",
    "parse_query",
    "resolve_lexical",
    "rules",
    "tokenize",
]
