"""Snapshots: committed states of the documents, in memory. They say which documents exist and where their tokens are.

A search reads one snapshot from beginning to end, so it sees one state even if something is committed meanwhile. The
token rows of a snapshot are never overwritten, and a replaced document gets a new key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from muvera_core.files import id_hash, row_hashes, signed_sum
from muvera_core.filters import Condition
from muvera_core.lexical import LexicalConfig, Term
from muvera_core.storage.token_log import TokenLog
from muvera_core.token_embeddings import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class SnapshotRows:
    """A row for each document, as columns of shape (documents,), in ascending order of keys.

    Attributes:
        keys: internal numbers of the documents, int64. A replaced document gets a new one.
        id_hashes: 64-bit hash of each id, int64.
        first: number of each document's first row in the token log, int64.
        count: number of its rows, int64, at least 1.
        token_checksums: CRC-32 of these rows, int64.
    """

    keys: IntArray
    id_hashes: IntArray
    first: IntArray
    count: IntArray
    token_checksums: IntArray

    @classmethod
    def empty(cls) -> SnapshotRows:
        """No documents."""
        return cls(*(np.empty(0, dtype=np.int64) for _ in range(5)))

    @property
    def columns(self) -> tuple[IntArray, ...]:
        """All five columns, in order."""
        return self.keys, self.id_hashes, self.first, self.count, self.token_checksums

    def hashes(self) -> IntArray:
        """A checksum of each row, int64, shape (documents,)."""
        return row_hashes(self.columns)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, chosen: IntArray | npt.NDArray[np.bool_]) -> SnapshotRows:
        return SnapshotRows(*(column[chosen] for column in self.columns))

    @classmethod
    def joined(cls, parts: Sequence[SnapshotRows]) -> SnapshotRows:
        """The rows of all parts. Each part's keys must be higher than those of the part before."""
        return cls(*(np.concatenate(columns) for columns in zip(*(part.columns for part in parts), strict=True)))


@dataclass(frozen=True, eq=False)
class TermWeights:
    """What a term adds to the BM25 of the documents that have it.

    Attributes:
        places: positions of these documents among a snapshot's rows, int32, ascending.
        weights: float32, above 0.
    """

    places: npt.NDArray[np.int32]
    weights: FloatArray


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All documents of one committed state.

    Attributes:
        version: counts commits.
        rows: the documents.
        tokens: the log with their token vectors.
        verified: whether a document's tokens have been checked since the index was opened, bool, shape (documents,).
        hashes: the hashes of all ids, ascending, int64, shape (documents,).
        keys_by_hash: the keys in the order of ``hashes``, int64, shape (documents,).
        digest: checksum of the rows as a set.
        lexical: settings of the word index. None if there is none.
        filter_matches: for the filters used last, the keys that match in this state.
        term_frequencies: for terms of lexical searches, the number of documents that have them in this state; for the
            empty term, the number of documents with words.
        term_weights: for the terms used last, their weights in this state.
    """

    version: int
    rows: SnapshotRows
    tokens: TokenLog
    verified: npt.NDArray[np.bool_]
    hashes: IntArray
    keys_by_hash: IntArray
    digest: int
    lexical: LexicalConfig | None = None
    filter_matches: dict[Condition, IntArray] = field(default_factory=dict)
    term_frequencies: dict[Term, int] = field(default_factory=dict)
    term_weights: dict[Term, TermWeights] = field(default_factory=dict)

    @classmethod
    def of(cls, version: int, rows: SnapshotRows, tokens: TokenLog, lexical: LexicalConfig | None = None) -> Snapshot:
        """A snapshot with these documents, none of them verified yet."""
        order = np.argsort(rows.id_hashes, kind="stable")
        verified = np.zeros(len(rows), dtype=np.bool_)
        hashes, keys, digest = rows.id_hashes[order], rows.keys[order], signed_sum(rows.hashes())
        return cls(version, rows, tokens, verified, hashes, keys, digest, lexical)

    @property
    def keys(self) -> IntArray:
        """Keys of all documents, int64, ascending."""
        return self.rows.keys

    @property
    def n_tokens(self) -> int:
        """Number of token vectors of all documents."""
        return int(self.rows.count.sum())

    def __len__(self) -> int:
        return len(self.rows)

    def places(self, keys: Sequence[int] | IntArray) -> IntArray:
        """Positions of these keys, which must exist, among the rows."""
        return np.searchsorted(self.rows.keys, keys)

    def has(self, keys: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each key is a document of this snapshot, bool, shape (keys,)."""
        places = np.minimum(self.places(keys), len(self) - 1)
        found: npt.NDArray[np.bool_] = self.rows.keys[places] == keys if len(self) else np.zeros(len(keys), np.bool_)
        return found

    def possible_keys(self, ids: Sequence[str]) -> IntArray:
        """Keys of all documents whose id has the hash of one of ``ids``. Almost always, the ids are equal, too."""
        wanted = np.array([id_hash(id) for id in ids], dtype=np.int64)
        starts, ends = np.searchsorted(self.hashes, wanted, "left"), np.searchsorted(self.hashes, wanted, "right")
        runs = [self.keys_by_hash[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *runs]))

    def changed(
        self, version: int, removed: IntArray, added: SnapshotRows, filter_matches: Mapping[Condition, IntArray]
    ) -> Snapshot:
        """The next snapshot: without the keys ``removed``, and with ``added``, whose keys must be higher."""
        rows, verified, hashes, keys = self.rows, self.verified, self.hashes, self.keys_by_hash
        digest = signed_sum([self.digest, signed_sum(added.hashes())])
        if len(removed):
            digest = signed_sum([digest, -signed_sum(rows[self.places(removed)].hashes())])
            kept, kept_by_hash = ~np.isin(rows.keys, removed), ~np.isin(keys, removed)
            rows, verified, hashes, keys = rows[kept], verified[kept], hashes[kept_by_hash], keys[kept_by_hash]
        order = np.argsort(added.id_hashes, kind="stable")
        places = np.searchsorted(hashes, added.id_hashes[order], "right")
        return Snapshot(
            version,
            SnapshotRows.joined([rows, added]),
            self.tokens,
            np.concatenate([verified, np.zeros(len(added), dtype=np.bool_)]),
            np.insert(hashes, places, added.id_hashes[order]),
            np.insert(keys, places, added.keys[order]),
            digest,
            self.lexical,
            dict(filter_matches),
        )

    def moved(self, version: int, tokens: TokenLog, first: IntArray, checksums: IntArray) -> Snapshot:
        """The next snapshot: the same documents, with tokens in another log, starting at the rows ``first``."""
        moved = Snapshot.of(version, replace(self.rows, first=first, token_checksums=checksums), tokens, self.lexical)
        return replace(moved, filter_matches=dict(self.filter_matches))

    def with_verified_of(self, earlier: Snapshot) -> Snapshot:
        """This snapshot, with ``verified`` set as in ``earlier``, which has the same token log."""
        known = earlier.rows.keys[earlier.verified]
        return replace(self, verified=np.isin(self.rows.keys, known, assume_unique=True))

    def with_lexical(self, lexical: LexicalConfig | None) -> Snapshot:
        """This snapshot, with other settings of the word index."""
        return replace(self, lexical=lexical, term_frequencies={}, term_weights={})
