"""LangChain's SelfQueryRetriever over a MuveraVectorStore: a language model writes the filter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM
from langchain_core.runnables import RunnableLambda
from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery

from langchain_muvera import MuveraTranslator, MuveraVectorStore
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError

BOATS = [
    ("ferry", "A ferry carries cars.", {"seats": 200, "tags": ["large", "public"], "maker": {"land": "Norway"}}),
    ("canoe", "A canoe is paddled.", {"seats": 2, "tags": ["small"], "maker": {"land": "Canada"}, "built": "2023-12"}),
    ("yacht", "A yacht has sails.", {"seats": 8, "tags": [], "built": "2024-01-01T10:30:00", "name": "Ocean Star"}),
    ("barge", "A barge carries coal.", {"seats": 3, "tags": ["large"], "built": "2024-01-01", "name": "Star"}),
    ("kayak", "A kayak is for one.", {"seats": 1, "built": "2024-01-02T00:00:00+00:00", "new": True}),
]  # fmt: skip
DAY = {"date": "2024-01-01", "type": "date"}
SECOND = {"datetime": "2024-01-01T10:30:00Z", "type": "datetime"}
DATED = {"canoe", "yacht", "barge", "kayak"}
LARGE = {"barge", "ferry"}


@pytest.fixture(scope="module")
def store(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    documents = [Document(text, id=id, metadata=metadata) for id, text, metadata in BOATS]
    with MuveraVectorStore.from_documents(documents, encoder=encoder) as made:
        yield made


def compare(comparator: Comparator, field: str, value: Any) -> Comparison:
    return Comparison(comparator=comparator, attribute=field, value=value)


def join(operator: Operator, *parts: Comparison | Operation) -> Operation:
    return Operation(operator=operator, arguments=list(parts))


def found(store: MuveraVectorStore, filter: Comparison | Operation) -> set[str | None]:
    query, keywords = MuveraTranslator().visit_structured_query(StructuredQuery(query="boats", filter=filter))
    return {document.id for document in store.similarity_search(query, k=9, **keywords)}


def answer(structured: StructuredQuery, _: dict[str, Any]) -> StructuredQuery:
    return structured


@pytest.mark.parametrize(
    ("comparator", "field", "value", "expected"),
    [
        (Comparator.EQ, "seats", 2, {"canoe"}),
        (Comparator.EQ, "tags", "large", {"ferry", "barge"}),
        (Comparator.EQ, "maker.land", "Norway", {"ferry"}),
        (Comparator.EQ, "new", True, {"kayak"}),
        (Comparator.NE, "seats", 2, {"ferry", "yacht", "barge", "kayak"}),
        (Comparator.NE, "name", "Star", {"ferry", "canoe", "yacht", "kayak"}),
        (Comparator.GT, "seats", 3, {"ferry", "yacht"}),
        (Comparator.GTE, "seats", 3, {"ferry", "yacht", "barge"}),
        (Comparator.LT, "seats", 3, {"canoe", "kayak"}),
        (Comparator.LTE, "seats", 2.5, {"canoe", "kayak"}),
        (Comparator.IN, "seats", [1, 2, 9], {"canoe", "kayak"}),
        (Comparator.IN, "seats", 2, {"canoe"}),
        (Comparator.IN, "seats", [], set()),
        (Comparator.NIN, "seats", [1, 2], {"ferry", "yacht", "barge"}),
        (Comparator.NIN, "name", ["Star", "Ocean Star"], {"ferry", "canoe", "kayak"}),
        (Comparator.NIN, "seats", [], {"ferry", "canoe", "yacht", "barge", "kayak"}),
        (Comparator.CONTAIN, "tags", "public", {"ferry"}),
        (Comparator.CONTAIN, "name", "Star", {"yacht", "barge"}),
        (Comparator.CONTAIN, "seats", 8, {"yacht"}),
        (Comparator.LIKE, "name", "%Star", {"yacht", "barge"}),
        (Comparator.LIKE, "name", "Star", {"barge"}),
        (Comparator.EQ, "built", DAY, {"yacht", "barge"}),
        (Comparator.NE, "built", DAY, {"ferry", "canoe", "kayak"}),
        (Comparator.GT, "built", DAY, {"kayak"}),
        (Comparator.GTE, "built", DAY, {"yacht", "barge", "kayak"}),
        (Comparator.LT, "built", DAY, {"canoe"}),
        (Comparator.LTE, "built", DAY, {"canoe", "yacht", "barge"}),
        (Comparator.IN, "built", [DAY, {"date": "2023-12", "type": "date"}], {"canoe", "yacht", "barge"}),
        (Comparator.CONTAIN, "built", DAY, {"yacht", "barge"}),
        (Comparator.LT, "built", {"date": "2024-02-31", "type": "date"}, DATED),
        (Comparator.EQ, "built", SECOND, {"yacht"}),
        (Comparator.GT, "built", SECOND, {"kayak"}),
        (Comparator.GTE, "built", SECOND, {"yacht", "kayak"}),
        (Comparator.LTE, "built", SECOND, {"canoe", "yacht", "barge"}),
        (Comparator.LT, "built", SECOND, {"canoe", "barge"}),
    ],
)
def test_each_comparator_admits_what_it_says(
    store: MuveraVectorStore, comparator: Comparator, field: str, value: Any, expected: set[str]
) -> None:
    assert found(store, compare(comparator, field, value)) == expected


def test_conditions_are_joined_by_and_or_and_not(store: MuveraVectorStore) -> None:
    few, large = compare(Comparator.LT, "seats", 9), compare(Comparator.CONTAIN, "tags", "large")
    assert found(store, join(Operator.AND, few, large)) == {"barge"}
    assert found(store, join(Operator.OR, few, large)) == {id for id, _, _ in BOATS}
    assert found(store, join(Operator.NOT, large)) == {"canoe", "yacht", "kayak"}
    nested = join(Operator.AND, join(Operator.OR, large, compare(Comparator.EQ, "seats", 1)), join(Operator.NOT, few))
    assert found(store, nested) == {"ferry"}


def test_every_comparator_and_operator_is_translated() -> None:
    for comparator in Comparator:
        assert MuveraTranslator().visit_comparison(compare(comparator, "name", "Star"))
    for operator in Operator:
        assert MuveraTranslator().visit_operation(join(operator, compare(Comparator.EQ, "seats", 1)))
    assert set(MuveraTranslator.allowed_comparators) == set(Comparator)
    assert set(MuveraTranslator.allowed_operators) == set(Operator)


def test_without_conditions_there_is_no_filter() -> None:
    query = StructuredQuery(query="boats", filter=None)
    assert MuveraTranslator().visit_structured_query(query) == ("boats", {})


def test_a_filter_of_ones_own_holds_whatever_the_model_writes(store: MuveraVectorStore) -> None:
    translator = MuveraTranslator(filter={"tags": "large"})
    few, many = compare(Comparator.LT, "seats", 9), compare(Comparator.GT, "seats", 9)
    for written, expected in [(few, {"barge"}), (join(Operator.OR, few, many), LARGE), (None, LARGE)]:
        query, keywords = translator.visit_structured_query(StructuredQuery(query="boats", filter=written))
        assert {document.id for document in store.similarity_search(query, k=9, **keywords)} == expected
    with pytest.raises(InvalidInputError, match="did you mean 'filter'"):
        MuveraTranslator(filters={"tags": "large"})  # type: ignore[call-arg]


def test_python_dates_are_compared_with_dates(encoder: BundledEncoder) -> None:
    built = [date(2024, 1, 1), datetime(2024, 1, 1, 23, 59), datetime(2024, 1, 2, tzinfo=UTC), None]
    texts, metadatas = ["one", "two", "three", "four"], [{"built": value} for value in built]
    with MuveraVectorStore.from_texts(texts, metadatas=metadatas, ids=list("abcd"), encoder=encoder) as store:
        assert found(store, compare(Comparator.EQ, "built", DAY)) == {"a", "b"}
        assert found(store, compare(Comparator.GT, "built", DAY)) == {"c"}


async def test_the_retriever_asks_with_the_filter_and_the_limit(store: MuveraVectorStore) -> None:
    self_query = pytest.importorskip("langchain_classic.retrievers.self_query.base", reason="no langchain-classic")
    large = compare(Comparator.CONTAIN, "tags", "large")
    for query, limit, search_type, expected in [
        ("Which boat carries coal?", None, "similarity", ["barge", "ferry"]),
        ("Which boat carries coal?", 1, "similarity", ["barge"]),
        ("Which boat carries coal?", 1, "mmr", ["barge"]),
        ("", None, "similarity", ["ferry", "barge"]),
        (" ", 1, "mmr", ["ferry"]),
    ]:
        constructor: RunnableLambda[dict[str, Any], StructuredQuery] = RunnableLambda(
            partial(answer, StructuredQuery(query=query, filter=large, limit=limit))
        )
        retriever = self_query.SelfQueryRetriever(
            query_constructor=constructor,
            vectorstore=store,
            structured_query_translator=MuveraTranslator(),
            search_type=search_type,
        )
        assert [document.id for document in retriever.invoke("anything")] == expected
        assert [document.id for document in await retriever.ainvoke("anything")] == expected


def test_a_models_answer_becomes_a_search(store: MuveraVectorStore) -> None:
    pytest.importorskip("lark", reason="lark isn't installed, with which LangChain parses a model's filter")
    self_query = pytest.importorskip("langchain_classic.retrievers.self_query.base", reason="no langchain-classic")
    answers = {
        'and(gte("seats", 3), not(in("tags", ["public"])))': ["barge", "yacht"],
        'or(eq("built", "2024-01-01"), like("maker.land", "Can%"))': ["barge", "canoe", "yacht"],
        'lt("built", "2024-01-01T10:30:00Z")': ["barge", "canoe"],
        "NO_FILTER": ["barge", "canoe", "ferry", "kayak", "yacht"],
    }
    model = FakeListLLM(
        responses=["```json\n" + json.dumps({"query": "boats", "filter": answer}) + "\n```" for answer in answers]
    )
    fields = [
        {"name": name, "description": name, "type": "string"} for name in ("seats", "tags", "built", "maker.land")
    ]
    retriever = self_query.SelfQueryRetriever.from_llm(
        model, store, "boats", fields, structured_query_translator=MuveraTranslator(), search_kwargs={"k": 9}
    )
    for expected in answers.values():
        assert sorted(document.id for document in retriever.invoke("boats")) == expected
