"""Searches and reads of an index whose documents are spread over shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from muvera_core.batches import batched
from muvera_core.distributed.merging import (
    ShardAnswer,
    joined_features,
    joined_plan,
    merge,
    selected_features,
    sum_statistics,
)
from muvera_core.distributed.placement import shard_of
from muvera_core.distributed.scatter import Scatter
from muvera_core.encoders import TokenEncoder, warn
from muvera_core.errors import (
    CLOSED,
    IndexClosedError,
    InvalidInputError,
    PartialResultWarning,
    ReadOnlyIndexError,
    ShardUnavailableError,
)
from muvera_core.filters import Condition
from muvera_core.hits import Document, DocumentPage, Hit, Hits, TokenMatch
from muvera_core.index import page_place, to_document
from muvera_core.search import (
    Features,
    HitFeatures,
    Question,
    SearchOptions,
    SearchPlan,
    StageClock,
    scored_hits,
)
from muvera_core.storage import LearnedSettings, Manifest, StaleError, StoredDocument
from muvera_core.token_embeddings import FloatArray

if TYPE_CHECKING:
    from PIL.Image import Image

# Questions that are asked together.
_QUESTIONS_TOGETHER = 64
# Attempts to get the documents that were found before another call deleted one of them.
_ATTEMPTS = 4


class ReadingShards:
    """The part of ``Engine`` that searches and reads: asks all shards, and joins their answers."""

    def __init__(
        self, scatter: Scatter, encoder: TokenEncoder, *, path: Path | None = None, read_only: bool = False
    ) -> None:
        """Search and read shards.

        Args:
            scatter: asks the shards.
            encoder: the index's encoder.
            path: the folder that describes the index.
            read_only: refuse changes.
        """
        self.scatter, self.path, self.read_only = scatter, path, read_only
        self._encoder, self._closed = encoder, False

    @property
    def manifest(self) -> Manifest:
        """See ``Engine``. What can change is asked for each time."""
        manifest: Manifest = self._any("manifest")
        return manifest

    @property
    def device(self) -> str:
        """See ``Engine``."""
        return ", ".join(dict.fromkeys(self._of_all("device").values()))

    @property
    def learned(self) -> LearnedSettings:
        """See ``Engine``."""
        learned: LearnedSettings = self._any("learned")
        return learned

    @property
    def is_open(self) -> bool:
        """See ``Engine``."""
        return not self._closed

    def require_open(self) -> None:
        """See ``Engine``."""
        if self._closed:
            raise IndexClosedError(CLOSED)

    def require_writable(self) -> None:
        """See ``Engine``."""
        self.require_open()
        if self.read_only:
            raise ReadOnlyIndexError(f"{self.path} was opened with read_only=True: open it without to change it")

    def start_reading(self) -> None:
        """See ``Engine``. The shards themselves take in what was committed."""
        self.require_open()

    def close(self) -> None:
        """See ``Engine``."""
        if not self._closed:
            self._closed = True
            self.scatter.close()

    # Asking

    def _of_all(self, name: str, *arguments: Any) -> dict[int, Any]:
        """The result of each shard, by number. Warns if some are missing."""
        return self._of_some(name, dict.fromkeys(range(self.scatter.n_shards), arguments))

    def _of_some(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        results = self._ask(name, arguments)
        self._warn_of(sorted(arguments.keys() - results.keys()))
        return results

    def _ask(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        """The result of each shard that answers, by number. Raises ShardUnavailableError if none does."""
        self.require_open()
        results = self.scatter.read(name, arguments)
        if arguments and not results:
            shards = tuple(sorted(arguments))
            raise ShardUnavailableError(f"none of the shards {_listed(shards)} answers: try again later", shards)
        return results

    def _any(self, name: str) -> Any:
        """What any one shard says, where all would say the same."""
        return next(iter(self._ask(name, dict.fromkeys(range(self.scatter.n_shards), ())).values()))

    def _of_owner(self, name: str, id: str, *arguments: Any) -> Any:
        """What the shard says that has the document with this id, if any has."""
        shard = shard_of(id, self.scatter.n_shards)
        return self._ask(name, {shard: arguments})[shard]

    def _by_owner(self, ids: Iterable[str]) -> dict[int, list[str]]:
        owned: dict[int, list[str]] = {}
        for id in ids:
            owned.setdefault(shard_of(id, self.scatter.n_shards), []).append(id)
        return owned

    def _warn_of(self, missing: Sequence[int]) -> None:
        if missing:
            warn(
                f"the result is partial: of {self.scatter.n_shards} shards these do not answer: {_listed(missing)}",
                PartialResultWarning,
            )

    # Searching

    def search(self, questions: Sequence[Question], options: SearchOptions, clock: StageClock) -> list[list[Hit]]:
        """See ``Engine``. The hits are ``Hits``, which name the shards that did not answer."""
        found: list[Hits] = []
        for group in batched(questions, _QUESTIONS_TOGETHER):
            found += self._search_group(group, options, clock)
        self._warn_of(sorted({shard for hits in found for shard in hits.missing_shards}))
        return list(found)

    def _search_group(self, questions: Sequence[Question], options: SearchOptions, clock: StageClock) -> list[Hits]:
        for attempt in range(_ATTEMPTS):
            try:
                return self._search_once(questions, options, clock, may_miss=attempt == _ATTEMPTS - 1)
            except StaleError:
                continue
        raise AssertionError("the last attempt leaves out what is gone")

    def _search_once(
        self, questions: Sequence[Question], options: SearchOptions, clock: StageClock, *, may_miss: bool
    ) -> list[Hits]:
        every = range(self.scatter.n_shards)
        answers = self._answers(questions, options)
        for name in {name for answer in answers.values() for name in answer.seconds}:
            slowest = max(answer.seconds.get(name, 0.0) for answer in answers.values())
            clock.seconds[name] = clock.seconds.get(name, 0.0) + slowest
        with clock.stage("merge"):
            found = merge(answers, questions, options)
        documents = {
            (shard, key): document for shard, answer in answers.items() for key, document in answer.documents.items()
        }
        if options.mode == "hybrid":
            with clock.stage("fetch"):
                documents = self._documents({place for each in found for place in each.places})
        hits = []
        for each in found:
            present = [i for i, place in enumerate(each.places) if place in documents]
            if len(present) < len(each.places) and not may_miss:
                raise StaleError("a document was deleted after it was found")
            of_it = [documents[each.places[i]] for i in present]
            hits.append(scored_hits(of_it, [each.scores[i] for i in present]))
        if options.with_passages:
            with clock.stage("passages"):
                hits = self._with_passages(questions, hits)
        missing = tuple(shard for shard in every if shard not in answers)
        return [Hits(each, missing) for each in hits]

    def _answers(self, questions: Sequence[Question], options: SearchOptions) -> dict[int, ShardAnswer]:
        every = range(self.scatter.n_shards)
        if options.mode == "late":
            return self._ask("answer", dict.fromkeys(every, (questions, options, None, None)))
        statistics = self._ask("word_statistics", dict.fromkeys(every, (questions,)))
        whole = sum_statistics(list(statistics.values()))
        if options.mode == "hybrid":
            return self._ask("answer", dict.fromkeys(every, (questions, options, whole, None)))
        answers = self._ask("answer", dict.fromkeys(every, (questions, options, whole, False)))
        n_found = [sum(len(answer.scored[i].keys) for answer in answers.values()) for i in range(len(questions))]
        if min(n_found) < options.k:  # then common words count, too; see ``Store.lexical_search``
            with_common = self._ask("answer", dict.fromkeys(every, (questions, options, whole, True)))
            answers = {
                shard: _chosen(answers[shard], answer, [n < options.k for n in n_found])
                for shard, answer in with_common.items()
                if shard in answers
            }
        return answers

    def _documents(self, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], StoredDocument]:
        keys: dict[int, list[int]] = {}
        for shard, key in sorted(places):
            keys.setdefault(shard, []).append(key)
        found = self._ask("documents", {shard: (of_it,) for shard, of_it in keys.items()}) if keys else {}
        return {(shard, key): document for shard, of_it in found.items() for key, document in of_it.items()}

    def _with_passages(self, questions: Sequence[Question], hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        owned = [self._by_owner(hit.id for hit in of_query) for of_query in hits]
        shards = {shard for each in owned for shard in each}
        asked = {
            shard: ([(q.tokens, each.get(shard, [])) for q, each in zip(questions, owned, strict=True)],)
            for shard in shards
        }
        answers = self._ask("passages", asked) if asked else {}
        passages = [{id: p for answer in answers.values() for id, p in answer[i].items()} for i in range(len(hits))]
        return [
            [replace(hit, passage=of_query.get(hit.id)) for hit in some]
            for some, of_query in zip(hits, passages, strict=True)
        ]

    def without_question(self, options: SearchOptions) -> list[Hit]:
        """See ``Engine``."""
        answers = self._of_all("without_question", options)
        return [hit for shard in sorted(answers) for hit in answers[shard]][: options.k]

    def features(self, ids: Sequence[str], query_tokens: FloatArray) -> HitFeatures:
        """See ``Engine``."""
        owned = self._by_owner(ids) or {0: []}
        answers = self._of_some("features", {shard: (of_it, query_tokens) for shard, of_it in owned.items()})
        return joined_features(list(answers.values()), ids)

    def neighbors(self, ids: Sequence[str], options: SearchOptions, n: int) -> list[str]:
        """See ``Engine``. Each shard gives its own ``n`` nearest."""
        owned = self._by_owner(ids)
        found = self._of_some("stage_one_vectors", {shard: (of_it,) for shard, of_it in owned.items()})
        vectors = np.concatenate([each for each in found.values() if len(each)])
        answers = self._of_all("nearest", vectors, options, n + 1)
        return list(dict.fromkeys(id for answer in answers.values() for id in answer))

    def candidates(
        self, query_tokens: FloatArray, options: SearchOptions, n_judged: int, clock: StageClock
    ) -> tuple[list[Hit], Features | None]:
        """See ``Engine``."""
        with clock.stage("candidates"):
            answers = [answer for answer in self._of_all("candidates", query_tokens, options).values() if answer[0]]
        hits = [hit for some, _ in answers for hit in some]
        order = np.argsort([-hit.score for hit in hits], kind="stable")[: options.n_candidates]
        best = [hits[i] for i in order]
        if len(best) <= n_judged:
            return best, None
        return best, selected_features([features for _, features in answers], order)

    def search_by_vector(self, vector: Any, options: SearchOptions) -> list[Hit]:
        """See ``Engine``."""
        hits = [hit for answer in self._of_all("search_by_vector", vector, options).values() for hit in answer]
        return sorted(hits, key=lambda hit: -hit.score)[: options.k]

    def plan(self, options: SearchOptions) -> SearchPlan:
        """See ``Engine``."""
        return joined_plan(self._of_all("plan", options))

    def explain(self, query: str, id: str) -> list[TokenMatch]:
        """See ``Engine``."""
        matches: list[TokenMatch] = self._of_owner("explain", id, query, id)
        return matches

    def similarity_maps(self, query: str, id: str) -> FloatArray:
        """See ``Engine``."""
        maps: FloatArray = self._of_owner("similarity_maps", id, query, id)
        return maps

    def image(self, id: str) -> Image:
        """See ``Engine``. The shard reads it."""
        image: Image = self._of_owner("image", id, id)
        return image

    # Reading

    def get(self, ids: Sequence[str]) -> list[Document]:
        """See ``Engine``."""
        answers = self._of_some("get", {shard: (of_it,) for shard, of_it in self._by_owner(ids).items()})
        by_id = {document.id: document for answer in answers.values() for document in answer}
        return [by_id[id] for id in ids if id in by_id]

    def get_embeddings(self, ids: Sequence[str]) -> dict[str, FloatArray]:
        """See ``Engine``."""
        answers = self._of_some("get_embeddings", {shard: (of_it,) for shard, of_it in self._by_owner(ids).items()})
        by_id = {id: vectors for answer in answers.values() for id, vectors in answer.items()}
        return {id: by_id[id] for id in dict.fromkeys(ids) if id in by_id}

    def find(self, condition: Condition | None, start: int, end: int | None) -> list[Document]:
        """See ``Engine``. Documents come shard by shard, in each in the order in which they were added."""
        answers = self._of_all("find", condition, 0, end)
        return [document for shard in sorted(answers) for document in answers[shard]][start:end]

    def page(self, shard: int, condition: Condition | None, last: int, n: int) -> tuple[list[Document], int]:
        """The first ``n`` documents of a shard whose key is above ``last``, and the last one's key."""
        page: list[StoredDocument] = self._of_some("page", {shard: (condition, last, n)}).get(shard, [])
        return [to_document(document) for document in page], page[-1].key if page else last

    def page_after(self, condition: Condition | None, after: str | None, n: int) -> DocumentPage:
        """See ``Engine``. A page is asked for with the number of shards, a shard, and the key of its last document.

        Raises:
            ShardUnavailableError: the page before is of another number of shards.
        """
        n_shards, shard, last = (self.scatter.n_shards, 0, -1) if after is None else page_place(after, 3)
        if n_shards != self.scatter.n_shards:
            raise ShardUnavailableError("the index was resharded during the iteration: begin it again")
        for each in range(shard, n_shards):
            documents, last = self.page(each, condition, last if each == shard else -1, n)
            if documents:
                return DocumentPage(documents, f"{n_shards}.{each}.{last}")
        return DocumentPage([], None)

    def count(self, condition: Condition | None) -> int:
        """See ``Engine``."""
        return sum(self._of_all("count", condition).values())

    def contains(self, id: str) -> bool:
        """See ``Engine``."""
        return bool(self._of_owner("contains", id, id))

    @property
    def n_documents(self) -> int:
        """See ``Engine``."""
        return sum(documents for documents, _ in self._of_all("n_documents_and_tokens").values())

    @property
    def n_tokens(self) -> int:
        """See ``Engine``."""
        return sum(tokens for _, tokens in self._of_all("n_documents_and_tokens").values())

    # Keeping

    def refresh(self) -> bool:
        """See ``Engine``."""
        return any(self._of_all("refresh").values())

    def default_candidates(self, k: int) -> int:
        """See ``Engine``. The sum of all shards."""
        return sum(self._of_all("default_candidates", k).values())

    def sizes(self) -> dict[str, int]:
        """See ``Engine``. Sums of all shards."""
        totals: dict[str, int] = {}
        for sizes in self._of_all("sizes").values():
            for name, size in sizes.items():
                totals[name] = totals.get(name, 0) + size
        return totals

    def copy_to(self, path: Path) -> NoReturn:
        """Refuses: shards are copied as the folders that they are."""
        raise InvalidInputError(
            f"a sharded index cannot be copied to {path} by one call: copy its folder while nothing writes, or call "
            "reshard, which writes it anew"
        )


def _chosen(answer: ShardAnswer, other: ShardAnswer, takes_other: Sequence[bool]) -> ShardAnswer:
    """For each question one of two answers of a shard."""
    scored = [
        second if takes else first
        for first, second, takes in zip(answer.scored, other.scored, takes_other, strict=True)
    ]
    return replace(other, scored=scored, documents={**answer.documents, **other.documents})


def _listed(shards: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(shards)))
