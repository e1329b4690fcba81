"""Any course of calls leaves an index as it would leave a plain dictionary, and a long life leaves no weight behind."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from reference_model import (
    FDE,
    Admits,
    D,
    ModelDocument,
    ReferenceModel,
    SeedEncoder,
    add_to,
    are_among,
    are_best,
    model_document,
    tokens_from,
)

from muvera_core import FDEConfig, MuveraIndex
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import InvalidInputError, ReadOnlyIndexError
from muvera_core.stage_one import stage_one
from muvera_core.token_embeddings import FloatArray

IDS = [f"d{i}" for i in range(24)]
COLORS = ["red", "green", "blue"]
# Few seeds, so that different documents have equal tokens now and then, and equal scores.
SEEDS = st.integers(0, 60)
QUESTION_SEEDS = st.integers(1000, 1010)


def _year(document: ModelDocument) -> int:
    year: int = document.metadata.get("year", 0)
    return year


def _colors(document: ModelDocument) -> list[str]:
    colors: list[str] = document.metadata.get("colors", [])
    return colors


FILTERS: list[tuple[dict[str, Any], Admits]] = [
    ({}, lambda d: True),
    ({"year": 2021}, lambda d: _year(d) == 2021),
    ({"year": {"$gte": 2021}}, lambda d: _year(d) >= 2021),
    ({"year": {"$ne": 2020}}, lambda d: _year(d) != 2020),
    ({"year": {"$exists": False}}, lambda d: "year" not in d.metadata),
    ({"colors": "red"}, lambda d: "red" in _colors(d)),
    ({"colors": {"$all": ["red", "blue"]}}, lambda d: {"red", "blue"} <= set(_colors(d))),
    ({"year": {"$in": [2020, 2022]}, "colors": "green"}, lambda d: _year(d) in (2020, 2022) and "green" in _colors(d)),
    ({"$or": [{"year": 2020}, {"colors": "blue"}]}, lambda d: _year(d) == 2020 or "blue" in _colors(d)),
    ({"nothing": "has it"}, lambda d: False),
]

metadatas = st.fixed_dictionaries(
    {}, optional={"year": st.integers(2020, 2022), "colors": st.lists(st.sampled_from(COLORS), max_size=2, unique=True)}
)
contents = st.tuples(SEEDS, metadatas)
batches = st.dictionaries(st.sampled_from(IDS), contents, min_size=1, max_size=6)
filters = st.sampled_from(FILTERS)
Batch = Mapping[str, tuple[int, dict[str, Any]]]


def documents_of(batch: Batch) -> list[ModelDocument]:
    return [model_document(id, seed, metadata) for id, (seed, metadata) in batch.items()]


def as_json(document: ModelDocument) -> str:
    """The metadata as JSON, in which 1, 1.0 and True differ."""
    return json.dumps(document.metadata, sort_keys=True)


class IndexMachine(RuleBasedStateMachine):
    """One index folder with a writer and a reader, beside the model and all states that it has been in."""

    flat_limit: ClassVar[int] = stage_one.FLAT_LIMIT
    n_examples: ClassVar[int] = 0
    n_steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).n_examples += 1
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(stage_one, "FLAT_LIMIT", self.flat_limit)
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "index"
        self.encoder = SeedEncoder(D, "seeds")
        self.index = MuveraIndex.create(self.path, self.encoder, FDE)
        self.states = [ReferenceModel()]
        self.reader: MuveraIndex | None = None
        self.reader_state = 0
        self.reader_is_idle = self.reader_is_behind = False

    @property
    def model(self) -> ReferenceModel:
        return self.states[-1]

    def teardown(self) -> None:
        try:
            if self.reader is not None:
                self.reader.close()
            self.index.close()
            self.folder.cleanup()
        finally:
            self.patch.undo()

    def commit(self, model: ReferenceModel) -> None:
        self.states.append(model)
        self.reader_is_behind = True

    # Writing

    @initialize(batch=st.dictionaries(st.sampled_from(IDS), contents, max_size=12))
    def begin(self, batch: Batch) -> None:
        if batch:
            self.add(batch, encode=False)

    @rule(batch=batches, encode=st.booleans())
    def add(self, batch: Batch, encode: bool) -> None:
        documents = documents_of(batch)
        if encode:
            ids = [document.id for document in documents]
            texts = [document.text or "" for document in documents]
            added = self.index.add(texts, ids, [document.metadata for document in documents], batch_size=2)
            assert added == ids
            documents = [document for document in documents if not self.holds(document)]
        else:
            add_to(self.index, documents)
        self.commit(self.model.with_documents(documents))

    def holds(self, document: ModelDocument) -> bool:
        """Whether the same text is stored under the same id, with the same metadata."""
        stored = self.model.documents.get(document.id)
        return stored is not None and [stored.text, as_json(stored)] == [document.text, as_json(document)]

    @precondition(lambda self: len(self.model) < len(IDS))
    @rule(data=st.data(), content=contents)
    def add_one_more(self, data: st.DataObject, content: tuple[int, dict[str, Any]]) -> None:
        self.add({data.draw(st.sampled_from([id for id in IDS if id not in self.model.documents])): content}, False)

    @precondition(lambda self: len(self.model) > 0)
    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        there = st.sampled_from(list(self.model.documents))
        self.add(data.draw(st.dictionaries(there, contents, min_size=1, max_size=4)), False)

    @rule(ids=st.lists(st.sampled_from(IDS), max_size=6))
    def delete(self, ids: list[str]) -> None:
        assert self.index.delete(ids) == len(set(ids) & set(self.model.documents))
        self.commit(self.model.without(ids))

    @rule(filter=filters.filter(lambda filter: bool(filter[0])), ids=st.none() | st.lists(st.sampled_from(IDS)))
    def delete_filtered(self, filter: tuple[dict[str, Any], Admits], ids: list[str] | None) -> None:
        gone = [d.id for d in self.model.documents.values() if filter[1](d) and (ids is None or d.id in ids)]
        assert self.index.delete(ids, filter=filter[0]) == len(gone)
        self.commit(self.model.without(gone))

    @rule(really=st.integers(0, 9))
    def clear(self, really: int) -> None:
        if really == 9:
            assert self.index.clear() == len(self.model)
            self.commit(ReferenceModel())

    @rule()
    def compact(self) -> None:
        assert self.index.compact() >= 0
        self.reader_is_behind = True

    @rule()
    def close_and_open(self) -> None:
        self.index.close()
        self.index = MuveraIndex.open(self.path, self.encoder)

    # Writing that fails

    @rule(batch=batches, place=st.integers(0, 5), wrong=st.sampled_from(["nan", "width", "empty", "metadata", "id"]))
    def add_something_wrong(self, batch: Batch, place: int, wrong: str) -> None:
        documents = documents_of(batch)
        place %= len(documents)
        tokens: list[Any] = [document.tokens for document in documents]
        ids: list[Any] = [document.id for document in documents]
        metadatas: list[Any] = [document.metadata for document in documents]
        match wrong:
            case "nan":
                tokens[place] = np.full((2, D), np.nan)
            case "width":
                tokens[place] = np.ones((2, D + 1))
            case "empty":
                tokens[place] = np.empty((0, D))
            case "metadata":
                metadatas[place] = {"x": object()}
            case "id":
                ids[place] = 7
        with pytest.raises(InvalidInputError):
            self.index.add_embeddings(tokens, ids, metadatas=metadatas)

    @rule(batch=batches, place=st.integers(0, 6), error=st.sampled_from([RuntimeError, KeyboardInterrupt, MemoryError]))
    def add_while_the_encoder_fails(self, batch: Batch, place: int, error: type[BaseException]) -> None:
        documents = documents_of({**batch, "extra": (0, {})})
        texts = [document.text or "" for document in documents]
        texts[place % len(texts)] = "fail"
        self.encoder.error = error
        with pytest.raises(error, match="the encoder failed"):
            self.index.add(texts, [document.id for document in documents], batch_size=1)

    # Asking

    @rule(seed=QUESTION_SEEDS, k=st.integers(1, 30), filter=filters)
    def search_exactly(self, seed: int, k: int, filter: tuple[dict[str, Any], Admits]) -> None:
        question = tokens_from(seed, 4)
        hits = self.index.search_embeddings(question, k, filter=filter[0], exact=True)
        assert are_best(hits, self.model.ranking(question, filter[1]), k)
        order = list(self.model.documents)
        for a, b in pairwise(hits):
            assert a.score > b.score or order.index(a.id) < order.index(b.id)

    @rule(seed=QUESTION_SEEDS, k=st.integers(1, 30), filter=st.none() | filters)
    def search_with_every_document_a_candidate(
        self, seed: int, k: int, filter: tuple[dict[str, Any], Admits] | None
    ) -> None:
        question, (condition, admits) = tokens_from(seed, 4), filter or (None, None)
        hits = self.index.search_embeddings(question, k, n_candidates=len(IDS), filter=condition)
        assert are_best(hits, self.model.ranking(question, admits), k)
        assert hits == self.index.search_embeddings(question, k, filter=condition, exact=True)

    @rule(seed=QUESTION_SEEDS, k=st.integers(1, 6), filter=st.none() | filters)
    def search_with_few_candidates(self, seed: int, k: int, filter: tuple[dict[str, Any], Admits] | None) -> None:
        question, (condition, admits) = tokens_from(seed, 4), filter or (None, None)
        hits = self.index.search_embeddings(question, k, n_candidates=k, filter=condition)
        ranking = self.model.ranking(question, admits)
        assert len(hits) == min(k, len(ranking))
        assert are_among(hits, ranking)

    @rule(ids=st.lists(st.sampled_from([*IDS, "missing"]), unique=True, max_size=6))
    def get(self, ids: list[str]) -> None:
        assert self.index.get(ids) == self.model.get(ids)
        assert [id in self.index for id in ids] == [id in self.model.documents for id in ids]

    @rule(filter=filters, limit=st.none() | st.integers(1, 5))
    def find(self, filter: tuple[dict[str, Any], Admits], limit: int | None) -> None:
        assert self.index.find(filter[0], limit) == self.model.find(filter[1])[:limit]

    # A reader

    @rule()
    def open_reader(self) -> None:
        if self.reader is not None:
            self.reader.close()
        self.reader = MuveraIndex.open(self.path, self.encoder, read_only=True, refresh_interval=None)
        self.reader_state = len(self.states) - 1
        self.reader_is_idle, self.reader_is_behind = True, False

    @precondition(lambda self: self.reader is not None)
    @rule()
    def refresh(self) -> None:
        assert self.reader is not None
        changed = self.reader.refresh()
        if not self.reader_is_behind:
            assert not changed
        elif self.reader_is_idle and self.states[self.reader_state].find() != self.model.find():
            assert changed
        self.reader_state = len(self.states) - 1
        self.reader_is_idle, self.reader_is_behind = True, False
        assert not self.reader.refresh()
        self._require_reader_state([self.model])

    @precondition(lambda self: self.reader is not None)
    @rule()
    def ask_reader(self) -> None:
        assert self.reader is not None
        self.reader_is_idle = False
        self.reader_state += self._require_reader_state(self.states[self.reader_state :])
        with pytest.raises(ReadOnlyIndexError):
            self.reader.delete(["d1"])

    def _require_reader_state(self, states: Sequence[ReferenceModel]) -> int:
        """Check that each answer is one of the states', none earlier than the one before; which one the last is."""
        assert self.reader is not None
        question, (condition, admits) = tokens_from(1000, 4), FILTERS[3]
        first = 0
        hits = self.reader.search_embeddings(question, 50)
        first = _first(states, first, [are_best(hits, state.ranking(question), 50) for state in states])
        hits = self.reader.search_embeddings(question, 3, n_candidates=3, filter=condition)
        rankings = [state.ranking(question, admits) for state in states]
        fitting = [len(hits) == min(3, len(ranking)) and are_among(hits, ranking) for ranking in rankings]
        first = _first(states, first, fitting)
        n = len(self.reader)
        first = _first(states, first, [n == len(state) for state in states])
        found = self.reader.find(condition)
        first = _first(states, first, [found == state.find(admits) for state in states])
        got = self.reader.get(IDS)
        return _first(states, first, [got == state.get(IDS) for state in states])

    @invariant()
    def the_index_holds_what_the_model_holds(self) -> None:
        type(self).n_steps += 1
        assert len(self.index) == len(self.model)
        assert self.index.find() == self.model.find()
        assert self.index.n_tokens == sum(len(document.tokens) for document in self.model.documents.values())
        condition, admits = FILTERS[2]
        assert self.index.find(condition, 3) == self.model.find(admits)[:3]
        question = tokens_from(1000, 4)
        for exact in (False, True):
            assert are_best(self.index.search_embeddings(question, 50, exact=exact), self.model.ranking(question), 50)


