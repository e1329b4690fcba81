from __future__ import annotations

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding, SimilarityMode, similarity
from llama_index.core.schema import TextNode
from llama_index.retrievers.muvera import MaxSimRerank, MuveraEmbedding, NoEmbedding

from muvera_core import FDEConfig, FixedDimensionalEncoder
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.evaluation.collections import BeirCollection

TEXTS = ["owls hunt at night", "ants live in colonies", "owls", "herons stand still in shallow water and wait"]


@pytest.mark.parametrize("kind", [MuveraEmbedding, NoEmbedding])
def test_class(kind: type) -> None:
    assert BaseEmbedding.__name__ in [base.__name__ for base in kind.__mro__]


def test_plain_embeddings_are_the_cores_encodings(encoder: BundledEncoder) -> None:
    model, fde = MuveraEmbedding(encoder, normalize=False), FixedDimensionalEncoder(FDEConfig())
    np.testing.assert_array_equal(
        model.get_text_embedding_batch(TEXTS), fde.encode_documents(encoder.encode_documents(TEXTS))
    )
    np.testing.assert_array_equal(
        model.get_query_embedding("owls"), fde.encode_queries(encoder.encode_queries(["owls"]))[0]
    )
    assert model.get_query_embedding("owls at night") != model.get_text_embedding("owls at night")
    assert model.dimension == len(model.get_query_embedding("owls")) == 2560


@pytest.mark.parametrize("fde", [FDEConfig(), FDEConfig(final_projection_dimension=256)], ids=["default", "sketched"])
def test_by_default_every_metric_gives_the_same_order(
    encoder: BundledEncoder, nq: BeirCollection, fde: FDEConfig
) -> None:
    texts, question = nq.texts[:12], "who got the first nobel prize in physics"
    plain, model = MuveraEmbedding(encoder, fde, normalize=False), MuveraEmbedding(encoder, fde)
    documents, query = model.get_text_embedding_batch(texts), model.get_query_embedding(question)
    dot, cosine, distance = (
        np.array([similarity(query, document, mode) for document in documents])
        for mode in (SimilarityMode.DOT_PRODUCT, SimilarityMode.DEFAULT, SimilarityMode.EUCLIDEAN)
    )
    # Compared as numbers, rather than as orders: neighbours may be nearer than float32 can tell.
    np.testing.assert_allclose(cosine, dot, atol=1e-6)
    np.testing.assert_allclose(1 - distance**2 / 2, dot, atol=1e-6)  # |q - d|² = 2 - 2 q·d
    plain_query, plain_documents = plain.get_query_embedding(question), plain.get_text_embedding_batch(texts)
    np.testing.assert_allclose([similarity(plain_query, document) for document in plain_documents], dot, atol=1e-6)


def test_plain_encodings_rank_by_metric(encoder: BundledEncoder, nq: BeirCollection) -> None:
    """Why the default isn't the plain encodings: LlamaIndex's own vector store compares by cosine."""
    texts, question = nq.texts[:40], "who got the first nobel prize in physics"
    model = MuveraEmbedding(encoder, normalize=False)
    query, documents = model.get_query_embedding(question), model.get_text_embedding_batch(texts)
    orders = [
        np.argsort([-similarity(query, d, mode) for d in documents]).tolist()
        for mode in (SimilarityMode.DEFAULT, SimilarityMode.DOT_PRODUCT)
    ]
    assert orders[0] != orders[1]


def test_stage_one_in_llama_indexs_own_store_then_reranked(
    encoder: BundledEncoder, nq: BeirCollection, nq_questions: dict[str, str]
) -> None:
    nodes = [TextNode(id_=id, text=text) for id, text in zip(nq.ids[:60], nq.texts[:60], strict=True)]
    index = VectorStoreIndex(nodes, embed_model=MuveraEmbedding(encoder))
    retriever, rerank = index.as_retriever(similarity_top_k=15), MaxSimRerank(encoder, top_n=3)
    questions = {id: question for id, question in nq_questions.items() if id in set(nq.ids[:60])}
    found = 0
    for id, question in list(questions.items())[:8]:
        best = rerank.postprocess_nodes(retriever.retrieve(question), query_str=question)
        found += id in [node.node_id for node in best]
    assert found >= 7


async def test_async_gives_the_same(encoder: BundledEncoder) -> None:
    model = MuveraEmbedding(encoder)
    assert await model.aget_query_embedding("owls") == model.get_query_embedding("owls")
    assert await model.aget_text_embedding("owls") == model.get_text_embedding("owls")
    assert await model.aget_text_embedding_batch(TEXTS) == model.get_text_embedding_batch(TEXTS)


def test_settings_tell_cached_embeddings_apart(encoder: BundledEncoder) -> None:
    models = [
        MuveraEmbedding(encoder),
        MuveraEmbedding(encoder, FDEConfig(seed=1)),
        MuveraEmbedding(encoder, normalize=False),
    ]
    assert len({str(model.to_dict()) for model in models}) == 3
    assert str(MuveraEmbedding(encoder).to_dict()) == str(models[0].to_dict())


def test_settings_that_cannot_work_are_refused(encoder: BundledEncoder) -> None:
    with pytest.raises(InvalidInputError, match="64-d token vectors"):
        MuveraEmbedding(encoder, FDEConfig(dimension=64))
    with pytest.raises(InvalidInputError, match="center"):
        MuveraEmbedding(encoder, FDEConfig(center=True))


async def test_no_embedding_costs_nothing_and_is_not_none() -> None:
    model = NoEmbedding()
    assert model.get_text_embedding_batch(TEXTS) == [[0.0]] * 4
    assert model.get_query_embedding("owls") == await model.aget_query_embedding("owls") == [0.0]
    assert [node.embedding for node in model([TextNode(text="owls")])] == [[0.0]]
