"""Exact search by coarse scores finds what scoring all documents in full finds, bit by bit, on any GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from gpus import Gpu, on_gpu

from muvera_core import FDEConfig, MuveraIndex, TokenEmbeddings
from muvera_core.cuda import exact
from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.document_cache import documents_in
from muvera_core.cuda.engine import CudaEngine
from muvera_core.cuda.gpu_data import Documents
from muvera_core.cuda.row_layout import rows_for_gpu
from muvera_core.cuda.selection import Scores
from muvera_core.cuda.session import CudaSession
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.storage.sliced_rows import unit
from muvera_core.storage.token_codec import TokenCodec, TokenPrecision
from muvera_core.token_embeddings import FloatArray

pytestmark = pytest.mark.usefixtures("gpu")
LENGTHS = [32, 1, 8, 33, 70, 5, 128]  # of queries; 13 chunks of 32
Found = tuple[np.ndarray, FloatArray]


@pytest.fixture(autouse=True)
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ways that searches took, in order. Coarse scores are tried for few documents, too."""
    taken = []
    by_coarse_scores = exact._best_by_coarse_scores

    def tried(*arguments: Any) -> Any:
        selected = by_coarse_scores(*arguments)
        taken.append("coarse first" if selected is not None else "too many")
        return selected

    monkeypatch.setattr(exact, "_best_by_coarse_scores", tried)
    monkeypatch.setattr(exact, "MIN_PAIRS", 1)
    return taken


@dataclass
class Search:
    """Documents on a GPU."""

    device: CudaDevice
    documents: TokenEmbeddings
    precision: TokenPrecision = "int8"
    engine: CudaEngine = field(init=False)

    def __post_init__(self) -> None:
        self.codec = TokenCodec(self.precision, self.documents.vectors.shape[1])
        self.engine = CudaEngine(self.device, self.codec)
        rows = self.codec.encode(self.documents.vectors, self.documents.offsets)
        self.rows = rows_for_gpu(rows, self.documents.offsets, self.codec)

    def uploaded(self, session: CudaSession) -> Documents:
        self.memory = session.upload(self.rows, self.documents.offsets)
        return on_gpu(self.device.cupy, documents_in(self.memory, self.documents.offsets, self.engine.layout))

    def best(self, queries: Sequence[FloatArray], k: int | None, dead: Sequence[int] = ()) -> tuple[Found, Found]:
        """What ``best_of_all`` finds, and what it should find by the full scores of all documents."""
        with self.engine.session() as session:
            documents = self.uploaded(session)
            prepared = session.prepare([self.codec.to_codec_space(query) for query in queries])
            on_gpu = self.device.cupy.asarray(np.array(dead, dtype=np.int32))
            of_dead = exact.Dead(int(on_gpu.data.ptr), len(dead)) if dead else exact.NONE_DEAD
            found = session.fetch(exact.best_of_all(session, prepared, documents, k, of_dead))
            full = session.receive(session.score_all(prepared, documents)).reshape(len(queries), -1)
        full[:, list(dead)] = -np.inf
        n = len(self.documents) - len(dead)
        places = np.sort(np.argsort(-full, axis=1, kind="stable")[:, : n if k is None else min(k, n)], axis=1)
        return found, (places, np.take_along_axis(full, places, axis=1))


