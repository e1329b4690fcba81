"""The kernels compared with the CPU's own results, and an index on a GPU: a simulated one, and a real one if any."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpus import Gpu, bytes_in_use, on_gpu

from muvera_core import (
    FDEConfig,
    FixedDimensionalEncoder,
    LearnedSetEncoder,
    LearnedSetEncoderConfig,
    MuveraIndex,
    TokenEmbeddings,
)
from muvera_core.cuda import set_encoders
from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.document_cache import documents_in
from muvera_core.cuda.engine import CudaEngine
from muvera_core.cuda.selection import Scores
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import DeviceError, DeviceFallbackWarning
from muvera_core.storage.token_codec import Rows, TokenCodec, TokenPrecision
from muvera_core.token_embeddings import IntArray

pytestmark = pytest.mark.usefixtures("gpu")


def random_sets(seed: int, lengths: list[int] | np.ndarray, dimension: int) -> TokenEmbeddings:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((int(np.sum(lengths)), dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return TokenEmbeddings(vectors, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def exact(queries: TokenEmbeddings, vectors: np.ndarray, offsets: IntArray) -> np.ndarray:
    """MaxSim in float64 with documents' token vectors, (queries, documents)."""
    return np.stack(
        [
            np.maximum.reduceat(query.astype(np.float64) @ vectors.T, offsets[:-1], axis=1).sum(axis=0)
            for query in queries
        ]
    )


def codec_space(codec: TokenCodec, rows: Rows, offsets: IntArray) -> np.ndarray:
    """The vectors that stored rows stand for, in the codec's own space, float64."""
    codes, scales = codec.split(rows, offsets)
    return codes.astype(np.float64) * (1 if scales is None else scales[:, None].astype(np.float64))


WHOLE = [(p, d) for p in ("int8", "float16") for d in (1, 16, 48, 64, 96, 100, 128, 192, 256, 384, 512, 1024)]
PACKED = [(p, d) for p in ("4bit", "2bit") for d in (1, 33, 64, 96, 128, 160, 288, 600)]


