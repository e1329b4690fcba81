"""An index on a simulated GPU: what is copied to it, when it fails, and what it shares with writers."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from cuda_on_cpu import stand_in
from cuda_on_cpu.building import driver
from gpus import bytes_in_use, simulated_gpu

from muvera_core import FDEConfig, MuveraIndex, TokenEmbeddings
from muvera_core.batches import runs_by_size
from muvera_core.collection import RerankRequest
from muvera_core.cuda import accelerator, document_cache, reranker
from muvera_core.cuda.device import CudaDevice, open_device
from muvera_core.cuda.gpu_data import GpuRows, PreparedQueries
from muvera_core.cuda.list_ranker import ListRanker
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.cuda.scan import CudaScan
from muvera_core.cuda.session import CudaSession
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import DeviceError, DeviceFallbackWarning, InvalidInputError, MissingExtraError
from muvera_core.filters import compile_filter
from muvera_core.maxsim import Ranking
from muvera_core.native import NUMPY, VARIABLE
from muvera_core.search import SearchOptions, make_plan, rerank
from muvera_core.search.candidates import find_candidates
from muvera_core.storage.token_codec import Rows, TokenCodec, TokenPrecision
from muvera_core.token_embeddings import FloatArray, IntArray
from muvera_core.tuning.optimizing import narrow_tokens

D = 16
ENCODER = PrecomputedEmbeddings(D, "random")
INT8_ROW = RowLayout.of(TokenCodec("int8", D)).bytes_per_token
FDE = FDEConfig(dimension=D, num_repetitions=8, num_simhash_projections=3, projection_dimension=8)


class Work:
    """What is asked of the simulated GPU that a test's indexes use.

    Attributes:
        uploaded: number of tokens in each upload.
        prepared: number of queries in each batch.
        ranked: the same, of batches that compiled code ranks alone.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uploaded, self.prepared, self.ranked = list[int](), list[int](), list[int]()
        upload, prepare, rank = CudaSession.upload, CudaSession.prepare, ListRanker.rank

        def counted_upload(
            session: CudaSession, rows: Rows, offsets: IntArray, target: GpuRows | None = None
        ) -> GpuRows:
            self.uploaded.append(len(rows))
            return upload(session, rows, offsets, target)

        def counted_prepare(session: CudaSession, queries: Sequence[FloatArray]) -> PreparedQueries:
            self.prepared.append(len(queries))
            return prepare(session, queries)

        def counted_rank(
            ranker: ListRanker, cached: Any, queries: Sequence[FloatArray], lists: Sequence[IntArray], k: int | None
        ) -> list[Ranking] | None:
            rankings = rank(ranker, cached, queries, lists, k)
            if rankings is not None:
                self.ranked.append(len(queries))
            return rankings

        monkeypatch.setattr(ListRanker, "rank", counted_rank)
        monkeypatch.setattr(CudaSession, "upload", counted_upload)
        monkeypatch.setattr(CudaSession, "prepare", counted_prepare)