def _first(states: Sequence[ReferenceModel], first: int, fitting: Sequence[bool]) -> int:
    assert any(fitting[first:]), f"of {len(states)} states, these give the answer, not one from {first}: {fitting}"
    return first + list(fitting[first:]).index(True)


class IndexWithGraphMachine(IndexMachine):
    """The same with a graph in place of the flat scan, from the sixth document on."""

    flat_limit = 5


MACHINES = [IndexMachine, IndexWithGraphMachine]
SETTINGS = settings(
    max_examples=50,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


@pytest.mark.parametrize("machine", MACHINES, ids=["flat", "graph"])
def test_any_course_of_calls_leaves_an_index_as_it_leaves_a_dictionary(machine: type[IndexMachine]) -> None:
    run_state_machine_as_test(machine, settings=SETTINGS)


# A long life

WIDTH = 32
WIDE_ENCODER = PrecomputedEmbeddings(WIDTH, "wide")
WIDE_FDE = FDEConfig(dimension=WIDTH, num_repetitions=8, num_simhash_projections=3, projection_dimension=4)
N_DOCUMENTS, N_REPLACED, N_ROUNDS = 300, 60, 10


def passage(document: int, version: int) -> FloatArray:
    """Token vectors about a topic of their own, so that questions about it have clear answers."""
    rng = np.random.default_rng([document, version])
    vectors = (rng.standard_normal(WIDTH) + rng.standard_normal((120, WIDTH))).astype(np.float32)
    normalized: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalized


def add_versions(index: MuveraIndex, numbers: Sequence[int], version: int) -> None:
    ids = [f"d{number}" for number in numbers]
    texts = [f"document {number}, version {version}. " + "Some words. " * 20 for number in numbers]
    metadatas = [{"version": version, "third": number % 3} for number in numbers]
    index.add_embeddings([passage(number, version) for number in numbers], ids, texts, metadatas)


def folder_size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def n_graph_entries(index: MuveraIndex) -> int:
    candidates = index.engine.collection.stage_one.candidates
    assert candidates.kind == "hnsw"
    n: int = candidates._graph.get_current_count()  # type: ignore[attr-defined]
    return n


def recall(index: MuveraIndex) -> float:
    """Share of the 10 best documents that 20 candidates contain."""
    found = 0
    for number in range(100):
        question = passage(3 * number, N_ROUNDS if 3 * number < N_REPLACED else 0)[:6]
        best = {hit.id for hit in index.search_embeddings(question, 10, exact=True)}
        found += len(best & {hit.id for hit in index.search_embeddings(question, 10, n_candidates=20)})
    return found / 1000


@pytest.mark.parametrize("compact", [False, True], ids=["by itself", "when asked"])
@pytest.mark.parametrize("batch", [N_REPLACED, 7], ids=["many at once", "few at once"])
def test_an_index_whose_documents_were_replaced_ten_times_is_as_good_and_nearly_as_small_as_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, compact: bool
) -> None:
    monkeypatch.setattr(stage_one, "FLAT_LIMIT", 50)
    with MuveraIndex.create(tmp_path / "fresh", WIDE_ENCODER, WIDE_FDE) as fresh:
        add_versions(fresh, range(N_REPLACED, N_DOCUMENTS), 0)
        add_versions(fresh, range(N_REPLACED), N_ROUNDS)
        expected = recall(fresh)
        documents = fresh.find()
        answer = [(h.id, h.text, h.score) for h in fresh.search_embeddings(passage(1, N_ROUNDS)[:6], exact=True)]
    assert 0.5 < expected < 1, "stage one makes no difference to this test"
    with MuveraIndex.create(tmp_path / "lived", WIDE_ENCODER, WIDE_FDE) as lived:
        add_versions(lived, range(N_DOCUMENTS), 0)
        for version in range(1, N_ROUNDS + 1):
            for start in range(0, N_REPLACED, batch):
                add_versions(lived, range(start, min(start + batch, N_REPLACED)), version)
        if compact:
            lived.compact()
        entries = n_graph_entries(lived)
        assert entries <= 2 * len(lived)
    assert folder_size(tmp_path / "lived") <= (1.2 if compact else 2) * folder_size(tmp_path / "fresh")
    with MuveraIndex.open(tmp_path / "lived", WIDE_ENCODER) as lived:
        assert n_graph_entries(lived) <= (len(lived) if compact else 2 * len(lived))
        assert lived.find() == documents
        assert recall(lived) >= expected - 0.01
        found = [(h.id, h.text, h.score) for h in lived.search_embeddings(passage(1, N_ROUNDS)[:6], exact=True)]
        assert found == answer
