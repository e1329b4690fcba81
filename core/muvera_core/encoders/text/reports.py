"""Warnings about texts that are not encoded as they are: what is left out, and what the model cannot know."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from threading import Lock

from muvera_core.encoders.text.naming import document_name, query_name, warn
from muvera_core.encoders.text.tokenizing import Wordpieces, longest_reading
from muvera_core.errors import TruncatedTextWarning, UnknownTextWarning

# A text with a smaller share of characters that cannot be read, or with fewer of them, is encoded without a warning.
_SHARE = 1 / 3
_FEWEST = 2
# Letters, and number signs, that are not Latin.
_NOT_LATIN = re.compile(r"[^\W\d_A-Za-z\u00aa-\u02ff\u1d00-\u1eff\u2071-\u209c\u2c60-\u2c7f\ua717-\ua7ff\uff21-\uff5a]")

READ_ANY_LANGUAGE = (
    "use MultilingualEncoder() of muvera_core.encoders, which needs pip install 'muvera-core[multilingual]'"
)
"""The remedy of an encoder that was made for some languages only."""


class TextReports:
    """The warnings of one encoder. Text that it cannot read is reported once for documents and once for queries.

    Args:
        document_remedy: what to do about a document that is too long, a sentence.
        query_remedy: the same for a query.
        unknown_matches: what the encoder does with characters that it cannot read.
        unread_remedy: what to do about text that it cannot read, an imperative.
        reads_latin_only: whether the encoder cannot read other scripts, even if its vocabulary has their letters.
    """

    def __init__(
        self,
        document_remedy: str,
        query_remedy: str,
        unknown_matches: str = "matches them only with the same characters, whatever they mean",
        unread_remedy: str = READ_ANY_LANGUAGE,
        *,
        reads_latin_only: bool = False,
    ) -> None:
        self._document_remedy, self._query_remedy = document_remedy, query_remedy
        self._unknown_matches, self._unread_remedy = unknown_matches, unread_remedy
        self._reads_latin_only = reads_latin_only
        self._reported: set[str] = set()
        self._reporting = Lock()

    def documents(self, wordpieces: Sequence[Wordpieces], limit: int) -> None:
        """Warn about documents that are cut, and about unknown text."""
        self._report(wordpieces, limit, "documents", document_name, self._document_remedy)

    def queries(self, wordpieces: Sequence[Wordpieces], limit: int) -> None:
        """Warn about queries that are cut, and about unknown text."""
        self._report(wordpieces, limit, "queries", query_name, self._query_remedy)

    def _report(
        self,
        wordpieces: Sequence[Wordpieces],
        limit: int,
        kind: str,
        name_of: Callable[[Sequence[str], int], str],
        remedy: str,
    ) -> None:
        texts = [pieces.text for pieces in wordpieces]
        for i, pieces in enumerate(wordpieces):
            if pieces.end < len(pieces.text):
                _warn_of_cut(name_of(texts, i), pieces, limit, remedy)
            if kind not in self._reported:
                self._report_unread(kind, name_of(texts, i), pieces)

    def _report_unread(self, kind: str, name: str, pieces: Wordpieces) -> None:
        n_unread, n_characters = self._unread_characters(pieces)
        if n_unread < max(_FEWEST, n_characters * _SHARE):
            return
        with self._reporting:
            if kind in self._reported:
                return
            self._reported.add(kind)
        try:
            warn(
                f"the encoder cannot read {n_unread / n_characters:.0%} of the characters of {name} and "
                f"{self._unknown_matches}. For this language, {self._unread_remedy}. No further {kind} are reported",
                UnknownTextWarning,
            )
        except UnknownTextWarning:  # the warning is an error here, so the next call has to fail, too
            self._reported.discard(kind)
            raise

    def _unread_characters(self, pieces: Wordpieces) -> tuple[int, int]:
        """The number of characters that cannot be read, and of all that are encoded, both without whitespace."""
        n_unknown, n_characters = pieces.unknown_characters() if pieces.unknown else (0, 0)
        read = pieces.text[: pieces.end]
        if not self._reads_latin_only or read.isascii():
            return n_unknown, n_characters
        # Unknown words can be symbols, and known letters can be of another script, so neither number holds the other.
        n_letters = sum(map(str.isalpha, _NOT_LATIN.findall(read)))
        return max(n_unknown, n_letters), n_characters or len("".join(read.split()))


def _warn_of_cut(name: str, pieces: Wordpieces, limit: int, remedy: str) -> None:
    n_characters = len(pieces.text)
    reading = f" and {longest_reading(limit)} characters" if pieces.end == longest_reading(limit) else ""
    warn(
        f"{name} is too long: its characters {pieces.end} to {n_characters} "
        f"({1 - pieces.end / n_characters:.0%} of it) are left out, because the encoder's limit is {limit} tokens"
        f"{reading}. {remedy}",
        TruncatedTextWarning,
    )
