from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence

import numpy as np
import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from langchain_muvera import MaxSimReranker, ScoredDocument
from muvera_core import MuveraIndex, TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError

QUESTION = "Which bird is active after dark?"
DOCUMENTS = [
    Document(id="ant", page_content="Ants live in colonies.", metadata={"page": 1}),
    Document(id="owl", page_content="Owls hunt at night.", metadata={"page": 2, "score": "theirs"}),
    Document(page_content="Herons stand still in shallow water.", metadata={"page": 3}),
    Document(id="none", page_content=" "),
]


@pytest.fixture
def documents() -> list[Document]:
    return copy.deepcopy(DOCUMENTS)


class Counting:
    """An encoder that remembers how many texts it was given at a time."""

    def __init__(self, encoder: BundledEncoder) -> None:
        self.dimension, self.fingerprint = encoder.dimension, encoder.fingerprint
        self.encode_queries = encoder.encode_queries
        self.document_spans, self.query_spans = encoder.document_spans, encoder.query_spans
        self._encoder = encoder
        self.batches: list[int] = []

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        self.batches.append(len(texts))
        return self._encoder.encode_documents(texts)


def test_it_scores_as_an_index_does_in_exact_mode(encoder: BundledEncoder, documents: list[Document]) -> None:
    reranked = MaxSimReranker(encoder=encoder).compress_documents(documents, QUESTION)
    with MuveraIndex.create(None, encoder, token_precision="float16") as index:
        index.add([document.page_content for document in documents[:3]])
        hits = index.search(QUESTION, k=3, exact=True)
    assert [document.page_content for document in reranked] == [hit.text for hit in hits]
    for document, hit in zip(reranked, hits, strict=True):
        assert document.score == pytest.approx(hit.score, abs=0.01)
        assert document.normalized_score == pytest.approx(hit.normalized_score, abs=0.001)


def test_it_scores_copies(encoder: BundledEncoder, documents: list[Document]) -> None:
    best = MaxSimReranker(encoder=encoder, top_n=1).compress_documents(documents, QUESTION)[0]
    assert documents == DOCUMENTS
    assert best == DOCUMENTS[1]
    assert best.metadata is not documents[1].metadata
    assert 0 < best.normalized_score <= 1


def test_top_n_bounds_what_is_kept(encoder: BundledEncoder, documents: list[Document]) -> None:
    for top_n, kept in ((1, 1), (2, 2), (9, 4), (None, 4)):
        assert len(MaxSimReranker(encoder=encoder, top_n=top_n).compress_documents(documents, QUESTION)) == kept
    assert MaxSimReranker(encoder=encoder).compress_documents([], QUESTION) == []
    with pytest.raises(InvalidInputError, match="top_n"):
        MaxSimReranker(encoder=encoder, top_n=0)


def test_a_document_without_text_comes_last_with_no_score(encoder: BundledEncoder, documents: list[Document]) -> None:
    last = MaxSimReranker(encoder=encoder, top_n=None).compress_documents(documents, QUESTION)[-1]
    assert (last.id, last.normalized_score, last.score) == ("none", 0, 0)


def test_equal_documents_keep_their_order(encoder: BundledEncoder) -> None:
    documents = [Document(id=str(i), page_content="Owls hunt at night.") for i in range(5)]
    reranked = MaxSimReranker(encoder=encoder, top_n=None).compress_documents(documents, QUESTION)
    assert [document.id for document in reranked] == ["0", "1", "2", "3", "4"]


def test_passages_are_encoded_in_batches(encoder: BundledEncoder, documents: list[Document]) -> None:
    counting = Counting(encoder)
    in_batches = MaxSimReranker(encoder=counting, batch_size=2, top_n=None).compress_documents(documents, QUESTION)
    assert counting.batches == [2, 1]
    at_once = MaxSimReranker(encoder=encoder, top_n=None).compress_documents(documents, QUESTION)
    assert [document.page_content for document in in_batches] == [document.page_content for document in at_once]
    for one, other in zip(in_batches, at_once, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_the_bundled_encoder_is_the_default() -> None:
    assert isinstance(MaxSimReranker().encoder, BundledEncoder)


class Everything(BaseRetriever):
    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.documents


async def test_it_works_inside_a_contextual_compression_retriever(
    encoder: BundledEncoder, documents: list[Document]
) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers", reason="langchain-classic isn't installed")
    retriever = retrievers.ContextualCompressionRetriever(
        base_compressor=MaxSimReranker(encoder=encoder, top_n=2), base_retriever=Everything(documents=documents)
    )
    found = retriever.invoke(QUESTION)
    assert found[0].id == "owl"
    assert len(found) == 2
    assert await retriever.ainvoke(QUESTION) == found
    assert documents == DOCUMENTS


async def test_reranking_leaves_the_event_loop_free(encoder: BundledEncoder, documents: list[Document]) -> None:
    reranker = MaxSimReranker(encoder=encoder)
    reranking = asyncio.create_task(reranker.acompress_documents(documents * 25, QUESTION))
    ticks = 0
    while not reranking.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 10
    scores = [document.score for document in await reranking if isinstance(document, ScoredDocument)]
    assert len(scores) == 3
    assert np.diff(scores).max() <= 0
