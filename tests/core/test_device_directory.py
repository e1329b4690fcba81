"""What a GPU holds of documents while they are written, deleted and searched: token rows and stage one's vectors."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
from gpus import Gpu, bytes_in_use

from muvera_core.collection import RerankRequest
from muvera_core.cuda import reranker, row_blocks, scan
from muvera_core.cuda.cached_documents import CachedDocuments, newly_deleted
from muvera_core.cuda.columns import Column
from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.engine import CudaEngine
from muvera_core.cuda.reranker import CudaReranker
from muvera_core.cuda.row_blocks import RowBlocks
from muvera_core.cuda.scan import CudaScan
from muvera_core.cuda.session import CudaSession
from muvera_core.errors import DeviceError
from muvera_core.maxsim import Ranking
from muvera_core.storage import Rows, Snapshot
from muvera_core.storage.snapshot import SnapshotRows
from muvera_core.storage.token_codec import TokenCodec, TokenPrecision
from muvera_core.token_embeddings import FloatArray, IntArray

D = 16
OUT_OF_MEMORY, LAUNCH_FAILED = 2, 719


class Written:
    """Documents that are added and deleted, the cache of their rows on a GPU, and what searches should find."""

    def __init__(self, device: CudaDevice, budget: int = 1 << 28, precision: TokenPrecision = "int8") -> None:
        self.codec = TokenCodec(precision, D)
        self.engine = CudaEngine(device, self.codec)
        self.reranker = CudaReranker(self.engine, self, self.codec, budget)
        self.vectors: dict[int, FloatArray] = {}  # of all documents, as the GPU has them
        self.stored: dict[int, Rows] = {}
        self.live: list[int] = []
        self.next_key, self.rng = 0, np.random.default_rng(0)
        self.snapshot = self._snapshot()

    @property
    def cached(self) -> CachedDocuments:
        return self.reranker._cache.current

    def add(self, n: int, *, gap: int = 0) -> None:
        """Add documents, after ``gap`` keys that no document has."""
        self.next_key += gap
        for key in range(self.next_key, self.next_key + n):
            tokens = self.rng.standard_normal((self.rng.integers(1, 30), D)).astype(np.float32)
            offsets = np.array([0, len(tokens)])
            self.stored[key] = self.codec.encode(tokens, offsets)
            self.vectors[key] = self.codec.decode(self.stored[key], offsets)
            self.live.append(key)
        self.next_key += n
        self.snapshot = self._snapshot()

    def delete(self, n: int) -> None:
        """Delete documents at random."""
        for key in self.rng.choice(self.live, n, replace=False).tolist():
            self.live.remove(key)
        self.snapshot = self._snapshot()

    def update(self) -> None:
        self.reranker.update(self.snapshot)

    def token_rows(self, snapshot: Snapshot, keys: IntArray) -> tuple[Rows, IntArray]:
        rows = [self.stored[key] for key in keys.tolist()]
        return np.concatenate(rows), np.concatenate([[0], np.cumsum([len(some) for some in rows])])

    def query(self) -> FloatArray:
        return self.rng.standard_normal((5, D)).astype(np.float32)

    def rank(
        self, snapshot: Snapshot, queries: list[FloatArray], k: int | None, keys: IntArray | None = None
    ) -> list[Ranking]:
        keys = snapshot.keys if keys is None else keys
        return self.reranker.rank([RerankRequest(query, snapshot, keys) for query in queries], k)

    def check(self, snapshot: Snapshot | None = None, k: int | None = 7, keys: IntArray | None = None) -> None:
        """Searches find what they should."""
        snapshot = snapshot or self.snapshot
        queries = [self.query(), self.query()]
        for query, ranking in zip(queries, self.rank(snapshot, queries, k, keys), strict=True):
            self.check_ranking(query, ranking, snapshot.keys if keys is None else keys, k)

    def check_ranking(self, query: FloatArray, ranking: Ranking, keys: IntArray, k: int | None) -> None:
        scores = {key: (query @ self.vectors[key].T).max(axis=1).sum() for key in keys.tolist()}
        found = ranking[0].tolist()
        assert len(set(found)) == len(found)
        np.testing.assert_allclose(ranking[1], [scores[key] for key in found], atol=1e-2)
        np.testing.assert_allclose(ranking[1], sorted(scores.values(), reverse=True)[:k], atol=1e-2)

    def _snapshot(self) -> Snapshot:
        keys = np.array(self.live, dtype=np.int64)
        counts = np.array([len(self.stored[key]) for key in self.live], dtype=np.int64)
        tokens: Any = None
        return Snapshot.of(0, SnapshotRows(keys, keys, keys, counts, keys), tokens)


def sent() -> int:
    """Number of bytes that have been sent to the simulated GPU."""
    from cuda_on_cpu.building import driver

    return int(driver().simulated_sent())


def on_gpu(session: CudaSession, column: Column) -> IntArray:
    """The numbers of a column, as the GPU has them."""
    received = np.empty(len(column), dtype=column.memory.dtype)
    session.workspace.fetch(column.address, received)
    return received


# Token rows


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_a_write_sends_what_is_new(device: CudaDevice, gpu: Gpu, precision: TokenPrecision) -> None:
    if not gpu.is_simulated:
        pytest.skip("only the simulated GPU counts bytes")

    def costs(n: int) -> list[int]:
        """Bytes that are sent for the same changes and searches of caches of ``n`` documents."""
        written = Written(device, precision=precision)
        written.add(n)
        written.update()
        written.rng = np.random.default_rng(1)
        queries = [written.query() for _ in range(3)]
        found = []
        for n_added, n_deleted in ((10, 0), (1, 0), (0, 3), (5, 2), (0, 0)):
            before = sent()
            written.add(n_added)
            written.delete(n_deleted)
            written.update()
            found.append(sent() - before)
            before = sent()
            written.rank(written.snapshot, queries, 3)
            found.append(sent() - before)
        assert written.reranker.n_cached == len(written.snapshot) == n + 11
        return found

    few, many = costs(100), costs(2000)
    np.testing.assert_allclose(few, many, atol=1024)  # the documents are as many, but not as long
    writes, searches = many[::2], many[1::2]
    assert max(searches) < 4096  # the queries, and nothing of the 2,000 documents
    assert writes[0] < 30_000
    assert max(writes[1:4]) < 10_000
    assert writes[2] < 1024
    assert writes[4] == 0


def test_documents_that_a_batch_shares_are_sent_once(device: CudaDevice, gpu: Gpu) -> None:
    if not gpu.is_simulated:
        pytest.skip("only the simulated GPU counts bytes")
    written = Written(device)
    written.add(600)
    written.update()
    admitted = written.snapshot.keys[::2]
    queries = [written.query() for _ in range(12)]
    before = sent()
    rankings = written.rank(written.snapshot, queries, 4, admitted)
    assert sent() - before < 4 * 300 + 12 * (4 * 5 * D + 64) + 1024
    for query, ranking in zip(queries, rankings, strict=True):
        written.check_ranking(query, ranking, admitted, 4)


def test_many_small_writes_with_deletions_between_them(device: CudaDevice) -> None:
    written = Written(device)
    written.add(40)
    written.update()
    older = []
    for i in range(40):
        written.add(int(written.rng.integers(0, 4)), gap=i % 3)
        written.delete(int(written.rng.integers(0, 2)))
        written.update()
        if i % 8 == 0:
            older.append((written.snapshot, written.cached))
            written.check()
            written.check(keys=written.snapshot.keys[::3])
    written.check(k=None)
    assert written.cached.n_dead > 5
    assert written.cached.are_exactly(written.snapshot.keys)
    assert len(written.cached.rows.blocks) < 20  # most writes use spare room
    # A search that began earlier has documents that were deleted since, and none that were added.
    for snapshot, cached in older:
        written.check(snapshot, k=None)
        assert cached.are_exactly(snapshot.keys)
        assert not cached.are_exactly(written.snapshot.keys)
        assert not written.cached.are_exactly(snapshot.keys)


def test_what_a_search_holds_does_not_change(device: CudaDevice) -> None:
    written = Written(device)
    written.add(200, gap=3)
    written.update()
    written.add(1)
    written.update()
    views = [(CachedDocuments.empty(written.engine.layout), 0), (written.cached, written.next_key)]
    for _ in range(30):
        written.add(3, gap=2)
        written.delete(2)
        written.update()
        views.append((written.cached, written.next_key))
    for cached, n_keys in views:
        assert cached.n_keys == n_keys
        keys = np.arange(written.next_key + 5)
        places = cached.places(keys)
        np.testing.assert_array_equal(np.flatnonzero(places >= 0), cached.keys)
        np.testing.assert_array_equal(places[cached.keys], np.arange(len(cached)))
        assert (np.diff(cached.keys) > 0).all()
        assert len(cached.on_gpu) == len(cached)
        with written.engine.session() as session:
            np.testing.assert_array_equal(on_gpu(session, cached.gpu.place_of_key), places[:n_keys])
            np.testing.assert_array_equal(on_gpu(session, cached.gpu.dead), cached.dead.values)
            counts = [len(written.vectors[key]) for key in cached.keys.tolist()]
            np.testing.assert_array_equal(on_gpu(session, cached.gpu.n_tokens), counts)
        assert cached.places_at == cached.gpu.place_of_key.address
        assert bool(cached.places_at) == bool(n_keys)
        # The rows' addresses do not overlap.
        starts = np.sort(cached.gpu.rows_at.memory.get()[: len(cached)]) if len(cached) else np.empty(0, np.int64)
        assert len(np.unique(starts)) == len(cached)
    # The GPU's tables grew a few times, not 30 times.
    assert len({cached.gpu.n_tokens.address for cached, _ in views}) <= 4


def test_documents_that_are_not_cached_yet_are_found(device: CudaDevice) -> None:
    written = Written(device)
    written.add(30)
    written.update()
    written.add(12)
    written.delete(3)
    written.check()
    written.check(keys=written.snapshot.keys[::2])
    written.update()
    written.check()


def test_no_more_hits_than_live_documents(device: CudaDevice) -> None:
    written = Written(device)
    written.add(60)
    written.update()
    written.delete(25)
    written.update()
    assert written.cached.n_dead == 25
    for k in (34, 35, 36, 60, 1000, None):
        written.check(k=k)
    written.delete(35)
    written.update()
    assert written.rank(written.snapshot, [written.query()], 5)[0][0].tolist() == []


def test_dead_documents_are_not_found_among_very_many(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera_core.cuda.selection.SEGMENT", 64)  # the best are chosen in two steps
    written = Written(device)
    written.add(300)
    written.update()
    written.delete(140)
    written.update()
    assert written.cached.n_dead == 140
    for k in (1, 4):
        written.check(k=k)


def test_the_cache_is_rebuilt_when_many_are_deleted(device: CudaDevice) -> None:
    written = Written(device)
    written.add(100)
    written.update()
    before = written.snapshot
    written.delete(49)
    written.update()
    assert (len(written.cached), written.cached.n_dead) == (100, 49)
    written.delete(2)
    written.update()
    assert (len(written.cached), written.cached.n_dead) == (49, 0)
    written.check(k=None)
    written.check(before, k=None)  # deleted documents are copied for this search
    written.add(5)
    written.update()
    written.check(k=None)


def test_a_rebuild_needs_no_memory_for_old_and_new_rows_together(device: CudaDevice, gpu: Gpu) -> None:
    if not gpu.is_simulated:
        pytest.skip("only the simulated GPU can be made smaller")
    from cuda_on_cpu.building import driver

    written = Written(device)
    written.add(1500)
    written.update()
    written.delete(800)
    n_bytes = written.reranker.n_bytes
    driver().simulated_memory(bytes_in_use(gpu.cupy) + n_bytes // 4)
    try:
        written.update()
        assert n_bytes / 3 < written.reranker.n_bytes < n_bytes / 1.5
        assert (len(written.cached), written.cached.n_dead) == (700, 0)
    finally:
        driver().simulated_memory(1 << 30)
    written.check()


@pytest.mark.parametrize("change", ["clear", "rebuild"])
@pytest.mark.parametrize("everything", [True, False])
def test_rows_stay_while_the_gpu_reads_them(
    device: CudaDevice, monkeypatch: pytest.MonkeyPatch, change: str, everything: bool
) -> None:
    written = Written(device)
    written.add(80)
    written.update()
    snapshot = written.snapshot
    keys = snapshot.keys if everything else snapshot.keys[::2]
    queries = [written.query(), written.query()]
    written.delete(60)
    fetch, is_changed = CudaSession.fetch, list[bool]()

    def change_first(session: CudaSession, selected: Any) -> Any:
        if not is_changed:
            is_changed.append(True)
            if change == "rebuild":
                written.update()
                assert len(written.cached) == 20
            else:
                written.reranker.clear()
            gc.collect()
            device.free_unused()
        return fetch(session, selected)

    with monkeypatch.context() as patch:
        patch.setattr(CudaSession, "fetch", change_first)
        rankings = written.rank(snapshot, queries, 5, keys)
    for query, ranking in zip(queries, rankings, strict=True):
        written.check_ranking(query, ranking, keys, 5)
    assert is_changed


def test_searches_beside_a_writer(device: CudaDevice) -> None:
    written = Written(device)
    written.add(60)
    written.update()
    failures: list[BaseException] = []
    done = threading.Event()
    queries = [written.query(), written.query()]

    def search() -> None:
        try:
            while not done.is_set():
                snapshot = written.snapshot
                for keys in (snapshot.keys, snapshot.keys[::2]):
                    for query, ranking in zip(queries, written.rank(snapshot, queries, 5, keys), strict=True):
                        written.check_ranking(query, ranking, keys, 5)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(25):
        written.add(4)
        written.update()
        written.delete(30 if i % 8 == 7 else 3)
        written.update()
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    written.check(k=None)


def test_the_budget_ends_in_the_middle_of_a_write(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera_core.cuda.document_cache.BYTES_AT_ONCE", 20_000)
    monkeypatch.setattr(row_blocks, "BYTES_AT_ONCE", 20_000)
    monkeypatch.setattr(reranker, "BYTES_AT_ONCE", 20_000)
    budget = 200_000
    written = Written(device, budget)
    for _ in range(15):
        written.add(40)
        written.update()
        assert written.reranker.n_bytes <= budget
    n = written.reranker.n_cached
    assert 50 < n < len(written.snapshot)
    written.check()
    written.check(keys=written.snapshot.keys[::3])
    # Most of the budget holds rows.
    n_rows = sum(len(written.vectors[key]) for key in range(n))
    assert n_rows * written.engine.layout.bytes_per_token > 0.7 * budget
    written.delete(30)
    written.update()
    written.add(2)
    written.update()
    assert written.reranker.n_bytes <= budget
    written.check(k=None)


def test_all_memory_is_counted(device: CudaDevice, gpu: Gpu) -> None:
    written = Written(device)
    with written.engine.session():
        pass
    empty = device.n_bytes
    for _ in range(10):
        written.add(50)
        written.update()
    # The pool also has the buffers through which rows are sent.
    assert 0 <= device.n_bytes - empty - written.reranker.n_bytes < (200_000 if gpu.is_simulated else 1 << 20)


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, LAUNCH_FAILED])
def test_a_write_that_fails_changes_nothing(device: CudaDevice, gpu: Gpu, error: int) -> None:
    if not gpu.is_simulated:
        pytest.skip("only the simulated GPU fails when it should")
    from cuda_on_cpu.building import driver

    written = Written(device)
    written.add(30)
    written.update()
    cached, n_failures = written.cached, 0
    for n_calls in range(0, 60, 3):
        written.add(2)
        written.delete(1)
        driver().simulated_failure(n_calls, error)
        try:
            written.update()
        except DeviceError:
            n_failures += 1
            assert written.cached is cached
        finally:
            driver().simulated_failure(-1, 0)
        written.check()
        cached = written.cached
    written.update()
    written.check()
    assert n_failures > 3
    assert written.cached.are_exactly(written.snapshot.keys)


def test_columns_grow_by_a_factor_and_share_memory() -> None:
    column = Column.empty(np.int32)
    views, copies = [], 0
    for i in range(5000):
        longer = column.followed_by(np.array([i], dtype=np.int32))
        copies += longer.memory is not column.memory
        column = longer
        views.append(column)
    assert copies < 12
    for n, view in enumerate(views[::500]):
        np.testing.assert_array_equal(view.values, np.arange(500 * n + 1))
    assert column.n_bytes <= 1.5 * 4 * 5000 + 512
    assert column.n_bytes_for(5000) == column.n_bytes
    assert column.n_bytes_for(100_000) == column.n_bytes + 4 * column.capacity_for(100_000)


def test_newly_deleted_documents() -> None:
    keys = np.array([2, 3, 5, 8, 9])

    def found(dead: list[int], live: list[int]) -> list[int]:
        places = newly_deleted(keys, np.array(dead, dtype=np.int32), np.array(live, dtype=np.int64))
        return list(map(int, places))

    assert found([], [2, 3, 5, 8, 9]) == []
    assert found([1], [2, 5, 8, 9]) == []
    assert found([1], [2, 8]) == [2, 4]
    assert found([], []) == [0, 1, 2, 3, 4]
    assert found([1], [2, 3, 5, 8]) == []  # an older state: as many, but others
    assert found([1, 2], [2, 3, 8]) == []


def test_row_blocks_have_little_spare_room(device: CudaDevice) -> None:
    written = Written(device)
    blocks = RowBlocks(written.engine.layout)
    n_rows = 0
    with written.engine.session() as session:
        for n in [1000] + [17] * 300:
            expected = blocks.n_bytes_for(n)
            blocks, _ = blocks.with_room(session, n, 0)
            assert blocks.n_bytes <= expected
            n_rows += n
        with_spare, _ = blocks.with_room(session, blocks.n_spare + 1, 1 << 20)
    assert blocks.n_rows >= n_rows
    assert with_spare.n_spare >= n_rows // 8 - 256
    del blocks, with_spare


# Stage one's vectors

WIDTH = 24


class Vectors:
    """Vectors of documents, as ``StageOne`` gives them."""

    def __init__(self) -> None:
        self.candidates = self
        self.all = np.random.default_rng(0).integers(-3, 4, (5000, WIDTH)).astype(np.float32)  # many ties

    def vectors(self, keys: IntArray) -> FloatArray:
        return self.all[keys]

    def best(self, keys: IntArray, query: FloatArray, k: int) -> list[int]:
        best: list[int] = keys[np.argsort(-(self.all[keys] @ query), kind="stable")[:k]].tolist()
        return best


def snapshot_of(keys: Any) -> Snapshot:
    keys = np.asarray(keys, dtype=np.int64)
    tokens: Any = None
    return Snapshot.of(0, SnapshotRows(keys, keys, keys, keys, keys), tokens)


@pytest.fixture
def always_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaScan, "_is_faster_than_cpu", lambda *_: True)


def check_scan(scanned: CudaScan, snapshot: Snapshot, vectors: Any, k: int = 9) -> None:
    queries = np.random.default_rng(1).integers(-3, 4, (5, WIDTH)).astype(np.float32)
    found = scanned.search(snapshot, queries, k)
    assert found is not None
    for query, keys in zip(queries, found, strict=True):
        assert keys.tolist() == vectors.best(snapshot.keys, query, k)
        assert scanned.search(snapshot, query[None], k)[0].tolist() == keys.tolist()  # type: ignore[index]


@pytest.mark.usefixtures("always_faster")
def test_a_scan_follows_writes_and_sends_what_is_new(device: CudaDevice, gpu: Gpu) -> None:
    scanned, vectors, rng = CudaScan(device, WIDTH), Vectors(), np.random.default_rng(2)
    live = list(range(0, 2000, 2))
    matrices = set()
    for i in range(30):
        snapshot = snapshot_of(live)
        before = sent() if gpu.is_simulated else 0
        scanned.update(snapshot, vectors, 1 << 26)  # type: ignore[arg-type]
        if gpu.is_simulated and i:
            assert sent() - before < 8 * 4 * WIDTH + 2048
        assert scanned._current is not None
        matrices.add(scanned._current.matrix.data.ptr)
        if i % 6 == 0:
            check_scan(scanned, snapshot, vectors)
            check_scan(scanned, snapshot, vectors, k=5000)
        assert scanned.search(snapshot_of(live), vectors.all[:1], 3) is None
        for key in rng.choice(live, i % 5, replace=False).tolist():
            live.remove(key)
        live += range(2000 + 10 * i, 2000 + 10 * i + i % 8)
    assert len(matrices) == 2  # it has grown once
    assert scanned.n_bytes >= 4 * WIDTH * len(live)


@pytest.mark.usefixtures("always_faster")
def test_a_scan_of_a_large_batch_works_in_parts(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_SCORES_AT_ONCE", 250)
    scanned, vectors = CudaScan(device, WIDTH), Vectors()
    snapshot = snapshot_of(range(100))
    scanned.update(snapshot, vectors, 1 << 26)  # type: ignore[arg-type]
    check_scan(scanned, snapshot, vectors)


@pytest.mark.usefixtures("always_faster")
def test_a_scan_keeps_within_its_memory(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the limit, old and new memory do not fit beside one another; the vectors are then sent anew, but seldom."""
    scanned, vectors = CudaScan(device, WIDTH), Vectors()
    room = 1000 * (4 * WIDTH + 4)
    matrices, is_copied = [], list[bool]()
    with_room = CudaScan._with_room

    def watched(scanned: CudaScan, snapshot: Snapshot, most: int) -> Any:
        before = scanned._current
        result = with_room(scanned, snapshot, most)
        if before is not None and result.matrix is not before.matrix:
            is_copied.append(scanned._current is not None)
            assert not is_copied[-1] or len(before.matrix) + len(result.matrix) <= 1000
        return result

    monkeypatch.setattr(CudaScan, "_with_room", watched)
    for n in range(300, 1040, 7):
        snapshot = snapshot_of(range(n))
        scanned.update(snapshot, vectors, room)  # type: ignore[arg-type]
        assert scanned.n_bytes <= room
        assert scanned.holds(snapshot) == (n <= 1000)
        if scanned._current is not None:
            matrices.append(len(scanned._current.matrix))
            if n % 5 == 0:
                check_scan(scanned, snapshot, vectors)
    assert is_copied[0]
    assert 0 < is_copied.count(False) < 9
    assert scanned._current is None


