"""Translates the filters that a language model writes to filters of muvera, for LangChain's ``SelfQueryRetriever``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery, Visitor

from langchain_muvera.keywords import refuses_unknown

Filter = dict[str, Any]

_OPERATORS = {Operator.AND: "$and", Operator.OR: "$or", Operator.NOT: "$nor"}
_NEGATED = {Comparator.NE: Comparator.EQ, Comparator.NIN: Comparator.IN}


class MuveraTranslator(Visitor):
    """Lets a ``SelfQueryRetriever`` search a ``MuveraVectorStore``. It knows all of LangChain's comparators.

    ``contain`` holds if the value is part of a string, or an element of a list. ``like`` takes an SQL pattern. ``ne``,
    ``nin`` and ``not`` also admit documents without the field. Dates and times are compared with ISO 8601 strings,
    which is how the index stores Python's dates: a date stands for the whole day, a time for the whole second, in UTC.

    Args:
        filter: conditions on metadata that hold in every search, whatever the model writes. A filter in the retriever's
            ``search_kwargs`` would be replaced by the model's.

    Example:
        .. code-block:: python

            from langchain_classic.retrievers import SelfQueryRetriever
            from langchain_muvera import MuveraTranslator

            retriever = SelfQueryRetriever.from_llm(
                model, store, "articles", fields, structured_query_translator=MuveraTranslator()
            )
    """

    allowed_comparators = tuple(Comparator)
    allowed_operators = tuple(Operator)

    @refuses_unknown
    def __init__(self, filter: Mapping[str, Any] | None = None) -> None:
        self.filter = filter

    def visit_operation(self, operation: Operation) -> Filter:
        """The filter for conditions that are joined by and, or, or not."""
        return {_OPERATORS[operation.operator]: [argument.accept(self) for argument in operation.arguments]}

    def visit_comparison(self, comparison: Comparison) -> Filter:
        """The filter for one condition."""
        comparator, field, value = comparison.comparator, comparison.attribute, comparison.value
        if comparator in _NEGATED:
            return {"$not": _COMPARATORS[_NEGATED[comparator]](field, value)}
        return _COMPARATORS[comparator](field, value)

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        """The question, and the keywords to search with."""
        filters = [self.filter] if self.filter else []
        if structured_query.filter is not None:
            filters.append(structured_query.filter.accept(self))
        if len(filters) > 1:
            return structured_query.query, {"filter": {"$and": filters}}
        return structured_query.query, {"filter": filters[0]} if filters else {}


def _equal(field: str, value: Any) -> Filter:
    span = _time_span(value)
    return {field: {"$eq": value} if span is None else {"$gte": span[0], "$lt": span[1]}}


def _one_of(field: str, values: Any) -> Filter:
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    if not values:
        return {field: {"$exists": True, "$not": {"$exists": True}}}  # nothing is one of no values
    if any(_time_span(value) for value in values):
        return {"$or": [_equal(field, value) for value in values]}
    return {field: {"$in": values}}


def _contains(field: str, value: Any) -> Filter:
    return {field: {"$contains": value}} if isinstance(value, str) else _equal(field, value)


def _like(field: str, value: Any) -> Filter:
    return {field: {"$like": value}}


def _compares(operator: str, for_span: str, bound: int) -> Callable[[str, Any], Filter]:
    """A comparison by ``operator``, or for a span of time by ``for_span`` with its start (0) or its end (1)."""

    def translate(field: str, value: Any) -> Filter:
        span = _time_span(value)
        return {field: {operator: value} if span is None else {for_span: span[bound]}}

    return translate


_COMPARATORS: dict[Comparator, Callable[[str, Any], Filter]] = {
    Comparator.EQ: _equal,
    Comparator.GT: _compares("$gt", "$gte", 1),
    Comparator.GTE: _compares("$gte", "$gte", 0),
    Comparator.LT: _compares("$lt", "$lt", 0),
    Comparator.LTE: _compares("$lte", "$lt", 1),
    Comparator.IN: _one_of,
    Comparator.CONTAIN: _contains,
    Comparator.LIKE: _like,
}


def _time_span(value: Any) -> tuple[str, str] | None:
    """Start and end of a day or a second, as ISO 8601 strings, from LangChain's value for it. None for other values."""
    if not isinstance(value, dict) or value.get("type") not in ("date", "datetime"):
        return None
    text = str(value.get(value["type"])).rstrip("Zz")  # without an offset, a time is UTC's
    try:
        if value["type"] == "date":
            return text, (date.fromisoformat(text) + timedelta(days=1)).isoformat()
        return text, (datetime.fromisoformat(text) + timedelta(seconds=1)).isoformat()
    except (ValueError, OverflowError):  # no such day, or the last one: all strings that begin with it
        return text, text + "~"
