"""Filters compare dates as moments, in whatever form a document holds them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera_core import FDEConfig, MuveraIndex
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.metadata import normalize_metadata

ENCODER = PrecomputedEmbeddings(4, "any")
FDE = FDEConfig(dimension=4, num_repetitions=2, num_simhash_projections=2, projection_dimension=None)

# One moment in all forms, between two strings that stand near it and name no moment.
MIDNIGHT = [
    "2024-03-01",
    "2024-03-01T00:00",
    "2024-03-01 00:00:00",
    "2024-03-01T00:00:00.000",
    "2024-03-01T00:00:00Z",
    "2024-03-01 00:00:00+00:00",
    "2024-03-01T05:45+05:45",
    "2024-02-29 16:00:00.0000-08:00",
]
LATER = ["2024-03-01T00:00:00.000001", "2024-03-01T00:00-00:01", "2024-02-29T23:00-09:00", "2024-03-02"]
EARLIER = ["2024-02-29", "2024-02-29T23:59:59.999999Z", "2024-03-01T09:00+09:01", "0001-01-01"]
NO_DATES = ["2024-03-01T24:00", "2024-02-30", "20240301", "2024-03-01T00:00:00+0000", "2024-3-1", "March", "", "2024"]
ALL = [*MIDNIGHT, *LATER, *EARLIER, *NO_DATES]


def matching(strings: list[str], filter: Any) -> list[str]:
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        ids = [str(i) for i in range(len(strings))]
        index.add_embeddings([np.eye(1, 4)] * len(ids), ids=ids, metadatas=[{"d": string} for string in strings])
        return [document.metadata["d"] for document in index.find({"d": filter})]


class InSydney(datetime):
    """A subclass, as libraries for dates have it."""


@pytest.mark.parametrize(
    "operand",
    [
        "2024-03-01",
        "2024-03-01T01:00:00+01:00",
        date(2024, 3, 1),
        datetime(2024, 3, 1),
        datetime(2024, 3, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        InSydney(2024, 3, 1, 10, tzinfo=timezone(timedelta(hours=10))),
        np.datetime64("2024-03-01"),
        np.datetime64("2024-03-01T00:00:00.000000000"),
    ],
    ids=repr,
)
def test_dates_compare_as_moments(operand: Any) -> None:
    text = normalize_metadata({"d": operand})["d"]  # what strings that are no dates compare with
    above, below = [s for s in NO_DATES if s > text], [s for s in NO_DATES if s < text]
    assert matching(ALL, {"$gt": operand}) == [*LATER, *above]
    assert matching(ALL, {"$gte": operand}) == [*MIDNIGHT, *LATER, *above]
    assert matching(ALL, {"$lt": operand}) == [*EARLIER, *below]
    assert matching(ALL, {"$lte": operand}) == [*MIDNIGHT, *EARLIER, *below]


@pytest.mark.parametrize("operand", [date(2024, 3, 1), datetime(2024, 3, 1, tzinfo=UTC), np.datetime64("2024-03-01")])
def test_a_date_object_equals_its_moment_in_every_form(operand: Any) -> None:
    others = [*LATER, *EARLIER, *NO_DATES]
    assert matching(ALL, operand) == MIDNIGHT
    assert matching(ALL, {"$eq": operand}) == MIDNIGHT
    assert matching(ALL, {"$ne": operand}) == others
    assert matching(ALL, {"$in": [operand, "March", datetime(2024, 3, 2)]}) == [*MIDNIGHT, "2024-03-02", "March"]
    assert matching(ALL, {"$nin": [operand]}) == others
    assert matching(ALL, {"$all": [operand]}) == MIDNIGHT


def test_a_string_equals_only_itself() -> None:
    assert matching(ALL, "2024-03-01") == ["2024-03-01"]
    assert matching(ALL, {"$in": ["2024-03-01T00:00"]}) == ["2024-03-01T00:00"]


def test_dates_of_documents_are_found_as_they_were_given() -> None:
    dates = [datetime(2024, 3, 1, 2, tzinfo=timezone(timedelta(hours=2))), datetime(2024, 3, 1), date(2024, 3, 1)]
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        index.add_embeddings([np.eye(1, 4)] * 3, metadatas=[{"d": [value]} for value in dates])
        for value in dates:
            assert len(index.find({"d": value})) == 3
            assert len(index.find({"d": [value]})) == 1
        assert index.find({"d": {"$gt": dates[0]}}) == []


def test_the_first_and_the_last_years_compare_too() -> None:
    east, west = timezone(timedelta(hours=23)), timezone(-timedelta(hours=23))
    first, last = datetime.min.replace(tzinfo=east), datetime.max.replace(tzinfo=west)
    strings = ["0001-01-01", first.isoformat(), "9999-12-31", last.isoformat(), "0000-01-01", "9999-12-32", ":", ""]
    assert matching(strings, {"$lte": first}) == [first.isoformat(), "0000-01-01", ""]
    assert matching(strings, {"$gte": last}) == [last.isoformat(), "9999-12-32", ":"]
    assert matching(strings, {"$lt": date.min}) == [first.isoformat(), "0000-01-01", ""]
    assert matching(strings, {"$gt": date.max}) == [last.isoformat(), "9999-12-32", ":"]
    assert matching(strings, date.max) == ["9999-12-31"]


def test_a_year_that_python_lacks_compares_as_a_string() -> None:
    strings = ["12024-03-15", "12024-03-16", "2024-03-15"]
    assert matching(strings, np.datetime64("12024-03-15")) == ["12024-03-15"]
    assert matching(strings, {"$gt": np.datetime64("12024-03-15")}) == ["12024-03-16", "2024-03-15"]


# Random dates, against Python's own comparison of datetimes

minutes = st.integers(-(24 * 60 - 1), 24 * 60 - 1)
days = st.sampled_from([date(2024, 2, 28), date(2024, 3, 1), date(1, 1, 1), date(1, 1, 3), date(9999, 12, 31)])


@st.composite
def written_dates(draw: st.DrawFn) -> tuple[str, datetime]:
    """A string that names a moment, and the moment."""
    shift = draw(st.integers(-3, 3))
    day = draw(days)
    day = date.fromordinal(min(max(day.toordinal() + shift, 1), date.max.toordinal()))
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if draw(st.booleans()):
        return day.isoformat(), moment
    moment = moment.replace(hour=draw(st.sampled_from([0, 1, 12, 23])), minute=draw(st.sampled_from([0, 30, 59])))
    text = f"{day.isoformat()}{draw(st.sampled_from('T '))}{moment:%H:%M}"
    if draw(st.booleans()):
        moment = moment.replace(second=draw(st.sampled_from([0, 59])))
        text += f":{moment:%S}"
        if draw(st.booleans()):
            moment = moment.replace(microsecond=draw(st.sampled_from([0, 500_000, 999_999])))
            text += f".{moment:%f}".rstrip("0") + "0"
    offset = draw(st.none() | st.just("Z") | minutes)
    if isinstance(offset, int):
        hours, rest = divmod(abs(offset), 60)
        text += f"{'-' if offset < 0 else '+'}{hours:02}:{rest:02}"
        return text, moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    return text + (offset or ""), moment


other_strings = st.sampled_from(NO_DATES) | written_dates().map(lambda pair: pair[0] + "x")
strings = written_dates() | st.tuples(other_strings, st.none())
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


@given(stored=st.lists(strings, min_size=1, max_size=12), operand=written_dates())
@settings(max_examples=150, deadline=None)
def test_random_dates_compare_as_python_compares_them(
    stored: list[tuple[str, datetime | None]], operand: tuple[str, datetime]
) -> None:
    text, moment = operand
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        index.add_embeddings([np.eye(1, 4)] * len(stored), metadatas=[{"d": string} for string, _ in stored])
        for name, holds in OPERATORS.items():
            expected = [s for s, m in stored if (holds(s, text) if m is None else holds(m, moment))]
            assert [document.metadata["d"] for document in index.find({"d": {name: text}})] == expected
        equal = [s for s, m in stored if m == moment]
        assert [document.metadata["d"] for document in index.find({"d": moment})] == equal
