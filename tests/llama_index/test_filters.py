"""Filters mean what llama-index-core's own implementation says, through the store and on disk's terms."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from llama_index.retrievers.muvera import MuveraVectorStore
from llama_index.retrievers.muvera.filters import to_filter

from muvera_core.errors import InvalidInputError

# Older ones have other rules for missing keys and case, and no "not".
REFERENCE_IS_CURRENT = tuple(map(int, version("llama-index-core").split(".")[:3])) >= (0, 14, 24)
against_the_reference = pytest.mark.skipif(not REFERENCE_IS_CURRENT, reason="needs llama-index-core 0.14.24")

KEYS = ("a", "b", "a.b")
TEXT = st.text(alphabet="aAbBéÉ%_*?[ ", max_size=3)
INTEGERS = st.integers(-2, 2) | st.just(2**70)
FLOATS = st.sampled_from([-1.5, 0.0, 1.0, 1.5, 1e300])
VALUES = st.none() | st.booleans() | INTEGERS | FLOATS | TEXT
LISTS = st.lists(TEXT | INTEGERS | st.booleans(), max_size=3)
METADATA = st.dictionaries(st.sampled_from(KEYS), VALUES | LISTS, max_size=3)

_TAKES_LIST = (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)
_TAKES_TEXT = (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE)


def _operand(operator: FilterOperator) -> st.SearchStrategy[Any]:
    if operator in _TAKES_LIST:
        return st.lists(TEXT, max_size=3) | st.lists(INTEGERS, max_size=3) | st.lists(FLOATS, max_size=3)
    if operator in _TAKES_TEXT:
        return TEXT
    if operator == FilterOperator.IS_EMPTY:
        return st.none()
    value = INTEGERS | FLOATS | TEXT
    return value | st.none() if operator in (FilterOperator.EQ, FilterOperator.NE) else value


def _leaves(operators: st.SearchStrategy[FilterOperator]) -> st.SearchStrategy[MetadataFilter]:
    return operators.flatmap(
        lambda operator: st.builds(
            MetadataFilter, key=st.sampled_from(KEYS), value=_operand(operator), operator=st.just(operator)
        )
    )


LEAVES = _leaves(st.sampled_from(FilterOperator))
CONDITIONS = st.sampled_from(FilterCondition) | st.none()
TREES: st.SearchStrategy[MetadataFilters] = st.recursive(
    st.builds(MetadataFilters, filters=st.lists(LEAVES, max_size=3), condition=CONDITIONS),
    lambda inner: st.builds(MetadataFilters, filters=st.lists(LEAVES | inner, max_size=3), condition=CONDITIONS),
    max_leaves=4,
)


def _reference(metadata: dict[str, Any], filters: MetadataFilters | MetadataFilter) -> bool:
    """What llama-index-core says of a single filter, put together by and, or and not.

    Where it raises a TypeError the document doesn't match.
    """
    if isinstance(filters, MetadataFilter):
        holds = build_metadata_filter_fn(lambda _: metadata, MetadataFilters(filters=[filters]))
        try:
            return bool(holds("id"))
        except TypeError:
            return False
    parts = [_reference(metadata, part) for part in filters.filters]
    if not parts:
        return True
    if filters.condition == FilterCondition.NOT:
        return not any(parts)
    return any(parts) if filters.condition == FilterCondition.OR else all(parts)


def _matching(store: MuveraVectorStore, metadatas: list[dict[str, Any]], filters: MetadataFilters) -> list[str]:
    store.clear()
    store.add([TextNode(id_=f"n{i}", text="text", metadata=metadata) for i, metadata in enumerate(metadatas)])
    return [node.node_id for node in store.get_nodes(filters=filters)]


GENERATED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@against_the_reference
@pytest.mark.parametrize("operator", list(FilterOperator), ids=lambda operator: operator.name)
def test_every_operator_means_what_the_reference_says(store: MuveraVectorStore, operator: FilterOperator) -> None:
    @GENERATED
    @given(metadatas=st.lists(METADATA, min_size=1, max_size=8), leaf=_leaves(st.just(operator)))
    def check(metadatas: list[dict[str, Any]], leaf: MetadataFilter) -> None:
        expected = [f"n{i}" for i, metadata in enumerate(metadatas) if _reference(metadata, leaf)]
        assert _matching(store, metadatas, MetadataFilters(filters=[leaf])) == expected

    check()


@against_the_reference
@GENERATED
@given(metadatas=st.lists(METADATA, min_size=1, max_size=8), filters=TREES)
def test_nested_conditions_combine_what_the_reference_says(
    store: MuveraVectorStore, metadatas: list[dict[str, Any]], filters: MetadataFilters
) -> None:
    expected = [f"n{i}" for i, metadata in enumerate(metadatas) if _reference(metadata, filters)]
    assert _matching(store, metadatas, filters) == expected


@against_the_reference
@GENERATED
@given(
    metadatas=st.lists(METADATA, min_size=1, max_size=8),
    leaves=st.lists(LEAVES, min_size=2, max_size=3),
    condition=CONDITIONS,
)
def test_a_whole_group_means_what_the_reference_says(
    store: MuveraVectorStore,
    metadatas: list[dict[str, Any]],
    leaves: list[MetadataFilter],
    condition: FilterCondition | None,
) -> None:
    filters = MetadataFilters(filters=list(leaves), condition=condition)
    holds = build_metadata_filter_fn(lambda id_: metadatas[int(id_[1:])], filters)
    try:
        expected = [f"n{i}" for i in range(len(metadatas)) if holds(f"n{i}")]
    except TypeError:
        return
    assert _matching(store, metadatas, filters) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [(FilterCondition.AND, ["n2"]), (FilterCondition.OR, ["n0", "n1", "n2"]), (FilterCondition.NOT, ["n3"])],
)
def test_conditions_combine_all_of_their_filters(
    store: MuveraVectorStore, condition: FilterCondition, expected: list[str]
) -> None:
    metadatas: list[dict[str, Any]] = [{"x": 1}, {"y": 1}, {"x": 1, "y": 1}, {}]
    leaves = [MetadataFilter(key=key, value=1) for key in ("x", "y")]
    flat = MetadataFilters(filters=list(leaves), condition=condition)
    assert _matching(store, metadatas, flat) == expected
    nested = MetadataFilters(filters=[MetadataFilters(filters=[leaf]) for leaf in leaves], condition=condition)
    assert _matching(store, metadatas, nested) == expected


def test_an_index_filled_through_the_core_is_filtered_too(store: MuveraVectorStore) -> None:
    store.client.add(["one", "two"], ids=["one", "two"], metadatas=[{"year": 2019, "tags": ["x"]}, {"year": 2021}])
    recent = MetadataFilters(filters=[MetadataFilter(key="year", value=2020, operator=FilterOperator.GT)])
    tagged = MetadataFilters(filters=[MetadataFilter(key="tags", value="x", operator=FilterOperator.CONTAINS)])
    assert [node.node_id for node in store.get_nodes(filters=recent)] == ["two"]
    assert [node.node_id for node in store.get_nodes(filters=tagged)] == ["one"]


def test_no_filter_asks_nothing() -> None:
    assert to_filter(None) is None
    assert to_filter(MetadataFilters(filters=[]), ref_doc_ids=[]) is None


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        (FilterOperator.EQ, ["a", "b"], ["n0"]),
        (FilterOperator.EQ, ["b", "a"], []),
        (FilterOperator.EQ, [], ["n2"]),
        (FilterOperator.NE, ["a", "b"], ["n1", "n2", "n3"]),
    ],
)
def test_a_list_is_compared_as_a_whole(
    store: MuveraVectorStore, operator: FilterOperator, value: list[str], expected: list[str]
) -> None:
    metadatas: list[dict[str, Any]] = [{"x": ["a", "b"]}, {"x": "a"}, {"x": []}, {}]
    leaf = MetadataFilter(key="x", value=value, operator=operator)
    assert _matching(store, metadatas, MetadataFilters(filters=[leaf])) == expected


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        (FilterOperator.IN, "abc", "a list"),
        (FilterOperator.ALL, 3, "a list"),
        (FilterOperator.GT, None, "a string or a number"),
        (FilterOperator.TEXT_MATCH, 3, "a string"),
    ],
)
def test_a_value_that_does_not_suit_its_operator_is_refused(
    operator: FilterOperator, value: Any, expected: str
) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="a", value=value, operator=operator)])
    with pytest.raises(InvalidInputError, match=f"needs {expected}, got"):
        to_filter(filters)
