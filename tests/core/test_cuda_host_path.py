"""Lists of cached documents are ranked in one call of compiled code, as they are without it.

On a simulated GPU, and on a real one if there is one.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, NoReturn

import numpy as np
import pytest
from gpus import Gpu, bytes_in_use

from muvera_core.collection import RerankRequest
from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.engine import CudaEngine
from muvera_core.cuda.list_ranker import LONGEST_LIST
from muvera_core.cuda.reranker import CudaReranker
from muvera_core.errors import DeviceError
from muvera_core.maxsim import Ranking
from muvera_core.native import NUMPY, VARIABLE, installed_kernels
from muvera_core.storage.snapshot import Snapshot, SnapshotRows
from muvera_core.storage.token_codec import Rows, TokenCodec, TokenPrecision
from muvera_core.storage.token_log import MemoryTokenLog
from muvera_core.token_embeddings import FloatArray, IntArray

pytestmark = [
    pytest.mark.usefixtures("gpu"),
    pytest.mark.skipif(installed_kernels() is None, reason="muvera-kernels is not installed"),
]

D = 48
LAUNCH_FAILED, OUT_OF_MEMORY = 719, 2


class Documents:
    """Random documents. Their keys have gaps."""

    def __init__(self, precision: TokenPrecision, n: int, *, longest: int = 40, all_equal: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.codec, self.keys = TokenCodec(precision, D), np.arange(n, dtype=np.int64) * 3 + 2
        self.n_tokens = np.full(n, 5, dtype=np.int64) if all_equal else rng.integers(1, longest, n)
        self._offsets = np.concatenate([[0], np.cumsum(self.n_tokens)])
        vectors = rng.standard_normal((self._offsets[-1], D), dtype=np.float32)
        if all_equal:
            vectors = np.tile(vectors[:5], (n, 1))
        self._rows = self.codec.encode(vectors, self._offsets)
        self.snapshot = self.snapshot_of(self.keys)

    def snapshot_of(self, keys: IntArray) -> Snapshot:
        zeros = np.zeros(len(keys), dtype=np.int64)
        rows = SnapshotRows(keys, zeros, self._offsets[keys // 3], self.n_tokens[keys // 3], zeros)
        return Snapshot.of(1, rows, MemoryTokenLog(self.codec, 0))

    def token_rows(self, snapshot: Snapshot, keys: IntArray) -> tuple[Rows, IntArray]:
        bounds = [slice(self._offsets[place], self._offsets[place + 1]) for place in keys // 3]
        return np.concatenate([self._rows[some] for some in bounds]), np.concatenate(
            [[0], np.cumsum(self.n_tokens[keys // 3])]
        )


class Setup:
    """A reranker, its documents, and what is known of the GPU."""

    def __init__(self, gpu: Gpu, documents: Documents, budget: int) -> None:
        self.gpu, self.documents, self.device = gpu, documents, CudaDevice(0)
        self.engine = CudaEngine(self.device, documents.codec)
        self.reranker = CudaReranker(self.engine, documents, documents.codec, budget)
        self.reranker.update(documents.snapshot)

    def forget(self) -> None:
        """Free the memory of the compiled code."""
        self.reranker._lists.release()

    def close(self) -> None:
        self.reranker.clear()
        gc.collect()
        self.device.release()


@pytest.fixture
def set_up(gpu: Gpu) -> Iterator[Callable[..., Setup]]:
    made: list[Setup] = []

    def make(precision: TokenPrecision = "int8", n: int = 300, budget: int = 1 << 30, **options: Any) -> Setup:
        made.append(Setup(gpu, Documents(precision, n, **options), budget))
        return made[-1]

    yield make
    for setup in made:
        setup.close()


def requests(
    documents: Documents, lengths: Sequence[tuple[int, int]], seed: int = 1, snapshot: Snapshot | None = None
) -> list[RerankRequest]:
    """Requests of so many query tokens and so many documents each."""
    rng, snapshot = np.random.default_rng(seed), snapshot or documents.snapshot
    return [
        RerankRequest(
            rng.standard_normal((n_tokens, D), dtype=np.float32),
            snapshot,
            np.sort(rng.choice(snapshot.keys, n_documents, replace=False)),
        )
        for n_tokens, n_documents in lengths
    ]


def in_one_call(
    setup: Setup, asked: Sequence[RerankRequest], k: int | None, monkeypatch: pytest.MonkeyPatch
) -> list[Ranking]:
    """The rankings of the compiled code."""

    def refuse(engine: CudaEngine) -> NoReturn:
        raise AssertionError("ranked without the compiled code")

    with monkeypatch.context() as patch:
        patch.setattr(CudaEngine, "session", refuse)
        return setup.reranker.rank(asked, k)


def in_python(
    setup: Setup, asked: Sequence[RerankRequest], k: int | None, monkeypatch: pytest.MonkeyPatch
) -> list[Ranking]:
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, NUMPY)
        return setup.reranker.rank(asked, k)


def assert_same(rankings: Sequence[Ranking], others: Sequence[Ranking]) -> None:
    for (keys, scores), (other_keys, other_scores) in zip(rankings, others, strict=True):
        assert [keys.dtype, scores.dtype] == [np.dtype(np.int64), np.dtype(np.float32)]
        np.testing.assert_array_equal(keys, other_keys)
        np.testing.assert_array_equal(scores, other_scores)


ODD = [(20, 70), (1, 1), (32, 0), (33, 64), (0, 5), (70, 65), (5, 129)]
BATCHES = {
    "one query": [(32, 100)],
    "two queries": [(32, 100), (20, 40)],
    "odd lengths": ODD,
    "nothing": [(32, 0), (7, 0)],
    "64 queries": [(1 + i % 40, i) for i in range(64)],
    "200 queries": [(1 + i % 7, 3 + i % 5) for i in range(200)],
}


@pytest.mark.parametrize("k", [1, 30, None])
@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("precision", ["int8", "float16", "4bit"])
def test_rankings_are_those_without_compiled_code(
    set_up: Callable[..., Setup], precision: TokenPrecision, name: str, k: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = set_up(precision)
    asked = requests(setup.documents, BATCHES[name])
    rankings = in_one_call(setup, asked, k, monkeypatch)
    assert [len(keys) for keys, _ in rankings] == [len(each.keys[:k]) for each in asked]
    assert_same(rankings, in_python(setup, asked, k, monkeypatch))


def test_many_results_are_copied_together(set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    setup = set_up(longest=3)
    asked = requests(setup.documents, [(9, 290)] * 50)
    assert_same(in_one_call(setup, asked, 280, monkeypatch), in_python(setup, asked, 280, monkeypatch))


def test_no_requests(set_up: Callable[..., Setup]) -> None:
    assert set_up().reranker.rank([], 10) == []


@pytest.mark.parametrize("k", [7, None])
def test_ties_go_to_the_lower_key(set_up: Callable[..., Setup], k: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = set_up(all_equal=True)
    asked = requests(setup.documents, [(20, 200), (20, 5)])
    rankings = in_one_call(setup, asked, k, monkeypatch)
    for request, (keys, scores) in zip(asked, rankings, strict=True):
        assert keys.tolist() == request.keys[:k].tolist()
        assert len(set(scores.tolist())) == 1


def test_arrays_need_not_be_contiguous(set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    setup = set_up()
    (wide,) = requests(setup.documents, [(40, 0)])
    queries = [wide.query[::2], wide.query[::-1], np.asfortranarray(wide.query), wide.query[:1]]
    asked = [RerankRequest(query, wide.snapshot, setup.documents.keys[i :: i + 2]) for i, query in enumerate(queries)]
    plain = [RerankRequest(each.query.copy("C"), each.snapshot, each.keys.copy()) for each in asked]
    assert_same(in_one_call(setup, asked, 5, monkeypatch), in_python(setup, plain, 5, monkeypatch))


def test_arrays_of_other_numbers_are_refused(set_up: Callable[..., Setup]) -> None:
    setup = set_up()
    (asked,) = requests(setup.documents, [(4, 20)])
    wrong: list[tuple[Any, Any]] = [
        (asked.query.astype(np.float64), asked.keys),
        (asked.query[0], asked.keys),
        (asked.query, asked.keys.astype(np.int32)),
        (asked.query, asked.keys.astype(np.float64)),
    ]
    for query, keys in wrong:
        with pytest.raises(TypeError, match="arrays of float32, keys of int64"):
            setup.reranker.rank([RerankRequest(query, asked.snapshot, keys)], 5)


def test_documents_beyond_the_budget_are_found_by_the_longer_way(
    set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = set_up(budget=300_000)
    assert 0 < setup.reranker.n_cached < len(setup.documents.keys)
    cached = setup.documents.snapshot_of(setup.documents.keys[: setup.reranker.n_cached])
    within = requests(setup.documents, ODD, snapshot=cached)
    beyond = requests(setup.documents, ODD)
    assert_same(in_one_call(setup, within, 10, monkeypatch), in_python(setup, within, 10, monkeypatch))
    assert_same(setup.reranker.rank(beyond, 10), in_python(setup, beyond, 10, monkeypatch))
    with pytest.raises(AssertionError, match="without the compiled code"):
        in_one_call(setup, beyond, 10, monkeypatch)


def test_a_document_that_is_missing_among_others_is_found(
    set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older snapshot may have documents that were deleted before the others were cached."""
    setup = set_up()
    documents, deleted = setup.documents, setup.documents.keys[150]
    setup.reranker.clear()
    setup.reranker.update(documents.snapshot_of(np.delete(documents.keys, 150)))
    asked = requests(documents, ODD)
    asked[5] = RerankRequest(asked[5].query, documents.snapshot, np.union1d(asked[5].keys, [deleted]))
    rankings = setup.reranker.rank(asked, None)
    assert deleted in rankings[5][0]
    assert_same(rankings, in_python(setup, asked, None, monkeypatch))


