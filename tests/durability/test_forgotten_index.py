"""An index that is not closed lets go of its folder when nothing refers to it, without the garbage collector."""

from __future__ import annotations

import gc
import logging
import sqlite3
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from reference_model import ENCODER, QUESTIONS, ReferenceModel, add_to, create, model_document, search_exactly

from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import MuveraError
from muvera_core.stage_one import StageOne, stage_one
from muvera_core.tuning import optimizing

DOCUMENTS = [model_document(f"d{i}", i, {"group": i % 4, "name": f"name {i}"}) for i in range(30)]
LATER = [model_document("later", 100)]
MODEL = ReferenceModel().with_documents(DOCUMENTS)


@pytest.fixture(autouse=True)
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with create(tmp_path / "index") as index:
        add_to(index, DOCUMENTS)
    return tmp_path / "index"


def fail_to_add(index: MuveraIndex) -> None:
    with pytest.raises(RuntimeError, match="the encoder failed"):
        index.add(["fail"])


def fail_to_filter(index: MuveraIndex) -> None:
    with pytest.raises(MuveraError):
        index.find({"$none": 1})


def fail_after_the_commit(index: MuveraIndex) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageOne, "compact", lambda *_, **__: [][0])
        index.delete("d0")


USES: dict[str, Callable[[MuveraIndex], object]] = {
    "nothing": lambda index: None,
    "len": len,
    "search": lambda index: index.search_embeddings(QUESTIONS[0]),
    "search a batch": lambda index: index.search_embeddings_batch(QUESTIONS, n_candidates=5, k=2),
    "filter": lambda index: index.search_embeddings(QUESTIONS[0], filter={"name": {"$ilike": "%1%"}}),
    "explain the plan": lambda index: index.find({"group": {"$gte": 1}}),
    "iterate in part": lambda index: next(iter(index.iterate(batch_size=5))),
    "get": lambda index: index.get(["d1", "none"]),
    "add": lambda index: add_to(index, LATER),
    "delete": lambda index: index.delete(filter={"group": 1}),
    "compact": lambda index: index.compact(),
    "optimize": lambda index: index.optimize(0.5, n_queries=10, k=3),
    "copy": lambda index: index.copy_to(f"{index.path}-{uuid4().hex}"),
    "fail to add": fail_to_add,
    "fail to filter": fail_to_filter,
    "fail after a commit": fail_after_the_commit,
}


def use(folder: Path, call: Callable[[MuveraIndex], object], **options: Any) -> list[weakref.ref[Any]]:
    """Open the index, use it, and forget it. Returns weak references to its parts."""
    index = MuveraIndex.open(folder, ENCODER, **options)
    call(index)
    collection = index.engine.collection
    return [weakref.ref(part) for part in (index, collection, collection.store, collection.stage_one)]


@pytest.mark.parametrize(
    ("call", "flat_limit"),
    [(call, stage_one.FLAT_LIMIT) for call in USES] + [(call, 10) for call in ("search", "add", "delete", "compact")],
)
def test_a_forgotten_index_frees_its_folder_at_once(
    call: str, flat_limit: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_one, "FLAT_LIMIT", flat_limit)
    monkeypatch.setattr(optimizing, "_reranks_all", lambda *_: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert [part() for part in use(folder, USES[call])] == [None] * 4
    MuveraIndex.open(folder, ENCODER).close()


@pytest.mark.parametrize("call", ["search", "filter", "iterate in part", "copy"])
def test_a_forgotten_reader_is_gone_at_once(call: str, folder: Path) -> None:
    assert [part() for part in use(folder, USES[call], read_only=True)] == [None] * 4


def test_a_forgotten_index_keeps_its_documents(folder: Path) -> None:
    use(folder, lambda index: add_to(index, LATER))
    use(folder, lambda index: index.delete(["d1", "d2"]))
    with MuveraIndex.open(folder, ENCODER) as index:
        assert search_exactly(index)(MODEL.with_documents(LATER).without(["d1", "d2"]))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_forgotten_index_closes_its_database(read_only: bool, folder: Path) -> None:
    connections: list[sqlite3.Connection] = []
    use(folder, lambda index: connections.extend(index.engine.collection.store._connections), read_only=read_only)
    assert len(connections) == 2
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            connection.execute("SELECT 1")


def test_a_log_that_keeps_its_records_does_not_keep_the_index(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert [part() for part in use(folder, fail_after_the_commit)] == [None] * 4
    assert "IndexError" in caplog.text


def test_a_new_index_that_is_forgotten_frees_its_folder(tmp_path: Path) -> None:
    def make() -> None:
        add_to(create(tmp_path / "new"), DOCUMENTS)

    make()
    with MuveraIndex.open(tmp_path / "new", ENCODER) as index:
        assert search_exactly(index)(MODEL)


def test_an_opening_that_failed_frees_the_folder(folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(MuveraError):
            MuveraIndex.open(folder)  # of another encoder
    MuveraIndex.open(folder, ENCODER).close()


def langchain_store(path: Path) -> str:
    from langchain_muvera import MuveraVectorStore

    return str(MuveraVectorStore.load(str(path)).similarity_search("owl", k=1)[0].page_content)


def langchain_retriever(path: Path) -> str:
    from langchain_muvera import MuveraVectorStore

    return str(MuveraVectorStore.load(str(path)).as_retriever(search_kwargs={"k": 1}).invoke("owl")[0].page_content)


def llama_index_retriever(path: Path) -> str:
    from llama_index.retrievers.muvera import MuveraRetriever

    return str(MuveraRetriever.from_persist_dir(str(path)).retrieve("owl")[0].text)


@pytest.mark.parametrize("ask", [langchain_store, langchain_retriever, llama_index_retriever])
def test_a_framework_s_object_that_is_forgotten_frees_its_folder(
    ask: Callable[[Path], str], tmp_path: Path, encoder: BundledEncoder
) -> None:
    pytest.importorskip("langchain_core" if "langchain" in ask.__name__ else "llama_index.core")
    with MuveraIndex.create(tmp_path / "index", encoder) as index:
        index.add(["Owls hunt at night.", "Ants live in colonies."])
    for _ in range(3):
        assert ask(tmp_path / "index") == "Owls hunt at night."
