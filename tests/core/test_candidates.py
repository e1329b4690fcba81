from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from muvera_core.candidates import Candidates, FlatCandidates, HnswCandidates

D = 16
KINDS = pytest.mark.parametrize("kind", [FlatCandidates, HnswCandidates], ids=["flat", "hnsw"])


def vectors(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def exact(query: np.ndarray, held: dict[int, np.ndarray], k: int) -> list[int]:
    return sorted(held, key=lambda key: (-float(held[key] @ query), key))[:k]


@KINDS
def test_search_finds_the_highest_inner_products(kind: type[FlatCandidates | HnswCandidates]) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 500)
    for start in range(0, 500, 90):
        candidates.add(range(start, min(500, start + 90)), data[start : start + 90])
    held = dict(enumerate(data))
    found = sum(
        len(set(candidates.search(query, 10).tolist()) & set(exact(query, held, 10))) for query in vectors(1, 20)
    )
    assert found >= (200 if kind is FlatCandidates else 196)


@KINDS
def test_results_come_best_first_and_k_is_cut_to_what_is_there(kind: type[FlatCandidates | HnswCandidates]) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 7)
    candidates.add([10, 11, 12, 13, 14, 15, 16], data)
    query = vectors(1, 1)[0]
    expected = exact(query, {10 + i: row for i, row in enumerate(data)}, 7)
    assert candidates.search(query, 100).tolist() == expected
    assert candidates.search(query, 3).tolist() == expected[:3]


@KINDS
def test_nothing_held_gives_nothing(kind: type[FlatCandidates | HnswCandidates]) -> None:
    candidates: Candidates = kind(D)
    assert candidates.search(vectors(0, 1)[0], 5).tolist() == []
    assert len(candidates) == 0
    candidates.add([], np.empty((0, D), np.float32))
    candidates.remove([3])


@KINDS
def test_removed_keys_are_never_found_and_removing_twice_is_harmless(
    kind: type[FlatCandidates | HnswCandidates],
) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 300)
    candidates.add(range(300), data)
    candidates.remove(range(0, 300, 2))
    candidates.remove(range(0, 300, 2))
    assert len(candidates) == 150
    assert candidates.keys().tolist() == list(range(1, 300, 2))
    for query in vectors(1, 5):
        assert sorted(candidates.search(query, 300).tolist()) == list(range(1, 300, 2))
    np.testing.assert_array_equal(candidates.vectors(np.array([7, 3])), data[[7, 3]])


@KINDS
def test_a_life_of_replacements_does_not_pile_up(kind: type[FlatCandidates | HnswCandidates]) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 100)
    for generation in range(12):
        keys = np.arange(generation * 100, generation * 100 + 100)
        candidates.add(keys, data)
        candidates.remove(keys - 100)
    assert candidates.keys().tolist() == list(range(1100, 1200))
    assert sorted(candidates.search(data[0], 100).tolist()) == list(range(1100, 1200))
    if isinstance(candidates, HnswCandidates):
        assert candidates._graph.get_current_count() <= 300


@KINDS
def test_removing_all_and_starting_again_works(kind: type[FlatCandidates | HnswCandidates]) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 200)
    candidates.add(range(200), data)
    candidates.remove(range(200))
    assert candidates.search(data[0], 5).tolist() == []
    candidates.add([200], data[:1])
    assert candidates.search(data[0], 5).tolist() == [200]


def test_the_graph_falls_back_to_a_scan_where_its_beam_ends_early() -> None:
    candidates = HnswCandidates(D)
    data = vectors(0, 400)
    candidates.add(range(400), data)
    candidates.remove(range(1, 200))
    query = vectors(1, 1)[0]
    live = {key: data[key] for key in candidates.keys().tolist()}
    assert candidates._scan(query, 201, set(live)).tolist() == exact(query, live, 201)
    assert len(candidates.search(query, 201)) == 201


@KINDS
def test_saved_candidates_come_back(kind: type[FlatCandidates | HnswCandidates], tmp_path: Path) -> None:
    candidates: Candidates = kind(D)
    data = vectors(0, 120)
    candidates.add(range(120), data)
    candidates.remove([5, 6])
    for path in candidates.save(tmp_path):
        assert path.parent == tmp_path
    loaded: Candidates = kind.load(tmp_path, D)
    assert loaded.keys().tolist() == candidates.keys().tolist()
    query = vectors(1, 1)[0]
    assert loaded.search(query, 118).tolist() == candidates.search(query, 118).tolist()
    loaded.add([120, 121], vectors(2, 2))
    loaded.remove([7])
    assert len(loaded) == 119
    assert 7 not in loaded.search(query, 119).tolist()
