"""Many documents with equal or nearly equal vectors, and what a graph makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from muvera_core.errors import CorruptIndexError
from muvera_core.stage_one import hnsw
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.hnsw import HnswCandidates

D = 24
N = 600
ORDERS = ("first", "last", "shuffled")
# The distance of a copy from the vector that it resembles.
SAME, ROUNDED, SIMILAR = 0.0, 1e-7, 0.2


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


def collection(share: float, distance: float, order: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors, and which of them are copies of one."""
    rng = np.random.default_rng(seed)
    n_copies = int(share * N)
    noise = unit(rng.standard_normal((n_copies, D)))
    copies = unit(unit(rng.standard_normal((1, D))) + distance * noise)
    data = np.concatenate([copies, unit(rng.standard_normal((N - n_copies, D)))])
    is_copy = np.arange(N) < n_copies
    places = {"first": np.arange(N), "last": np.arange(N)[::-1], "shuffled": rng.permutation(N)}[order]
    return data[places], is_copy[places]


def staged(data: np.ndarray, batch: int = 100) -> HnswCandidates:
    graph = HnswCandidates(D)
    for start in range(0, len(data), batch):
        graph.stage(range(start, min(len(data), start + batch)), data[start : start + batch])
    graph.publish([])
    return graph


def tidied(graph: HnswCandidates) -> None:
    while graph.tidy():
        pass


def saved_and_loaded(graph: HnswCandidates, folder: Path) -> HnswCandidates:
    return HnswCandidates.load({file.suffix: file for file in graph.save(folder / "saved")}, D)


def share_found(graph: HnswCandidates, data: np.ndarray, keys: Sequence[int] | np.ndarray, k: int = 100) -> float:
    """The share of what a scan of the graph's documents finds for their vectors: by score, because copies tie."""
    live = graph.keys()
    shares = []
    for key in keys:
        scores = data[live] @ data[key]
        least = np.sort(scores)[-min(k, len(live))]
        found = graph.search(data[key], k)
        assert len(set(found.tolist())) == len(found) == min(k, len(live))
        shares.append(np.mean(data[found] @ data[key] >= least - 1e-6))
    return float(np.mean(shares))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("distance", [SAME, ROUNDED, SIMILAR], ids=["same", "rounded", "similar"])
def test_copies_do_not_keep_a_search_from_what_else_there_is(
    share: float, distance: float, order: str, tmp_path: Path
) -> None:
    data, is_copy = collection(share, distance, order)
    graph = staged(data)
    some = np.concatenate([np.flatnonzero(is_copy)[:10], np.flatnonzero(~is_copy)[:40]])
    assert share_found(graph, data, some) > 0.97
    others = np.flatnonzero(~is_copy)
    assert all(key in graph.search(data[key], 100) for key in others[::3])
    if distance < SIMILAR and share:
        assert graph._graph.get_current_count() < 1.1 * (N - is_copy.sum()) + 10
    graph.publish(np.flatnonzero(is_copy)[::2])
    assert share_found(graph, data, others[:20]) > 0.97
    tidied(graph)
    assert share_found(graph, data, others[:20]) > 0.97
    for later in (graph.compacted(), saved_and_loaded(graph, tmp_path)):
        assert later.keys().tolist() == graph.keys().tolist()
        assert share_found(later, data, others[:20]) > 0.97
        assert later.n_deleted <= graph.n_deleted
    graph.publish(np.flatnonzero(is_copy))
    tidied(graph)
    assert all(key in graph.search(data[key], 100) for key in others[::3])


