"""The vector stores of both frameworks give what the core gives, with and without a filter."""

from __future__ import annotations

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.retrievers.muvera import MuveraVectorStore as LlamaIndexStore

from langchain_muvera import MuveraVectorStore as LangChainStore
from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.collections import BeirCollection

N = 60


def test_stores_give_the_same_with_and_without_a_filter(
    encoder: BundledEncoder, nq: BeirCollection, nq_questions: dict[str, str]
) -> None:
    texts, ids = nq.texts[:N], nq.ids[:N]
    metadatas = [{"number": i} for i in range(N)]
    langchain = LangChainStore.from_texts(texts, metadatas=metadatas, ids=ids, encoder=encoder)
    llama_index = LlamaIndexStore(MuveraIndex.create(None, encoder))
    llama_index.add(
        [
            TextNode(id_=id, text=text, metadata=metadata, excluded_embed_metadata_keys=["number"])
            for id, text, metadata in zip(ids, texts, metadatas, strict=True)
        ]
    )
    with MuveraIndex.create(None, encoder) as core:
        core.add(texts, ids=ids, metadatas=metadatas)
        narrow = MetadataFilters(filters=[MetadataFilter(key="number", value=20, operator=FilterOperator.LT)])
        for question in list(nq_questions.values())[:8]:
            for core_filter, llama_filter in ((None, None), ({"number": {"$lt": 20}}, narrow)):
                expected = [(hit.id, hit.normalized_score) for hit in core.search(question, k=5, filter=core_filter)]
                through_langchain = langchain.similarity_search_with_score(question, k=5, filter=core_filter)
                assert [(document.id, score) for document, score in through_langchain] == expected
                query = VectorStoreQuery(query_str=question, similarity_top_k=5, filters=llama_filter)
                result = llama_index.query(query)
                assert list(zip(result.ids or [], result.similarities or [], strict=True)) == expected
    langchain.close()
    llama_index.client.close()