@pytest.mark.parametrize(("precision", "dimension"), WHOLE + PACKED)
def test_maxsim(gpu: Gpu, device: CudaDevice, precision: TokenPrecision, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    long, n = (200, 12) if gpu.is_simulated else (2048, 60)
    documents = random_sets(1, np.r_[1, 2, 15, 16, 17, 31, 33, long, rng.integers(1, long // 7, n)], dimension)
    codec = TokenCodec(precision, dimension)
    queries = random_sets(2, [32, 1, 8, 5, 33, 128, 64, 2, 31], dimension)
    queries = TokenEmbeddings(codec.to_codec_space(queries.vectors), queries.offsets)
    rows = codec.encode(documents.vectors, documents.offsets)
    stored = codec_space(codec, rows, documents.offsets)
    expected = exact(queries, stored, documents.offsets)
    engine = CudaEngine(device, codec)
    with engine.session() as session:
        uploaded = session.upload(rows, documents.offsets)
        addresses = documents_in(uploaded, documents.offsets, engine.layout)
        prepared = session.prepare(list(queries))
        everywhere = session.receive(session.score_all(prepared, addresses)).reshape(len(queries), -1)
        again = session.receive(session.score_all(prepared, on_gpu(gpu.cupy, addresses))).reshape(len(queries), -1)
        # Each query has its own documents in its own order, and one query has none.
        lists = [rng.permutation(len(documents))[:n] for n in (68, 1, 0, 5, 13, 68, 2, 19, 9)]
        bounds = np.concatenate([[0], np.cumsum([len(some) for some in lists])])
        own = session.receive(session.score_lists(prepared, addresses, np.concatenate(lists).astype(np.int32), bounds))
        all_places = np.arange(len(documents), dtype=np.int32)
        whole = np.array([0, len(documents)])
        first = session.prepare([queries[0]])
        one = session.receive(session.score_lists(first, on_gpu(gpu.cupy, addresses), all_places, whole))
    # Rounding of a query's numbers: in int8, 2**-15 of the token's largest one; in float16, that of float32.
    n_tokens = queries.lengths[:, None]
    most = np.abs(queries.vectors).max() * np.abs(stored).sum(axis=1).max()
    bound = (2e-6 * most if precision == "float16" else 2.0**-15 * most) * n_tokens
    assert (np.abs(everywhere - expected) <= bound).all()
    np.testing.assert_array_equal(again, everywhere)
    np.testing.assert_allclose(one, everywhere[0], rtol=1e-6, atol=1e-6)
    for i, some in enumerate(lists):
        np.testing.assert_allclose(own[bounds[i] : bounds[i + 1]], everywhere[i, some], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("k", [1, 7, 64, 1000, 5000, None])
def test_selection(device: CudaDevice, k: int | None, long: bool) -> None:
    cupy = device.cupy
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
        uploaded = session.upload(rows, documents.offsets)
        addresses = documents_in(uploaded, documents.offsets, engine.layout)
        scores = session.receive(session.score_all(session.prepare(list(queries)), addresses))
        scores = scores.reshape(len(queries), -1)
    expected = exact(queries, codec_space(codec, rows, documents.offsets), documents.offsets)
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
    accelerated = set_encoders.on_gpu(encoder, device)
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
    accelerated = set_encoders.on_gpu(encoder, device)
    for encode in ("encode_documents", "encode_queries"):
        expected, got = getattr(encoder, encode)(sets), getattr(accelerated, encode)(sets)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_tokens_that_are_already_on_the_gpu_are_encoded(device: CudaDevice) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA GPU")
    sets = random_sets(5, [3, 40, 7], 96)
    encoder: Any = set_encoders.on_gpu(FixedDimensionalEncoder(FDES["paper"]), device)
    encodings = encoder.encode_documents_on_gpu(torch.from_numpy(sets.vectors.copy()).cuda(), sets.offsets)
    np.testing.assert_allclose(encodings.get(), encoder.encode_documents(sets), rtol=1e-6)
    del encodings


# An index

D = 48
ENCODER = PrecomputedEmbeddings(D, "random")
FDE = FDEConfig(dimension=D, num_repetitions=8, num_simhash_projections=3, projection_dimension=8)


def fill(index: MuveraIndex, n: int) -> MuveraIndex:
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


@pytest.mark.parametrize("cached", ["none", "some", "all"])
@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_hits_are_those_of_the_cpu(gpu: Gpu, tmp_path: Path, precision: TokenPrecision, cached: str) -> None:
    n = gpu.size(3000, 200)
    memory = {"none": 1, "some": 600 * n, "all": None}[cached]
    with fill(MuveraIndex.create(tmp_path / "a", ENCODER, FDE, token_precision=precision), n) as index:
        searches: list[dict[str, Any]] = [
            {"exact": True},
            {"n_candidates": n},
            {"exact": True, "filter": {"even": True}},
            {"k": 2 * n // 3, "exact": True},
        ]
        expected = [answers(index, **search) for search in searches]
        near = answers(index, n_candidates=n // 10)
    with MuveraIndex.open(tmp_path / "a", ENCODER, device="cuda", device_memory=memory) as index:
        for search, hits in zip(searches, expected, strict=True):
            assert_same(answers(index, **search), hits)
        found = answers(index, n_candidates=n // 10)
        shared = [len(dict(a).keys() & dict(b).keys()) / 10 for a, b in zip(found, near, strict=True)]
        assert np.mean(shared) > 0.95
        together = index.search_embeddings_batch(example_queries(), exact=True)
        assert_same([[(hit.id, hit.score) for hit in hits] for hits in together], expected[0])


@pytest.mark.parametrize("precision", ["8bit", "4bit", "2bit"])
def test_tokens_in_slices_score_as_on_the_cpu(gpu: Gpu, precision: TokenPrecision) -> None:
    n = gpu.size(3000, 200)
    searches: list[dict[str, Any]] = [{"exact": True}, {"exact": True, "filter": {"even": True}, "k": n // 3}]
    with (
        fill(MuveraIndex.create(None, ENCODER, FDE, token_precision=precision), n) as plain,
        fill(MuveraIndex.create(None, ENCODER, FDE, token_precision=precision, device="cuda"), n) as index,
        fill(
            MuveraIndex.create(None, ENCODER, FDE, token_precision=precision, device="cuda", device_memory=n * 300),
            n,
        ) as partly_cached,
    ):
        for search in searches:
            expected = answers(plain, **search)
            assert_same(answers(index, **search), expected)
            assert_same(answers(partly_cached, **search), expected)


def test_an_index_that_is_made_on_the_gpu_finds_as_much(gpu: Gpu) -> None:
    n = gpu.size(3000, 500)
    with fill(MuveraIndex.create(None, ENCODER, FDE), n) as index:
        best = [dict(hits).keys() for hits in answers(index, exact=True)]
        near = answers(index, n_candidates=n // 10)
        on_cpu = [len(dict(hits).keys() & ids) for hits, ids in zip(near, best, strict=True)]
    with fill(MuveraIndex.create(None, ENCODER, FDE, device="cuda"), n) as index:
        near = answers(index, n_candidates=n // 10)
        found = [len(dict(hits).keys() & ids) for hits, ids in zip(near, best, strict=True)]
        assert abs(sum(found) - sum(on_cpu)) <= 3
        index.optimize(0.9, n_queries=gpu.size(20, 8))
        tuned = [len(dict(hits).keys() & ids) for hits, ids in zip(answers(index), best, strict=True)]
        assert sum(tuned) >= 0.7 * 60


def test_gpu_arrays_are_accepted(gpu: Gpu) -> None:
    cupy = gpu.cupy
    sets = random_sets(11, [5, 9, 1, 30], D)
    with MuveraIndex.create(None, ENCODER, FDE, device="cuda") as index:
        ids = index.add_embeddings([cupy.asarray(tokens) for tokens in sets])
        for id, tokens in zip(ids, sets, strict=True):
            hits = index.search_embeddings(cupy.asarray(tokens), exact=True)
            assert hits[0].id == id
            assert hits == index.search_embeddings(tokens, exact=True)


def test_threads_and_two_indexes_share_a_gpu(gpu: Gpu) -> None:
    n = gpu.size(3000, 100)
    with (
        fill(MuveraIndex.create(None, ENCODER, FDE, device="cuda"), n) as first,
        fill(MuveraIndex.create(None, ENCODER, FDE, device="cuda", device_memory=200 * n), n // 2) as second,
    ):
        expected = [answers(first, exact=True), answers(second, exact=True)]
        failures: list[BaseException] = []

        def search() -> None:
            try:
                for _ in range(gpu.size(10, 2)):
                    assert_same(answers(first, exact=True), expected[0])
                    assert_same(answers(second, exact=True), expected[1])
                    answers(first)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=search) for _ in range(6)]
        for thread in threads:
            thread.start()
        for i in range(gpu.size(20, 5)):
            first.add_embeddings([random_sets(i, [3], D).vectors * 1e-3], ids=[f"small{i}"])
        for thread in threads:
            thread.join()
        assert not failures


def test_memory_is_freed_at_close(gpu: Gpu) -> None:
    n = gpu.size(20_000, 1000)
    with fill(
        MuveraIndex.create(None, ENCODER, FDE, device="cuda"), n // 10
    ) as warm:  # kernels and libraries stay loaded
        answers(warm)
    before = bytes_in_use(gpu.cupy)
    index = fill(MuveraIndex.create(None, ENCODER, FDE, device="cuda"), n)
    assert bytes_in_use(gpu.cupy) > before + n * 30 * 64
    index.close()
    assert bytes_in_use(gpu.cupy) - before < 4 << 20


def test_too_little_free_memory_is_an_error_or_falls_back_to_the_cpu(gpu: Gpu) -> None:
    cupy = gpu.cupy
    n = gpu.size(3000, 200)
    with fill(MuveraIndex.create(None, ENCODER, FDE), n) as index:
        expected = answers(index, exact=True)
    for name in ("cuda", "auto"):
        with fill(MuveraIndex.create(None, ENCODER, FDE, device=name, device_memory=1), n) as index:
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
