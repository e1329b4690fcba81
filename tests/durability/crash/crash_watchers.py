"""Those who search while a script writes: threads beside it, and a reader that outlives it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crash_checks import N_CANDIDATES, TOLERANCE, described, differences, late_interaction, queries, which
from crash_workload import ENCODER, Model

from muvera_core import Hit, MuveraIndex
from muvera_core.errors import IndexClosedError, NotAnIndexError, StorageError

# Long enough to leave the writer most of the time.
PAUSE = 0.001


class Searchers:
    """Threads that search the writer's own index, and compare what they find with the documents of the moment."""

    def __init__(self, n: int, models: list[Model]) -> None:
        self._models = models
        self._threads = [threading.Thread(target=self._search, args=(number,)) for number in range(n)]
        self._ending = threading.Event()
        self._now: tuple[int, MuveraIndex] | None = None  # how many operations returned, and the index
        self.problems: list[str] = []
        self.n_searches = 0

    def returned(self, number: int, index: MuveraIndex) -> None:
        """Note that an operation returned."""
        self._now = number + 1, index

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _search(self, number: int) -> None:
        whole = False
        while not self._ending.wait(PAUSE) and not self.problems:
            if self._now is None:
                continue
            whole, (first, index) = not whole, self._now
            query = queries()[number % len(queries())]
            try:
                if whole:
                    hits = index.search_embeddings(query, k=len(self._models[-1]) + 100, exact=True)
                else:
                    hits = index.search_embeddings(query, k=N_CANDIDATES, n_candidates=N_CANDIDATES)
                last = self._now[0] + 1  # the operation in flight may be done
                if not any(_fits(hits, model, number, whole) for model in self._models[first : last + 1]):
                    self.problems.append(f"between operations {first} and {last} a search found {_named(hits)}")
                self.n_searches += 1
            except (IndexClosedError, StorageError):  # between two; in the way of a fault
                continue
            except Exception as error:
                self.problems.append(f"a search raised {described(error)}")


def _fits(hits: list[Hit], model: Model, number: int, whole: bool) -> bool:
    query = queries()[number % len(queries())]
    n = len(model) if whole else min(N_CANDIDATES, len(model))
    return len(hits) == n and all(
        hit.id in model
        and hit.metadata == model[hit.id].metadata
        and abs(hit.score - late_interaction(query, model[hit.id])) < TOLERANCE
        for hit in hits
    )


def _named(hits: list[Hit]) -> list[tuple[str, object]]:
    return [(hit.id, hit.metadata.get("operation")) for hit in hits]


class Reader:
    """Opens the index for reading as soon as it is there, and goes along with what the writer commits."""

    def __init__(self, folder: Path, models: list[Model]) -> None:
        self._folder, self._models = folder, models
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._index: MuveraIndex | None = None
        self._at = 0
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._index is not None:
            self._index.close()

    def stop(self) -> None:
        """No longer go along; what has been seen stays open."""
        self._ending.set()
        self._thread.join()

    @property
    def saw_an_index(self) -> bool:
        return self._index is not None

    def require_the_state_seen_or_a_later_one(self, when: str) -> None:
        """Without a refresh."""
        assert self._index is not None
        held, reason = which(self._index, self._models[self._at :])
        if held is None:
            self.problems.append(f"the reader {when}: {reason}")

    def refreshed(self, models: list[Model], when: str) -> Model | None:
        """Which of the models it holds after a refresh."""
        assert self._index is not None
        self._index.refresh()
        held, reason = which(self._index, models)
        if held is None:
            self.problems.append(f"the reader refreshed {when}: {reason}")
        return held

    def _follow(self) -> None:
        try:
            while self._index is None:
                if self._ending.wait(PAUSE):
                    return
                try:
                    self._index = MuveraIndex.open(self._folder, ENCODER, read_only=True)
                except NotAnIndexError:
                    continue
            while not self.problems:
                self._take_note()
                if self._ending.is_set():
                    return
                time.sleep(PAUSE)
                self._index.refresh()
        except Exception as error:
            self.problems.append(f"the reader beside the writer raised {described(error)}")

    def _seen(self) -> list[tuple[str, dict[str, Any]]]:
        assert self._index is not None
        return [(doc.id, doc.metadata) for doc in self._index.find()]

    def _take_note(self) -> None:
        seen = self._seen()
        for number in range(self._at, len(self._models)):
            model = self._models[number]
            if seen == [(doc.id, doc.metadata) for doc in model.values()]:
                reason = differences(self._index, model) if self._index is not None else None
                if reason is not None and self._seen() == seen:  # else it had to go to a later state
                    self.problems.append(f"the reader beside the writer: {reason}")
                self._at = number
                return
        self.problems.append(f"the reader beside the writer holds no committed state from {self._at} on: {seen}")
