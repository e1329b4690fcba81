"""Scores travel with a document, and do not make the same document another one."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.language_models import FakeListLLM
from langchain_core.load import dumpd, dumps, load
from langchain_core.prompts import PromptTemplate, format_document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel

from langchain_muvera import MaxSimReranker, MuveraEmbeddings, MuveraRetriever, MuveraVectorStore, ScoredDocument
from muvera_core.encoders import BundledEncoder

FOXES = ["Foxes den in the ground.", "Cranes migrate to the south.", "Beavers build dams.", "Geese fly in a wedge."]
QUESTIONS = ["who flies south?", "which birds migrate?", "how do geese fly?"]


@pytest.fixture
def store(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    ids, metadatas = ["fox", "crane", "beaver", "goose"], [{"n": n, "tags": ["a", n]} for n in range(4)]
    with MuveraVectorStore.from_texts(FOXES, metadatas=metadatas, ids=ids, encoder=encoder) as made:
        yield made


def scored() -> ScoredDocument:
    return ScoredDocument("Foxes den.", id="fox", metadata={"n": [1]}, score=7.5, normalized_score=0.75)


def plain() -> Document:
    return Document("Foxes den.", id="fox", metadata={"n": [1]})


def pickled(document: ScoredDocument) -> ScoredDocument:
    copied: ScoredDocument = pickle.loads(pickle.dumps(document))  # noqa: S301
    return copied


def ways_of_asking(store: MuveraVectorStore) -> dict[str, Callable[[str], list[Document]]]:
    reranker = MaxSimReranker(encoder=store.index.encoder, top_n=None)
    stored = store.get_by_ids(["fox", "crane", "beaver", "goose"])
    return {
        "MuveraRetriever": MuveraRetriever(index=store.index).invoke,
        "as_retriever": store.as_retriever().invoke,
        "as_retriever with a threshold": store.as_retriever(
            search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.0}
        ).invoke,
        "as_retriever by marginal relevance": store.as_retriever(search_type="mmr").invoke,
        "similarity_search": store.similarity_search,
        "with_score": lambda question: [document for document, _ in store.similarity_search_with_score(question)],
        "max_marginal_relevance_search": store.max_marginal_relevance_search,
        "MaxSimReranker": lambda question: list(reranker.compress_documents(stored, question)),
    }


def test_a_document_is_the_same_whatever_was_asked_and_however(store: MuveraVectorStore) -> None:
    stored = {document.id: document for document in store.get_by_ids(["fox", "crane", "beaver", "goose"])}
    for way, ask in ways_of_asking(store).items():
        for question in QUESTIONS:
            found = ask(question)
            assert len(found) == 4, way
            for document in found:
                assert isinstance(document, ScoredDocument), way
                assert document == stored[document.id]
                assert stored[document.id] == document
                assert document.metadata == stored[document.id].metadata


def test_all_searches_give_the_scores_of_the_index(store: MuveraVectorStore) -> None:
    for question in QUESTIONS:
        hits = {hit.id: (hit.score, hit.normalized_score) for hit in store.index.search(question)}
        for way, ask in ways_of_asking(store).items():
            got = {document.id: document for document in ask(question) if isinstance(document, ScoredDocument)}
            for id, (score, normalized_score) in hits.items():
                # The reranker scores texts as they are, the index tokens as they are stored, in 8 bits.
                assert got[id].score == pytest.approx(score, abs=0.1 if way == "MaxSimReranker" else 1e-4)
                assert got[id].normalized_score == pytest.approx(normalized_score, abs=0.01)


@pytest.mark.parametrize("kind", ["MuveraRetriever", "as_retriever", "compression"])
def test_several_phrasings_give_the_union_without_duplicates(kind: str, store: MuveraVectorStore) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers", reason="langchain-classic isn't installed")
    retriever: BaseRetriever = {
        "MuveraRetriever": MuveraRetriever(index=store.index, k=2),
        "as_retriever": store.as_retriever(search_kwargs={"k": 2}),
        "compression": retrievers.ContextualCompressionRetriever(
            base_compressor=MaxSimReranker(encoder=store.index.encoder, top_n=2), base_retriever=store.as_retriever()
        ),
    }[kind]
    model = FakeListLLM(responses=["\n".join(QUESTIONS)])
    found = retrievers.MultiQueryRetriever.from_llm(retriever=retriever, llm=model).invoke("birds")
    expected = {document.id for question in QUESTIONS for document in retriever.invoke(question)}
    assert sorted(document.id for document in found) == sorted(map(str, expected))


def test_fused_retrievers_agree_on_what_is_one_document(store: MuveraVectorStore) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers", reason="langchain-classic isn't installed")
    parts = [MuveraRetriever(index=store.index), store.as_retriever(), store.as_retriever(search_type="mmr")]
    fused = retrievers.EnsembleRetriever(retrievers=parts)
    assert sorted(document.id for document in fused.invoke(QUESTIONS[0])) == ["beaver", "crane", "fox", "goose"]
    by_key = retrievers.EnsembleRetriever(retrievers=parts, id_key="n")
    assert sorted(document.id for document in by_key.invoke(QUESTIONS[0])) == ["beaver", "crane", "fox", "goose"]
    merged = retrievers.MergerRetriever(retrievers=parts).invoke(QUESTIONS[0])
    assert len([document for i, document in enumerate(merged) if document not in merged[:i]]) == 4


def test_equality_is_that_of_the_id_the_text_and_the_metadata() -> None:
    document, other = scored(), plain()
    assert document == other
    assert other == document
    assert document in [other]
    assert other in [document]
    assert document == ScoredDocument("Foxes den.", id="fox", metadata={"n": [1]}, score=0, normalized_score=0)
    for change in ({"id": "vixen"}, {"page_content": "Foxes bark."}, {"metadata": {"n": [2]}}):
        assert document != other.model_copy(update=change)
        assert other.model_copy(update=change) != document
    assert document != "Foxes den."


def test_a_document_of_another_class_is_another_document() -> None:
    class Page(Document):
        pass

    page = Page(page_content="Foxes den.", id="fox", metadata={"n": [1]})
    assert scored() != page
    assert page != scored()


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, pickled, lambda d: d.model_copy(),
     lambda d: d.model_copy(deep=True), lambda d: d.model_copy(update={"id": "fox"})],
    ids=["copy", "deepcopy", "pickle", "model_copy", "deep model_copy", "updated model_copy"],
)  # fmt: skip
def test_copies_and_pickles_keep_the_scores(duplicate: Callable[[ScoredDocument], ScoredDocument]) -> None:
    copied = duplicate(scored())
    assert (type(copied), copied.score, copied.normalized_score) == (ScoredDocument, 7.5, 0.75)
    assert copied == plain()


def test_it_is_serialized_as_a_plain_document() -> None:
    class Answer(BaseModel):
        sources: list[Document]

    document, other = scored(), plain()
    assert dumpd(document) == dumpd(other)
    assert dumps(document) == dumps(other)
    assert document.model_dump() == other.model_dump()
    assert json.loads(document.model_dump_json()) == json.loads(other.model_dump_json())
    assert ScoredDocument.get_lc_namespace() == Document.get_lc_namespace()
    answer = Answer(sources=[document])
    assert answer.sources[0] is document
    assert answer.model_dump() == Answer(sources=[other]).model_dump()


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_what_was_dumped_loads_as_a_plain_document() -> None:
    allowed: dict[str, Any] = {"allowed_objects": [Document]} if "allowed_objects" in signature(load).parameters else {}
    loaded = load(dumpd(scored()), **allowed)
    assert type(loaded) is Document
    assert loaded == scored()


def test_scores_are_shown_and_cannot_be_set() -> None:
    document = scored()
    assert repr(document).endswith("score=7.5, normalized_score=0.75)")
    assert str(document) == str(plain())
    for name in ("score", "normalized_score"):
        with pytest.raises(AttributeError):
            setattr(document, name, 1.0)


def test_prompts_see_what_was_stored(store: MuveraVectorStore) -> None:
    document = store.similarity_search("dams", k=1)[0]
    assert format_document(document, PromptTemplate.from_template("{n}: {page_content}")) == "2: Beavers build dams."


def test_callbacks_get_the_documents_with_their_scores(store: MuveraVectorStore) -> None:
    class Recorder(BaseCallbackHandler):
        found: list[Document]

        def on_retriever_end(self, documents: Any, **_: Any) -> None:
            self.found = documents

    recorder = Recorder()
    returned = store.as_retriever().invoke("dams", config={"callbacks": [recorder]})
    assert recorder.found is returned
    assert all(isinstance(document, ScoredDocument) for document in recorder.found)


def test_found_documents_can_be_stored_again(store: MuveraVectorStore, encoder: BundledEncoder) -> None:
    found = store.similarity_search("dams")
    other = InMemoryVectorStore(MuveraEmbeddings(encoder))
    other.add_documents(found)
    assert all(type(document) is Document for document in other.similarity_search("dams"))
    with MuveraVectorStore.from_documents(found, encoder=encoder) as copied:
        assert copied.get_by_ids(["fox", "goose"]) == store.get_by_ids(["fox", "goose"])
    records = InMemoryRecordManager("animals")
    records.create_schema()
    with MuveraVectorStore.from_texts([], encoder=encoder) as indexed:
        for question in QUESTIONS:
            index(store.similarity_search(question), records, indexed, cleanup=None, key_encoder="sha256")
        assert len(indexed.index) == 4
