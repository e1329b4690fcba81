"""No class and no call ignores a name or a value that it was given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField
from langchain_core.vectorstores import VectorStore

import langchain_muvera
from langchain_muvera import MaxSimReranker, MuveraEmbeddings, MuveraRetriever, MuveraVectorStore
from muvera_core import MuveraError
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError

ROOMS = ["The red room is upstairs.", "The blue room has a stove."]
BLUE = {"colour": "blue"}


@pytest.fixture
def store(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    metadatas = [{"colour": "red"}, {"colour": "blue"}]
    with MuveraVectorStore.from_texts(ROOMS, metadatas=metadatas, ids=["red", "blue"], encoder=encoder) as made:
        yield made


def documents() -> list[Document]:
    return [Document(room) for room in ROOMS]


Call = Callable[[MuveraVectorStore, dict[str, Any]], Any]
# A call with the keywords, a name that it does not know, and what its error suggests.
CALLS: dict[str, tuple[Call, str, str]] = {
    "MuveraRetriever": (lambda s, kw: MuveraRetriever(index=s.index, **kw), "filters", "'filter'"),
    "MuveraRetriever, k": (lambda s, kw: MuveraRetriever(index=s.index, **kw), "similarity_top_k", "'k'"),
    "MuveraRetriever, score": (lambda s, kw: MuveraRetriever(index=s.index, **kw), "score_threshold", "'min_score'"),
    "MuveraRetriever, search": (lambda s, kw: MuveraRetriever(index=s.index, **kw), "search_kwargs", "as keywords"),
    "MuveraRetriever, typo": (lambda s, kw: MuveraRetriever(index=s.index, **kw), "n_candidate", "'n_candidates'"),
    "MaxSimReranker": (lambda s, kw: MaxSimReranker(**kw), "top_k", "'top_n'"),
    "MaxSimReranker, k": (lambda s, kw: MaxSimReranker(**kw), "k", "'top_n'"),
    "MaxSimReranker, model": (lambda s, kw: MaxSimReranker(**kw), "model_name", "'encoder'"),
    "MuveraEmbeddings": (lambda s, kw: MuveraEmbeddings(**kw), "model", "'encoder'"),
    "MuveraVectorStore": (lambda s, kw: MuveraVectorStore(s.index, **kw), "embedding", "index"),
    "from_texts": (lambda s, kw: MuveraVectorStore.from_texts(ROOMS, **kw), "persist_directory", "'path'"),
    "from_texts, name": (lambda s, kw: MuveraVectorStore.from_texts(ROOMS, **kw), "collection_name", "leave it out"),
    "from_documents": (lambda s, kw: MuveraVectorStore.from_documents(documents(), **kw), "metadatas", "one of"),
    "open_or_create": (lambda s, kw: MuveraVectorStore.open_or_create("no", **kw), "persist_dir", "'path'"),
    "load": (lambda s, kw: MuveraVectorStore.load("no", **kw), "allow_dangerous_deserialization", "leave it out"),
    "save": (lambda s, kw: s.save(**kw), "folder_path", "'path'"),
    "add_texts": (lambda s, kw: s.add_texts(ROOMS, **kw), "metadata", "'metadatas'"),
    "add_documents": (lambda s, kw: s.add_documents(documents(), **kw), "id", "'ids'"),
    "update_metadata": (lambda s, kw: s.update_metadata(["red"], {}, **kw), "replaces", "'replace'"),
    "delete": (lambda s, kw: s.delete(**kw), "where", "'filter'"),
    "count": (lambda s, kw: s.count(**kw), "where", "'filter'"),
    "similarity_search": (lambda s, kw: s.similarity_search("stove", **kw), "score_threshold", "'min_score'"),
    "with_score": (lambda s, kw: s.similarity_search_with_score("stove", **kw), "fetch_k", "'n_candidates'"),
    "relevance": (lambda s, kw: s.similarity_search_with_relevance_scores("stove", **kw), "filters", "'filter'"),
    "mmr": (lambda s, kw: s.max_marginal_relevance_search("stove", **kw), "relevance_weight", "'lambda_mult'"),
    "by_vector": (lambda s, kw: s.similarity_search_by_vector([0.0], **kw), "where", "'filter'"),
    "with_score_by_vector": (lambda s, kw: s.similarity_search_with_score_by_vector([0.0], **kw), "top_k", "'k'"),
    "search": (lambda s, kw: s.search("stove", "similarity", **kw), "filters", "'filter'"),
    "search, hybrid": (lambda s, kw: s.search("stove", "hybrid", **kw), "mode", "search_type='hybrid' sets it"),
    "search, coverage": (lambda s, kw: s.search("stove", "coverage", **kw), "exact", "one of"),
    "search_kwargs, words": (lambda s, kw: s.as_retriever(search_type="lexical", search_kwargs=kw), "mode", "sets it"),
    "cross_encoder": (lambda s, kw: s.search_with_cross_encoder("stove", len, **kw), "max_calls", "'n_calls'"),
    "MuveraRetriever, alpha": (lambda s, kw: MuveraRetriever(index=s.index, **kw), "alpha", "which is 1 - alpha"),
    "MuveraRetriever, mode": (lambda s, kw: MuveraRetriever(index=s.index, **kw), "search_type", "'mode'"),
    "MuveraRetriever, words": (lambda s, kw: MuveraRetriever(index=s.index, **kw), "bm25_weight", "'lexical_weight'"),
    "as_retriever, mode": (lambda s, kw: s.as_retriever(**kw), "mode", "put 'mode' into search_kwargs"),
    "as_retriever": (lambda s, kw: s.as_retriever(**kw), "filter", "put 'filter' into search_kwargs"),
    "as_retriever, alias": (lambda s, kw: s.as_retriever(**kw), "where", "put 'filter' into search_kwargs"),
    "as_retriever, score": (lambda s, kw: s.as_retriever(**kw), "score_threshold", "into search_kwargs"),
    "as_retriever, typo": (lambda s, kw: s.as_retriever(**kw), "search_typ", "'search_type'"),
    "search_kwargs": (lambda s, kw: s.as_retriever(search_kwargs=kw), "filters", "'filter'"),
    "search_kwargs, mmr": (lambda s, kw: s.as_retriever(search_type="mmr", search_kwargs=kw), "exact", "one of"),
    "invoke": (lambda s, kw: MuveraRetriever(index=s.index).invoke("stove", **kw), "filters", "'filter'"),
    "batch": (lambda s, kw: MuveraRetriever(index=s.index).batch(["stove"], **kw), "top_k", "'k'"),
    "bind": (lambda s, kw: MuveraRetriever(index=s.index).bind(**kw).invoke("stove"), "where", "'filter'"),
    "as_retriever().invoke": (lambda s, kw: s.as_retriever().invoke("stove", **kw), "filters", "'filter'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_an_unknown_name_is_refused_and_another_one_suggested(name: str, store: MuveraVectorStore) -> None:
    call, unknown, suggestion = CALLS[name]
    with pytest.raises(InvalidInputError, match=f"does not know '{unknown}'.*{suggestion}"):
        call(store, {unknown: 1})
    assert store.count() == 2


async def test_async_calls_refuse_them_too(store: MuveraVectorStore) -> None:
    calls = [
        store.asimilarity_search("stove", filters=BLUE),
        store.asimilarity_search_with_score("stove", filters=BLUE),
        store.asimilarity_search_by_vector([0.0], filters=BLUE),
        store.asearch("stove", "hybrid", filters=BLUE),
        store.amax_marginal_relevance_search("stove", filters=BLUE),
        store.aadd_texts(ROOMS, filters=BLUE),
        store.aadd_documents(documents(), filters=BLUE),
        store.adelete(filters=BLUE),
        store.asimilarity_search_with_score_by_vector([0.0], filters=BLUE),
        MuveraRetriever(index=store.index).ainvoke("stove", filters=BLUE),
        MuveraVectorStore.afrom_texts(ROOMS, filters=BLUE),
        MuveraVectorStore.afrom_documents(documents(), filters=BLUE),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="does not know 'filters'"):
            await call


def test_every_call_of_the_store_that_takes_any_keyword_is_tried() -> None:
    ours = [kind for kind in MuveraVectorStore.__mro__ if kind.__module__.startswith("langchain_muvera.")]
    own = {name for kind in ours for name in vars(kind) if not name.startswith("_")}
    loose = {
        name
        for name in own & set(vars(VectorStore))
        if callable(getattr(MuveraVectorStore, name))
        and any(
            p.kind is p.VAR_KEYWORD for p in inspect.signature(getattr(MuveraVectorStore, name)).parameters.values()
        )
    }
    tried = {
        "from_texts", "from_documents", "add_texts", "add_documents", "delete", "similarity_search", "as_retriever",
        "similarity_search_with_score", "max_marginal_relevance_search", "similarity_search_by_vector",
        "afrom_texts", "afrom_documents", "search", "asearch", "aadd_texts", "aadd_documents", "adelete",
        "asimilarity_search", "asimilarity_search_with_score", "amax_marginal_relevance_search",
        "asimilarity_search_by_vector",
    }  # fmt: skip
    assert loose - {"max_marginal_relevance_search_by_vector"} == tried


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0),
        ("k", "many"),
        ("n_candidates", 0),
        ("filter", 5),
        ("min_score", 1.5),
        ("index", None),
        ("filters", {}),
        ("mode", "dense"),
        ("lexical_weight", 2),
        ("fusion", "rrf"),
        ("query_reduction", 0.7),
        ("passage", "highlight"),
        ("cross_encoder", "a model"),
        ("n_calls", 0),
    ],
)
def test_a_retriever_cannot_be_set_to_what_it_cannot_be(name: str, value: Any, store: MuveraVectorStore) -> None:
    retriever = MuveraRetriever(index=store.index, k=1)
    before = retriever.invoke("stove")
    with pytest.raises(InvalidInputError, match=f"MuveraRetriever.*{name}"):
        setattr(retriever, name, value)
    with pytest.raises(InvalidInputError, match=f"MuveraRetriever.*{name}"):
        retriever.model_copy(update={name: value})
    with pytest.raises(InvalidInputError, match=f"MuveraRetriever.*{name}"):
        MuveraRetriever(**{"index": store.index, name: value})
    assert retriever.invoke("stove") == before


@pytest.mark.parametrize(("name", "value"), [("top_n", 0), ("batch_size", 0), ("encoder", "a model"), ("topn", 1)])
def test_a_reranker_cannot_be_set_to_what_it_cannot_be(name: str, value: Any, encoder: BundledEncoder) -> None:
    reranker = MaxSimReranker(encoder=encoder)
    with pytest.raises(InvalidInputError, match=f"MaxSimReranker.*{name}"):
        setattr(reranker, name, value)
    with pytest.raises(InvalidInputError, match=f"MaxSimReranker.*{name}"):
        reranker.model_copy(update={name: value})
    with pytest.raises(InvalidInputError, match=f"MaxSimReranker.*{name}"):
        MaxSimReranker(**{name: value})


def test_settings_can_be_changed_and_take_effect(store: MuveraVectorStore) -> None:
    retriever = MuveraRetriever(index=store.index)
    retriever.k, retriever.filter = 1, {"colour": "red"}
    retriever.name, retriever.tags, retriever.metadata = "rooms", ["mine"], {"team": "search"}
    assert [document.id for document in retriever.invoke("stove")] == ["red"]
    other = retriever.model_copy(update={"filter": BLUE})
    assert [document.id for document in other.invoke("stove")] == ["blue"]
    assert [document.id for document in retriever.invoke("stove")] == ["red"]
    assert other.index is retriever.index


def test_langchains_own_ways_of_passing_settings_work(store: MuveraVectorStore) -> None:
    retriever = MuveraRetriever(index=store.index, name="rooms", tags=["mine"], metadata={"team": "search"})
    field = ConfigurableField(id="number")
    configurable = retriever.configurable_fields(k=field)
    assert len(configurable.invoke("stove", config={"configurable": {"number": 1}})) == 1
    assert len(configurable.invoke("stove")) == 2
    assert len(retriever.with_config(tags=["other"], run_name="run").invoke("stove")) == 2
    assert len(retriever.bind(k=1, verbose=True).invoke("stove")) == 1
    assert len(MuveraRetriever.model_validate({"index": store.index, "k": 1}).invoke("stove")) == 1
    named = store.as_retriever(name="rooms", tags=["mine"], metadata={"team": "search"}, search_kwargs={"k": 1})
    assert (named.name, named.metadata) == ("rooms", {"team": "search"})
    assert len(named.invoke("stove", filter=BLUE)) == 1
    assert len(MaxSimReranker(encoder=None).compress_documents(documents(), "stove", callbacks=None)) == 2  # type: ignore[arg-type]


def test_an_unknown_search_type_is_refused(store: MuveraVectorStore) -> None:
    with pytest.raises(ValueError, match="search_type"):
        store.as_retriever(search_type="nearest", search_kwargs={"k": 1})


def test_only_documents_with_the_ids_of_a_call_are_returned(store: MuveraVectorStore) -> None:
    retriever = MuveraRetriever(index=store.index)
    assert [document.id for document in retriever.invoke("stove", ids=["red", "nobody"])] == ["red"]
    assert retriever.invoke("stove", ids=[]) == []


def test_every_public_class_is_tried() -> None:
    tried = {name.partition(",")[0] for name in CALLS}
    assert set(langchain_muvera.__all__) - {"ScoredDocument", "MuveraTranslator"} <= tried


def test_a_class_of_ones_own_may_have_more_settings(store: MuveraVectorStore) -> None:
    class Rooms(MuveraRetriever):
        floor: int = 0

    rooms = Rooms(index=store.index, floor=1)
    rooms.floor = 2
    assert len(rooms.invoke("stove")) == 2
    with pytest.raises(MuveraError, match="Rooms does not know 'flor': did you mean 'floor'"):
        rooms.flor = 3