@contextmanager
def failing(n_calls: int = 0) -> Iterator[None]:
    """Let all calls of the GPU's driver fail, after some more calls."""
    driver().simulated_failure(n_calls, 719)
    try:
        yield
    finally:
        driver().simulated_failure(-1, 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Work:
    simulated_gpu(monkeypatch)
    monkeypatch.setattr(CudaScan, "_is_faster_than_cpu", lambda *_: False)
    # The same encodings as on the CPU, to the last bit.
    monkeypatch.setattr(accelerator, "on_gpu", lambda encoder, device: encoder)
    return Work(monkeypatch)


def accelerator_of(index: MuveraIndex) -> accelerator.CudaAccelerator:
    """The accelerator of an index on the GPU."""
    found = index.engine.collection.accelerator
    assert isinstance(found, accelerator.CudaAccelerator)
    return found


def tokens(seed: int, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((rng.integers(1, 30), D)).astype(np.float32) for _ in range(n)]
    return [array / np.linalg.norm(array, axis=1, keepdims=True) for array in arrays]


def ids(start: int, end: int) -> list[str]:
    return [f"d{i}" for i in range(start, end)]


def filled(path: Path | None, n: int = 600, **options: Any) -> MuveraIndex:
    index = MuveraIndex.create(path, ENCODER, FDE, **options)
    index.add_embeddings(tokens(0, n), ids=ids(0, n), metadatas=[{"even": i % 2 == 0} for i in range(n)])
    return index


def answers(index: MuveraIndex, **options: Any) -> list[list[tuple[str, float]]]:
    return [[(hit.id, round(hit.score, 4)) for hit in index.search_embeddings(q, **options)] for q in tokens(9, 6)]


def assert_same(found: list[list[tuple[str, float]]], expected: list[list[tuple[str, float]]]) -> None:
    """The same hits and scores, within rounding. Of documents that score as the last hit does, any may be the last."""
    for hits, others in zip(found, expected, strict=True):
        np.testing.assert_allclose([score for _, score in hits], [score for _, score in others], atol=2e-4)
        scores = dict(others)
        last = others[-1][1] if others else 0
        np.testing.assert_allclose([score for _, score in hits], [scores.get(id, last) for id, _ in hits], atol=4e-4)


SEARCHES: list[dict[str, Any]] = [
    {},
    {"exact": True},
    {"k": 3, "n_candidates": 20},
    {"k": 5, "exact": True, "filter": {"even": True}},
    {"k": 700, "exact": True},
]


@pytest.mark.parametrize("precision", ["int8", "float16"])
@pytest.mark.parametrize("memory", [1, 100_000, None])
def test_hits_are_those_of_the_cpu(gpu: Work, precision: TokenPrecision, memory: int | None, tmp_path: Path) -> None:
    with filled(tmp_path / "a", token_precision=precision) as index:
        expected = [hits for search in SEARCHES for hits in answers(index, **search)]
    with MuveraIndex.open(tmp_path / "a", ENCODER, device="cuda", device_memory=memory) as index:
        assert index.device == "cuda:0"
        assert_same([hits for search in SEARCHES for hits in answers(index, **search)], expected)
        assert gpu.prepared or gpu.ranked


@pytest.mark.parametrize("precision", ["8bit", "4bit", "2bit"])
def test_tokens_in_slices_score_as_on_the_cpu(gpu: Work, precision: TokenPrecision) -> None:
    searches = ({"exact": True}, {"k": 5, "exact": True, "filter": {"even": True}}, {"n_candidates": 40})
    with (
        filled(None, token_precision=precision) as plain,
        filled(None, token_precision=precision, device="cuda", device_memory=9000) as index,
    ):
        assert index.plan(n_candidates=400).n_shortlisted is None  # the GPU reads all bits of all candidates
        for search in searches:
            assert_same(answers(index, **search), answers(plain, **search))
        for changed in (index, plain):
            changed.delete(ids(100, 250))
            changed.add_embeddings(tokens(3, 40), ids=ids(600, 640))
            changed.compact()
        for search in searches:
            assert_same(answers(index, **search), answers(plain, **search))


@pytest.mark.parametrize(("precision", "n_bytes"), [("float16", 32), ("8bit", 36), ("4bit", 18), ("2bit", 10)])
@pytest.mark.usefixtures("gpu")
def test_a_token_takes_as_little_memory_as_its_precision_needs(precision: TokenPrecision, n_bytes: int) -> None:
    with filled(None, token_precision=precision, device="cuda", device_memory=60_000) as index:
        found = accelerator_of(index)._reranker
        counts = index.engine.collection.snapshot().rows.count
        # 16 dimensions are padded to 32 bytes of float16 or to 32 codes.
        rows = int(counts[: found.n_cached].sum()) * n_bytes
        assert 30_000 < rows <= found.n_bytes <= 60_000


@pytest.mark.parametrize(("max_bytes", "precision"), [(12, "4bit"), (6, "2bit")])
@pytest.mark.usefixtures("gpu")
def test_the_gpu_takes_in_tokens_that_are_rewritten_in_another_precision(
    max_bytes: int, precision: str, tmp_path: Path
) -> None:
    with filled(tmp_path / "a", device="cuda") as index:
        request = find_candidates(index.engine.collection, tokens(9, 1), SearchOptions(5, exact=True))[1]
        before = rerank(index.engine.collection, request, 5)
        narrow_tokens(index.engine.collection, index.engine.writer, max_bytes)
        assert index.token_precision == precision
        assert accelerator_of(index)._reranker.n_cached == len(index)
        ((keys, scores),) = rerank(index.engine.collection, request, 5)  # a search that began before
        np.testing.assert_array_equal(keys, before[0][0])
        np.testing.assert_allclose(scores, before[0][1], atol=2e-4)
        found = answers(index, exact=True)
    with MuveraIndex.open(tmp_path / "a", ENCODER) as plain:
        assert_same(found, answers(plain, exact=True))


def test_the_budget_is_kept_and_each_search_uploads_the_documents_beyond_it(gpu: Work) -> None:
    with filled(None, device="cuda", device_memory=100_000) as index:
        cuda_reranker = accelerator_of(index)._reranker
        assert 0 < cuda_reranker.n_bytes <= 100_000 < index.n_tokens * INT8_ROW
        gpu.uploaded.clear()
        answers(index, exact=True)
        counts = index.engine.collection.snapshot().rows.count
        assert sum(gpu.uploaded) == 6 * int(counts[cuda_reranker.n_cached :].sum())


def test_documents_beyond_the_budget_are_uploaded_in_batches(gpu: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_cache, "BYTES_AT_ONCE", 2000)
    monkeypatch.setattr(reranker, "BYTES_AT_ONCE", 2000)

    def in_a_batch(index: MuveraIndex) -> list[list[tuple[str, float]]]:
        queries = tokens(9, 6)
        _, requests = find_candidates(index.engine.collection, queries, SearchOptions(10, 30))
        rankings = rerank(index.engine.collection, requests, 10)
        return [list(zip(map(str, keys), scores, strict=True)) for keys, scores in rankings]

    with filled(None) as index:
        expected = [hits for search in SEARCHES for hits in answers(index, **search)] + in_a_batch(index)
    with filled(None, device="cuda", device_memory=100_000) as index:
        assert_same([hits for search in SEARCHES for hits in answers(index, **search)] + in_a_batch(index), expected)
        assert max(gpu.uploaded) <= 2000 // INT8_ROW


def test_ties_go_to_the_earlier_document(gpu: Work) -> None:
    one = tokens(0, 1)
    with MuveraIndex.create(None, ENCODER, FDE, device="cuda") as index:
        index.add_embeddings(one * 50, ids=ids(0, 50))
        hits = index.search_embeddings(one[0], k=7, exact=True)
        assert [hit.id for hit in hits] == ids(0, 7)
        assert len({hit.score for hit in hits}) == 1


@pytest.mark.parametrize("memory", [1, 20_000, None])
def test_ties_go_to_the_earlier_document_wherever_documents_are(gpu: Work, memory: int | None) -> None:
    one = tokens(0, 1)
    with MuveraIndex.create(None, ENCODER, FDE, device="cuda", device_memory=memory) as index:
        index.add_embeddings(one * 50, ids=ids(0, 50))
        snapshot = index.engine.collection.snapshot()
        for keys in (snapshot.keys, snapshot.keys.copy(), snapshot.keys[::3]):
            ((ranked, _),) = rerank(index.engine.collection, [RerankRequest(one[0], snapshot, keys)], 7)
            assert ranked.tolist() == keys[:7].tolist()


@pytest.mark.parametrize("memory", [1, 100_000, None])
def test_queries_with_shared_and_with_their_own_documents_can_be_mixed(gpu: Work, memory: int | None) -> None:
    queries = tokens(9, 8)
    rankings = []
    for device in ("cpu", "cuda"):
        with filled(None, device=device, device_memory=memory) as index:
            snapshot = index.engine.collection.snapshot()
            everything, some = snapshot.keys, snapshot.keys[5:300]
            lists = [everything, everything, some[::2], some, some, some[1::2], everything, some[:0]]
            requests = [RerankRequest(query, snapshot, keys) for query, keys in zip(queries, lists, strict=True)]
            rankings.append(rerank(index.engine.collection, requests, 5))
    for (keys, scores), (other_keys, other_scores) in zip(*rankings, strict=True):
        assert keys.tolist() == other_keys.tolist()
        np.testing.assert_allclose(scores, other_scores, rtol=1e-4)


@pytest.mark.parametrize("n_deleted", [0, 300])
def test_a_search_that_the_gpu_leaves_to_the_cpu_answers_from_one_state(
    n_deleted: int, gpu: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(None, device="cuda") as index:
        found = accelerator_of(index)
        query = tokens(9, 1)[0]
        before = index.search_embeddings(query, k=5, n_candidates=100)
        left = iter(range(3))

        def search(*_: object) -> None:
            if next(left, None) == 0:
                index.add_embeddings(tokens(9, 1), ids=["new"])
                index.delete(ids(0, n_deleted))

        monkeypatch.setattr(found, "scans", lambda *_: True)
        monkeypatch.setattr(found, "search", search)
        hits = index.search_embeddings(query, k=5, n_candidates=100)
        if n_deleted:
            assert hits[0].id == "new"
            assert all(int(hit.id[1:]) >= n_deleted for hit in hits[1:])
        else:
            assert hits == before
        assert index.search_embeddings(query, k=5, n_candidates=100)[0].id == "new"


def test_documents_that_the_gpu_fails_to_encode_are_encoded_by_the_cpu(
    gpu: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def encode_documents(self, embeddings: TokenEmbeddings) -> NoReturn:
            raise DeviceError("cuda:0 has too little free memory")

    monkeypatch.setattr(accelerator, "on_gpu", lambda encoder, device: Failing())
    with filled(None) as plain:
        expected = plain.engine.collection.stage_one.candidates.vectors(plain.engine.collection.snapshot().keys)
    with MuveraIndex.create(None, ENCODER, FDE, device="cuda") as index:
        with pytest.raises(DeviceError, match="too little free memory"):
            index.add_embeddings(tokens(0, 3))
        assert len(index) == 0
    with pytest.warns(DeviceFallbackWarning, match="too little free memory"):
        index = filled(None, device="auto")
    with index:
        found = index.engine.collection.stage_one.candidates.vectors(index.engine.collection.snapshot().keys)
        np.testing.assert_array_equal(found, expected)


def test_queries_of_a_batch_go_to_the_gpu_together(gpu: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(None, device="cuda") as index:
        one_by_one = [answers(index, k=4, exact=exact) for exact in (True, False)]
        for exact, expected in zip((True, False), one_by_one, strict=True):
            gpu.prepared.clear()
            gpu.ranked.clear()
            batch = index.search_embeddings_batch(tokens(9, 6), 4, exact=exact)
            assert [[(hit.id, round(hit.score, 4)) for hit in hits] for hits in batch] == expected
            assert gpu.prepared + gpu.ranked == [6]
        monkeypatch.setattr(reranker, "_SCORES_AT_ONCE", 1300)  # two queries' scores of all 600 documents
        gpu.prepared.clear()
        _, requests = find_candidates(index.engine.collection, tokens(9, 6), SearchOptions(4, exact=True))
        rankings = rerank(index.engine.collection, requests, 4)
        assert gpu.prepared == [2, 2, 2]
        assert [len(keys) for keys, _ in rankings] == [4] * 6
        monkeypatch.setattr(reranker, "_SCORES_AT_ONCE", 1 << 27)
        monkeypatch.setattr(reranker, "_QUERIES_AT_ONCE", 4)  # a kernel's grid has a limit
        gpu.prepared.clear()
        assert [len(keys) for keys, _ in rerank(index.engine.collection, requests, 4)] == [4] * 6
        assert gpu.prepared == [4, 2]


def test_requests_without_documents_count(gpu: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's grid has a limit for the queries of a batch."""
    monkeypatch.setenv(VARIABLE, NUMPY)
    monkeypatch.setattr(reranker, "_PAIRS_AT_ONCE", 4)
    with filled(None, n=30, device="cuda") as index:
        snapshot = index.engine.collection.store.snapshot
        asked = [RerankRequest(query, snapshot, snapshot.keys[:0].copy()) for query in tokens(9, 6)]
        assert [len(keys) for keys, _ in rerank(index.engine.collection, asked, 4)] == [0] * 6
        assert gpu.prepared == [4, 2]


def test_a_search_that_finds_nothing(gpu: Work) -> None:
    with MuveraIndex.create(None, ENCODER, FDE, device="cuda") as index:
        assert index.search_embeddings(tokens(1, 1)[0]) == []
        index.add_embeddings(tokens(0, 3), ids=ids(0, 3), metadatas=[{"n": i} for i in range(3)])
        assert index.search_embeddings(tokens(1, 1)[0], filter={"n": 9}) == []
        assert len(index.search_embeddings(tokens(1, 1)[0], filter={"n": 1})) == 1


def test_writes_and_compaction_are_seen(gpu: Work, tmp_path: Path) -> None:
    with filled(tmp_path / "a", device="cuda") as index, filled(None) as plain:
        for changed in (index, plain):
            changed.add_embeddings(tokens(3, 80), ids=ids(560, 640))
            changed.delete(ids(0, 200))
        assert_same(answers(index, exact=True), answers(plain, exact=True))
        index.compact()
        assert_same(answers(index, exact=True), answers(plain, exact=True))
        found = accelerator_of(index)
        assert found._reranker.n_cached >= len(index)
        for changed in (index, plain):
            changed.delete(ids(200, 500))
        # Deleted documents were more than half of the cache, so it was rebuilt.
        assert found._reranker.n_cached == len(index) == 140
        assert_same(answers(index), answers(plain))
        with MuveraIndex.open(tmp_path / "a", ENCODER, read_only=True, refresh_interval=None, device="cuda") as reader:
            index.add_embeddings(tokens(4, 5), ids=ids(700, 705))
            assert reader.refresh()
            assert answers(reader, exact=True) == answers(index, exact=True)


def test_searches_beside_a_writer_are_right(gpu: Work) -> None:
    queries = tokens(9, 6)
    with filled(None, 300, device="cuda", device_memory=60_000) as index:
        failures: list[BaseException] = []
        done = threading.Event()

        def search() -> None:
            try:
                while not done.is_set():
                    for query in queries:
                        hits = index.search_embeddings(query, k=5, exact=True)
                        assert len(hits) == 5
                        assert sorted((hit.score for hit in hits), reverse=True) == [hit.score for hit in hits]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for round_ in range(12):
            index.add_embeddings(tokens(round_, 40), ids=ids(1000 + 40 * round_, 1040 + 40 * round_))
            index.delete(ids(25 * round_, 25 * round_ + 25))
        done.set()
        for thread in threads:
            thread.join()
        assert not failures


def test_a_small_write_sends_little(gpu: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaScan, "_is_faster_than_cpu", lambda *_: True)
    with filled(None, 3000, device="cuda") as index:
        assert accelerator_of(index).n_bytes > 5_000_000  # most of it is stage one's vectors
        for n_write in range(3):
            before = driver().simulated_sent()
            index.add_embeddings(tokens(n_write, 10), ids=[f"new{n_write}-{i}" for i in range(10)])
            index.delete(ids(n_write, n_write + 1))
            assert driver().simulated_sent() - before < 40_000
        before = driver().simulated_sent()
        index.search_embeddings_batch(tokens(9, 3), exact=True)
        index.search_embeddings_batch(tokens(9, 3), n_candidates=50)
        assert driver().simulated_sent() - before < 30_000


def test_stage_one_on_the_gpu_finds_what_a_scan_finds(gpu: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaScan, "_is_faster_than_cpu", lambda *_: True)
    with filled(None) as plain:
        expected = answers(plain, k=5, n_candidates=40)
    with filled(None, device="cuda") as index:
        found = accelerator_of(index)
        assert found._scan is not None
        assert found._scan[1].is_used
        asked = []
        original = found._scan[1].search

        def search(*args: Any) -> Any:
            asked.append(args)
            return original(*args)

        monkeypatch.setattr(found._scan[1], "search", search)
        assert_same(answers(index, k=5, n_candidates=40), expected)
        assert len(asked) == 6
        together = index.search_embeddings_batch(tokens(9, 6), 5, n_candidates=40)
        assert [[hit.id for hit in hits] for hits in together] == [[id for id, _ in hits] for hits in expected]
        assert len(asked) == 7
        index.delete(ids(0, 100))
        assert all(int(id[1:]) >= 100 for hits in answers(index, n_candidates=40) for id, _ in hits)
        index.add_embeddings(tokens(0, 1), ids=["again"])
        assert answers(index, k=5, n_candidates=500) == answers(index, k=5, exact=True)


def test_a_scan_that_is_slower_or_has_no_room_is_not_used(gpu: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaScan, "_is_faster_than_cpu", lambda *_: False)
    with filled(None, device="cuda") as index:
        found = accelerator_of(index)
        assert found._scan is not None
        assert not found._scan[1].is_used
        assert found._scan[1].n_bytes == 0
    monkeypatch.setattr(CudaScan, "_is_faster_than_cpu", lambda *_: True)
    with filled(None, device="cuda", device_memory=400_000) as index:
        found = accelerator_of(index)
        assert found._scan is not None
        assert not found._scan[1].is_used


def test_whether_the_gpu_is_faster_is_measured(gpu: Work) -> None:
    with filled(None, device="cuda") as index:
        found = accelerator_of(index)
        assert found._scan is not None
        assert found._scan[1]._n_timed == 600
        index.add_embeddings(tokens(5, 200), ids=ids(2000, 2200))
        assert found._scan[1]._n_timed == 600
        index.add_embeddings(tokens(6, 200), ids=ids(3000, 3200))
        assert found._scan[1]._n_timed == 1000


def test_a_failing_gpu_is_an_error_and_with_auto_the_cpu_takes_over(gpu: Work) -> None:
    with filled(None) as plain:
        expected = answers(plain)
    for device, takes_over in (("cuda", False), ("auto", True)):
        with filled(None, device=device) as index:
            with failing():
                if takes_over:
                    with pytest.warns(DeviceFallbackWarning, match="the CPU takes over: cuda:0"):
                        assert answers(index) == expected
                else:
                    with pytest.raises(DeviceError, match="cuda:0"):
                        answers(index)
                # Written documents are safe, whatever the GPU does.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeviceFallbackWarning)
                    if takes_over:
                        index.add_embeddings(tokens(7, 1), ids=["new"])
                        assert "new" in index
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert len(answers(index)) == 6


def test_documents_are_safe_when_the_gpu_fails_after_they_were_written(
    gpu: Work, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with filled(None, device="cuda") as index:

        def fail(*_: object, **__: object) -> None:
            raise DeviceError("cuda:0 has too little free memory")

        found = accelerator_of(index)
        monkeypatch.setattr(found._reranker, "update", fail)
        index.add_embeddings(tokens(7, 1), ids=["new"])
        assert "could not be copied to cuda:0" in caplog.text
        hits = index.search_embeddings(tokens(7, 1)[0], k=1)
        assert [hit.id for hit in hits] == ["new"]


def test_memory_is_freed_at_close(gpu: Work) -> None:
    before = bytes_in_use(stand_in)
    index = filled(None, device="cuda")
    found = accelerator_of(index)
    assert found._reranker.n_cached == 600
    assert "on cuda:0" in index.sizes()
    assert bytes_in_use(stand_in) > before
    index.close()
    assert found._reranker.n_cached == 0
    del found, index
    assert bytes_in_use(stand_in) == before


def test_an_index_is_the_same_on_any_device(gpu: Work, tmp_path: Path) -> None:
    with filled(tmp_path / "a", device="cuda"):
        pass
    with MuveraIndex.open(tmp_path / "a", ENCODER) as index:
        assert index.device == "cpu"
        assert "on cuda:0" not in index.sizes()
        assert len(answers(index)) == 6


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "", "CUDA", 0, None, ["cuda"]])
def test_invalid_devices(name: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="device must be"):
        MuveraIndex.create(tmp_path / "a", ENCODER, FDE, device=name)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("memory", [0, -1, 1.5, "1 GB"])
def test_invalid_budgets(memory: Any) -> None:
    with pytest.raises(InvalidInputError, match="device_memory"):
        MuveraIndex.create(None, ENCODER, FDE, device_memory=memory)


@pytest.fixture
def without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.mark.usefixtures("without_cupy")
def test_without_cupy_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"muvera-core\[cuda12\]"):
        MuveraIndex.create(tmp_path / "a", ENCODER, FDE, device="cuda")
    assert not (tmp_path / "a").exists()
    with pytest.warns(DeviceFallbackWarning, match="searching on the CPU: .*CuPy"):
        index = MuveraIndex.create(tmp_path / "a", ENCODER, FDE, device="auto")
    with index:
        assert index.device == "cpu"


def test_cupy_without_a_driver_or_gpu() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        n_gpus = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        n_gpus = 0
    message = "cuda:0 cannot be used" if n_gpus == 0 else "there is no cuda:999"
    with pytest.raises(DeviceError, match=message):
        open_device("cuda" if n_gpus == 0 else "cuda:999")


@pytest.mark.usefixtures("gpu")
def test_a_library_of_cuda_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy finds that out when it needs the library, and raises an ImportError."""

    def missing(array: Any) -> NoReturn:
        raise ImportError('Failure finding "libcublas.so.12"')

    device = CudaDevice(0)
    monkeypatch.setattr(device.cupy, "square", missing)
    with pytest.raises(DeviceError, match=r"cuda:0 cannot be used: .*libcublas"), device.workspace():
        device.cupy.square(None)
    with pytest.raises(MissingExtraError, match="pip install"), device.workspace():
        raise MissingExtraError("pip install")


@pytest.mark.usefixtures("gpu")
def test_memory_is_that_of_the_gpu_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of CuPy has memory on each GPU, and tells how much it has on the current one."""
    device, current = CudaDevice(0), list[int]()
    total = stand_in.MemoryPool.total_bytes

    class Other(stand_in.Device):
        def __enter__(self) -> stand_in.Device:
            current.append(self.id)
            return super().__enter__()

        def __exit__(self, *_: object) -> None:
            current.pop()

    def counted(pool: stand_in.MemoryPool) -> int:
        return total(pool) if current == [1] else -1

    device.number = 1
    monkeypatch.setattr(stand_in.cuda, "Device", Other)
    monkeypatch.setattr(stand_in.MemoryPool, "total_bytes", counted)
    assert device.n_bytes == 0


def test_runs_are_no_larger_than_the_limit() -> None:
    assert runs_by_size(np.array([3, 3, 3, 9, 1, 1]), 6) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert runs_by_size(np.array([], dtype=np.int64), 6) == []
    assert runs_by_size(np.array([1] * 10), 10) == [(0, 10)]


@pytest.mark.parametrize(("precision", "bits"), [("float16", 16), ("int8", 8), ("8bit", 8), ("4bit", 4), ("2bit", 2)])
@pytest.mark.parametrize("dimension", [1, 16, 48, 64, 96, 100, 128, 256, 300, 512, 1024, 4096])
def test_row_layouts(precision: TokenPrecision, bits: int, dimension: int) -> None:
    layout = RowLayout.of(TokenCodec(precision, dimension))
    n_bytes = dimension * (2 if precision == "float16" else 1)
    assert 0 <= layout.query_row_bytes - n_bytes < 128
    assert layout.query_row_bytes % (32 * layout.steps) == 0
    assert layout.is_sliced or layout.query_row_bytes == 32 * layout.steps
    assert layout.bits == bits
    assert layout.row_bytes * 8 == layout.query_row_bytes * min(bits, 8)
    # Sums of products of codes and a query's integers fit int32.
    assert layout.limit >= 128
    assert dimension * 127 * layout.limit < 1 << 31
    assert layout.n_chunks(layout.chunk) == layout.n_chunks(1) == layout.n_chunks(0) == 1
    assert layout.n_chunks(layout.chunk + 1) == 2


def test_a_search_that_scans_on_the_gpu_plans_to(gpu: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaScan, "_is_faster_than_cpu", lambda *_: True)
    with filled(None, device="cuda") as index:
        plan = make_plan(index.engine.collection, SearchOptions(5, 40))
        assert (plan.path, plan.n_candidates, plan.ef) == ("GPU scan", 40, None)
        filtered = SearchOptions(5, 40, compile_filter({"even": True}))
        assert make_plan(index.engine.collection, filtered).path == "flat scan"
        assert make_plan(index.engine.collection, SearchOptions(5, exact=True)).path == "every document"


@pytest.mark.parametrize("faster", [True, False])
def test_a_forgotten_index_on_a_gpu_is_gone_at_once(
    faster: bool, gpu: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CudaScan, "_is_faster_than_cpu", lambda *_: faster)
    filled(tmp_path / "a").close()

    def use() -> list[weakref.ref[Any]]:
        index = MuveraIndex.open(tmp_path / "a", ENCODER, device="cuda")
        answers(index, n_candidates=40)
        index.add_embeddings(tokens(5, 20), ids=ids(900, 920))
        index.delete(ids(0, 10))
        collection = index.engine.collection
        parts = (index, collection, collection.store, collection.stage_one, collection.accelerator)
        return [weakref.ref(part) for part in parts]

    gc.collect()
    gc.disable()
    try:
        assert [part() for part in use()] == [None] * 5
        MuveraIndex.open(tmp_path / "a", ENCODER).close()
    finally:
        gc.enable()
