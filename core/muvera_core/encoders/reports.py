"""Warnings about texts that are not encoded as they are: what is left out, and what the model cannot know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

from muvera_core.encoders.texts import document_name, query_name, warn
from muvera_core.encoders.tokenizing import Wordpieces, longest_reading
from muvera_core.errors import TruncatedTextWarning, UnknownTextWarning

# A text with a smaller share of unknown characters, or with fewer of them, is encoded without a warning.
_SHARE = 1 / 3
_FEWEST = 2


class TextReports:
    """The warnings of one encoder. Unknown text is reported once for documents and once for queries.

    Args:
        document_remedy: what to do about a document that is too long, a sentence.
        query_remedy: the same for a query.
        unknown_matches: what the encoder does with characters that it does not know.
    """

    def __init__(
        self,
        document_remedy: str,
        query_remedy: str,
        unknown_matches: str = "matches them only with the same characters, whatever they mean",
    ) -> None:
        self._document_remedy, self._query_remedy = document_remedy, query_remedy
        self._unknown_matches = unknown_matches
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
            if pieces.unknown and kind not in self._reported:
                self._report_unknown(kind, name_of(texts, i), pieces)

    def _report_unknown(self, kind: str, name: str, pieces: Wordpieces) -> None:
        n_unknown, n_characters = pieces.unknown_characters()
        if n_unknown < max(_FEWEST, n_characters * _SHARE):
            return
        with self._reporting:
            if kind in self._reported:
                return
            self._reported.add(kind)
        try:
            warn(
                f"the encoder does not know {n_unknown / n_characters:.0%} of the characters of {name} and "
                f"{self._unknown_matches}: use an encoder for this language, such as "
                f"ColBERTEncoder(checkpoint). No further {kind} are reported",
                UnknownTextWarning,
            )
        except UnknownTextWarning:  # the warning is an error here, so the next call has to fail, too
            self._reported.discard(kind)
            raise


def _warn_of_cut(name: str, pieces: Wordpieces, limit: int, remedy: str) -> None:
    n_characters = len(pieces.text)
    reading = f" and {longest_reading(limit)} characters" if pieces.end == longest_reading(limit) else ""
    warn(
        f"{name} is too long: its characters {pieces.end} to {n_characters} "
        f"({1 - pieces.end / n_characters:.0%} of it) are left out, because the encoder's limit is {limit} tokens"
        f"{reading}. {remedy}",
        TruncatedTextWarning,
    )
