"""Translates LlamaIndex's metadata filters to filters of muvera_core.

A filter admits the same nodes as llama-index-core's ``build_metadata_filter_fn``, which compares with Python's
operators. So ``==`` compares a list as a whole; ``contains``, ``any`` and ``all`` look into it. ``!=`` and ``nin`` hold
if the key is missing. True equals 1, except among the elements of a list.

A dictionary is taken as a filter of muvera_core, and means what it means there.

There are two differences. If a document's value has another type than the filter's, the document does not match;
``build_metadata_filter_fn`` raises a ``TypeError``. Nested filters work; that function refuses them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.retrievers.muvera.nodes import LISTS_FIELD, REF_DOC_ID_FIELD, RESERVED_KEY

from muvera_core.errors import InvalidInputError
from muvera_core.filters import compile_filter
from muvera_core.validation import require_mapping, shown

Filter = dict[str, Any]
Filters = MetadataFilters | Mapping[str, Any]

_NEVER: Filter = {RESERVED_KEY: {"$exists": True, "$not": {"$exists": True}}}
_ALWAYS: Filter = {"$not": _NEVER}


def to_filter(
    filters: Filters | None,
    *,
    ref_doc_ids: Sequence[str] | None = None,
) -> Filter | None:
    """The core's filter for documents that match all arguments. None if no argument restricts them.

    Args:
        filters: conditions on metadata: LlamaIndex's, or a dictionary, which is a filter of muvera_core.
        ref_doc_ids: ids of the documents whose nodes are admitted. None and an empty list admit all nodes.

    Raises:
        InvalidInputError: ``filters`` is something else, or a filter's value does not suit its operator.
    """
    parts = [] if filters is None or is_empty(filters) else [_translated(filters)]
    if ref_doc_ids:
        parts.append({REF_DOC_ID_FIELD: {"$in": list(ref_doc_ids)}})
    return _all(parts) if parts else None


def require_filters(name: str, filters: Filters | None) -> Filters | None:
    """Conditions that can be searched with, as they were given.

    Raises:
        InvalidInputError: they cannot.
    """
    compile_filter(to_filter(filters))
    return filters


def is_empty(filters: Filters) -> bool:
    """Whether filters have no condition, so that they admit every node.

    Raises:
        InvalidInputError: ``filters`` is neither ``MetadataFilters`` nor a dictionary.
    """
    if isinstance(filters, MetadataFilters):
        return not filters.filters
    if isinstance(filters, Mapping):
        return not filters
    raise InvalidInputError(
        f"filters must be MetadataFilters or a dictionary, got {shown(filters)}: "
        "write MetadataFilters(filters=[MetadataFilter(key=…, value=…)]) or {key: value}"
    )


def say_nothing(filters: Filters) -> bool:
    """Whether filters have no condition at any level, so that they admit every node."""
    if not isinstance(filters, MetadataFilters) or filters.condition == FilterCondition.NOT:
        return is_empty(filters)
    return all(isinstance(part, MetadataFilters) and say_nothing(part) for part in filters.filters)


def _translated(filters: Filters) -> Filter:
    return _group(filters) if isinstance(filters, MetadataFilters) else require_mapping("filters", filters)


def _group(filters: MetadataFilters) -> Filter:
    if not filters.filters:
        return _ALWAYS
    parts = [_group(part) if isinstance(part, MetadataFilters) else _single(part) for part in filters.filters]
    condition = filters.condition or FilterCondition.AND
    if condition == FilterCondition.AND:
        return _all(parts)
    return {"$or": parts} if condition == FilterCondition.OR else {"$nor": parts}


def _single(filter: MetadataFilter) -> Filter:
    return _OPERATORS[filter.operator](filter.key, filter)


def _equal(key: str, filter: MetadataFilter) -> Filter:
    if filter.value is None:
        return _NEVER
    if isinstance(filter.value, list):
        return {key: {"$eq": filter.value}}
    return _one_of(key, [_scalar(filter)])


def _is_in(key: str, filter: MetadataFilter) -> Filter:
    return _one_of(key, _list(filter))


def _one_of(key: str, values: list[Any]) -> Filter:
    return _all([{key: {"$in": _with_booleans(values)}}, _single_valued(key)]) if values else _NEVER


def _compare(name: str, holds: Callable[[Any, Any], bool]) -> Callable[[str, MetadataFilter], Filter]:
    def translate(key: str, filter: MetadataFilter) -> Filter:
        value = _scalar(filter)
        condition: Filter = {key: {name: value}}
        booleans = [b for b in (False, True) if not isinstance(value, str) and holds(b, value)]
        if booleans:
            condition = {"$or": [condition, {key: {"$in": booleans}}]}
        return _all([condition, _single_valued(key)])

    return translate


def _contains(key: str, filter: MetadataFilter) -> Filter:
    value = _scalar(filter)
    return _in_list_or_text(key, [value], "$or")


def _any_of(key: str, filter: MetadataFilter) -> Filter:
    return _in_list_or_text(key, _list(filter), "$or")


def _all_of(key: str, filter: MetadataFilter) -> Filter:
    return _in_list_or_text(key, _list(filter), "$and")


def _in_list_or_text(key: str, values: list[Any], combine: str) -> Filter:
    """Python's ``value in field`` for each value: it is an element of a list, or part of a string."""
    if not values:
        return _NEVER if combine == "$or" else {key: {"$ne": None}}
    as_list: Filter = {combine: [{key: {"$in": _with_booleans([value])}} for value in values]}
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):  # a number is not part of any string
        return _all([as_list, _list_valued(key)])
    as_text: Filter = {combine: [{key: {"$contains": text}} for text in texts]}
    return {"$or": [as_list, _all([as_text, _single_valued(key)])]}


