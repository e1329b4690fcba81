"""Exact MaxSim over an index's documents on a card: those that are there, and those that have to be brought there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from muvera_core.batches import runs_by_size
from muvera_core.collection import RerankRequest
from muvera_core.cuda.engine import Documents, Scores
from muvera_core.cuda.residence import BYTES_AT_ONCE, Residence, Residents, Session, located
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.maxsim import Ranking, ranked
from muvera_core.search import sharing_documents
from muvera_core.storage import Rows, Snapshot
from muvera_core.token_embeddings import FloatArray, IntArray

# Scores of queries that have the same documents, and of others, that are made together.
_SCORES_AT_ONCE = 1 << 25
_PAIRS_AT_ONCE = 1 << 14


class Scorer(Session, Protocol):
    """What is needed of ``CudaSession``; see there."""

    def ask(self, queries: Sequence[FloatArray]) -> Any: ...

    def score_lists(
        self, queries: Any, documents: Documents, places: npt.NDArray[np.int32], lists: IntArray
    ) -> Scores: ...

    def score_all(self, queries: Any, documents: Documents) -> Scores: ...

    def select(self, scores: Scores, k: int | None) -> Any: ...

    def fetch(self, selected: Any) -> tuple[npt.NDArray[np.int32], FloatArray]: ...


class TokenRows(Protocol):
    """What is needed of ``Store``."""

    def token_rows(self, snapshot: Snapshot, keys: IntArray) -> tuple[Rows, IntArray]: ...


class Engine(Protocol):
    """What is needed of ``CudaEngine``."""

    layout: RowLayout

    def session(self) -> AbstractContextManager[Scorer]: ...


class CudaReranker:
    """Ranks documents by exact MaxSim. Any number of threads may ask it while one updates it."""

    def __init__(self, engine: Engine, store: TokenRows, budget: int) -> None:
        """Start with nothing on the card.

        Args:
            engine: the card.
            store: holds the documents.
            budget: bytes of rows to keep on the card.
        """
        self._engine, self._store = engine, store
        self._residence = Residence(engine.layout, budget)

    @property
    def n_bytes(self) -> int:
        """Memory of the card that documents take."""
        return self._residence.n_bytes

    @property
    def n_resident(self) -> int:
        """How many documents are on the card."""
        return len(self._residence.now.keys)

    def update(self, snapshot: Snapshot, *, show_progress: bool = False) -> None:
        """Bring documents to the card that aren't there, while there is room. Raises DeviceError."""
        with self._engine.session() as session:
            self._residence.update(
                session,
                snapshot.keys,
                snapshot.rows.count,
                lambda keys: self._store.token_rows(snapshot, keys),
                show_progress=show_progress,
            )

    def clear(self) -> None:
        """Let go of what is on the card."""
        self._residence.clear()

    def rank(self, requests: Sequence[RerankRequest], k: int | None) -> list[Ranking]:
        """For each request the ``k`` best documents (all, where None) by falling MaxSim, ties by rising key.

        Raises:
            DeviceError: the card fails.
            CorruptIndexError: rows that had to be read are damaged.
        """
        rankings: list[Ranking] = []
        alone: list[RerankRequest] = []
        for some in sharing_documents(requests):
            if len(some) == 1 and not self._residence.now.are(some[0].keys):
                alone += some
                continue
            rankings += self._rank_lists(alone, k) + self._rank_shared(some, k)
            alone = []
        return rankings + self._rank_lists(alone, k)

    def _rank_shared(self, requests: Sequence[RerankRequest], k: int | None) -> list[Ranking]:
        """Rank the same documents for each request, as many requests at a time as the card has room for scores."""
        rankings: list[Ranking] = []
        chunks = max(self._engine.layout.n_chunks(len(request.query)) for request in requests)
        n = max(1, _SCORES_AT_ONCE // max(1, chunks * len(requests[0].keys)))
        for start in range(0, len(requests), n):
            group = requests[start : start + n]
            with self._engine.session() as session:
                parts = list(self._select_shared(session, self._residence.now, group, k))
                rankings += _rankings(session, len(group), parts, k)
        return rankings

    def _rank_lists(self, requests: Sequence[RerankRequest], k: int | None) -> list[Ranking]:
        """Rank its own documents for each request; the card works on some requests while the next are prepared."""
        if not requests:
            return []
        bounds = runs_by_size(np.array([len(request.keys) for request in requests]), _PAIRS_AT_ONCE)
        with self._engine.session() as session:
            residents = self._residence.now
            selections = [
                (end - start, list(self._select_lists(session, residents, requests[start:end], k)))
                for start, end in bounds
            ]
            return [ranking for n, parts in selections for ranking in _rankings(session, n, parts, k)]

    def _select_shared(
        self, session: Scorer, residents: Residents, requests: Sequence[RerankRequest], k: int | None
    ) -> Iterator[_Selection]:
        """The best of the same documents for each request, those on the card first."""
        snapshot, keys = requests[0].snapshot, requests[0].keys
        asked = session.ask([request.query for request in requests])
        if residents.are(keys):
            yield _Selection(keys, None, session.select(session.score_all(asked, residents.on_card), k))
            return
        places = residents.places(keys)
        there = places >= 0
        lists = np.arange(len(requests) + 1, dtype=np.int64) * np.count_nonzero(there)
        scores = session.score_lists(asked, residents.on_card, np.tile(places[there], len(requests)), lists)
        yield _Selection(keys[there], None, session.select(scores, k))
        for some, documents in self._brought(session, snapshot, keys[~there]):
            yield _Selection(some, None, session.select(session.score_all(asked, documents), k))

    def _select_lists(
        self, session: Scorer, residents: Residents, requests: Sequence[RerankRequest], k: int | None
    ) -> Iterator[_Selection]:
        """The best of its own documents for each request, those on the card first."""
        asked = session.ask([request.query for request in requests])
        keys, lists = _joined([request.keys for request in requests])
        places = residents.places(keys)
        if places.min(initial=0) >= 0:
            scores = session.score_lists(asked, residents.on_card, places, lists)
            yield _Selection(keys, lists, session.select(scores, k))
            return
        there = [places[first:end] >= 0 for first, end in pairwise(lists)]
        resident, bounds = _joined([request.keys[found] for request, found in zip(requests, there, strict=True)])
        scores = session.score_lists(asked, residents.on_card, places[places >= 0], bounds)
        yield _Selection(resident, bounds, session.select(scores, k))
        missing = [request.keys[~found] for request, found in zip(requests, there, strict=True)]
        for snapshot in {id(request.snapshot): request.snapshot for request in requests}.values():
            wanted = [
                some if request.snapshot is snapshot else some[:0]
                for request, some in zip(requests, missing, strict=True)
            ]
            for some, documents in self._brought(session, snapshot, np.unique(np.concatenate(wanted))):
                here, bounds = _joined(
                    [of_request[np.isin(of_request, some, assume_unique=True)] for of_request in wanted]
                )
                scores = session.score_lists(asked, documents, np.searchsorted(some, here).astype(np.int32), bounds)
                yield _Selection(here, bounds, session.select(scores, k))

    def _brought(self, session: Scorer, snapshot: Snapshot, keys: IntArray) -> Iterator[tuple[IntArray, Documents]]:
        """Documents that aren't on the card, some at a time; each time until the next.

        The card's memory is given back in the order of the stream's work, so rows may be let go of while they are still
        being scored.
        """
        layout = self._engine.layout
        counts = snapshot.rows.count[snapshot.places(keys)]
        for start, end in runs_by_size(counts, BYTES_AT_ONCE // layout.bytes_per_token):
            rows, offsets = self._store.token_rows(snapshot, keys[start:end])
            held = session.hold(rows)
            yield keys[start:end], located(held, offsets, layout)


class _Selection(NamedTuple):
    """The best of some of the documents that requests have, on the card.

    Attributes:
        keys: of the documents, int64; those of one request after those of another, ascending each.
        lists: int64, shape (requests + 1,): where each request's begin and end; None where all have all.
        selected: see ``CudaSession.select``.
    """

    keys: IntArray
    lists: IntArray | None
    selected: Any


def _joined(lists: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """Lists end to end, and where each begins and ends."""
    bounds = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(some) for some in lists], out=bounds[1:])
    return lists[0] if len(lists) == 1 else np.concatenate(lists), bounds


def _rankings(session: Scorer, n_requests: int, parts: Sequence[_Selection], k: int | None) -> list[Ranking]:
    """Each request's best, of all parts together."""
    best = [_best(session, n_requests, part) for part in parts]
    return best[0] if len(best) == 1 else [_merged(of_request, k) for of_request in zip(*best, strict=True)]


def _best(session: Scorer, n_requests: int, part: _Selection) -> list[Ranking]:
    """Each request's best in one part. Places come in ascending order, so a stable sort leaves ties in theirs."""
    places, scores = session.fetch(part.selected)
    if not places.size:
        return [(part.keys[:0], scores[:0].reshape(-1))] * n_requests
    order = np.argsort(-scores, axis=1, kind="stable")
    rows = np.arange(n_requests)[:, None]
    places, scores = places[rows, order], scores[rows, order]
    if part.lists is None:
        counts = [len(part.keys)] * n_requests
        keys = part.keys[places]
    else:
        counts = np.diff(part.lists).tolist()
        keys = part.keys.take(part.lists[:-1, None] + places, mode="clip")
    return [(keys[i, :n], scores[i, :n]) for i, n in enumerate(counts)]


def _merged(rankings: Sequence[Ranking], k: int | None) -> Ranking:
    keys = np.concatenate([some for some, _ in rankings])
    scores = np.concatenate([some for _, some in rankings])
    return ranked(keys, scores, k)