def test_lists_that_are_shared_or_long_are_ranked_together(
    set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = set_up()
    first, second = requests(setup.documents, [(5, 9), (6, 9)])
    shared = [first, RerankRequest(second.query, second.snapshot, first.keys)]
    assert_same(setup.reranker.rank(shared, 3), in_python(setup, shared, 3, monkeypatch))
    long = [RerankRequest(first.query, first.snapshot, np.repeat(first.keys, LONGEST_LIST // len(first.keys) + 1))]
    for asked in (shared, long):
        with pytest.raises(AssertionError, match="without the compiled code"):
            in_one_call(setup, asked, 3, monkeypatch)


def test_threads_have_memory_of_their_own(set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    setup = set_up()
    batches = [requests(setup.documents, ODD, seed) for seed in range(3)]
    expected = [in_python(setup, batch, 10, monkeypatch) for batch in batches]
    failures: list[BaseException] = []

    def rank(i: int) -> None:
        try:
            for _ in range(5):
                assert_same(setup.reranker.rank(batches[i], 10), expected[i])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=rank, args=[i]) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_memory_grows_with_batches_and_is_freed(set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    setup = set_up()
    assert setup.reranker.n_working_bytes == 0
    sizes = []
    for lengths in ([(5, 9)], [(60, 200)] * 8, [(5, 9)], [(60, 200)] * 8, [(5, 9)]):
        asked = requests(setup.documents, lengths)
        assert_same(in_one_call(setup, asked, 10, monkeypatch), in_python(setup, asked, 10, monkeypatch))
        sizes.append(setup.reranker.n_working_bytes)
    assert 0 < sizes[0] < sizes[1]
    # The last batches are not slowed down by new memory.
    for _ in range(4):
        setup.reranker.rank(asked, 10)
    most = setup.reranker.n_working_bytes
    for _ in range(20):
        setup.reranker.rank(asked, 10)
    assert setup.reranker.n_working_bytes == most
    setup.reranker.clear()
    assert setup.reranker.n_working_bytes == 0


def simulated(gpu: Gpu) -> Any:
    """The library of the simulated driver."""
    if not gpu.is_simulated:
        pytest.skip("only a simulated GPU fails when it is told to")
    from cuda_on_cpu.building import driver

    return driver()


def test_nothing_leaks(gpu: Gpu, set_up: Callable[..., Setup]) -> None:
    library = simulated(gpu)
    setup = set_up()
    asked = requests(setup.documents, ODD)

    def held() -> tuple[int, int, int]:
        setup.forget()
        return bytes_in_use(gpu.cupy), library.simulated_pinned(), library.simulated_contexts()

    setup.reranker.rank(asked, 10)
    before = held()
    for _ in range(20):
        setup.reranker.rank(asked, 10)
        assert setup.reranker.n_working_bytes > 0
        assert held() == before


def test_one_query_needs_few_launches(gpu: Gpu, set_up: Callable[..., Setup]) -> None:
    library = simulated(gpu)
    setup = set_up()
    asked = requests(setup.documents, [(32, 100)])
    before = library.simulated_launches(), library.simulated_received()
    setup.reranker.rank(asked, 10)
    assert library.simulated_launches() - before[0] == 4  # places, query rows, MaxSim, selection
    assert library.simulated_received() == before[1]  # the kernel writes its few results to the host


def test_an_error_of_the_driver_at_any_call_is_reported_and_harms_nothing(
    gpu: Gpu, set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = simulated(gpu)
    setup = set_up()
    asked = requests(setup.documents, [(30, 5)] * 240)  # four slices, so that the first memory is used again
    expected = in_python(setup, asked, 10, monkeypatch)
    setup.reranker.clear()
    setup.reranker.update(setup.documents.snapshot)
    before = library.simulated_bytes(), library.simulated_pinned(), library.simulated_contexts()
    n_failures = 0
    for n_calls in count():
        library.simulated_failure(n_calls, LAUNCH_FAILED)
        try:
            assert_same(setup.reranker.rank(asked, 10), expected)
            break
        except DeviceError as error:
            message = str(error)
        finally:
            library.simulated_failure(-1, 0)
        assert message == "cuda:0 cannot be used: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"
        n_failures += 1
        assert (library.simulated_bytes(), library.simulated_pinned(), library.simulated_contexts()) == before
        if n_calls % 10 == 0:
            assert_same(setup.reranker.rank(asked, 10), expected)
            setup.forget()
    assert n_failures > 25


def test_memory_that_cupy_holds_is_freed_if_there_is_too_little(
    gpu: Gpu, set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = simulated(gpu)
    setup = set_up()
    asked = requests(setup.documents, ODD)
    expected = in_python(setup, asked, 10, monkeypatch)
    release = CudaDevice.release

    def release_enough(device: CudaDevice) -> None:
        library.simulated_failure(-1, 0)
        release(device)

    with monkeypatch.context() as patch:
        patch.setattr(CudaDevice, "release", release_enough)
        for n_calls in range(12):
            library.simulated_failure(n_calls, OUT_OF_MEMORY)
            assert_same(in_one_call(setup, asked, 10, monkeypatch), expected)
            setup.forget()
    library.simulated_memory(library.simulated_bytes() + 1000)
    try:
        with pytest.raises(DeviceError, match=r"too little free memory.*CUDA_ERROR_OUT_OF_MEMORY"):
            in_one_call(setup, asked, 10, monkeypatch)
    finally:
        library.simulated_memory(1 << 30)
    assert_same(in_one_call(setup, asked, 10, monkeypatch), expected)


def test_what_failed_for_lack_of_memory_is_freed_before_the_next_try(
    gpu: Gpu, set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = simulated(gpu)
    setup = set_up()
    asked = requests(setup.documents, ODD)
    expected = in_python(setup, asked, 10, monkeypatch)
    release, before, held = CudaDevice.release, library.simulated_contexts(), []

    def look_and_release(device: CudaDevice) -> None:
        held.append(library.simulated_contexts() - before)
        library.simulated_memory(1 << 30)
        release(device)

    monkeypatch.setattr(CudaDevice, "release", look_and_release)
    library.simulated_memory(library.simulated_bytes() + 1000)
    try:
        assert_same(in_one_call(setup, asked, 10, monkeypatch), expected)
    finally:
        library.simulated_memory(1 << 30)
    assert held == [0]


def test_a_driver_that_is_not_there(set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    setup = set_up()
    monkeypatch.setattr("muvera_core.cuda.list_ranker.DRIVER", "libnothing.so.1")
    with pytest.raises(DeviceError, match=r"cannot be loaded: there is no libnothing\.so\.1"):
        setup.reranker.rank(requests(setup.documents, ODD), 10)


def test_queries_of_sliced_tokens_are_converted_together(
    set_up: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = set_up("2bit")
    asked = requests(setup.documents, ODD)
    converted: list[int] = []
    original = TokenCodec.to_codec_space

    def convert(codec: TokenCodec, vectors: FloatArray) -> FloatArray:
        converted.append(len(vectors))
        return original(codec, vectors)

    monkeypatch.setattr(TokenCodec, "to_codec_space", convert)
    rankings = in_one_call(setup, asked, 10, monkeypatch)
    assert converted == [sum(len(each.query) for each in asked)]
    for request, ranking in zip(asked, rankings, strict=True):
        (alone,) = in_python(setup, [request], 10, monkeypatch)
        np.testing.assert_allclose(np.sort(alone[1]), np.sort(ranking[1]), rtol=1e-5, atol=1e-5)