def _text_match(name: str) -> Callable[[str, MetadataFilter], Filter]:
    def translate(key: str, filter: MetadataFilter) -> Filter:
        if not isinstance(filter.value, str):
            raise _unsuitable(filter, "a string")
        return _all([{key: {name: filter.value}}, _single_valued(key)])

    return translate


def _negated(
    translate: Callable[[str, MetadataFilter], Filter],
) -> Callable[[str, MetadataFilter], Filter]:
    return lambda key, filter: {"$not": translate(key, filter)}


_OPERATORS: dict[FilterOperator, Callable[[str, MetadataFilter], Filter]] = {
    FilterOperator.EQ: _equal,
    FilterOperator.NE: _negated(_equal),
    FilterOperator.GT: _compare("$gt", operator.gt),
    FilterOperator.GTE: _compare("$gte", operator.ge),
    FilterOperator.LT: _compare("$lt", operator.lt),
    FilterOperator.LTE: _compare("$lte", operator.le),
    FilterOperator.IN: _is_in,
    FilterOperator.NIN: _negated(_is_in),
    FilterOperator.ANY: _any_of,
    FilterOperator.ALL: _all_of,
    FilterOperator.CONTAINS: _contains,
    FilterOperator.TEXT_MATCH: _text_match("$contains"),
    FilterOperator.TEXT_MATCH_INSENSITIVE: _text_match("$icontains"),
    FilterOperator.IS_EMPTY: lambda key, filter: {key: {"$empty": True}},
}


def _single_valued(key: str) -> Filter:
    return {LISTS_FIELD: {"$ne": key}}


def _list_valued(key: str) -> Filter:
    return {"$or": [{LISTS_FIELD: key}, {RESERVED_KEY: {"$exists": False}}]}


def _with_booleans(values: list[Any]) -> list[Any]:
    """The values, with True beside 1 and False beside 0: they are equal in Python, but not in the core."""
    return values + [b for b in (False, True) if any(not isinstance(value, str) and value == b for value in values)]


def _scalar(filter: MetadataFilter) -> Any:
    if filter.value is None or isinstance(filter.value, list):
        raise _unsuitable(filter, "a string or a number")
    return filter.value


def _list(filter: MetadataFilter) -> list[Any]:
    if not isinstance(filter.value, list):
        raise _unsuitable(filter, "a list")
    return list(filter.value)


def _all(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else {"$and": parts}


def _unsuitable(filter: MetadataFilter, expected: str) -> InvalidInputError:
    return InvalidInputError(
        f"filter on {filter.key!r}: operator {filter.operator.value!r} needs {expected}, got {filter.value!r}"
    )
