"""Empty questions, blank pages and broken characters follow one rule, wherever LangChain meets them."""

from __future__ import annotations

import datetime
import enum
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_muvera import MaxSimReranker, MuveraEmbeddings, MuveraRetriever, MuveraVectorStore, ScoredDocument
from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import SkippedTextWarning

GOOD = ["The mill grinds grain.", "The forge bends iron."]
BLANK = ["", " \n\t\x0c", "\u200b\u2060", "\ufeff", "\x01\x02\x7f", "\u202e"]
BROKEN = "half \udc00 a pair"


@pytest.fixture
def store(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    metadatas = [{"made": "flour"}, {"made": "tools"}]
    with MuveraVectorStore.from_texts(GOOD, metadatas=metadatas, ids=["mill", "forge"], encoder=encoder) as made:
        yield made


def test_blank_texts_are_skipped_and_named_and_the_others_stored(encoder: BundledEncoder, tmp_path: Path) -> None:
    documents = [Document(text, id=f"page {n}") for n, text in enumerate([GOOD[0], *BLANK, GOOD[1], BROKEN])]
    expected = ["page 0", "page 7", "page 8"]
    with pytest.warns(SkippedTextWarning, match="skipped 6 of 9 texts.*'page 1'.*'page 6'"):
        store = MuveraVectorStore.from_documents(documents, path=tmp_path, encoder=encoder)
    with store:
        assert [document.id for document in store.index.find()] == expected
        assert store.get_by_ids(["page 8"])[0].page_content == "half \ufffd a pair"
        store.clear()
        with pytest.warns(SkippedTextWarning):
            assert store.add_documents(documents) == [document.id for document in documents]
        assert store.count() == 3
        with pytest.warns(SkippedTextWarning):
            assert len(store.add_texts([*GOOD, ""])) == 3
        assert store.count() == 5


def test_only_blank_texts_make_an_empty_store(encoder: BundledEncoder) -> None:
    with pytest.warns(SkippedTextWarning):
        made = MuveraVectorStore.from_texts(BLANK, encoder=encoder)
    with made as store:
        assert store.count() == 0
        assert store.similarity_search("grain") == []
        assert store.max_marginal_relevance_search("grain") == []
        assert store.as_retriever().invoke("grain") == []


def test_the_record_manager_works_with_blank_pages(encoder: BundledEncoder) -> None:
    documents = [Document(text, metadata={"source": str(n)}) for n, text in enumerate([*GOOD, *BLANK[:2]])]
    records = InMemoryRecordManager("works")
    records.create_schema()
    settings: dict[str, Any] = {"cleanup": "incremental", "source_id_key": "source", "key_encoder": "sha256"}
    with MuveraVectorStore(MuveraIndex.create(None, encoder)) as store:
        with pytest.warns(SkippedTextWarning):
            assert index(documents, records, store, **settings)["num_added"] == 4
        assert store.count() == 2
        assert index(documents, records, store, **settings)["num_skipped"] == 4
        changed = [Document("Now it has text.", metadata={"source": "2"})]
        assert index(changed, records, store, **settings) == {
            "num_added": 1, "num_updated": 0, "num_skipped": 0, "num_deleted": 1
        }  # fmt: skip
        assert store.count() == 3


@pytest.mark.parametrize("question", ["", " ", "\u200b", "\x00"])
async def test_an_empty_question_finds_what_the_filter_admits_and_else_nothing(
    question: str, store: MuveraVectorStore
) -> None:
    retriever = MuveraRetriever(index=store.index)
    assert store.similarity_search(question) == store.max_marginal_relevance_search(question) == []
    assert retriever.invoke(question) == await retriever.ainvoke(question) == []
    assert store.as_retriever().invoke(question) == []
    all_of_them: dict[str, Any] = {"made": {"$exists": True}}
    with_score = store.similarity_search_with_score(question, filter=all_of_them)
    for found in (
        store.similarity_search(question, filter=all_of_them),
        [document for document, score in with_score if score == 0],
        store.max_marginal_relevance_search(question, filter=all_of_them),
        store.similarity_search(question, ids=["forge", "mill"]),
        retriever.invoke(question, filter=all_of_them),
        store.as_retriever(search_kwargs={"filter": all_of_them}).invoke(question),
    ):
        assert [document.id for document in found] == ["mill", "forge"]
        assert all(isinstance(document, ScoredDocument) and document.score == 0 for document in found)
    assert [document.id for document in store.similarity_search(question, k=1, filter=all_of_them)] == ["mill"]


def test_half_of_a_surrogate_pair_in_a_question_is_replaced(store: MuveraVectorStore) -> None:
    for search in (store.similarity_search, store.max_marginal_relevance_search, store.as_retriever().invoke):
        assert search("Who bends \udfff iron?")[0].id == "forge"


@pytest.mark.parametrize("question", ["", "\u200b", "Who bends iron?", "Who \ud800 bends iron?"])
def test_the_reranker_takes_any_question_and_any_text(question: str, encoder: BundledEncoder) -> None:
    documents = [Document(text) for text in [*BLANK, GOOD[0], BROKEN, GOOD[1]]]
    reranked = MaxSimReranker(encoder=encoder, top_n=None).compress_documents(documents, question)
    assert len(reranked) == len(documents)
    if "iron" in question:
        assert reranked[0].page_content == GOOD[1]
        assert [document.score for document in reranked[3:]] == [0] * len(BLANK)
    else:
        assert reranked == documents
        assert {document.normalized_score for document in reranked} == {0}


def test_embeddings_give_every_text_a_vector(encoder: BundledEncoder) -> None:
    embeddings = MuveraEmbeddings(encoder)
    vectors = np.array(embeddings.embed_documents([*GOOD, *BLANK, BROKEN]))
    assert vectors.shape == (len(GOOD) + len(BLANK) + 1, embeddings.dimension)
    assert np.isfinite(vectors).all()
    assert all(np.isfinite(embeddings.embed_query(question)).all() for question in [*BLANK, BROKEN])
    other = InMemoryVectorStore(embeddings)
    other.add_texts([*GOOD, "", BROKEN])
    assert other.similarity_search("Who bends iron?", k=1)[0].page_content == GOOD[1]


class Craft(enum.Enum):
    MILLING = "milling"


def test_metadata_as_loaders_make_it_is_stored_and_found(encoder: BundledEncoder) -> None:
    metadata = {
        "when": datetime.datetime(2024, 3, 1, 12), "day": datetime.date(2024, 3, 1), "pages": np.int64(3),
        "share": np.float32(0.5), "missing": float("nan"), "tags": ("old", "stone"), "path": PurePosixPath("a/b.pdf"),
        "key": uuid.UUID(int=7), "craft": Craft.MILLING, "parts": {1: np.array([1, 2])},
    }  # fmt: skip
    given = dict(metadata)
    with MuveraVectorStore.from_documents([Document(GOOD[0], id="mill", metadata=metadata)], encoder=encoder) as store:
        found = store.similarity_search("grain")[0]
        assert found.metadata == {
            "when": "2024-03-01T12:00:00", "day": "2024-03-01", "pages": 3, "share": 0.5, "missing": None,
            "tags": ["old", "stone"], "path": "a/b.pdf", "key": str(uuid.UUID(int=7)), "craft": "milling",
            "parts": {"1": [1, 2]},
        }  # fmt: skip
        for name in ("when", "day", "pages", "key", "craft", "path"):
            assert store.similarity_search("grain", filter={name: metadata[name]}) == [found], name
    assert metadata.keys() == given.keys()
    assert all(metadata[name] is given[name] for name in given)


def test_a_data_frame_becomes_documents(encoder: BundledEncoder) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas isn't installed")
    frame = pandas.DataFrame({"text": GOOD, "n": [1, None], "when": pandas.to_datetime(["2024-01-01", None])})
    documents = [Document(row.pop("text"), metadata=row) for row in frame.to_dict("records")]
    with MuveraVectorStore.from_documents(documents, encoder=encoder) as store:
        metadatas = [document.metadata for document in store.index.find()]
    assert metadatas == [{"n": 1, "when": "2024-01-01T00:00:00"}, {"n": None, "when": None}]


def test_nothing_warns_about_ordinary_input(store: MuveraVectorStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.add_texts(["Bakers bake bread.", "¿Qué?", "-----"])
        store.similarity_search("bread?")
