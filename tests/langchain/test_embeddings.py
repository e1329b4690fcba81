from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_muvera import MaxSimReranker, MuveraEmbeddings
from muvera_core import FDEConfig, FixedDimensionalEncoder, MuveraIndex, TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.evaluation.collections import BeirCollection
from muvera_core.evaluation.measures import fidelity_at_k

N_DOCUMENTS = 60


class TestOfficialUnitSuite(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[MuveraEmbeddings]:
        return MuveraEmbeddings


class TestOfficialIntegrationSuite(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[MuveraEmbeddings]:
        return MuveraEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"fde": FDEConfig(num_repetitions=4), "normalize": False}


class Remembering:
    """An encoder that encodes the same passages only once, so that many stores can be filled with them."""

    def __init__(self, encoder: BundledEncoder) -> None:
        self.dimension, self.fingerprint = encoder.dimension, encoder.fingerprint
        self.encode_queries = encoder.encode_queries
        self.document_spans, self.query_spans = encoder.document_spans, encoder.query_spans
        self._encode = cache(lambda texts: encoder.encode_documents(texts))

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        return self._encode(tuple(texts))


@pytest.fixture(scope="module")
def remembering(encoder: BundledEncoder) -> Remembering:
    return Remembering(encoder)


def in_memory(embeddings: MuveraEmbeddings) -> VectorStore:
    return InMemoryVectorStore(embeddings)


def qdrant(embeddings: MuveraEmbeddings, metric: str = "DOT") -> VectorStore:
    store = pytest.importorskip("langchain_qdrant", reason="langchain-qdrant isn't installed")
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, VectorParams

    client, distance = QdrantClient(":memory:"), Distance[metric]
    client.create_collection("texts", VectorParams(size=embeddings.dimension, distance=distance))
    made: VectorStore = store.QdrantVectorStore(client, "texts", embeddings, distance=distance)
    return made


def found(store: VectorStore, question: str, k: int) -> list[str]:
    return [document.metadata["id"] for document in store.similarity_search(question, k=k)]


def fill(store: VectorStore, nq: BeirCollection) -> VectorStore:
    store.add_texts(nq.texts[:N_DOCUMENTS], [{"id": id} for id in nq.ids[:N_DOCUMENTS]])
    return store


def order(nq: BeirCollection, scores: list[float], k: int) -> list[str]:
    return [nq.ids[i] for i in np.argsort(-np.array(scores), kind="stable")[:k].tolist()]


def test_vectors_are_the_encodings_of_the_core(encoder: BundledEncoder) -> None:
    settings = FDEConfig(num_repetitions=3)
    embeddings, core = MuveraEmbeddings(encoder, settings, normalize=False), FixedDimensionalEncoder(settings)
    texts = ["Owls hunt at night.", "Ants live in colonies.", "Herons stand still."]
    np.testing.assert_array_equal(
        embeddings.embed_documents(texts), core.encode_documents(encoder.encode_documents(texts))
    )
    np.testing.assert_array_equal(
        embeddings.embed_query(texts[0]), core.encode_queries(encoder.encode_queries(texts[:1]))[0]
    )
    assert embeddings.dimension == core.output_dimension == len(embeddings.embed_query("owl"))
    assert MuveraEmbeddings(encoder, settings, normalize=False, batch_size=1).embed_documents(
        texts
    ) == embeddings.embed_documents(texts)


def test_unit_vectors_are_the_default_and_point_the_same_way(encoder: BundledEncoder) -> None:
    plain, unit = MuveraEmbeddings(encoder, normalize=False), MuveraEmbeddings(encoder)
    for long, short in (
        (plain.embed_documents(["Owls hunt at night."])[0], unit.embed_documents(["Owls hunt at night."])[0]),
        (plain.embed_query("Owls?"), unit.embed_query("Owls?")),
    ):
        assert np.linalg.norm(short) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(np.array(long) / np.linalg.norm(long), short, atol=1e-6)


async def test_async_twins_give_the_same(encoder: BundledEncoder) -> None:
    embeddings = MuveraEmbeddings(encoder, FDEConfig(num_repetitions=2))
    assert await embeddings.aembed_query("owl") == embeddings.embed_query("owl")
    assert await embeddings.aembed_documents(["owl", "ant"]) == embeddings.embed_documents(["owl", "ant"])


def test_settings_that_cannot_be_are_refused(encoder: BundledEncoder) -> None:
    with pytest.raises(InvalidInputError, match=r"use FDEConfig\.for_dimension\(128\)"):
        MuveraEmbeddings(encoder, FDEConfig(dimension=96))
    with pytest.raises(InvalidInputError, match="center"):
        MuveraEmbeddings(encoder, FDEConfig(center=True))
    with pytest.raises(InvalidInputError, match="batch_size"):
        MuveraEmbeddings(encoder, batch_size=0)


def test_qdrant_by_inner_product_ranks_plain_encodings_as_the_core_does(
    remembering: Remembering, nq: BeirCollection, nq_questions: dict[str, str]
) -> None:
    embeddings = MuveraEmbeddings(remembering, normalize=False)
    store = fill(qdrant(embeddings), nq)
    core = FixedDimensionalEncoder(embeddings.fde)
    documents = core.encode_documents(remembering.encode_documents(nq.texts[:N_DOCUMENTS]))
    for question in list(nq_questions.values())[:10]:
        scores = documents @ core.encode_queries(remembering.encode_queries([question]))[0]
        assert found(store, question, 20) == order(nq, scores.tolist(), 20)


@pytest.mark.parametrize(
    "make", [in_memory, qdrant, lambda e: qdrant(e, "COSINE"), lambda e: qdrant(e, "EUCLID")],
    ids=["in-memory, cosine", "qdrant, inner product", "qdrant, cosine", "qdrant, Euclid"],
)  # fmt: skip
def test_unit_vectors_rank_alike_in_every_store_and_metric(
    make: Callable[[MuveraEmbeddings], VectorStore],
    remembering: Remembering,
    nq: BeirCollection,
    nq_questions: dict[str, str],
) -> None:
    embeddings = MuveraEmbeddings(remembering)
    store = fill(make(embeddings), nq)
    documents = np.array(embeddings.embed_documents(nq.texts[:N_DOCUMENTS]))
    for question in list(nq_questions.values())[:10]:
        assert found(store, question, 20) == order(
            nq, (documents @ np.array(embeddings.embed_query(question))).tolist(), 20
        )


def test_a_cosine_store_ranks_plain_encodings_otherwise(
    remembering: Remembering, nq: BeirCollection, nq_questions: dict[str, str]
) -> None:
    plain = MuveraEmbeddings(remembering, normalize=False)
    store, by_inner_product = (
        fill(InMemoryVectorStore(plain), nq),
        np.array(plain.embed_documents(nq.texts[:N_DOCUMENTS])),
    )
    differ = 0
    for question in list(nq_questions.values())[:10]:
        scores = (by_inner_product @ np.array(plain.embed_query(question))).tolist()
        differ += found(store, question, 20) != order(nq, scores, 20)
    assert differ == 10


def test_reranked_candidates_of_another_store_are_nearly_those_of_the_index(
    remembering: Remembering, nq: BeirCollection, nq_questions: dict[str, str]
) -> None:
    store, reranker = fill(in_memory(MuveraEmbeddings(remembering)), nq), MaxSimReranker(encoder=remembering, top_n=5)
    shares = []
    with MuveraIndex.create(None, remembering) as index:
        index.add(nq.texts[:N_DOCUMENTS], ids=nq.ids[:N_DOCUMENTS])
        for question in list(nq_questions.values())[:6]:
            reranked = reranker.compress_documents(store.similarity_search(question, k=20), question)
            exact = [hit.id for hit in index.search(question, k=5, exact=True)]
            shares.append(fidelity_at_k([document.metadata["id"] for document in reranked], exact, 5))
    assert np.mean(shares) > 0.9
