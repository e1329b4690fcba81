"""Making, opening and persisting: nothing is left half-made, readers share a folder, and a persisted folder loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.retrievers.muvera import MuveraRetriever, MuveraVectorStore, NoEmbedding

from muvera_core import FDEConfig, MuveraIndex, TokenEmbeddings, TokenEncoder
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import (
    IndexExistsError,
    IndexLockedError,
    InvalidInputError,
    NotAnIndexError,
    ReadOnlyIndexError,
    StorageError,
)

NODES = [TextNode(id_="heron", text="herons wait"), TextNode(id_="otter", text="otters swim")]


class Failing:
    """An encoder whose second batch fails."""

    def __init__(self, encoder: TokenEncoder) -> None:
        self.dimension, self.fingerprint = encoder.dimension, encoder.fingerprint
        self.encode_queries, self.document_spans = encoder.encode_queries, encoder.document_spans
        self.query_spans, self._encode, self._calls = encoder.query_spans, encoder.encode_documents, 0

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        self._calls += 1
        if self._calls > 1:
            raise RuntimeError("out of memory")
        return self._encode(texts)


MANY = [TextNode(id_=str(i), text=f"note {i}") for i in range(65)]
FAILURES: dict[str, Callable[[TokenEncoder], dict[str, Any]]] = {
    "encoder": lambda words: {"nodes": MANY, "encoder": Failing(words)},
    "node": lambda words: {"nodes": [TextNode(text="a", metadata={"_llama_index": 1})], "encoder": words},
    "name": lambda words: {"nodes": NODES, "encoder": words, "top_k": 1},
    "value": lambda words: {"nodes": NODES, "encoder": words, "similarity_top_k": 0},
}


@pytest.mark.parametrize("there", [False, True], ids=["new folder", "empty folder"])
@pytest.mark.parametrize("case", list(FAILURES))
def test_a_retriever_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, words: TokenEncoder, case: str, there: bool
) -> None:
    folder = tmp_path / "index"
    if there:
        folder.mkdir()
    with pytest.raises((InvalidInputError, RuntimeError)):
        MuveraRetriever.from_nodes(persist_dir=folder, **FAILURES[case](words))
    assert list(folder.iterdir()) == [] if there else not folder.exists()
    retriever = MuveraRetriever.from_nodes(NODES, persist_dir=folder, encoder=words, similarity_top_k=1)
    assert [node.node_id for node in retriever.retrieve("swim")] == ["otter"]
    retriever.index.close()


def test_documents_that_cannot_be_indexed_leave_nothing(tmp_path: Path, words: TokenEncoder) -> None:
    documents = [Document(text="otters swim", metadata={"_llama_index": 1})]
    with pytest.raises(InvalidInputError, match="reserved"):
        MuveraRetriever.from_documents(documents, persist_dir=tmp_path / "index", encoder=words, transformations=[])
    assert not (tmp_path / "index").exists()


def test_settings_of_a_new_index_are_passed_on(words: TokenEncoder) -> None:
    fde = FDEConfig(dimension=words.dimension, num_repetitions=3)
    retriever = MuveraRetriever.from_nodes(NODES, encoder=words, fde=fde, pool_factor=2, token_precision="4bit")
    assert (retriever.index.pool_factor, retriever.index.token_precision) == (2, "4bit")
    retriever.index.close()


# Opening


@pytest.fixture
def folder(tmp_path: Path, words: TokenEncoder) -> Path:
    with MuveraVectorStore.open_or_create(tmp_path / "index", words).client as index:
        MuveraVectorStore(index).add(NODES)
    return tmp_path / "index"


def test_retrievers_of_several_workers_share_a_folder_with_a_writer(folder: Path, words: TokenEncoder) -> None:
    store = MuveraVectorStore.open_or_create(folder, words)
    retrievers = [MuveraRetriever.from_persist_dir(folder, encoder=words, refresh_interval=0) for _ in range(2)]
    store.add([TextNode(id_="camel", text="camels rest")])
    for retriever in retrievers:
        retriever.similarity_top_k = 1
        assert [node.node_id for node in retriever.retrieve("camels")] == ["camel"]
        with pytest.raises(ReadOnlyIndexError):
            retriever.index.add(["more"])
        retriever.index.close()
    never = MuveraVectorStore.from_persist_dir(folder, encoder=words, read_only=True, refresh_interval=None)
    store.delete_nodes(["camel"])
    assert never.count() == 3
    never.client.close()
    with pytest.raises(IndexLockedError):
        MuveraRetriever.from_persist_dir(folder, encoder=words, read_only=False)
    store.client.close()


def test_a_retriever_can_be_opened_for_writing(folder: Path, words: TokenEncoder) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = [
        (MuveraRetriever.from_persist_dir, {"read_only": False}),
        (MuveraRetriever.open_or_create, {}),
    ]
    for call, options in calls:
        retriever = call(folder, encoder=words, **options)
        MuveraVectorStore(retriever.index).add([TextNode(id_="camel", text="camels rest")])
        retriever.index.close()


@pytest.mark.parametrize("open_retriever", [MuveraRetriever.from_persist_dir, MuveraRetriever.open_or_create])
def test_a_retriever_that_cannot_be_opened_holds_no_lock(
    folder: Path, words: TokenEncoder, open_retriever: Callable[..., MuveraRetriever]
) -> None:
    caught = []
    for wrong in ({"top_k": 1}, {"similarity_top_k": 0}, {"filters": 3}):
        with pytest.raises(InvalidInputError) as error:
            open_retriever(folder, encoder=words, **wrong)
        caught.append(error)  # a traceback keeps what its functions hold
    MuveraVectorStore.open_or_create(folder, words).client.close()


@pytest.mark.parametrize("kind", [MuveraVectorStore, MuveraRetriever])
def test_the_same_call_opens_or_creates(tmp_path: Path, words: TokenEncoder, kind: Any) -> None:
    for seen in (0, 2):
        opened = kind.open_or_create(tmp_path / "new" / "index", words)
        index = opened.client if kind is MuveraVectorStore else opened.index
        assert len(index) == seen
        MuveraVectorStore(index).add(NODES)
        index.close()
    for other in ({"fde": FDEConfig(dimension=words.dimension, seed=3)}, {"pool_factor": 3}):
        with pytest.raises(InvalidInputError, match="cannot be changed"):
            kind.open_or_create(tmp_path / "new" / "index", words, **other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(IndexExistsError):
        kind.open_or_create(tmp_path / "mine", words)


def test_a_home_folder_is_understood(tmp_path: Path, words: TokenEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = MuveraVectorStore.open_or_create("~/storage/index", words)
    store.persist("~/storage/default__vector_store.json")
    assert store.client.path == tmp_path / "storage" / "index"
    store.client.close()
    MuveraRetriever.from_persist_dir("~/storage", encoder=words).index.close()


# Persisting


@pytest.fixture
def persisted(tmp_path: Path, words: TokenEncoder) -> str:
    """A storage context that was persisted beside its index."""
    storage = tmp_path / "storage"
    store = MuveraVectorStore.open_or_create(storage / "muvera", words)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex([], storage_context=context, embed_model=NoEmbedding())
    index.insert(Document(id_="otter", text="otters swim"))
    index.storage_context.persist(str(storage))
    store.client.close()
    return str(storage)


def test_a_persisted_folder_loads_with_its_store(persisted: str, words: TokenEncoder) -> None:
    store = MuveraVectorStore.from_persist_dir(persisted, encoder=words)
    for context in (
        StorageContext.from_defaults(vector_store=store, persist_dir=persisted),
        StorageContext.from_defaults(vector_stores={"default": store}, persist_dir=persisted),
    ):
        index = load_index_from_storage(context, embed_model=NoEmbedding())
        assert [node.text for node in index.as_retriever().retrieve("swim")] == ["otters swim"]
    store.client.close()
    again = MuveraVectorStore.open_or_create(persisted, words)  # follows the pointer, too
    assert again.count() == 1
    again.client.close()


def test_a_persisted_folder_without_its_store_says_how_to_load_it(persisted: str) -> None:
    for load in (
        lambda: StorageContext.from_defaults(persist_dir=persisted),
        lambda: SimpleVectorStore.from_persist_dir(persisted),
    ):
        with pytest.raises(ValueError, match=r"vector_store=MuveraVectorStore\.from_persist_dir\(persist_dir\)"):
            load()


def test_a_store_in_the_persisted_folder_itself(tmp_path: Path, words: TokenEncoder) -> None:
    for n in (1, 2):
        store = MuveraVectorStore.open_or_create(tmp_path / "storage", words)
        context = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex([], storage_context=context, embed_model=NoEmbedding())
        index.insert_nodes([TextNode(id_=str(n), text="otters swim")])
        index.storage_context.persist(str(tmp_path / "storage"))
        assert store.count() == n
        store.client.close()


def test_llama_indexs_own_store_that_was_replaced_is_not_loaded(tmp_path: Path, words: TokenEncoder) -> None:
    StorageContext.from_defaults().persist(str(tmp_path))
    assert StorageContext.from_defaults(persist_dir=str(tmp_path)).vector_store is not None
    with MuveraVectorStore.open_or_create(tmp_path / "muvera", words).client as index:
        StorageContext.from_defaults(vector_store=MuveraVectorStore(index)).persist(str(tmp_path))
    with pytest.raises(ValueError, match="MuveraVectorStore"):
        StorageContext.from_defaults(persist_dir=str(tmp_path))


def test_a_store_beside_llama_indexs_own_leaves_that_loadable(tmp_path: Path, words: TokenEncoder) -> None:
    context = StorageContext.from_defaults()
    with MuveraVectorStore.open_or_create(tmp_path / "muvera", words).client as index:
        context.add_vector_store(MuveraVectorStore(index), "passages")
        context.persist(str(tmp_path))
    loaded = StorageContext.from_defaults(persist_dir=str(tmp_path))
    assert set(loaded.vector_stores) == {"default", "image"}
    store = MuveraVectorStore.from_persist_dir(tmp_path, "passages", words)
    loaded.add_vector_store(store, "passages")
    store.client.close()
    with pytest.raises(NotAnIndexError):
        MuveraVectorStore.from_persist_dir(tmp_path, encoder=words)


def test_an_index_in_memory_that_cannot_be_persisted_leaves_no_copy(tmp_path: Path, store: MuveraVectorStore) -> None:
    store.add(NODES)
    (tmp_path / "default__muvera.json").mkdir()  # in the pointer's place
    with pytest.raises(StorageError):
        store.persist(str(tmp_path / "default__vector_store.json"))
    assert list(tmp_path.glob("*muvera-*")) == []


@pytest.mark.parametrize("kind", [MuveraVectorStore, MuveraRetriever])
def test_opened_without_an_encoder_an_index_keeps_its_dimension(kind: Any, tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", BundledEncoder(dimension=64)) as index:
        index.add(["Owls hunt at night."], ids=["owl"])
    opened = kind.from_persist_dir(tmp_path / "index")
    index = opened.client if kind is MuveraVectorStore else opened.index
    assert index.encoder.dimension == 64
    index.close()