@pytest.mark.usefixtures("always_faster")
def test_a_scan_gives_memory_back_to_the_token_rows(device: CudaDevice) -> None:
    scanned, vectors = CudaScan(device, WIDTH), Vectors()
    row = 4 * WIDTH + 4
    for n, room in ((400, 2000 * row), (410, 2000 * row), (420, 430 * row), (421, 429 * row), (422, 428 * row)):
        snapshot = snapshot_of(range(n))
        scanned.update(snapshot, vectors, room)  # type: ignore[arg-type]
        assert 4 * WIDTH * n <= scanned.n_bytes <= room
        check_scan(scanned, snapshot, vectors)
    scanned.update(snapshot_of(range(423)), vectors, 422 * row)  # type: ignore[arg-type]
    assert scanned.n_bytes == 0


@pytest.mark.usefixtures("always_faster")
def test_deleted_vectors_are_dropped_when_they_are_many(device: CudaDevice) -> None:
    scanned, vectors = CudaScan(device, WIDTH), Vectors()
    for live, n_rows in ((range(100), 100), (range(20, 100), 100), (range(30, 110), 80)):
        snapshot = snapshot_of(live)
        scanned.update(snapshot, vectors, 1 << 26)  # type: ignore[arg-type]
        assert scanned._current is not None
        assert len(scanned._current.keys) == n_rows
        check_scan(scanned, snapshot, vectors)
        check_scan(scanned, snapshot, vectors, k=100)
