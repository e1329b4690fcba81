from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera_core.errors import CorruptIndexError, InvalidInputError
from muvera_core.stage_one import StageOne, StageOneView, stage_one
from muvera_core.stage_one.candidates import Candidates
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.graph_parameters import GraphParameters
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.token_embeddings import TokenEmbeddings

D = 16
# The most by which a coordinate of these vectors changes when it is kept in 8 bits.
ROUNDING = 0.05
KINDS = pytest.mark.parametrize("kind", [FlatCandidates, HnswCandidates], ids=["flat", "hnsw"])


def vectors(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def add(candidates: Candidates, keys: Sequence[int] | np.ndarray, vectors: np.ndarray) -> None:
    candidates.stage(keys, vectors)
    candidates.publish([])


def by_suffix(files: Sequence[Path]) -> dict[str, Path]:
    return {file.suffix: file for file in files}


def exact(query: np.ndarray, held: dict[int, np.ndarray], k: int) -> list[int]:
    return sorted(held, key=lambda key: (-float(held[key] @ query), key))[:k]


@KINDS
def test_search_finds_the_highest_inner_products(kind: type[FlatCandidates | HnswCandidates]) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 500)
    for start in range(0, 500, 90):
        add(candidates, range(start, min(500, start + 90)), data[start : start + 90])
    held = dict(enumerate(candidates.vectors(np.arange(500))))
    found = sum(
        len(set(candidates.search(query, 10).tolist()) & set(exact(query, held, 10))) for query in vectors(1, 20)
    )
    assert found >= (200 if kind is FlatCandidates else 196)


@KINDS
def test_results_come_best_first_and_k_is_cut_to_what_is_there(kind: type[FlatCandidates | HnswCandidates]) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 7)
    add(candidates, [10, 11, 12, 13, 14, 15, 16], data)
    query = vectors(1, 1)[0]
    expected = exact(query, {10 + i: row for i, row in enumerate(data)}, 7)
    assert candidates.search(query, 100).tolist() == expected
    assert candidates.search(query, 3).tolist() == expected[:3]


@KINDS
def test_nothing_held_gives_nothing(kind: type[FlatCandidates | HnswCandidates]) -> None:
    candidates: Candidates = kind(D)
    assert candidates.search(vectors(0, 1)[0], 5).tolist() == []
    assert len(candidates) == 0
    add(candidates, [], np.empty((0, D), np.float32))
    candidates.publish([3])


@KINDS
def test_removed_keys_are_never_found_and_removing_twice_is_harmless(
    kind: type[FlatCandidates | HnswCandidates],
) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 300)
    add(candidates, range(300), data)
    candidates.publish(range(0, 300, 2))
    candidates.publish(range(0, 300, 2))
    assert len(candidates) == 150
    assert candidates.keys().tolist() == list(range(1, 300, 2))
    for query in vectors(1, 5):
        assert sorted(candidates.search(query, 300).tolist()) == list(range(1, 300, 2))
    held = candidates.vectors(np.array([7, 3]))
    np.testing.assert_allclose(held, data[[7, 3]], atol=ROUNDING if kind is FlatCandidates else 0)


@KINDS
def test_a_life_of_replacements_does_not_pile_up(kind: type[FlatCandidates | HnswCandidates]) -> None:
    candidates: Candidates = kind(D)
    for generation in range(12):
        keys = np.arange(generation * 100, generation * 100 + 100)
        data = vectors(generation, 100)
        add(candidates, keys, data)
        candidates.publish(keys - 100)
    assert candidates.keys().tolist() == list(range(1100, 1200))
    assert sorted(candidates.search(data[0], 100).tolist()) == list(range(1100, 1200))
    if isinstance(candidates, HnswCandidates):
        assert candidates.is_wasteful
        assert candidates.n_deleted == 1100
        candidates = candidates.compacted()
        assert candidates._graph.get_current_count() == 100
        assert sorted(candidates.search(data[0], 100).tolist()) == list(range(1100, 1200))


@KINDS
def test_removing_all_and_starting_again_works(kind: type[FlatCandidates | HnswCandidates]) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 200)
    add(candidates, range(200), data)
    candidates.publish(range(200))
    assert candidates.search(data[0], 5).tolist() == []
    add(candidates, [200], data[:1])
    assert candidates.search(data[0], 5).tolist() == [200]


def test_the_graph_falls_back_to_a_scan_if_the_graph_search_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = HnswCandidates(D)
    data = vectors(0, 400)
    add(candidates, range(400), data)
    candidates.publish(range(1, 200))
    query, scanned = vectors(1, 1)[0], list[int]()
    search = FlatCandidates.search

    def counted(self: FlatCandidates, query: np.ndarray, k: int) -> np.ndarray:
        scanned.append(k)
        return search(self, query, k)

    class Cut:
        """A graph of which a search reaches nothing."""

        def knn_query(self, *_: Any, **options: Any) -> Any:
            raise RuntimeError("Cannot return the results in a contiguous 2D array")

        def __getattr__(self, name: str) -> Any:
            return getattr(graph, name)

    graph = candidates._graph
    monkeypatch.setattr(FlatCandidates, "search", counted)
    monkeypatch.setattr(candidates, "_graph", Cut())
    held = dict(zip(candidates.keys().tolist(), candidates.codes.vectors(candidates.keys()), strict=True))
    assert candidates.search(query, 201).tolist() == exact(query, held, 201)
    assert scanned == [201]


