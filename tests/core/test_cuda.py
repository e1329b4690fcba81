"""The kernels compared with the CPU's own results, and an index on a real GPU. Skipped if there is no GPU."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera_core import (
    FDEConfig,
    FixedDimensionalEncoder,
    LearnedSetEncoder,
    LearnedSetEncoderConfig,
    MuveraIndex,
    TokenEmbeddings,
)
from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.document_cache import documents_in
from muvera_core.cuda.engine import CudaEngine, Scores
from muvera_core.cuda.set_encoders import on_gpu
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import DeviceError, DeviceFallbackWarning
from muvera_core.storage.token_codec import TokenCodec, TokenPrecision


def _why_not() -> str:
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed"
    try:
        return "" if cupy.cuda.runtime.getDeviceCount() else "there is no CUDA GPU"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"there is no CUDA GPU: {error}"


pytestmark = pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "there is a GPU")


@pytest.fixture
def device() -> Iterator[CudaDevice]:
    opened = CudaDevice(0)
    yield opened
    gc.collect()
    opened.release()
    assert opened.n_bytes == 0


def random_sets(seed: int, lengths: list[int] | np.ndarray, dimension: int) -> TokenEmbeddings:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((int(np.sum(lengths)), dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return TokenEmbeddings(vectors, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def exact(queries: TokenEmbeddings, documents: TokenEmbeddings) -> np.ndarray:
    """MaxSim in float64, (queries, documents)."""
    vectors = documents.vectors.astype(np.float64)
    return np.stack(
        [
            np.maximum.reduceat(query.astype(np.float64) @ vectors.T, documents.offsets[:-1], axis=1).sum(axis=0)
            for query in queries
        ]
    )


@pytest.mark.parametrize("precision", ["int8", "float16"])
@pytest.mark.parametrize("dimension", [1, 16, 48, 64, 96, 100, 128, 192, 256, 384, 512, 1024])
def test_maxsim(device: CudaDevice, precision: TokenPrecision, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    documents = random_sets(1, np.r_[1, 2, 15, 16, 17, 31, 33, 2048, rng.integers(1, 300, 60)], dimension)
    queries = random_sets(2, [32, 1, 8, 5, 33, 128, 64, 2, 31], dimension)
    codec = TokenCodec(precision, dimension)
    rows = codec.encode(documents.vectors, documents.offsets)
    stored = TokenEmbeddings(codec.decode(rows, documents.offsets), documents.offsets)
    expected = exact(queries, stored)
    engine = CudaEngine(device, codec)
    with engine.session() as session:
        uploaded = session.upload(rows)
        addresses = documents_in(uploaded, documents.offsets, engine.layout)
        prepared = session.prepare(list(queries))
        everywhere = session.receive(session.score_all(prepared, addresses)).reshape(len(queries), -1)
        again = session.receive(session.score_all(prepared, session.on_gpu(addresses))).reshape(len(queries), -1)
        # Each query has its own documents in its own order, and one query has none.
        lists = [rng.permutation(len(documents))[:n] for n in (68, 1, 0, 5, 33, 68, 2, 67, 9)]
        bounds = np.concatenate([[0], np.cumsum([len(some) for some in lists])])
        own = session.receive(session.score_lists(prepared, addresses, np.concatenate(lists).astype(np.int32), bounds))
        all_places = np.arange(len(documents), dtype=np.int32)
        whole = np.array([0, len(documents)])
        first = session.prepare([queries[0]])
        one = session.receive(session.score_lists(first, session.on_gpu(addresses), all_places, whole))
    # Rounding of a query's numbers: with int8, 2**-15 of the token's largest one; with float16, that of float32.
    n_tokens = queries.lengths[:, None]
    most = np.abs(queries.vectors).max() * np.abs(stored.vectors).sum(axis=1).max()
    bound = (2.0**-15 * most if precision == "int8" else 2e-6 * most) * n_tokens
    assert (np.abs(everywhere - expected) <= bound).all()
    np.testing.assert_array_equal(again, everywhere)
    np.testing.assert_allclose(one, everywhere[0], rtol=1e-6, atol=1e-6)
    for i, some in enumerate(lists):
        np.testing.assert_allclose(own[bounds[i] : bounds[i + 1]], everywhere[i, some], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("k", [1, 7, 64, 1000, 5000, None])
def test_selection(device: CudaDevice, k: int | None, long: bool) -> None:
    import cupy

    rng = np.random.default_rng(3)
    lengths = [1, 5, 64, 0, 1000, 1024, 1025, 3000, 1, 2048]
    if long:
        lengths += [100_000, 8192, 8193, 3 * 8192 + 2]
    lists = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.integers(-20, 20, lists[-1]).astype(np.float32) / 8  # many ties, of both signs
    values[lists[4] : lists[5]] = 0.5
    values[:1] = -0.0
    values[lists[7] : lists[8]] = rng.standard_normal(3000).astype(np.float32) * 1e30
    engine = CudaEngine(device, TokenCodec("int8", 32))
    with engine.session() as session:
        gpu_values = cupy.asarray(values)
        scores = Scores(int(gpu_values.data.ptr), lists, max(lengths), 0, -9)
        places, chosen = session.fetch(session.select(scores, k))
    for i, (first, end) in enumerate(pairwise(lists)):
        some = values[first:end]
        expected = np.sort(np.argsort(-some, kind="stable")[:k])
        n = len(expected)
        np.testing.assert_array_equal(chosen[i, :n], some[expected])
        np.testing.assert_array_equal(places[i, :n], expected)
        assert (places[i, n:] == -1).all()
        assert (chosen[i, n:] == -np.inf).all()
    del gpu_values


def test_maxsim_of_odd_numbers(device: CudaDevice) -> None:
    """Zeros, vectors of any length, and the largest numbers that are accepted."""
    documents = random_sets(1, [3, 5, 1, 40], 32)
    documents.vectors[3:5] = 0
    documents.vectors[9:] *= 2.0**40
    queries = random_sets(2, [4, 1, 2], 32)
    queries.vectors[0] = 0
    queries.vectors[4] = 0
    queries.vectors[5:] *= 2.0**40 / np.abs(queries.vectors[5:]).max()
    codec = TokenCodec("int8", 32)
    rows = codec.encode(documents.vectors, documents.offsets)
    engine = CudaEngine(device, codec)
    with engine.session() as session:
        uploaded = session.upload(rows)
        addresses = documents_in(uploaded, documents.offsets, engine.layout)
        scores = session.receive(session.score_all(session.prepare(list(queries)), addresses))
        scores = scores.reshape(len(queries), -1)
    expected = exact(queries, TokenEmbeddings(codec.decode(rows, documents.offsets), documents.offsets))
    assert (np.abs(scores - expected) <= 2e-3 * np.abs(expected).max(axis=1, keepdims=True)).all()
    assert (scores[1] == 0).all()


FDES = {
    "paper": FDEConfig(dimension=96, num_repetitions=5, num_simhash_projections=5, projection_dimension=16),
    "filled": FDEConfig(
        dimension=96, num_repetitions=4, num_simhash_projections=6, projection_dimension=8, fill_empty_partitions=True
    ),
    "whole tokens": FDEConfig(
        dimension=96, num_repetitions=3, num_simhash_projections=2, projection_dimension=None, projection="dense"
    ),
    "wide": FDEConfig(
        dimension=192,
        num_repetitions=2,
        num_simhash_projections=3,
        projection_dimension=None,
        fill_empty_partitions=True,
    ),
    "odd width": FDEConfig(dimension=96, num_repetitions=3, num_simhash_projections=3, projection_dimension=7),
    "one partition": FDEConfig(dimension=96, num_repetitions=1, num_simhash_projections=0, projection_dimension=None),
    "many partitions": FDEConfig(
        dimension=96, num_repetitions=1, num_simhash_projections=10, projection_dimension=4, fill_empty_partitions=True
    ),
    "count sketches": FDEConfig(
        dimension=96,
        num_repetitions=6,
        num_simhash_projections=4,
        projection_dimension=16,
        projection="count_sketch",
        final_projection_dimension=100,
        fill_empty_partitions=True,
    ),
    "centred": FDEConfig(
        dimension=96, num_repetitions=4, num_simhash_projections=3, projection_dimension=16, center=True
    ),
}


@pytest.mark.parametrize("name", FDES)
def test_fixed_dimensional_encodings(device: CudaDevice, name: str) -> None:
    config = FDES[name]
    mean = np.full(config.dimension, 0.01, dtype=np.float32) if config.center else None
    encoder = FixedDimensionalEncoder(config, mean=mean)
    rng = np.random.default_rng(0)
    sets = random_sets(3, np.r_[1, 2, 1500, rng.integers(1, 200, 50)], config.dimension)
    accelerated = on_gpu(encoder, device)
    assert accelerated is not encoder
    assert accelerated.fingerprint == encoder.fingerprint
    for encode in ("encode_documents", "encode_queries"):
        expected, got = getattr(encoder, encode)(sets), getattr(accelerated, encode)(sets)
        assert got.shape == expected.shape
        # A token that is very close to a hyperplane may fall on its other side.
        close = np.isclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
        assert close.mean() > 0.995
    nothing = random_sets(0, [], config.dimension)
    assert accelerated.encode_documents(nothing).shape == (0, encoder.output_dimension)


def test_learned_encodings(device: CudaDevice) -> None:
    sets = random_sets(4, np.random.default_rng(1).integers(1, 100, 400), 32)
    config = LearnedSetEncoderConfig(
        dimension=32, output_dimension=24, num_features=128, num_anchors=300, num_query_tokens=600
    )
    encoder = LearnedSetEncoder.fit(sets, config)
    accelerated = on_gpu(encoder, device)
    for encode in ("encode_documents", "encode_queries"):
        expected, got = getattr(encoder, encode)(sets), getattr(accelerated, encode)(sets)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_tokens_that_are_already_on_the_gpu_are_encoded(device: CudaDevice) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA GPU")
    sets = random_sets(5, [3, 40, 7], 96)
    encoder: Any = on_gpu(FixedDimensionalEncoder(FDES["paper"]), device)
    encodings = encoder.encode_documents_on_gpu(torch.from_numpy(sets.vectors.copy()).cuda(), sets.offsets)
    np.testing.assert_allclose(encodings.get(), encoder.encode_documents(sets), rtol=1e-6)
    del encodings


# An index

D = 48
ENCODER = PrecomputedEmbeddings(D, "random")
FDE = FDEConfig(dimension=D, num_repetitions=8, num_simhash_projections=3, projection_dimension=8)


def fill(index: MuveraIndex, n: int = 3000) -> MuveraIndex:
    sets = random_sets(6, np.random.default_rng(6).integers(1, 90, n), D)
    index.add_embeddings(sets, ids=[f"d{i}" for i in range(n)], metadatas=[{"even": i % 2 == 0} for i in range(n)])
    return index


def example_queries() -> list[np.ndarray]:
    return list(random_sets(7, [20, 32, 1, 70, 5, 33], D))


def answers(index: MuveraIndex, **options: Any) -> list[list[tuple[str, float]]]:
    return [[(hit.id, hit.score) for hit in index.search_embeddings(query, **options)] for query in example_queries()]


def assert_same(found: list[list[tuple[str, float]]], expected: list[list[tuple[str, float]]]) -> None:
    for hits, others in zip(found, expected, strict=True):
        np.testing.assert_allclose([s for _, s in hits], [s for _, s in others], rtol=1e-4, atol=1e-4)
        scores = dict(others)
        for id, score in hits:
            assert scores.get(id, min(scores.values())) == pytest.approx(score, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("memory", [1, 2_000_000, None], ids=["none cached", "some cached", "all cached"])
@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_hits_are_those_of_the_cpu(tmp_path: Path, precision: TokenPrecision, memory: int | None) -> None:
    with fill(MuveraIndex.create(tmp_path / "a", ENCODER, FDE, token_precision=precision)) as index:
        searches: list[dict[str, Any]] = [
            {"exact": True},
            {"n_candidates": 3000},
            {"exact": True, "filter": {"even": True}},
            {"k": 2000, "exact": True},
        ]
        expected = [answers(index, **search) for search in searches]
        near = answers(index, n_candidates=300)
    with MuveraIndex.open(tmp_path / "a", ENCODER, device="cuda", device_memory=memory) as index:
        for search, hits in zip(searches, expected, strict=True):
            assert_same(answers(index, **search), hits)
        found = answers(index, n_candidates=300)
        shared = [len(dict(a).keys() & dict(b).keys()) / 10 for a, b in zip(found, near, strict=True)]
        assert np.mean(shared) > 0.95
        together = index.search_embeddings_batch(example_queries(), exact=True)
        assert_same([[(hit.id, hit.score) for hit in hits] for hits in together], expected[0])


def test_an_index_that_is_made_on_the_gpu_finds_as_much(tmp_path: Path) -> None:
    with fill(MuveraIndex.create(None, ENCODER, FDE)) as index:
        best = [dict(hits).keys() for hits in answers(index, exact=True)]
        on_cpu = [
            len(dict(hits).keys() & ids) for hits, ids in zip(answers(index, n_candidates=300), best, strict=True)
        ]
    with fill(MuveraIndex.create(None, ENCODER, FDE, device="cuda")) as index:
        found = [len(dict(hits).keys() & ids) for hits, ids in zip(answers(index, n_candidates=300), best, strict=True)]
        assert abs(sum(found) - sum(on_cpu)) <= 3
        index.optimize(0.9, n_queries=20)
        tuned = [len(dict(hits).keys() & ids) for hits, ids in zip(answers(index), best, strict=True)]
        assert sum(tuned) >= 0.7 * 60


def test_gpu_arrays_are_accepted() -> None:
    import cupy

    sets = random_sets(11, [5, 9, 1, 30], D)
    with MuveraIndex.create(None, ENCODER, FDE, device="cuda") as index:
        ids = index.add_embeddings([cupy.asarray(tokens) for tokens in sets])
        for id, tokens in zip(ids, sets, strict=True):
            hits = index.search_embeddings(cupy.asarray(tokens), exact=True)
            assert hits[0].id == id
            assert hits == index.search_embeddings(tokens, exact=True)


def test_threads_and_two_indexes_share_a_gpu(tmp_path: Path) -> None:
    with (
        fill(MuveraIndex.create(None, ENCODER, FDE, device="cuda")) as first,
        fill(MuveraIndex.create(None, ENCODER, FDE, device="cuda", device_memory=500_000), 2000) as second,
    ):
        expected = [answers(first, exact=True), answers(second, exact=True)]
        failures: list[BaseException] = []

        def search() -> None:
            try:
                for _ in range(10):
                    assert_same(answers(first, exact=True), expected[0])
                    assert_same(answers(second, exact=True), expected[1])
                    answers(first)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=search) for _ in range(6)]
        for thread in threads:
            thread.start()
        for i in range(20):
            first.add_embeddings([random_sets(i, [3], D).vectors * 1e-3], ids=[f"small{i}"])
        for thread in threads:
            thread.join()
        assert not failures


def test_memory_is_freed_at_close() -> None:
    import cupy

    def free() -> int:
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()
        return int(cupy.cuda.runtime.memGetInfo()[0])

    with fill(MuveraIndex.create(None, ENCODER, FDE, device="cuda")) as warm:  # kernels and libraries stay loaded
        answers(warm)
    before = free()
    index = fill(MuveraIndex.create(None, ENCODER, FDE, device="cuda"), 20_000)
    assert free() < before - 20_000 * 30 * 64
    index.close()
    assert before - free() < 4 << 20


def test_too_little_free_memory_is_an_error_or_falls_back_to_the_cpu() -> None:
    import cupy

    with fill(MuveraIndex.create(None, ENCODER, FDE)) as index:
        expected = answers(index, exact=True)
    for name in ("cuda", "auto"):
        with fill(MuveraIndex.create(None, ENCODER, FDE, device=name, device_memory=1)) as index:
            index.engine.collection.accelerator._device.release()  # type: ignore[union-attr]
            pool = cupy.cuda.MemoryPool()
            taken = []
            size = 1 << 33
            while size >= 1 << 16:
                try:
                    taken.append(pool.malloc(size))
                except cupy.cuda.memory.OutOfMemoryError:
                    size //= 2
            if name == "cuda":
                with pytest.raises(DeviceError, match="too little free memory"):
                    answers(index, exact=True)
            else:
                with pytest.warns(DeviceFallbackWarning, match="the CPU takes over"):
                    assert_same(answers(index, exact=True), expected)
            taken.clear()
            pool.free_all_blocks()
            assert_same(answers(index, exact=True), expected)
            index.engine.collection.accelerator._device.release()  # type: ignore[union-attr]


def test_a_gpu_that_does_not_exist() -> None:
    with pytest.raises(DeviceError, match="there is no cuda:99"):
        MuveraIndex.create(None, ENCODER, FDE, device="cuda:99")
