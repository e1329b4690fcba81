"""Computes BM25 from the table of words, and keeps what it has read of each term for the present snapshot.

BM25 adds up a document's weights for the terms of a question. SQLite's FTS5 computes the weights of one term at a time.
They are kept with the snapshot, since the words that most documents have are also the words of most questions.

FTS5 weighs a term that half of the documents have with next to nothing, which in an index of a few documents is every
other word. So its factor is replaced by that of Lucene, ln(1 + (N - n + 0.5) / (n + 0.5)), which is always above 0.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.errors import CLOSED, RUN_REPAIR, CorruptIndexError, IndexClosedError
from muvera_core.files import storage_errors
from muvera_core.lexical import LexicalQuery, Term
from muvera_core.storage.database import connect, read_version
from muvera_core.storage.documents import StaleError
from muvera_core.storage.shared_connection import SharedConnection
from muvera_core.storage.snapshot import Snapshot, TermWeights
from muvera_core.token_embeddings import FloatArray, IntArray

Scores = npt.NDArray[np.float64]

# From this number of documents on, words of more than half of them are left out. Reading them takes most of the time of
# a search, and adds next to nothing to its quality.
_MANY_DOCUMENTS = 1000
_FTS5_LEAST_IDF = 1e-6
# Weights that are kept for a snapshot. They take 8 bytes each.
_MOST_KEPT = 4_000_000
_WEIGHTS = "SELECT rowid, -bm25(words, ?, 1.0) FROM words WHERE words MATCH ?"
# Each document with words has a row there.
_N_WITH_WORDS = "SELECT count(*) FROM words_docsize"
_FREQUENCY = "SELECT count(*) FROM words WHERE words MATCH ?"


@dataclass(frozen=True, eq=False)
class WordStatistics:
    """What BM25 knows of a collection and of a question's terms. Those of parts of a collection can be added up.

    Attributes:
        n_documents: number of documents.
        n_with_words: number of those that have words.
        frequencies: number of documents with each term, int64, shape (terms,).
    """

    n_documents: int
    n_with_words: int
    frequencies: IntArray

    def __add__(self, other: WordStatistics) -> WordStatistics:
        return WordStatistics(
            self.n_documents + other.n_documents,
            self.n_with_words + other.n_with_words,
            self.frequencies + other.frequencies,
        )


class WordReader:
    """Answers lexical searches. Any number of threads may call it.

    An index in a folder has a connection of its own for it: a common word takes milliseconds, and other reads of the
    database go on meanwhile.
    """

    def __init__(self, path: Path | None, shared: SharedConnection, lock: AbstractContextManager[Any]) -> None:
        """Read from this database.

        Args:
            path: the database's file. None for one in memory.
            shared: the connection to use if the database is in memory.
            lock: guards the own connection, and what is kept.
        """
        self._path, self._shared = path, shared
        self._lock, self._own = lock, list[sqlite3.Connection]()
        self._closed = False

    def scores(
        self, snapshot: Snapshot, query: LexicalQuery, whole: WordStatistics | None = None, *, of_common: bool = False
    ) -> Scores:
        """BM25 of all documents, float64, in the order of the snapshot's keys; 0 where nothing matches.

        Of ``_MANY_DOCUMENTS`` or more, terms that more than half of them have are left out, unless all terms are such,
        or ``of_common`` asks for them.

        Args:
            snapshot: the documents.
            query: the question.
            whole: statistics of the collection that these documents are a part of. None if they are all. The mean
                length of documents is that of the part.
            of_common: count all terms.

        Raises:
            StaleError: something was committed after this snapshot.
            CorruptIndexError: the table of words is damaged.
        """
        scores = np.zeros(len(snapshot))
        if len(snapshot):
            own = self.statistics(snapshot, query)
            whole = own if whole is None else whole
            of_whole = dict(zip(query.terms, whole.frequencies.tolist(), strict=True))
            found = [term for term in query.terms if of_whole[term]]
            counts_all = of_common or whole.n_documents < _MANY_DOCUMENTS
            telling = [term for term in found if counts_all or 2 * of_whole[term] <= whole.n_documents]
            n_own = dict(zip(query.terms, own.frequencies.tolist(), strict=True))
            for term in telling or found:
                if n_own[term]:
                    factor = 1.0
                    if whole is not own:
                        factor = _idf(whole.n_with_words, of_whole[term]) / _idf(own.n_with_words, n_own[term])
                    weights = self._weights(snapshot, term)
                    scores[weights.places] += factor * weights.weights
        return scores

    def statistics(self, snapshot: Snapshot, query: LexicalQuery) -> WordStatistics:
        """Statistics of the documents and of the question's terms. Raises like ``scores``."""
        known = snapshot.term_frequencies
        for term in query.terms:
            if term not in known:
                known[term] = self._fetch(snapshot, _FREQUENCY, (_expression(term),))[0][0]
        frequencies = np.array([known[term] for term in query.terms], dtype=np.int64)
        return WordStatistics(len(snapshot), self._n_with_words(snapshot), frequencies)

    def close(self) -> None:
        """Close the connection. A search that runs in another thread ends first."""
        with self._lock:
            self._closed = True
            for db in self._own:
                db.close()

    def close_forgotten(self) -> None:
        """Like ``close``, when no other thread can be searching."""
        for db in self._own:
            db.close()

    def _weights(self, snapshot: Snapshot, term: Term) -> TermWeights:
        kept = snapshot.term_weights
        found = kept.get(term)
        if found is None:
            field_weight = 1.0 if snapshot.lexical is None else snapshot.lexical.field_weight
            rows = self._fetch(snapshot, _WEIGHTS, (field_weight, _expression(term)))
            found = _checked(snapshot, rows, _idf_factor(self._n_with_words(snapshot), len(rows)))
            with self._lock:
                n = sum(len(weights.places) for weights in kept.values())
                while kept and n + len(found.places) > _MOST_KEPT:
                    n -= len(kept.pop(next(iter(kept))).places)
                kept[term] = found
        return found

    def _n_with_words(self, snapshot: Snapshot) -> int:
        known = snapshot.term_frequencies
        if () not in known:
            known[()] = self._fetch(snapshot, _N_WITH_WORDS, ())[0][0]
        return known[()]

    def _fetch(self, snapshot: Snapshot, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        if self._path is None:
            with self._shared.lock, self._shared.checked() as db:
                return _read(db, snapshot, sql, parameters)
        with self._lock:
            if self._closed:
                raise IndexClosedError(CLOSED)
            if not self._own:
                self._own.append(connect(self._path, write=False))
            with storage_errors(self._path):
                return _read(self._own[0], snapshot, sql, parameters)


def top(snapshot: Snapshot, scores: Scores, n: int, admitted: IntArray | None) -> tuple[IntArray, FloatArray]:
    """The ``n`` best of the documents that score above 0, best first, ties by rising key.

    Args:
        snapshot: the documents.
        scores: of all of them, float64.
        n: how many to return at most.
        admitted: keys of the only documents that may be returned, ascending. None admits all.

    Returns:
        Their keys, int64, and their scores, float32.
    """
    places = np.flatnonzero(scores) if admitted is None else snapshot.places(admitted)
    found = scores[places].astype(np.float32)
    chosen = np.flatnonzero(found > 0)
    if len(chosen) > n > 0:
        worst = np.partition(found[chosen], len(chosen) - n)[len(chosen) - n]
        chosen = np.flatnonzero((found > 0) & (found >= worst))
    order = chosen[np.lexsort((places[chosen], -found[chosen]))][:n]
    return snapshot.keys[places[order]], found[order]


def _read(db: sqlite3.Connection, snapshot: Snapshot, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
    try:
        rows = db.execute(sql, parameters).fetchall()
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if read_version(db) != snapshot.version:
            raise StaleError from None
        if name == "SQLITE_ERROR" or name.startswith("SQLITE_CORRUPT"):
            raise damaged_words(str(error)) from error
        raise
    # Versions only grow. If this is still the snapshot's, the rows are, too.
    if read_version(db) != snapshot.version:
        raise StaleError
    return rows


def _checked(snapshot: Snapshot, rows: list[Any], factor: float) -> TermWeights:
    """The weights of a term. Raises CorruptIndexError if they are not of documents that exist."""
    try:
        keys = np.array([key for key, _ in rows], dtype=np.int64)
        weights = np.array([weight for _, weight in rows], dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise damaged_words(str(error)) from None
    if not (snapshot.has(keys).all() and (np.diff(keys) > 0).all() and (weights >= 0).all()):
        raise damaged_words("it names documents that do not exist")
    return TermWeights(snapshot.places(keys).astype(np.int32), (weights * factor).astype(np.float32))


def _idf_factor(n_documents: int, n: int) -> float:
    """What turns FTS5's weights of a term that ``n`` documents have into those with Lucene's idf."""
    odds = _odds(n_documents, n)
    return _idf(n_documents, n) / max(math.log(odds) if odds > 0 else 0.0, _FTS5_LEAST_IDF)


def _idf(n_documents: int, n: int) -> float:
    """Lucene's idf of a term that ``n`` documents have."""
    return math.log1p(_odds(n_documents, n))


def _odds(n_documents: int, n: int) -> float:
    return max(0.0, n_documents - n + 0.5) / (n + 0.5)


def damaged_words(problem: str) -> CorruptIndexError:
    """The error about a damaged table of words."""
    return CorruptIndexError(
        f"the word index in documents.sqlite is damaged ({problem}). The documents themselves are safe, and searches "
        f"by meaning work: {RUN_REPAIR} to rebuild it"
    )


def _expression(term: Term) -> str:
    """A term in FTS5's query language. Tokens have no characters that mean anything there."""
    tokens = " ".join(term)
    return f'"{tokens[:-1]}" *' if tokens.endswith("*") else f'"{tokens}"'
