"""Documents of RAGatouille, LlamaIndex and LangChain, and how a source is recognized.

LlamaIndex and LangChain write their files here. RAGatouille cannot be installed beside them: its files are written
by hand, as its source code (models/colbert.py, 2024 to 2025) writes them.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from muvera_core.errors import InvalidInputError
from muvera_core.hits import Document
from muvera_core.imports import (
    BadRecord,
    find_source,
    read_langchain,
    read_llama_index,
    read_ragatouille,
    read_source,
)

TEXTS = ["Owls hunt at night.", "Their flight is silent.", "Ants live in colonies."]


def write_ragatouille(
    folder: Path, texts: Any = TEXTS, ids: Any = ("birds", "birds", "ants"), metadatas: Any = None
) -> Path:
    """An index of RAGatouille, without the files of colbert-ai, which hold its vectors."""
    folder.mkdir(parents=True)
    by_number = ids if isinstance(ids, dict) else {str(number): id for number, id in enumerate(ids)}
    (folder / "collection.json").write_text(json.dumps(texts))
    (folder / "pid_docid_map.json").write_text(json.dumps(by_number))
    if metadatas is not None:
        (folder / "docid_metadata_map.json").write_text(json.dumps(metadatas))
    (folder / "plan.json").write_text("{}")
    return folder


def persist_llama_index(folder: Path, *, whole_documents: bool) -> Path:
    """A storage folder with two nodes of a document, and, as an ingestion pipeline leaves it, the document itself."""
    core = pytest.importorskip("llama_index.core", reason="needs llama-index-core")
    schema = pytest.importorskip("llama_index.core.schema", reason="needs llama-index-core")
    context = core.StorageContext.from_defaults()
    document = core.Document(id_="birds", text=" ".join(TEXTS[:2]), metadata={"year": 2020})
    nodes = [schema.TextNode(id_=f"node-{i}", text=text, metadata={"year": 2020}) for i, text in enumerate(TEXTS[:2])]
    for node in nodes:
        node.relationships = {schema.NodeRelationship.SOURCE: document.as_related_node_info()}
    ants = core.Document(id_="ants", text=TEXTS[2], metadata={"year": 2021})
    context.docstore.add_documents([*([document] if whole_documents else []), *nodes, ants])
    context.docstore.add_documents([schema.ImageNode(id_="page", image_path="page.png")])
    context.persist(str(folder))
    return folder


# RAGatouille


def test_the_texts_of_a_split_document_are_numbered(tmp_path: Path) -> None:
    folder = write_ragatouille(tmp_path / "index", metadatas={"birds": {"year": 2020}, "ants": None})
    assert list(read_ragatouille(folder)) == [
        Document("birds#1", TEXTS[0], {"document": "birds", "position": 1, "year": 2020}),
        Document("birds#2", TEXTS[1], {"document": "birds", "position": 2, "year": 2020}),
        Document("ants", TEXTS[2], {}),
    ]


def test_ids_follow_their_texts_after_ragatouille_deleted_some(tmp_path: Path) -> None:
    # delete_from_index closes the gap in the list of texts, and leaves it in the numbers of the map.
    folder = write_ragatouille(tmp_path / "index", TEXTS[1:], {"10": "ants", "2": "birds"})
    assert [record.id for record in read_ragatouille(folder) if isinstance(record, Document)] == ["birds", "ants"]


def test_texts_and_ids_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    folder = write_ragatouille(tmp_path / "index", ids=["birds"])
    with pytest.raises(InvalidInputError, match=r"has 3 texts, but pid_docid_map.json has 1 id"):
        read_ragatouille(folder)


def test_a_bad_text_is_named(tmp_path: Path) -> None:
    folder = write_ragatouille(
        tmp_path / "index", ["Owls.", " ", 7, "Ants."], ["a", "b", "c", ""], {"a": {"year": 2020}}
    )
    assert [str(record) for record in list(read_ragatouille(folder))[1:]] == [
        "text 1: its text is empty",
        "text 2: its text must be a string, got 7",
        "text 3: its id is empty, so nothing can match it: leave it out",
    ]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("collection.json", "{}", "must hold a JSON list of texts"),
        ("collection.json", "[", "cannot be read"),
        ("pid_docid_map.json", '{"first": "a"}', "must have the numbers of texts as keys, got 'first'"),
        ("pid_docid_map.json", "[]", "must hold the ids of documents"),
        ("docid_metadata_map.json", "[]", "must hold metadata by document"),
    ],
)
def test_damaged_files_of_ragatouille_are_refused(tmp_path: Path, name: str, content: str, expected: str) -> None:
    folder = write_ragatouille(tmp_path / "index")
    (folder / name).write_text(content)
    with pytest.raises(InvalidInputError, match=f"{name} {expected}"):
        read_ragatouille(folder)


# LlamaIndex


@pytest.mark.parametrize("whole_documents", [True, False])
def test_nodes_are_read_and_documents_are_not_read_twice(tmp_path: Path, whole_documents: bool) -> None:
    folder = persist_llama_index(tmp_path / "storage", whole_documents=whole_documents)
    records = list(read_llama_index(folder))
    assert records == [
        Document("node-0", TEXTS[0], {"document": "birds", "year": 2020}),
        Document("node-1", TEXTS[1], {"document": "birds", "year": 2020}),
        Document("ants", TEXTS[2], {"year": 2021}),
        BadRecord("page", "it is an image without a text: add images with MuveraIndex.add_images"),
    ]
    assert list(read_llama_index(folder / "docstore.json")) == records


def test_a_docstore_without_nodes_is_refused(tmp_path: Path) -> None:
    core = pytest.importorskip("llama_index.core", reason="needs llama-index-core")
    core.StorageContext.from_defaults().persist(str(tmp_path))
    with pytest.raises(InvalidInputError, match=r"if its vector store keeps texts itself"):
        read_llama_index(tmp_path)


def test_damaged_nodes_are_named(tmp_path: Path) -> None:
    nodes = {"a": 1, "b": {"__data__": []}, "c": {"__data__": {"text": "Owls.", "relationships": [], "metadata": 3}}}
    (tmp_path / "docstore.json").write_text(json.dumps({"docstore/data": nodes}))
    assert [str(record) for record in read_llama_index(tmp_path)] == [
        "a: it is no node of LlamaIndex, got 1",
        "b: it is no node of LlamaIndex, got {'__data__': []}",
        "c: its metadata must be a JSON object, got 3",
    ]


# LangChain


def test_a_dump_of_the_store_in_memory_is_read(tmp_path: Path) -> None:
    vectorstores = pytest.importorskip("langchain_core.vectorstores", reason="needs langchain-core")
    embeddings = pytest.importorskip("langchain_core.embeddings", reason="needs langchain-core")
    store = vectorstores.InMemoryVectorStore(embeddings.DeterministicFakeEmbedding(size=3))
    store.add_texts(TEXTS[:2], [{"year": 2020}, {}], ids=["owl", "flight"])
    store.dump(str(tmp_path / "store.json"))
    expected = [Document("owl", TEXTS[0], {"year": 2020}), Document("flight", TEXTS[1], {})]
    assert list(read_source(tmp_path / "store.json")) == expected


@pytest.mark.parametrize("dumped", ["model_dump", "dumpd"])
def test_a_list_of_documents_is_read(tmp_path: Path, dumped: str) -> None:
    documents = pytest.importorskip("langchain_core.documents", reason="needs langchain-core")
    load = pytest.importorskip("langchain_core.load", reason="needs langchain-core")
    given = [
        documents.Document(TEXTS[0], id="owl", metadata={"year": 2020}),
        documents.Document(TEXTS[1]),
    ]
    listed = load.dumpd(given) if dumped == "dumpd" else [document.model_dump() for document in given]
    (tmp_path / "list.json").write_text(json.dumps([*listed, {"page_content": None}, 3, {"kwargs": 1}]))
    assert list(read_langchain(tmp_path / "list.json")) == [
        Document("owl", TEXTS[0], {"year": 2020}),
        Document("list.json#2", TEXTS[1], {}),
        BadRecord("list.json#3", "its text must be a string, got None"),
        BadRecord("list.json#4", "it is no document of LangChain, got 3"),
        BadRecord("list.json#5", "it is no document of LangChain, got {'kwargs': 1}"),
    ]


# Any source


def test_each_format_is_recognized_by_its_files(tmp_path: Path) -> None:
    index = write_ragatouille(tmp_path / "rag" / "colbert" / "indexes" / "notes")
    assert find_source(index).format == "ragatouille"
    assert find_source(tmp_path / "rag").path == index  # as `.ragatouille`
    assert find_source(tmp_path / "rag", "ragatouille").path == index
    llama = tmp_path / "storage"
    llama.mkdir()
    (llama / "docstore.json").write_text('{"docstore/data": {}}')
    assert find_source(llama).format == find_source(llama / "docstore.json").format == "llama-index"
    (tmp_path / "other.json").write_text('{"docstore/data": {}}')
    assert find_source(tmp_path / "other.json").format == "llama-index"
    (tmp_path / "list.json").write_text("[]")
    assert find_source(tmp_path / "list.json").format == "langchain"
    (tmp_path / "list.json").replace(tmp_path / "list.txt")
    assert find_source(tmp_path / "list.txt", "langchain").format == "langchain"
    with pytest.raises(InvalidInputError, match=r"holds several sources.*notes \(ragatouille\).*\(llama-index\)"):
        find_source(tmp_path)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize("given", ["folder", "file"])
def test_pickles_are_refused_with_advice_and_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "index.faiss").touch()
    (tmp_path / "index.pkl").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(InvalidInputError, match=r"reading one runs whatever code is in it.*model_dump"):
        find_source(tmp_path if given == "folder" else tmp_path / "index.pkl")
    assert not Path("unpickled").exists()


def test_an_index_of_colbert_ai_has_no_texts(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"is an index of colbert-ai, which holds no texts"):
        find_source(tmp_path)


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"does not exist"):
        find_source(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match=r"holds nothing that is known: expected a folder with collection.json"):
        find_source(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InvalidInputError, match=r"notes.txt is of no known type.*`muvera index` reads other files"):
        find_source(tmp_path / "notes.txt")
    with pytest.raises(InvalidInputError, match=r"format must be one of 'ragatouille'"):
        find_source(tmp_path, "faiss")  # type: ignore[arg-type]


def test_only_chroma_has_collections(tmp_path: Path) -> None:
    folder = write_ragatouille(tmp_path / "index")
    with pytest.raises(InvalidInputError, match=r"is of format ragatouille, which has no collections"):
        read_source(folder, collection="notes")
