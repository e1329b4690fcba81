"""The table of words that lexical search reads: an FTS5 table with the words of each document, by its key.

It holds the words themselves, too, not only the index over them. So what is deleted is what was added, even if a newer
Python or another version of Snowball would make other words of the same text; and a check can compare the two. The
words are made in Python (``muvera_core.lexical``): to FTS5 each is a run of letters, numbers and marks.

If Python's SQLite lacks FTS5, an index has no such table.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.lexical import LexicalConfig, document_words, rules

# The words of the metadata fields that are searched, and those of the text.
# FTS5's tokenizer "ascii" takes every character beyond ASCII as part of a word, and so keeps our words as they are.
WORDS_SCHEMA = """
CREATE VIRTUAL TABLE words USING fts5(fields, text, tokenize = 'ascii');
"""
# The named value with all rules that words in the table were made by, as JSON.
WORD_RULES = "word_rules"

# Pages of FTS5's index that are merged at a time.
_MERGED_PAGES = 100
# A document's key, text and metadata.
Texts = tuple[int, str | None, dict[str, Any]]


@cache
def has_fts5() -> bool:
    """Whether Python's SQLite has FTS5."""
    db = sqlite3.connect(":memory:")
    try:
        db.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
    except sqlite3.OperationalError:
        return False
    finally:
        db.close()
    return True


def default_lexical() -> LexicalConfig | None:
    """The settings that an index of an older format gets. None if Python's SQLite cannot make a word index."""
    return LexicalConfig() if has_fts5() else None


def require_fts5() -> None:
    """Raise InvalidInputError if Python's SQLite lacks FTS5."""
    if not has_fts5():
        raise InvalidInputError(
            f"lexical search needs SQLite with FTS5, which this Python's SQLite {sqlite3.sqlite_version} lacks: pass "
            "lexical=False, or use another build of Python"
        )


def insert_words(db: sqlite3.Connection, config: LexicalConfig, documents: Iterable[Texts]) -> None:
    """Add the words of documents. The caller has begun a transaction, and notes ``rules_after``."""
    db.executemany("INSERT INTO words (rowid, fields, text) VALUES (?, ?, ?)", _rows(config, documents))


def delete_words(db: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Remove the words of documents. The caller has begun a transaction."""
    db.executemany("DELETE FROM words WHERE rowid = ?", [(key,) for key in keys])


def empty_words(db: sqlite3.Connection) -> None:
    """Make the table anew, without words. The caller has begun a transaction."""
    db.execute("DROP TABLE IF EXISTS words")
    db.execute(WORDS_SCHEMA)


def merge_words(db: sqlite3.Connection, *, is_first: bool) -> bool:
    """Merge a part of the segments of FTS5's index into one. Returns whether there is more to do.

    FTS5's documentation, section 6.8: a negative number of pages begins a merge of all segments, which the following
    calls go on with; less than two rows change when nothing is left.
    """
    before = db.total_changes
    db.execute("INSERT INTO words (words, rank) VALUES ('merge', ?)", (-_MERGED_PAGES if is_first else _MERGED_PAGES,))
    return db.total_changes - before >= 2


def rules_after(noted: Any) -> str:
    """The value of ``WORD_RULES`` after words were added, if it was ``noted`` before."""
    try:
        known = {rule for rule in json.loads(noted) if isinstance(rule, str)} if noted else set()
    except (TypeError, ValueError):
        known = set()
    return json.dumps(sorted(known | {rules()}))


def _rows(config: LexicalConfig, documents: Iterable[Texts]) -> Iterator[tuple[int, str, str]]:
    for key, text, metadata in documents:
        words = document_words(config, text, metadata)
        if words is not None:
            yield (key, *words)
