"""An index behind a service does what the index itself does."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_service import PATIENCE, running
from running_app import DIMENSION, IDS, METADATAS, TEXTS, animals, word_encoder

from muvera_core import Document, IndexCalls, MuveraIndex, QueryReduction, RemoteMuveraIndex, StageClock, TextEncoder
from muvera_core.encoders import TokenEncoder, is_image_encoder
from muvera_core.errors import (
    DimensionMismatchError,
    IndexClosedError,
    InvalidInputError,
    MissingExtraError,
    NothingToOptimizeWarning,
    PartialResultWarning,
    ReadOnlyIndexError,
    SkippedTextWarning,
)
from muvera_core.hits import Hits
from muvera_core.index import call_async
from muvera_core.lexical import LexicalConfig
from muvera_core.serving import ServiceSettings, create_app
from muvera_core.wire import CALLS

TOKEN = "secret-token"


@pytest.fixture(scope="module")
def index() -> Iterator[MuveraIndex]:
    """The index that is served. Tests must not change it."""
    with animals() as index:
        yield index


@pytest.fixture(scope="module")
def url(index: MuveraIndex) -> Iterator[str]:
    with running(create_app(index, ServiceSettings(tokens=TOKEN))) as url:
        yield url


@pytest.fixture
def remote(url: str) -> Iterator[RemoteMuveraIndex]:
    with RemoteMuveraIndex(url, token=TOKEN) as remote:
        yield remote


@contextmanager
def served(index: Any, **options: Any) -> Iterator[RemoteMuveraIndex]:
    """A remote index over an index of its own."""
    with running(create_app(index)) as url, RemoteMuveraIndex(url, **options) as remote:
        yield remote


@pytest.fixture
def twins() -> Iterator[tuple[MuveraIndex, RemoteMuveraIndex]]:
    """Two equal indexes, one of them behind a service."""
    with animals() as local, animals() as other, served(other) as remote:
        yield local, remote


TOKENS = word_encoder().encode_queries(["hunt at night", "shallow water"])
READS: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = (
    ("search", ("hunt at night",), {"k": 3, "with_passages": True}),
    ("search", ("shallow water",), {"filter": {"legs": {"$lte": 2}}, "min_score": 0.1}),
    ("search", ("shallow water",), {"mode": "hybrid", "fusion": "ranks", "ids": ["fish", "heron", "nobody"]}),
    ("search", ("night",), {"mode": "lexical"}),
    ("search", (" \ud800",), {"filter": {"legs": 2}}),
    ("search", ("night",), {"filter": {"seen": {"$gt": datetime(2024, 1, 1, tzinfo=UTC)}}}),
    ("search", ("night",), {"filter": {"seen": date(2023, 7, 1)}, "exact": True}),
    ("search", ("night by night",), {"query_reduction": QueryReduction(0.7), "show_progress": None}),
    ("search_batch", (["night", "", "water"],), {"k": np.int64(2)}),
    ("search_batch", ([],), {}),
    ("search_embeddings", (TOKENS[0],), {"k": 2}),
    ("search_embeddings", (TOKENS[0].tolist(), 2), {}),
    ("search_embeddings_batch", (TOKENS,), {"k": 2}),
    ("search_embeddings_batch", ([TOKENS[0], TOKENS[1].tolist()],), {"k": 2}),
    ("search_embeddings_batch", ([],), {}),
    ("rerank", ("night", ["bat", "ant", "nobody"]), {}),
    ("search_diverse", ("hunt at night in water",), {"k": 3, "method": "coverage"}),
    ("search_diverse", ("hunt at night",), {"k": 2, "n_neighbors": 2}),
    ("plan", (5,), {"filter": {"legs": 2}}),
    ("explain", ("hunt at night", "owl"), {}),
    ("get", (["bat", "nobody", "owl", "bat"],), {}),
    ("get", ("fish",), {}),
    ("find", (), {}),
    ("find", ({"legs": 2}, 2), {"offset": 1}),
    ("find", (None, None), {"offset": 4}),
    ("find", (None, 1000), {}),
    ("page", (), {"limit": 4}),
    ("count", ({"tags": "night"},), {}),
    ("count", (), {}),
    ("refresh", (), {}),
    ("default_candidates", (7,), {}),
    ("sizes", (), {}),
)


@pytest.mark.parametrize(("name", "arguments", "options"), READS, ids=[name for name, _, _ in READS])
async def test_reads_give_what_the_index_gives(
    index: MuveraIndex, url: str, name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    options = {key: value for key, value in options.items() if key != "show_progress"}
    local = getattr(index, name)(*arguments, **options)
    async with RemoteMuveraIndex(url, token=TOKEN) as remote:
        found = await asyncio.to_thread(getattr(remote, name), *arguments, **options)
        assert found == local
        assert repr(found) == repr(local)  # also types: a tuple is no list
        assert await remote.acall(name, *arguments, **options) == local
        assert await call_async(remote, name, *arguments, **options) == local


def test_arrays_are_what_the_index_gives(index: MuveraIndex, remote: RemoteMuveraIndex) -> None:
    local, found = index.get_embeddings(["owl", "nobody", "bat"]), remote.get_embeddings(["owl", "nobody", "bat"])
    assert list(found) == list(local)
    for id, vectors in local.items():
        assert np.array_equal(found[id], vectors)
        assert found[id].dtype == np.float32


def test_a_vector_is_searched_for(index: MuveraIndex, remote: RemoteMuveraIndex) -> None:
    vector = TextEncoder(index.encoder).encode_queries(["hunt at night"])[0]
    assert remote.search_by_vector(vector, 3) == index.search_by_vector(vector, 3)


def test_the_facts_are_those_of_the_index(index: MuveraIndex, remote: RemoteMuveraIndex) -> None:
    assert len(remote) == len(index)
    assert "owl" in remote
    assert "nobody" not in remote
    assert 3 not in remote
    assert "\ud800" not in remote
    assert remote.n_tokens == index.n_tokens
    assert remote.path is None
    for name in ("device", "token_precision", "pool_factor", "keep_tokens", "lexical", "calibration"):
        assert getattr(remote, name) == getattr(index, name), name
    assert remote.info().documents == len(index)
    assert remote.url in repr(remote)
    assert TOKEN not in repr(remote)


def test_every_document_is_iterated_over(index: MuveraIndex, remote: RemoteMuveraIndex) -> None:
    for size in (1, 2, 3, 6, 7, 1000):
        assert list(remote.iterate(batch_size=size)) == list(index.iterate())
    assert list(remote.iterate({"legs": 2}, batch_size=1)) == list(index.iterate({"legs": 2}))
    assert list(remote.iterate({"legs": 99})) == []
    with pytest.raises(InvalidInputError):
        remote.iterate({"$what": 1})  # at once, as the index itself
    with pytest.raises(InvalidInputError):
        remote.iterate(batch_size=0)


def test_documents_that_stay_are_given_while_others_come_and_go() -> None:
    with animals() as other, served(other) as remote:
        given: list[str] = []
        for document in remote.iterate(batch_size=1):
            given.append(document.id)
            if document.id == "owl":
                other.delete(["owl", "ant"])
                other.add(["Cranes dance."], ["crane"])
        assert set(given) >= {"owl", "heron", "bat", "fish", "stork"}
        assert len(given) == len(set(given))


async def test_iterating_is_awaited(url: str, index: MuveraIndex) -> None:
    async with RemoteMuveraIndex(url, token=TOKEN) as remote:
        assert [document async for document in remote.aiterate(batch_size=2)] == list(index.iterate())
        with pytest.raises(InvalidInputError, match="aiterate"):
            await remote.acall("iterate")


def test_the_encoder_encodes_at_the_service(index: MuveraIndex, remote: RemoteMuveraIndex) -> None:
    encoder = remote.encoder
    assert isinstance(encoder, TokenEncoder)
    assert not is_image_encoder(encoder)
    assert encoder.dimension == DIMENSION
    assert encoder.fingerprint == index.encoder.fingerprint
    for name in ("encode_queries", "encode_documents"):
        for texts in (["hunt at night", "x"], []):
            found, local = getattr(encoder, name)(texts), getattr(index.encoder, name)(texts)
            assert np.array_equal(found.vectors, local.vectors)
            assert np.array_equal(found.offsets, local.offsets)
    assert np.array_equal(encoder.query_spans("a bc"), index.encoder.query_spans("a bc"))
    assert np.array_equal(encoder.document_spans("a bc"), index.encoder.document_spans("a bc"))
    assert found.dimension == DIMENSION


def test_an_index_can_be_made_with_the_encoder(index: MuveraIndex, remote: RemoteMuveraIndex) -> None:
    with MuveraIndex.create(None, remote.encoder) as copy:
        copy.add(TEXTS, IDS, METADATAS)
        assert copy.search("hunt at night", 3) == index.search("hunt at night", 3)


def test_evaluation_is_done_at_the_service(index: MuveraIndex, remote: RemoteMuveraIndex) -> None:
    labels: list[Any] = [{"owl", "bat"}, {"fish": 2.0}]
    found, local = (each.evaluate(["hunt at night", "open eyes"], labels, k=2) for each in (remote, index))
    for name in ("k", "n_queries", "fidelity", "ndcg", "recall", "map", "n_bytes", "by_question", "mode"):
        assert getattr(found, name) == getattr(local, name), name
    assert found.milliseconds.keys() == local.milliseconds.keys()
    assert type(found) is type(local)
    assert str(found)


# Writes


def test_writes_do_what_they_do_to_the_index(twins: tuple[MuveraIndex, RemoteMuveraIndex]) -> None:
    def content(index: IndexCalls) -> list[Document]:
        return sorted(index.find(), key=lambda document: document.id)

    results = []
    for index in twins:
        added = index.add(iter(["Cranes dance.", "half \ud800"]), ["crane", "half"], [{"when": date(2024, 1, 2)}, None])
        embedded = index.add_embeddings(TOKENS, ids=["e1", "e2"], texts=["one", "two"], metadatas=[{"n": 1}, {"n": 2}])
        again = index.add_embeddings([TOKENS[0]], ids=["e3"])
        changed = index.update_metadata(["crane", "nobody"], {"x": datetime(2024, 1, 2, tzinfo=UTC)})
        replaced = index.update_metadata("owl", [{"only": True}], replace=True)
        deleted = index.delete(["ant", "nobody"]), index.delete(filter={"n": 2}), index.delete("e1", filter={"n": 7})
        index.set_lexical(LexicalConfig(language=None, fields=("x",)))
        results.append((added, embedded, again, changed, replaced, deleted, index.lexical, index.compact()))
    assert results[0] == results[1]
    local, remote = twins
    assert content(remote) == content(local)
    assert remote.search("cranes dance", 3) == local.search("cranes dance", 3)
    assert (remote.clear(), len(remote)) == (local.clear(), 0)


def test_ids_are_drawn_and_returned() -> None:
    with animals() as other, served(other) as remote:
        drawn = remote.add(["Cranes dance.", "Cranes fly."])
        assert [document.text for document in other.get(drawn)] == ["Cranes dance.", "Cranes fly."]
        assert remote.get(drawn) == other.get(drawn)
        assert len(remote.add_embeddings(TOKENS)) == 2


def test_a_calibration_is_learned_and_forgotten() -> None:
    def calibrated(index: IndexCalls) -> tuple[Any, ...]:
        report = index.calibrate(n_queries=20)
        hits = index.search("word3 of text4", 3)
        return report, index.calibration, hits, index.remove_calibration(), index.remove_calibration()

    texts = [f"word{i} of text{i} and more{i % 7}" for i in range(40)]
    with MuveraIndex.create(None, word_encoder()) as local, MuveraIndex.create(None, word_encoder()) as other:
        for index in (local, other):
            index.add(texts, [f"d{i}" for i in range(40)])
        with served(other) as remote:
            assert calibrated(remote) == calibrated(local)


def test_optimizing_is_done_at_the_service(twins: tuple[MuveraIndex, RemoteMuveraIndex]) -> None:
    tunings = []
    for index in twins:
        with pytest.warns(NothingToOptimizeWarning):
            tunings.append(index.optimize(0.9, ["hunt at night"], k=2))
    assert tunings[0] == tunings[1]


# Errors and warnings

WRONG: tuple[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]], ...] = (
    (InvalidInputError, "search", (5,), {}),
    (InvalidInputError, "search", ("a",), {"k": "3"}),
    (InvalidInputError, "search", ("a",), {"k": True}),
    (InvalidInputError, "search", ("a",), {"mode": "x"}),
    (InvalidInputError, "search", ("a",), {"filter": {"$what": 1}}),
    (InvalidInputError, "search", ("a",), {"min_score": float("nan")}),
    (InvalidInputError, "search", ("a",), {"ids": "owl"}),
    (TypeError, "search", ("a",), {"quer": 1}),
    (TypeError, "search", (), {}),
    (DimensionMismatchError, "search_embeddings", ([[1.0, 2.0]],), {}),
    (InvalidInputError, "search_embeddings", ([],), {}),
    (InvalidInputError, "explain", ("a", "nobody"), {}),
    (InvalidInputError, "similarity_maps", ("a", "owl"), {}),
    (InvalidInputError, "heat_map", ("a", "owl"), {}),
    (InvalidInputError, "add", ("text",), {}),
    (InvalidInputError, "add", (["a", "b"], ["x", "x"]), {}),
    (InvalidInputError, "add", (["a"], None, [{"x": object()}]), {}),
    (InvalidInputError, "add", (["a"], ["x", "y"]), {}),
    (InvalidInputError, "add_images", ([b"no image"],), {}),
    (InvalidInputError, "delete", (), {}),
    (InvalidInputError, "calibrate", (["a"],), {}),
    (InvalidInputError, "evaluate", ([],), {}),
    (InvalidInputError, "set_lexical", ("x",), {}),
    (InvalidInputError, "write_note", ("a", 3), {}),
    (InvalidInputError, "write_note", (" ", {}), {}),
    (InvalidInputError, "write_note", ("a", {"x": "y" * 20_000}), {}),
)


@pytest.mark.parametrize(("kind", "name", "arguments", "options"), WRONG)
def test_errors_are_those_of_the_index(
    index: MuveraIndex,
    remote: RemoteMuveraIndex,
    kind: type[Exception],
    name: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    with pytest.raises(kind) as local:
        getattr(index, name)(*arguments, **options)
    with pytest.raises(kind) as found:
        getattr(remote, name)(*arguments, **options)
    assert type(found.value) is type(local.value)


def test_a_service_that_only_reads_says_so(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", word_encoder()) as made:
        made.add(TEXTS, IDS)
    with MuveraIndex.open(tmp_path / "index", word_encoder(), read_only=True) as reading, served(reading) as remote:
        with pytest.raises(ReadOnlyIndexError):
            remote.add(["a"])
        assert remote.search("owl", 1) == reading.search("owl", 1)


def test_warnings_are_given_here() -> None:
    with animals() as other, served(other) as remote:
        with pytest.warns(SkippedTextWarning, match="blank") as given:
            assert remote.add(["Cranes dance.", " "], ["crane", "blank"]) == ["crane", "blank"]
        assert given[0].filename == __file__
        # Warnings are errors here. What was written is not undone by that.
        assert remote.add(["Cranes fly.", " "], ["flying", "blank"]) == ["flying", "blank"]
        assert "flying" in remote


def test_missing_shards_are_told() -> None:
    class Partial:
        def search(self, query: str) -> Hits:
            from muvera_core.encoders import warn

            warn("shard 2 does not answer", PartialResultWarning)
            return Hits([], (2,))

    with served(Partial()) as remote:
        with pytest.warns(PartialResultWarning, match="shard 2"):
            hits = remote.search("owl")
        with pytest.raises(PartialResultWarning):  # warnings are errors here, and nothing was written
            remote.search("owl")
    assert isinstance(hits, Hits)
    assert hits.missing_shards == (2,)


def test_what_cannot_be_sent_is_refused_with_advice(remote: RemoteMuveraIndex, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="clock"):
        remote.search("owl", clock=StageClock())
    with pytest.raises(InvalidInputError, match="call search"):
        remote.search_with_cross_encoder("owl", lambda pairs: [0.0] * len(pairs))
    with pytest.raises(InvalidInputError, match="there"):
        remote.copy_to(tmp_path)
    with pytest.raises(InvalidInputError, match="does not know"):
        remote.call("copy_to")


# The class


@pytest.mark.parametrize("name", sorted(name for name in dir(IndexCalls) if not name.startswith("_")))
def test_nothing_of_an_index_in_this_process_is_used(name: str) -> None:
    assert name in vars(RemoteMuveraIndex)


@pytest.mark.parametrize("name", sorted(call.name for call in CALLS.values() if call.is_method))
def test_signatures_are_those_of_the_index(name: str) -> None:
    ours, theirs = getattr(RemoteMuveraIndex, name), getattr(MuveraIndex, name)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert ours.__doc__


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": 3}, "url"),
        ({"url": "localhost:8000"}, "url"),
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://x:99999"}, "url"),
        ({"url": "http://me:secret@x"}, "url"),
        ({"url": "http://x/?a=1"}, "url"),
        ({"token": "two words"}, "token"),
        ({"token": ""}, "token"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"write_timeout": -1}, "write_timeout"),
        ({"retries": -1}, "retries"),
        ({"uds": 3}, "uds"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as error:
        RemoteMuveraIndex(**{"url": "http://127.0.0.1:1", **arguments})
    assert "two words" not in str(error.value)


def test_a_closed_index_is_not_used_and_the_service_stays_open(url: str, index: MuveraIndex) -> None:
    remote = RemoteMuveraIndex(url, token=TOKEN)
    assert len(remote) == len(index)
    remote.close()
    remote.close()
    with pytest.raises(IndexClosedError):
        len(remote)
    assert "closed" in repr(remote)
    assert len(index) == len(TEXTS)


def test_it_can_be_pickled(remote: RemoteMuveraIndex, index: MuveraIndex) -> None:
    with pickle.loads(pickle.dumps(remote)) as copy:  # noqa: S301 - our own bytes
        assert len(copy) == len(index)


def test_without_httpx_its_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = RemoteMuveraIndex("http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'muvera-core\[client\]'"):
        remote.search("owl")


def test_the_address_may_have_a_path_and_a_slash(url: str, index: MuveraIndex) -> None:
    with RemoteMuveraIndex(url + "/", token=TOKEN) as remote:
        assert len(remote) == len(index)


# Threads, event loops, processes


def test_threads_share_an_index(remote: RemoteMuveraIndex, index: MuveraIndex) -> None:
    local = index.search("hunt at night", 3)
    wrong: list[Any] = []

    def ask() -> None:
        wrong.extend(hits for hits in (remote.search("hunt at night", 3) for _ in range(5)) if hits != local)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


async def test_calls_wait_together_on_one_loop_without_threads() -> None:
    """The service answers only when all calls have arrived."""
    n, arrived = 12, threading.Barrier(12)

    class Meeting:
        def count(self) -> int:
            arrived.wait(PATIENCE)
            return 7

    app = create_app(Meeting(), ServiceSettings(n_threads=n))  # type: ignore[arg-type]
    with running(app) as url:
        async with RemoteMuveraIndex(url, timeout=PATIENCE) as remote:
            n_threads = threading.active_count()
            answers = await asyncio.gather(*(remote.acall("count") for _ in range(n)))
            # Those that are new are the service's.
            new = [thread.name for thread in threading.enumerate() if "muvera-call" not in thread.name]
            assert len(new) <= n_threads
    assert answers == [7] * n


def test_each_event_loop_has_connections_of_its_own(url: str, index: MuveraIndex) -> None:
    remote = RemoteMuveraIndex(url, token=TOKEN)

    async def ask() -> int:
        count: int = await remote.acall("count")
        await remote._connection.aclose()
        return count

    assert [asyncio.run(ask()) for _ in range(3)] == [len(index)] * 3
    assert len(remote) == len(index)
    remote.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(remote: RemoteMuveraIndex, index: MuveraIndex) -> None:
    assert len(remote) == len(index)
    mine = remote._connection._of_threads
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # whatever happens, the child must not go on with the tests
        try:
            said = [len(remote), remote._connection._of_threads is not mine]
            os.write(writing, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        assert json.load(file) == [len(index), True]
    os.waitpid(pid, 0)
    assert len(remote) == len(index)


@pytest.mark.skipif(sys.platform == "win32", reason="needs sockets of POSIX")
def test_a_service_is_reached_through_a_socket_of_the_file_system(index: MuveraIndex) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # paths of sockets must be short
        path = f"{folder}/s"
        with running(create_app(index), at=path), RemoteMuveraIndex("http://anything", uds=path) as remote:
            assert len(remote) == len(index)
