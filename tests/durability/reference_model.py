"""What an index has to answer, from a plain dictionary and MaxSim in float64: it shares the token codec with the index,
so that scores can be compared closely, and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core import Document, FDEConfig, Hit, MuveraIndex, TokenEmbeddings
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.storage.token_codec import TokenCodec
from muvera_core.token_embeddings import FloatArray

Float64Array = npt.NDArray[np.float64]

D = 16
FDE = FDEConfig(dimension=D, num_repetitions=8, num_simhash_projections=3, projection_dimension=8)
CODEC = TokenCodec("int8", D)
# Scores are sums of float32 products in the index and of float64 products here.
TOLERANCE = 1e-4
# No other document has anything in this dimension, so that a question about it has one answer.
BEACON_DIMENSION = D - 1
BEACON = "beacon"
N_GROUPS = 4


class SeedEncoder(PrecomputedEmbeddings):
    """Takes a text for the seed of its token vectors, and fails at the text "fail"."""

    error: type[BaseException] = RuntimeError

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        if "fail" in texts:
            raise self.error("the encoder failed")
        return TokenEmbeddings.from_list([tokens_from(int(text)) for text in texts], D)


ENCODER = SeedEncoder(D, "seeds")


def tokens_from(seed: int, n_tokens: int | None = None) -> FloatArray:
    """Random vectors of unit length, float32, shape (tokens, D)."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n_tokens or rng.integers(1, 9), D)).astype(np.float32)
    vectors[:, BEACON_DIMENSION] = 0
    normalized: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalized


def beacon_tokens() -> FloatArray:
    return np.eye(1, D, BEACON_DIMENSION, dtype=np.float32)


QUESTIONS = [tokens_from(seed, 5) for seed in (900_001, 900_002, 900_003)]


def create(path: Path | None) -> MuveraIndex:
    return MuveraIndex.create(path, ENCODER, FDE)


@dataclass(frozen=True, eq=False)
class ModelDocument:
    """A document as the model keeps it: float64 vectors, as they can be read back from the stored rows."""

    id: str
    text: str | None
    metadata: Mapping[str, Any]
    tokens: FloatArray

    @property
    def public(self) -> Document:
        return Document(self.id, self.text, dict(self.metadata))


@lru_cache(maxsize=100_000)
def _as_stored(tokens: bytes) -> Any:
    vectors = np.frombuffer(tokens, dtype=np.float32).reshape(-1, D)
    offsets = np.array([0, len(vectors)])
    return CODEC.decode(CODEC.encode(vectors, offsets), offsets).astype(np.float64)


Admits = Callable[[ModelDocument], bool]
Ranking = Sequence[tuple[ModelDocument, float]]


class ReferenceModel:
    """One state of an index. Documents are in the order of insertion; a replaced one goes to the end."""

    def __init__(self, documents: Mapping[str, ModelDocument] | None = None) -> None:
        self.documents = dict(documents or {})
        self._rankings: dict[bytes, Ranking] = {}

    def __len__(self) -> int:
        return len(self.documents)

    def with_documents(self, added: Sequence[ModelDocument]) -> ReferenceModel:
        stays = {id: old for id, old in self.documents.items() if id not in {new.id for new in added}}
        return ReferenceModel({**stays, **{new.id: new for new in added}})

    def without(self, ids: Sequence[str]) -> ReferenceModel:
        return ReferenceModel({id: document for id, document in self.documents.items() if id not in set(ids)})

    def find(self, admits: Admits | None = None) -> list[Document]:
        return [document.public for document in self.documents.values() if admits is None or admits(document)]

    def get(self, ids: Sequence[str]) -> list[Document]:
        return [self.documents[id].public for id in ids if id in self.documents]

    def ranking(self, question: FloatArray, admits: Admits | None = None) -> Ranking:
        """All documents that are admitted with their scores, best first, ties in the order of insertion."""
        name = question.tobytes()
        if name not in self._rankings:
            scores = self._scores(question.astype(np.float64))
            order = np.argsort(-scores, kind="stable")
            documents = list(self.documents.values())
            self._rankings[name] = [(documents[i], float(scores[i])) for i in order]
        return [entry for entry in self._rankings[name] if admits is None or admits(entry[0])]

    def _scores(self, question: Float64Array) -> Float64Array:
        if not self.documents:
            return np.empty(0)
        tokens = [_as_stored(document.tokens.tobytes()) for document in self.documents.values()]
        products = np.concatenate(tokens) @ question.T
        starts = np.cumsum([0, *map(len, tokens[:-1])])
        scores: Float64Array = np.maximum.reduceat(products, starts, axis=0).sum(axis=1)
        return scores