def test_a_group_gives_its_documents_in_the_order_of_their_keys() -> None:
    data, _ = collection(0.5, SAME, "last")
    graph = staged(data)
    copies = np.arange(N // 2, N)
    for k in (1, 7, 200):
        assert graph.search(data[-1], k).tolist() == copies[:k].tolist()
    assert graph.search(data[-1], N // 2 + 1).tolist()[: N // 2] == copies.tolist()


def test_a_group_lives_as_long_as_one_of_its_documents(tmp_path: Path) -> None:
    data, is_copy = collection(0.5, SAME, "first")
    graph = staged(data)
    copies, last = np.flatnonzero(is_copy), np.flatnonzero(is_copy)[-1]
    graph.publish(copies[:-1])
    assert graph.n_deleted == 0
    assert graph.search(data[0], 1).tolist() == [last]
    for later in (graph, saved_and_loaded(graph, tmp_path), graph.compacted()):
        np.testing.assert_array_equal(later.vectors(np.array([last])), data[[last]])
        assert later.search(data[0], 1, np.array([0, last])).tolist() == [last]
        later.publish([last])
        assert last not in later.search(data[0], N)
        assert later.n_deleted == 1


def test_a_filter_that_admits_one_document_of_a_group_finds_it() -> None:
    data, is_copy = collection(0.5, ROUNDED, "shuffled")
    graph = staged(data)
    copies, others = np.flatnonzero(is_copy), np.flatnonzero(~is_copy)
    for one in copies[::50]:
        allowed = np.sort(np.concatenate([[one], others[:50]]))
        assert graph.search(data[copies[0]], 1, allowed).tolist() == [one]
        assert sorted(graph.search(data[others[99]], 100, allowed).tolist()) == allowed.tolist()
    many = graph.search_many(data[:3], 5, copies[3:9])
    assert all(set(found.tolist()) <= set(copies[3:9].tolist()) and len(found) == 5 for found in many)


def test_staged_copies_are_found_when_they_are_published_and_not_before() -> None:
    data, _ = collection(0, SAME, "first")
    graph = staged(data[:500])
    graph.stage([700, 701, 702], data[[5, 5, 550]])
    assert graph.search(data[5], 2)[0] == 5
    assert not {700, 701, 702} & set(graph.search(data[5], 500).tolist())
    graph.discard()
    graph.stage([703, 704], data[[5, 550]])
    graph.publish([5])
    assert graph.search(data[5], 1).tolist() == [703]
    assert graph.search(data[550], 1).tolist() == [704]
    assert graph.keys().tolist() == [key for key in range(500) if key != 5] + [703, 704]
    assert graph.n_deleted == 1  # the discarded one; 703 is in the entry of 5


def test_a_vector_whose_documents_were_all_deleted_can_come_back() -> None:
    data, _ = collection(0, SAME, "first")
    graph = staged(data[:300])
    for generation in range(1, 20):
        graph.publish(range(1000 * (generation - 1), 1000 * (generation - 1) + 300))
        if generation % 2:
            tidied(graph)
        assert graph.search(data[0], 5).tolist() == []
        graph.stage(range(1000 * generation, 1000 * generation + 300), data[:300])
        graph.publish([])
        assert graph.search(data[7], 1).tolist() == [1000 * generation + 7]
        if graph.is_wasteful:
            graph = graph.compacted()
    assert graph._graph.get_current_count() < 1000


def test_more_documents_than_entries_are_found_without_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    data, is_copy = collection(0.9, SAME, "shuffled")
    graph = staged(data)
    monkeypatch.setattr(FlatCandidates, "search", None)
    assert len(graph.search(data[is_copy][0], 550)) == 550
    assert len(graph.search(data[~is_copy][0], 400)) == 400


def test_a_saved_graph_that_holds_equal_items_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, is_copy = collection(0.5, SAME, "shuffled")
    with monkeypatch.context() as patch:
        patch.setattr(hnsw, "are_equal", lambda a, b: np.array(False))
        graph = staged(data)
        assert graph._graph.get_current_count() == N
        files = graph.save(tmp_path / "saved")
    loaded = HnswCandidates.load({file.suffix: file for file in files}, D)
    assert loaded._graph.get_current_count() == N - is_copy.sum() + 1
    assert loaded.keys().tolist() == list(range(N))


FORGED: dict[str, Callable[[list[int]], list[int]]] = {
    "cut": lambda rows: rows[:-1],
    "twice": lambda rows: [*rows, *rows[:2]],
    "no such entry": lambda rows: [*rows, 10**6, 10**6],
    "negative": lambda rows: [*rows, rows[0], -1],
    "in two entries": lambda rows: [*rows, rows[0], N - 1],
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED.keys())
def test_a_forged_file_of_shared_entries_is_refused(change: Callable[[list[int]], list[int]], tmp_path: Path) -> None:
    data, _ = collection(0.5, SAME, "first")
    files = {file.suffix: file for file in staged(data).save(tmp_path / "saved")}
    rows = np.fromfile(files[".shared"], "<i8").tolist()
    files[".shared"].write_bytes(np.array(change(rows), "<i8").tobytes())
    with pytest.raises(CorruptIndexError, match="shared"):
        HnswCandidates.load(files, D)


def test_deleted_items_are_marked_a_few_at_a_time_and_those_that_come_back_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hnsw, "_MARKED_AT_ONCE", 100)
    data, _ = collection(0, SAME, "first")
    graph = staged(data)
    graph.publish(range(250))
    assert [graph.tidy(), graph.tidy()] == [True, True]
    assert graph.search(data[0], N).tolist().count(0) == 0
    assert (len(graph), graph.n_deleted) == (N - 250, 250)
    assert [graph.tidy(), graph.tidy()] == [False, False]
    graph.stage(range(250, 300), data[250:300])  # as after an interruption, when it is not known what was staged
    graph.discard()
    graph.publish(range(300, 310))
    graph.stage(range(300, 310), data[300:310])
    graph.publish([])
    tidied(graph)
    assert graph.keys().tolist() == list(range(250, N))
    assert sorted(graph.search(data[0], N).tolist()) == list(range(250, N))