def test_a_filtered_search_of_a_graph_finds_what_a_scan_finds() -> None:
    graph, flat, data = HnswCandidates(D), FlatCandidates(D), vectors(0, 500)
    for candidates in (graph, flat):
        add(candidates, range(500), data)
        candidates.publish(range(0, 500, 5))
    for step in (2, 50):
        allowed = np.arange(0, 500, step)
        expected = [found.tolist() for found in flat.search_many(vectors(1, 4), 30, allowed)]
        assert [found.tolist() for found in graph.search_many(vectors(1, 4), 30, allowed)] == expected


@KINDS
def test_saved_candidates_come_back(kind: type[FlatCandidates | HnswCandidates], tmp_path: Path) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 120)
    add(candidates, range(120), data)
    candidates.publish([5, 6])
    files = by_suffix(candidates.save(tmp_path / "saved"))
    assert sorted(tmp_path.iterdir()) == sorted(files.values())
    loaded: Candidates = kind.load(files, D)
    assert loaded.keys().tolist() == candidates.keys().tolist()
    query = vectors(1, 1)[0]
    assert loaded.search(query, 118).tolist() == candidates.search(query, 118).tolist()
    add(loaded, [120, 121], vectors(2, 2))
    loaded.publish([7])
    assert len(loaded) == 119
    assert 7 not in loaded.search(query, 119).tolist()


def made_with(candidates: HnswCandidates) -> GraphParameters:
    return GraphParameters(candidates._graph.M, candidates._graph.ef_construction)


def test_a_graph_keeps_the_parameters_that_it_is_made_with(tmp_path: Path) -> None:
    parameters = GraphParameters(m=5, ef_construction=30)
    graph = HnswCandidates.from_vectors(np.arange(120), vectors(0, 120), parameters=parameters)
    assert made_with(graph) == parameters
    graph.publish([3])
    assert made_with(graph.compacted()) == graph.compacted().parameters == parameters
    loaded = HnswCandidates.load(by_suffix(graph.save(tmp_path / "saved")), D, parameters)
    assert made_with(loaded) == loaded.parameters == parameters
    add(loaded, [120], vectors(1, 1))
    assert sorted(loaded.search(vectors(1, 1)[0], 120).tolist()) == [i for i in range(121) if i != 3]


def test_more_links_take_more_memory() -> None:
    few, many = (
        HnswCandidates.from_vectors(np.arange(100), vectors(0, 100), parameters=GraphParameters(m)).n_bytes
        for m in (8, 32)
    )
    assert many - few == 100 * 4 * 2 * (32 - 8)


@pytest.mark.parametrize("other", [GraphParameters(6, 30), GraphParameters(5, 31), GraphParameters()], ids=str)
def test_a_saved_graph_of_other_parameters_is_refused(other: GraphParameters, tmp_path: Path) -> None:
    graph = HnswCandidates.from_vectors(np.arange(50), vectors(0, 50), parameters=GraphParameters(5, 30))
    files = by_suffix(graph.save(tmp_path / "saved"))
    with pytest.raises(CorruptIndexError, match=r"(parameters|layout) (are|is) wrong"):
        HnswCandidates.load(files, D, other)


@pytest.mark.parametrize(
    ("m", "ef_construction"),
    [(1, 200), (0, 200), (-16, 200), (129, 200), (1 << 40, 1 << 41), (16, 15), (16, 4097), (True, 200), (16.0, 200)],
)
def test_parameters_that_no_graph_is_made_with_are_refused(m: int, ef_construction: int) -> None:
    with pytest.raises(InvalidInputError):
        GraphParameters(m, ef_construction)


@pytest.mark.parametrize("parameters", [GraphParameters(2, 2), GraphParameters(128, 4096)], ids=str)
def test_the_least_and_the_greatest_parameters_make_graphs(parameters: GraphParameters, tmp_path: Path) -> None:
    graph = HnswCandidates.from_vectors(np.arange(60), vectors(0, 60), parameters=parameters)
    assert made_with(graph) == parameters
    files = by_suffix(graph.save(tmp_path / "saved"))
    query = vectors(1, 1)[0]
    found = HnswCandidates.load(files, D, parameters).search(query, 60).tolist()
    assert found == graph.search(query, 60).tolist()
    assert sorted(found) == list(range(60))


# Many queries at once, and views