def model_document(id: str, seed: int, metadata: Mapping[str, Any] | None = None) -> ModelDocument:
    """A document whose text is the seed of its tokens, as ``SeedEncoder`` makes them."""
    return ModelDocument(id, str(seed), dict(metadata or {}), tokens_from(seed))


def add_to(index: MuveraIndex, documents: Sequence[ModelDocument]) -> None:
    index.add_embeddings(
        [document.tokens for document in documents],
        ids=[document.id for document in documents],
        texts=[document.text or "none" for document in documents],
        metadatas=[document.metadata for document in documents],
    )


def are_best(hits: Sequence[Hit], ranking: Ranking, k: int) -> bool:
    """Whether the hits are the first ``k`` of the ranking. Scores that differ by a rounding error may swap places."""
    if len(hits) != min(k, len(ranking)):
        return False
    best = [score for _, score in ranking[: len(hits)]]
    return are_among(hits, ranking) and bool(np.allclose([hit.score for hit in hits], best, rtol=0, atol=TOLERANCE))


def are_among(hits: Sequence[Hit], ranking: Ranking) -> bool:
    """Whether the hits are distinct documents of the ranking, with its texts, metadata and scores, in its order."""
    there = {document.id: (place, document, score) for place, (document, score) in enumerate(ranking)}
    if len({hit.id for hit in hits}) < len(hits) or any(hit.id not in there for hit in hits):
        return False
    for hit in hits:
        _, document, score = there[hit.id]
        if (hit.text, hit.metadata) != (document.text, document.metadata) or abs(hit.score - score) > TOLERANCE:
            return False
    return all(a.score >= b.score for a, b in pairwise(hits))


# What can be asked of an index, and whether a state would answer so


Agrees = Callable[[ReferenceModel], bool]
Observation = Callable[[MuveraIndex], Agrees]


def search_all(index: MuveraIndex, question: int = 0) -> Agrees:
    """A search in which every document is a candidate."""
    hits = index.search_embeddings(QUESTIONS[question], k=10)
    return lambda model: are_best(hits, model.ranking(QUESTIONS[question]), 10)


def search_exactly(index: MuveraIndex) -> Agrees:
    hits = index.search_embeddings(QUESTIONS[1], k=10_000, exact=True)
    return lambda model: are_best(hits, model.ranking(QUESTIONS[1]), 10_000)


def search_filtered(index: MuveraIndex) -> Agrees:
    hits = index.search_embeddings(QUESTIONS[2], k=10, filter={"group": 1})
    return lambda model: are_best(hits, model.ranking(QUESTIONS[2], lambda d: d.metadata.get("group") == 1), 10)


def search_few_candidates(index: MuveraIndex) -> Agrees:
    """A search in which stage one decides: as many hits as there can be, all from one state."""
    hits = index.search_embeddings(QUESTIONS[0], k=5, n_candidates=5)
    return lambda model: len(hits) == min(5, len(model)) and are_among(hits, model.ranking(QUESTIONS[0]))


def search_few_filtered(index: MuveraIndex) -> Agrees:
    hits = index.search_embeddings(QUESTIONS[1], k=4, n_candidates=4, filter={"group": {"$gte": 2}})

    def agrees(model: ReferenceModel) -> bool:
        ranking = model.ranking(QUESTIONS[1], lambda d: d.metadata.get("group", 0) >= 2)
        return len(hits) == min(4, len(ranking)) and are_among(hits, ranking)

    return agrees


def search_beacon(index: MuveraIndex) -> Agrees:
    """The one document that is replaced all the time and is always there in some version."""
    hits = index.search_embeddings(beacon_tokens(), k=1, n_candidates=10)
    return lambda model: are_best(hits, model.ranking(beacon_tokens()), 1)


def filter_beacon(index: MuveraIndex) -> Agrees:
    hits = index.search_embeddings(QUESTIONS[0], k=3, filter={"kind": BEACON})
    return lambda model: are_best(hits, model.ranking(QUESTIONS[0], lambda d: d.metadata.get("kind") == BEACON), 3)


def get_some(index: MuveraIndex) -> Agrees:
    ids = [BEACON, "d1", "d2", "d3", "missing", "d30"]
    found = index.get(ids)
    return lambda model: found == model.get(ids)


def find_group(index: MuveraIndex) -> Agrees:
    found = index.find({"group": 3})
    return lambda model: found == model.find(lambda d: d.metadata.get("group") == 3)


def count(index: MuveraIndex) -> Agrees:
    n = len(index)
    return lambda model: n == len(model)


