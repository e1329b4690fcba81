"""Objects travel to other processes by what they were made from, or say that they cannot."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from inspect import signature
from multiprocessing import get_context
from typing import Any, TypeVar

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumpd, load

from langchain_muvera import MaxSimReranker, MuveraEmbeddings, MuveraRetriever, MuveraTranslator, MuveraVectorStore
from muvera_core import FDEConfig, MuveraError
from muvera_core.encoders import BundledEncoder

T = TypeVar("T")
TEXTS = ["Ropes are twisted from fibres.", "Nets are knotted from cord."]
QUESTION = "What is knotted?"
OTHER: dict[str, Any] = {"max_document_tokens": 8}


def pickled(value: T) -> T:
    copied: T = pickle.loads(pickle.dumps(value))  # noqa: S301
    return copied


def deeply_copied(value: MaxSimReranker) -> MaxSimReranker:
    return value.model_copy(deep=True)


@pytest.mark.parametrize("duplicate", [pickled, copy.copy, copy.deepcopy])
def test_embeddings_keep_their_settings(duplicate: Callable[[MuveraEmbeddings], MuveraEmbeddings]) -> None:
    made = MuveraEmbeddings(BundledEncoder(**OTHER), FDEConfig(num_repetitions=3), normalize=False, batch_size=7)
    copied = duplicate(made)
    assert isinstance(copied.encoder, BundledEncoder)
    assert copied.encoder.settings["max_document_tokens"] == 8
    assert (copied.fde, copied.dimension) == (made.fde, made.dimension)
    assert copied.embed_documents(TEXTS) == made.embed_documents(TEXTS)
    assert copied.embed_query(QUESTION) == made.embed_query(QUESTION)


@pytest.mark.parametrize("duplicate", [pickled, copy.copy, copy.deepcopy, deeply_copied])
def test_a_reranker_keeps_its_settings(duplicate: Callable[[MaxSimReranker], MaxSimReranker]) -> None:
    made = MaxSimReranker(encoder=BundledEncoder(**OTHER), top_n=1, batch_size=7)
    copied = duplicate(made)
    assert isinstance(copied.encoder, BundledEncoder)
    assert (copied.encoder.settings["max_document_tokens"], copied.top_n, copied.batch_size) == (8, 1, 7)
    documents = [Document(text) for text in TEXTS]
    best, expected = copied.compress_documents(documents, QUESTION), made.compress_documents(documents, QUESTION)
    assert best == expected
    assert best[0].score == expected[0].score


def test_another_process_makes_the_same_vectors_and_scores() -> None:
    embeddings, reranker = MuveraEmbeddings(BundledEncoder(**OTHER)), MaxSimReranker(encoder=BundledEncoder(**OTHER))
    documents = [Document(text) for text in TEXTS]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        vectors = pool.submit(embeddings.embed_documents, TEXTS).result()
        reranked = pool.submit(reranker.compress_documents, documents, QUESTION).result()
    assert vectors == embeddings.embed_documents(TEXTS)
    expected = reranker.compress_documents(documents, QUESTION)
    assert [(document, document.score) for document in reranked] == [
        (document, document.score) for document in expected
    ]


def test_a_translator_keeps_its_filter() -> None:
    assert pickled(MuveraTranslator(filter={"a": 1})).filter == {"a": 1}


@pytest.fixture
def store(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    with MuveraVectorStore.from_texts(TEXTS, encoder=encoder) as made:
        yield made


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.deepcopy])
@pytest.mark.parametrize("kind", ["store", "MuveraRetriever", "as_retriever"])
def test_what_holds_an_open_index_refuses_to_travel(
    kind: str, duplicate: Callable[[Any], Any], store: MuveraVectorStore
) -> None:
    holder = {
        "store": store,
        "MuveraRetriever": MuveraRetriever(index=store.index),
        "as_retriever": store.as_retriever(),
    }
    with pytest.raises(MuveraError, match=r"cannot be pickled.*Pass its path"):
        duplicate(holder[kind])


def test_a_deep_copy_of_a_retriever_is_refused_and_a_shallow_one_shares_the_index(store: MuveraVectorStore) -> None:
    retriever = MuveraRetriever(index=store.index, k=1)
    with pytest.raises(MuveraError, match="cannot be pickled"):
        retriever.model_copy(deep=True)
    for shared in (copy.copy(retriever), retriever.model_copy(), copy.copy(store).as_retriever(search_kwargs={"k": 1})):
        assert shared.invoke(QUESTION) == retriever.invoke(QUESTION)


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_langchains_serialization_says_that_there_is_none(store: MuveraVectorStore, encoder: BundledEncoder) -> None:
    allowed: dict[str, Any] = {"allowed_objects": [Document]} if "allowed_objects" in signature(load).parameters else {}
    for value in (
        MuveraRetriever(index=store.index),
        MaxSimReranker(encoder=encoder),
        MuveraEmbeddings(encoder),
        store,
    ):
        dumped = dumpd(value)
        assert dumped["type"] == "not_implemented"
        with pytest.raises(NotImplementedError, match=type(value).__name__):
            load(dumped, **allowed)