@KINDS
@pytest.mark.parametrize("allowed", [None, np.arange(0, 300, 3)], ids=["all", "some"])
def test_many_queries_find_what_each_finds_alone(
    kind: type[FlatCandidates | HnswCandidates], allowed: np.ndarray | None
) -> None:
    candidates: Candidates = kind(D)
    add(candidates, range(300), vectors(0, 300))
    candidates.publish(range(0, 300, 7))
    candidates.stage([300], vectors(2, 1))
    queries = vectors(1, 130)
    for k in (1, 20, 1000):
        together = candidates.search_many(queries, k, allowed)
        assert [found.tolist() for found in together] == [
            candidates.search(query, k, allowed).tolist() for query in queries
        ]
    assert candidates.search_many(queries[:0], 5, allowed) == []


def test_equal_products_are_ordered_by_key_also_where_k_cuts_them() -> None:
    flat = FlatCandidates(D)
    same, better = vectors(0, 1), 2 * vectors(0, 1)
    add(flat, [9, 4, 7, 2, 5, 30], np.concatenate([np.repeat(same, 5, axis=0), better]))
    assert [flat.search(same[0], k).tolist() for k in (1, 3, 5, 6, 9)] == [
        [30],
        [30, 2, 4],
        [30, 2, 4, 5, 7],
        [30, 2, 4, 5, 7, 9],
        [30, 2, 4, 5, 7, 9],
    ]


class Rows:
    """Takes a document's first token vector for its encoding."""

    output_dimension = D
    fingerprint = "rows"

    def encode_documents(self, embeddings: TokenEmbeddings) -> np.ndarray:
        return embeddings.vectors[embeddings.offsets[:-1]]

    encode_queries = encode_documents


def single(rows: np.ndarray) -> TokenEmbeddings:
    return TokenEmbeddings(rows, np.arange(len(rows) + 1))


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def found(view: StageOneView, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[list[int]] | None:
    results = view.search_many(queries, k, allowed)
    return None if results is None else [result.tolist() for result in results]


def test_a_view_of_a_scan_keeps_what_was_published_when_it_was_taken() -> None:
    stage, data, queries = StageOne(Rows()), unit(vectors(0, 200)), vectors(1, 3)
    stage.stage(np.arange(50), single(data[:50]))
    stage.publish(np.array([3]))
    view = stage.view()
    expected = found(view, queries, 60)
    assert [sorted(result) for result in expected or ()] == [[i for i in range(50) if i != 3]] * 3
    assert [stage.search(query, 60).tolist() for query in queries] == expected
    stage.stage(np.arange(50, 60), single(data[50:60]))
    stage.discard()
    stage.stage(np.arange(60, 70), single(data[60:70]))
    assert found(view, queries, 60) == expected
    stage.publish(np.arange(40))
    stage.stage(np.arange(70, 200), single(data[70:]))  # the vectors move to a larger array
    stage.publish(np.array([45]))
    assert found(view, queries, 60) == expected
    some = found(view, queries, 60, np.array([2, 3, 45, 60]))
    assert some == [[key for key in each if key in (2, 45)] for each in expected or ()]


def test_a_view_of_a_scan_outlives_the_move_into_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_one, "FLAT_LIMIT", 60)
    stage, data, queries = StageOne(Rows()), unit(vectors(0, 200)), vectors(1, 3)
    stage.stage(np.arange(50), single(data[:50]))
    stage.publish(np.array([], dtype=np.int64))
    view = stage.view()
    expected = found(view, queries, 20)
    stage.stage(np.arange(50, 200), single(data[50:]))
    stage.publish(np.array([0]))
    assert isinstance(stage.candidates, HnswCandidates)
    assert found(view, queries, 20) == expected


def test_a_view_of_a_graph_answers_until_something_else_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_one, "FLAT_LIMIT", 10)
    stage, data, queries = StageOne(Rows()), unit(vectors(0, 200)), vectors(1, 70)
    stage.stage(np.arange(150), single(data[:150]))
    stage.publish(np.array([3]))
    view = stage.view()
    stage.stage(np.arange(150, 200), single(data[150:]))
    assert found(view, queries, 20) == [stage.search(query, 20).tolist() for query in queries]
    stage.discard()
    assert found(view, queries[:1], 5, np.array([7])) == [[7]]
    stage.publish(np.array([8]))
    assert found(view, queries, 20) is None
    assert found(stage.view(), queries, 20) == [stage.search(query, 20).tolist() for query in queries]


def test_a_scan_leaves_the_lock_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.RLock()
    stage, others_could_take_it = StageOne(Rows(), lock), list[bool]()
    stage.stage(np.arange(50), single(vectors(0, 50)))
    stage.publish(np.array([], dtype=np.int64))
    search_many = FlatCandidates.search_many

    def seen(*arguments: Any) -> list[np.ndarray]:
        def take() -> None:
            others_could_take_it.append(lock.acquire(blocking=False))
            lock.release()

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        return search_many(*arguments)

    monkeypatch.setattr(FlatCandidates, "search_many", seen)
    stage.search(vectors(1, 1)[0], 5)
    stage.view().search_many(vectors(1, 2), 5)
    assert others_could_take_it == [True, True]