def contains(index: MuveraIndex) -> Agrees:
    there = "d5" in index, BEACON in index
    return lambda model: there == ("d5" in model.documents, BEACON in model.documents)


OBSERVATIONS: tuple[Observation, ...] = (
    search_all,
    search_beacon,
    search_exactly,
    search_filtered,
    search_few_candidates,
    search_few_filtered,
    filter_beacon,
    get_some,
    find_group,
    count,
    contains,
)


def answers(index: MuveraIndex) -> list[list[tuple[str, str | None, float]]]:
    """What searches of every kind find: those of two indexes can be compared, in another process as well."""
    searches: list[dict[str, Any]] = [{"exact": True}, {"k": 100}, {"filter": {"group": 1}}, {"n_candidates": 10}]
    hits = [index.search_embeddings(question, **options) for question in QUESTIONS for options in searches]
    return [[(hit.id, hit.text, hit.score) for hit in found] for found in hits]


def unfiltered_answers(index: MuveraIndex) -> list[list[tuple[str, str | None, float]]]:
    """What searches find whose answers are all in what a reader keeps: metadata is read where it is."""
    hits = [index.search_embeddings(question, k, 10) for question in QUESTIONS for k in (5, 100)]
    return [[(hit.id, hit.text, hit.score) for hit in found] for found in hits]


def answers_of_folder(path: str) -> list[list[tuple[str, str | None, float]]]:
    with MuveraIndex.open(path, ENCODER, read_only=True) as index:
        return answers(index)


# A history that every process can work out for itself


@dataclass(frozen=True)
class Change:
    """What leads from one state to the next: documents to add, or ids to delete."""

    added: tuple[ModelDocument, ...] = ()
    deleted: tuple[str, ...] = ()

    def apply(self, index: MuveraIndex) -> None:
        if self.deleted:
            index.delete(list(self.deleted))
        else:
            add_to(index, self.added)


class History:
    """An endless course of changes and the states they lead to, a pure function of the seed. State 0 is the first add.

    Half of the changes replace the beacon, and each changes what most observations see.
    """

    N_IDS = 70

    def __init__(self, seed: int) -> None:
        self._course = _course(seed)
        self._states: list[ReferenceModel] = []
        self._changes: list[Change] = []
        self._extending = threading.Lock()

    def change(self, number: int) -> Change:
        self._extend(number)
        return self._changes[number]

    def state(self, number: int) -> ReferenceModel:
        self._extend(number)
        return self._states[number]

    def _extend(self, number: int) -> None:
        with self._extending:
            while len(self._states) <= number:
                change, state = next(self._course)
                self._changes.append(change)
                self._states.append(state)


def _course(seed: int) -> Iterator[tuple[Change, ReferenceModel]]:
    rng = np.random.default_rng(seed)
    state, number = ReferenceModel(), 0
    while True:
        ids = [
            f"d{i}" for i in rng.choice(History.N_IDS, size=60 if number == 0 else rng.integers(1, 9), replace=False)
        ]
        if number % 4 == 3:
            change = Change(deleted=tuple(id for id in ids if id in state.documents) or (next(iter(state.documents)),))
            if BEACON in change.deleted:
                change = Change(added=(_beacon(number),))
        else:
            added = [
                model_document(id, int(rng.integers(2**31)), {"group": int(rng.integers(N_GROUPS)), "n": number})
                for id in ids
            ]
            change = Change(added=(*added, _beacon(number)) if number % 2 == 0 else tuple(added))
        state = state.without(change.deleted) if change.deleted else state.with_documents(change.added)
        yield change, state
        number += 1


def _beacon(number: int) -> ModelDocument:
    return ModelDocument(BEACON, f"version {number}", {"kind": BEACON, "n": number}, beacon_tokens())


class Witness:
    """Checks observations against the states that can have been committed when they were made.

    What was seen once can't be unseen: a later observation never goes back behind an earlier one.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.state = 0
        self.n_checked = 0

    def check(self, name: str, agrees: Agrees, first: int, last: int) -> None:
        """Find the first state from ``first`` to ``last`` that agrees.

        Raises:
            AssertionError: there is none.
        """
        self.n_checked += 1
        for number in range(max(first, self.state), last + 1):
            if agrees(self._history.state(number)):
                self.state = number
                return
        elsewhere = [n for n in range(max(0, first - 50), last + 2) if agrees(self._history.state(n))]
        raise AssertionError(
            f"{name}: no state from {max(first, self.state)} to {last} gives this answer; of {max(0, first - 50)} to "
            f"{last + 1}, these do: {elsewhere}"
        )
