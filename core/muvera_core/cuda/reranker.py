"""Exact MaxSim over an index's documents on a card: those that are there, and those that have to be brought there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from muvera_core.cuda.engine import Documents, Scores
from muvera_core.cuda.residence import BYTES_AT_ONCE, Residence, Session, batches, located
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.directory import Directory
from muvera_core.maxsim.ranking import Ranking, ReadRows, Task
from muvera_core.token_embeddings import FloatArray, IntArray

# Scores that are on the card at a time, and pairs of a query and a document that are scored together.
_SCORES_AT_ONCE = 1 << 26
_QUERIES_AT_ONCE = 4096


class Scorer(Session, Protocol):
    """What is needed of ``CudaSession``; see there."""

    def ask(self, queries: Sequence[FloatArray]) -> Any: ...

    def score_lists(
        self, queries: Any, documents: Documents, places: npt.NDArray[np.int32], lists: IntArray
    ) -> Scores: ...

    def score_all(self, queries: Any, documents: Documents) -> Scores: ...

    def select(self, scores: Scores, k: int | None) -> tuple[npt.NDArray[np.int32], FloatArray]: ...


class Engine(Protocol):
    """What is needed of ``CudaEngine``."""

    layout: RowLayout

    def session(self) -> AbstractContextManager[Scorer]: ...


class CudaReranker:
    """Ranks documents by exact MaxSim. Any number of threads may ask it while one updates it."""

    def __init__(self, engine: Engine, read: ReadRows, budget: int) -> None:
        """Start with nothing on the card.

        Args:
            engine: the card.
            read: gives stored rows and offsets of documents of a state.
            budget: bytes of rows to keep on the card.
        """
        self._engine, self._read = engine, read
        self._residence = Residence(engine.layout, budget)

    @property
    def n_bytes(self) -> int:
        """Memory of the card that documents take."""
        return self._residence.n_bytes

    @property
    def n_resident(self) -> int:
        """How many documents are on the card."""
        return len(self._residence.now.keys)

    def update(self, directory: Directory, *, show_progress: bool = False) -> None:
        """Bring documents to the card that aren't there, while there is room. Raises DeviceError."""
        with self._engine.session() as session:
            self._residence.update(
                session,
                directory.keys,
                directory.rows.count,
                lambda keys: self._read(directory, keys),
                show_progress=show_progress,
            )

    def clear(self) -> None:
        """Let go of what is on the card."""
        self._residence.clear()

    def rank(self, tasks: Sequence[Task], k: int | None) -> list[Ranking]:
        """For each task the ``k`` best documents (all, where None) by falling MaxSim, ties by rising key.

        Raises:
            DeviceError: the card fails.
            CorruptIndexError: rows that had to be read are damaged.
        """
        rankings: list[Ranking] = []
        for group in self._groups(tasks):
            keys = group[0].keys
            shares = all(task.keys is keys for task in group) and (len(group) > 1 or self._residence.now.are(keys))
            with self._engine.session() as session:
                rankings += self._rank_shared(session, group, k) if shares else self._rank_lists(session, group, k)
        return rankings

    def _groups(self, tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
        """Tasks whose scores fit on the card together; those with the same documents by themselves."""
        start, layout = 0, self._engine.layout
        while start < len(tasks):
            n_scores, end = 0, start
            shares = len(tasks) > start + 1 and tasks[start].keys is tasks[start + 1].keys
            while end < len(tasks) and end < start + _QUERIES_AT_ONCE:
                task = tasks[end]
                n_scores += len(task.keys) * layout.n_chunks(len(task.query))
                if end > start and (n_scores > _SCORES_AT_ONCE or shares != (task.keys is tasks[start].keys)):
                    break
                end += 1
            yield tasks[start:end]
            start = end

    def _rank_shared(self, session: Scorer, tasks: Sequence[Task], k: int | None) -> list[Ranking]:
        """Rank the same documents for each task."""
        directory, keys = tasks[0].directory, tasks[0].keys
        residents = self._residence.now
        asked = session.ask([task.query for task in tasks])
        if residents.are(keys):
            return _rankings([_Part([keys] * len(tasks), session.score_all(asked, residents.on_card))], session, k)
        places = residents.places(keys)
        there = places >= 0
        parts = []
        if there.any() or not len(keys):
            lists = np.arange(len(tasks) + 1, dtype=np.int64) * np.count_nonzero(there)
            scores = session.score_lists(asked, residents.on_card, np.tile(places[there], len(tasks)), lists)
            parts.append(_Part([keys[there]] * len(tasks), scores))
        for some, documents in self._brought(session, directory, keys[~there]):
            parts.append(_Part([some] * len(tasks), session.score_all(asked, documents)))
        return _rankings(parts, session, k)

    def _rank_lists(self, session: Scorer, tasks: Sequence[Task], k: int | None) -> list[Ranking]:
        """Rank its own documents for each task."""
        residents = self._residence.now
        asked = session.ask([task.query for task in tasks])
        lists = _bounds([task.keys for task in tasks])
        all_places = residents.places(np.concatenate([task.keys for task in tasks]))
        if all_places.min(initial=0) >= 0:
            scores = session.score_lists(asked, residents.on_card, all_places, lists)
            return _rankings([_Part([task.keys for task in tasks], scores)], session, k)
        parts = []
        there = [all_places[first:end] >= 0 for first, end in pairwise(lists)]
        resident = [task.keys[found] for task, found in zip(tasks, there, strict=True)]
        if any(map(len, resident)) or not len(all_places):
            places = all_places[all_places >= 0]
            parts.append(_Part(resident, session.score_lists(asked, residents.on_card, places, _bounds(resident))))
        missing = [task.keys[~found] for task, found in zip(tasks, there, strict=True)]
        for directory in {id(task.directory): task.directory for task in tasks}.values():
            wanted = [
                some if task.directory is directory else some[:0] for task, some in zip(tasks, missing, strict=True)
            ]
            for some, documents in self._brought(session, directory, np.unique(np.concatenate(wanted))):
                here = [keys[np.isin(keys, some, assume_unique=True)] for keys in wanted]
                places = np.searchsorted(some, np.concatenate(here)).astype(np.int32)
                parts.append(_Part(here, session.score_lists(asked, documents, places, _bounds(here))))
        return _rankings(parts, session, k)

    def _brought(self, session: Scorer, directory: Directory, keys: IntArray) -> Iterator[tuple[IntArray, Documents]]:
        """Documents that aren't on the card, some at a time; each time until the next.

        The card's memory is given back in the order of the stream's work, so rows may be let go of while they are still
        being scored.
        """
        layout = self._engine.layout
        counts = directory.rows.count[directory.places(keys)]
        for start, end in batches(counts, BYTES_AT_ONCE // layout.bytes_per_token):
            rows, offsets = self._read(directory, keys[start:end])
            held = session.hold(rows)
            yield keys[start:end], located(held, offsets, layout)


class _Part(NamedTuple):
    """Scores of some of the documents that tasks have.

    Attributes:
        keys: of each task's, ascending.
        scores: on the card, in the same order.
    """

    keys: Sequence[IntArray]
    scores: Scores


def _bounds(lists: Sequence[IntArray]) -> IntArray:
    """Where each list begins and ends when they are laid end to end."""
    bounds = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(some) for some in lists], out=bounds[1:])
    return bounds


def _rankings(parts: Sequence[_Part], session: Scorer, k: int | None) -> list[Ranking]:
    """Each task's best, of all parts together."""
    best = [_best(part, session, k) for part in parts]
    return best[0] if len(best) == 1 else [_merged(of_task, k) for of_task in zip(*best, strict=True)]


def _best(part: _Part, session: Scorer, k: int | None) -> list[Ranking]:
    """Each task's best in one part. Places come in ascending order, so a stable sort leaves ties in theirs."""
    places, scores = session.select(part.scores, k)
    order = np.argsort(-scores, axis=1, kind="stable")
    rows = np.arange(len(order))[:, None]
    places, scores = places[rows, order], scores[rows, order]
    counts = np.minimum(np.diff(part.scores.lists), places.shape[1]).tolist()
    return [(keys[places[i, :n]], scores[i, :n]) for i, (keys, n) in enumerate(zip(part.keys, counts, strict=True))]


def _merged(rankings: Sequence[Ranking], k: int | None) -> Ranking:
    keys = np.concatenate([some for some, _ in rankings])
    scores = np.concatenate([some for _, some in rankings])
    order = np.lexsort((keys, -scores))[:k]
    return keys[order], scores[order]