def random_sets(seed: int, lengths: Sequence[int] | np.ndarray, dimension: int) -> TokenEmbeddings:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((int(np.sum(lengths)), dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return TokenEmbeddings(vectors, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def documents(n: int, dimension: int = 32) -> TokenEmbeddings:
    return random_sets(1, np.random.default_rng(0).integers(1, 40, n), dimension)


def queries(dimension: int = 32) -> list[FloatArray]:
    return list(random_sets(2, LENGTHS, dimension))


def assert_same(pair: tuple[Found, Found]) -> None:
    (places, values), (expected_places, expected_values) = pair
    np.testing.assert_array_equal(places, expected_places)
    np.testing.assert_array_equal(values, expected_values)


@pytest.mark.parametrize("precision", ["int8", "float16", "4bit", "2bit"])
@pytest.mark.parametrize("dimension", [16, 48, 128, 200, 300, 600])
def test_coarse_scores_first_find_the_same(
    device: CudaDevice,
    ways: list[str],
    precision: TokenPrecision,
    dimension: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exact, "MAX_SHARE", 0.9)  # of so few random documents, many are within the bound
    search = Search(device, documents(150, dimension), precision)
    assert_same(search.best(queries(dimension), 7))
    assert ways == ["coarse first"]


@pytest.mark.parametrize("k", [1, 7, 100, 400, 1000, None])
def test_any_number_can_be_found(device: CudaDevice, ways: list[str], k: int | None) -> None:
    assert_same(Search(device, documents(400)).best(queries(), k))
    assert ways == (["coarse first"] if k in (1, 7) else ["too many"] if k == 100 else [])


def test_long_lists_are_divided(device: CudaDevice, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_SEGMENT", 64)
    monkeypatch.setattr("muvera_core.cuda.selection.SEGMENT", 64)
    search = Search(device, random_sets(1, np.random.default_rng(0).integers(1, 9, 3000), 16), "int8")
    assert_same(search.best(queries(16), 5))
    assert ways == ["coarse first"]


def test_equal_documents_are_all_scored_in_full(device: CudaDevice, ways: list[str]) -> None:
    one = random_sets(1, [7], 32).vectors
    equal = TokenEmbeddings(np.tile(one, (300, 1)), np.arange(301, dtype=np.int64) * 7)
    search = Search(device, equal)
    assert_same(search.best(queries(), 9))
    assert ways == ["too many"]
    with search.engine.session() as session:  # the first try leaves no memory behind
        prepared, on_gpu = session.prepare(queries()), search.uploaded(session)
        before = session.workspace.used[0]
        session.select(session.score_all(prepared, on_gpu), 9)
        between = session.workspace.used[0]
        exact.best_of_all(session, prepared, on_gpu, 9)
        assert session.workspace.used[0] - between == between - before


def test_a_try_that_did_not_pay_is_not_repeated_at_once(device: CudaDevice, ways: list[str]) -> None:
    few = random_sets(1, [3] * 40, 32)
    few.vectors[0] *= 1000
    search = Search(device, few)
    for _ in range(2 + exact.SKIPPED):
        assert_same(search.best(queries(), 4))
    assert ways == ["too many"] * 2


def test_minus_infinity_is_not_selected(device: CudaDevice, gpu: Gpu) -> None:
    values = np.array([-np.inf, 3, -np.inf, -3.4e38, 1, -np.inf, -np.inf, 2], dtype=np.float32)
    engine = CudaEngine(device, TokenCodec("int8", 32))
    on_gpu = gpu.cupy.asarray(values)
    lists = np.array([0, 6, 6, 7, 8], dtype=np.int64)
    with engine.session() as session:
        for k in (1, 2, 4, 6, None):
            places, chosen = session.fetch(session.select(Scores(int(on_gpu.data.ptr), lists, 6, 0, -9), k))
            expected = {1: [1], 2: [1, 4]}.get(k or 0, [1, 3, 4])
            n = places.shape[1]
            missing = [-1] * n
            assert places.tolist() == [(some + missing)[:n] for some in (expected, [], [], [0])]
            np.testing.assert_array_equal(chosen[0], [*values[expected], *[-np.inf] * n][:n])
            assert (chosen[places < 0] == -np.inf).all()


def test_ties_go_to_the_first(device: CudaDevice, ways: list[str]) -> None:
    few = random_sets(1, [7] * 40, 32)
    order = np.random.default_rng(3).integers(0, 40, 400)
    search = Search(device, TokenEmbeddings.from_list([few[int(i)] for i in order]))
    assert_same(search.best(queries(), 15))
    assert ways == ["coarse first"]


def test_odd_numbers(device: CudaDevice) -> None:
    """Zeros, and very large, very small and mixed lengths, in documents and in queries."""
    for size in (1.0, 2.0**40, 2.0**-40, 2.0**-70):
        for power in (0, 3):
            some, asked = documents(300), queries()
            rng = np.random.default_rng(4)
            some.vectors[:] *= size * np.exp2(rng.integers(-power, power + 1, (len(some.vectors), 1)))
            some.vectors[::3] = 0
            asked[1][:] = 0
            asked[3][5:20] = 0
            asked[4] *= 2.0**40
            asked[5] *= 2.0**-80
            assert_same(Search(device, some).best(asked, 6))


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_dead_documents_are_not_found(device: CudaDevice, ways: list[str], precision: TokenPrecision) -> None:
    search = Search(device, documents(300), precision)
    (places, _), _ = search.best(queries(), 5)
    dead = np.unique(places[:, ::2]).tolist()
    assert_same(search.best(queries(), 5, dead))
    assert ways == ["coarse first"] * 2
    all_but_three = np.delete(np.arange(300), [5, 70, 299]).tolist()
    for k in (2, 3, 50, None):
        found, expected = search.best(queries(), k, all_but_three)
        assert_same((found, expected))


def test_few_chunks_or_documents_are_scored_in_full_at_once(
    device: CudaDevice, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(device, documents(300))
    assert_same(search.best(queries()[:2], 5))
    assert_same(search.best(queries()[4:5], 5))  # 3 chunks
    assert ways == ["coarse first"]
    monkeypatch.setattr(exact, "MIN_PAIRS", 1 << 18)
    assert_same(search.best(queries(), 5))
    assert ways == ["coarse first"]


def fetched(session: CudaSession, at: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    received = np.empty(shape, dtype=dtype)
    session.workspace.fetch(at, received)
    return received


@pytest.mark.parametrize("precision", ["int8", "float16", "4bit", "2bit"])
@pytest.mark.parametrize("dimension", [32, 128, 600])
def test_coarse_scores_are_within_the_bound(device: CudaDevice, precision: TokenPrecision, dimension: int) -> None:
    some, asked = documents(60, dimension), queries(dimension)
    some.vectors[some.offsets[7] : some.offsets[8]] *= 3
    search = Search(device, some, precision)
    with search.engine.session() as session:
        on_gpu = search.uploaded(session)
        prepared = session.prepare([search.codec.to_codec_space(query) for query in asked])
        coarse_scores = session.score_all(prepared, on_gpu, is_coarse=True)
        best = session.select(coarse_scores, 3)
        least = fetched(session, exact._least_scores(session, prepared, best), (len(asked),), np.float32)
        found = (session.fetch(best)[1].min(axis=1) - least) / 2
        coarse = session.receive(coarse_scores).reshape(len(asked), -1)
        full = session.receive(session.score_all(prepared, on_gpu)).reshape(len(asked), -1)
        _, fine_at, scales_at = session.query_addresses(prepared)
        number = np.float16 if precision == "float16" else np.int8
        fine = fetched(
            session, fine_at, (prepared.n_rows, search.engine.layout.query_row_bytes // number().nbytes), number
        )
        scales = fetched(session, scales_at, (prepared.n_rows,), np.float32)
    differences = np.abs(coarse - full).max(axis=1)
    assert (differences > 0).all()
    assert (differences <= found).all()
    lengths = (np.linalg.norm(fine.astype(np.float32), axis=1) * scales).reshape(len(asked), -1).sum(axis=1)
    rows = search.codec.encode(some.vectors, some.offsets)
    longest = np.linalg.norm(search.codec.decode(rows, some.offsets), axis=1).max()
    if search.codec.is_sliced:
        longest /= unit(dimension)
    assert (found >= longest * lengths).all()
    assert (found <= (3 if precision == "float16" else 1.05) * longest * lengths).all()


def test_a_document_that_gains_the_bound_while_another_loses_it_is_found(device: CudaDevice, ways: list[str]) -> None:
    """By coarse scores, the best document is worse than another one by much more than the bound."""
    asked = [query[:1] for query in random_sets(5, [1, 1, 1], 32)]
    pairs = []
    for query in asked:
        whole = np.rint(query[0] / np.abs(query).max() * 127 * 128)
        coarse = 128 * np.trunc((whole + np.sign(whole) * 64) / 128)
        fine = whole - coarse
        along = coarse / np.linalg.norm(coarse)
        across = fine - (fine @ along) * along
        across /= np.linalg.norm(across)
        gap = 1.4 * np.linalg.norm(fine) / np.linalg.norm(coarse)
        pairs += [(0.3 + gap) * along - 0.94 * across, 0.3 * along + 0.94 * across]
    others = random_sets(6, [1] * 40, 32).vectors * np.float32(0.1)
    vectors = np.concatenate([np.array(pairs, dtype=np.float32), others])
    search = Search(device, TokenEmbeddings(vectors, np.arange(len(vectors) + 1, dtype=np.int64)))
    found, expected = search.best(asked, 1)
    assert_same((found, expected))
    assert found[0][:, 0].tolist() == [1, 3, 5]
    assert ways == ["coarse first"]


@pytest.mark.parametrize("dimension", [64, 250, 256, 257, 520])
def test_the_largest_sums(device: CudaDevice, dimension: int) -> None:
    vectors = np.ones((40, dimension), dtype=np.float32)
    vectors[1::2] *= -1
    vectors[2::3, ::2] *= -1
    search = Search(device, TokenEmbeddings(vectors, np.arange(41, dtype=np.int64)))
    with search.engine.session() as session:
        on_gpu, prepared = search.uploaded(session), session.prepare([vectors[:7], -vectors[:1]])
        full = session.receive(session.score_all(prepared, on_gpu))
        coarse = session.receive(session.score_all(prepared, on_gpu, is_coarse=True))
    np.testing.assert_allclose(coarse, full, rtol=0, atol=2e-4 * np.abs(full).max())


@pytest.mark.parametrize("n_chunks", [1, 2, 3, 4])
def test_an_odd_number_of_chunks_is_scored_by_pairs(device: CudaDevice, n_chunks: int) -> None:
    search = Search(device, documents(64))
    with search.engine.session() as session:
        on_gpu = search.uploaded(session)
        session.workspace._scratch.fill(7)
        scores = session.score_all(session.prepare([queries()[0]] * n_chunks), on_gpu, is_coarse=True)
        found = fetched(session, scores.values_at, (n_chunks + 1, 64 * 4), np.uint8)
    for chunk in range(n_chunks):
        np.testing.assert_array_equal(found[chunk], found[0])
    assert (found[n_chunks] == 7).all()  # nothing is written behind the scores


def test_without_the_bound_documents_are_missed(device: CudaDevice, ways: list[str]) -> None:
    """The other tests depend on the bound: with a bound of zero, this one's search finds other documents."""
    search = Search(device, random_sets(1, [16] * 400, 64))
    asked = list(random_sets(2, [32] * 12, 64))
    assert_same(search.best(asked, 10))
    kernel = search.engine.find_largest_length
    search.engine.find_largest_length = lambda *arguments: None
    search.engine.largest_length.fill(0)
    (places, _), (expected, _) = search.best(asked, 10)
    search.engine.find_largest_length = kernel
    assert ways == ["coarse first"] * 2
    assert (places != expected).any()


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_a_score_does_not_depend_on_what_is_scored_with_it(device: CudaDevice, precision: TokenPrecision) -> None:
    search = Search(device, documents(50, 48), precision)
    asked = queries(48)
    with search.engine.session() as session:
        on_gpu = search.uploaded(session)
        prepared = session.prepare(asked)
        everywhere = session.receive(session.score_all(prepared, on_gpu)).reshape(len(asked), -1)
        places = [np.random.default_rng(i).permutation(50)[: 7 * i] for i in range(len(asked))]
        lists = np.concatenate([[0], np.cumsum([len(some) for some in places])])
        own = session.receive(session.score_lists(prepared, on_gpu, np.concatenate(places).astype(np.int32), lists))
        for i, query in enumerate(asked):
            np.testing.assert_array_equal(own[lists[i] : lists[i + 1]], everywhere[i, places[i]])
            alone = session.receive(session.score_all(session.prepare([query]), on_gpu))
            np.testing.assert_array_equal(alone, everywhere[i])


@pytest.mark.parametrize("memory", [1, None], ids=["none cached", "all cached"])
def test_an_index_finds_the_same_in_a_batch(ways: list[str], memory: int | None) -> None:
    some = documents(300, 48)
    fde = FDEConfig(dimension=48, num_repetitions=2, num_simhash_projections=2, projection_dimension=8)
    with MuveraIndex.create(
        None, PrecomputedEmbeddings(48, "random"), fde, device="cuda", device_memory=memory
    ) as index:
        index.add_embeddings(some, ids=[f"d{i}" for i in range(300)])
        one_by_one = [index.search_embeddings(query, k=5, exact=True) for query in queries(48)]
        ways.clear()
        together = index.search_embeddings_batch(queries(48), k=5, exact=True)
        assert ways == ["coarse first"]
    assert [[(hit.id, hit.score) for hit in hits] for hits in together] == [
        [(hit.id, hit.score) for hit in hits] for hits in one_by_one
    ]
