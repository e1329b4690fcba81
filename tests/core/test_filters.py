from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera_core import FDEConfig, MuveraIndex
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import InvalidInputError
from muvera_core.filters.language import MAX_DEPTH, compile_filter
from muvera_core.stage_one import stage_one

ENCODER = PrecomputedEmbeddings(4, "any")
FDE = FDEConfig(dimension=4, num_repetitions=2, num_simhash_projections=2, projection_dimension=None)
DOCUMENTS: dict[str, dict[str, Any]] = {
    "ada": {"year": 1843, "tags": ["math", "engine"], "author": {"name": "Ada", "born": 1815}, "draft": False},
    "bob": {"year": 1999.5, "tags": ["Math"], "author": {"name": "Bob"}, "draft": True, "note": None},
    "cyd": {"year": "1843", "tags": [], "title": "100% [sic] résumé*"},
    "dan": {},
    "eve": {"year": -3, "tags": "math", "note": "", "big": 2**70, "deep": {"a": {"b": [1, [2, {"c": 3}]]}}},
}


class Subject(enum.Enum):
    MATH = "math"


@pytest.fixture(scope="module")
def index() -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        index.add_embeddings([np.eye(1, 4)] * 5, ids=list(DOCUMENTS), metadatas=list(DOCUMENTS.values()))
        yield index


CASES: list[tuple[dict[str, Any], str]] = [
    ({}, "ada bob cyd dan eve"),
    ({"year": 1843}, "ada"),
    ({"year": 1843.0}, "ada"),
    ({"year": "1843"}, "cyd"),
    ({"year": {"$eq": 1999.5}}, "bob"),
    ({"draft": True}, "bob"),
    ({"draft": 1}, ""),
    ({"year": True}, ""),
    ({"year": {"$ne": 1843}}, "bob cyd dan eve"),
    ({"year": {"$gt": 1843}}, "bob"),
    ({"year": {"$gte": 1843}}, "ada bob"),
    ({"year": {"$lt": 0}}, "eve"),
    ({"year": {"$lte": 1843, "$gt": -3}}, "ada"),
    ({"year": {"$gte": "18"}}, "cyd"),
    ({"year": {"$in": [1843, "1843", -3]}}, "ada cyd eve"),
    ({"year": {"$nin": [1843, "1843"]}}, "bob dan eve"),
    ({"note": {"$in": [None]}}, "ada bob cyd dan"),
    ({"note": None}, "ada bob cyd dan"),
    ({"note": {"$ne": None}}, "eve"),
    ({"note": {"$exists": True}}, "bob eve"),
    ({"note": {"$exists": False}}, "ada cyd dan"),
    ({"tags": {"$exists": True}}, "ada bob cyd eve"),
    ({"tags": "math"}, "ada eve"),
    ({"tags": {"$all": ["math", "engine"]}}, "ada"),
    ({"tags": ["math", "engine"]}, "ada"),
    ({"tags": ["engine", "math"]}, ""),
    ({"tags": []}, "cyd"),
    ({"tags": {"$ne": []}}, "ada bob dan eve"),
    ({"deep.a.b": [1.0, [2, {"c": 3.0}]]}, "eve"),
    ({"deep.a.b": [2, {"c": 3}]}, "eve"),
    ({"tags": {"$empty": True}}, "cyd dan"),
    ({"tags": {"$empty": False}}, "ada bob eve"),
    ({"note": {"$empty": True}}, "ada bob cyd dan eve"),
    ({"author": {"$exists": True}}, "ada bob"),
    ({"author.name": "Ada"}, "ada"),
    ({"author": {"name": "Ada", "born": {"$lt": 1900}}}, "ada"),
    ({"author.name": {"$exists": True}, "author.born": {"$exists": False}}, "bob"),
    ({"deep.a.b": 2}, "eve"),
    ({"deep.a.b.c": 3}, "eve"),
    ({"big": {"$gt": 2**63}}, "eve"),
    ({"big": 2**70}, "eve"),
    ({"tags": {"$like": "m%h"}}, "ada eve"),
    ({"tags": {"$like": "_ath"}}, "ada bob eve"),
    ({"tags": {"$ilike": "MATH"}}, "ada bob eve"),
    ({"title": {"$like": "100\u0025 [sic]%"}}, "cyd"),
    ({"title": {"$like": "%*"}}, "cyd"),
    ({"title": {"$like": "%?"}}, ""),
    ({"title": {"$contains": "[sic] rés"}}, "cyd"),
    ({"title": {"$contains": "RÉS"}}, ""),
    ({"title": {"$icontains": "RÉS"}}, "cyd"),
    ({"year": {"$contains": "1843"}}, "cyd"),
    ({"$and": [{"tags": "math"}, {"year": {"$gt": 0}}]}, "ada"),
    ({"$or": [{"year": 1843}, {"draft": True}]}, "ada bob"),
    ({"$nor": [{"year": 1843}, {"draft": True}]}, "cyd dan eve"),
    ({"$not": {"tags": "math"}}, "bob cyd dan"),
    ({"year": {"$not": {"$gt": 0}}}, "cyd dan eve"),
    ({"$or": [{"year": 1843}, {"draft": True}], "tags": {"$ne": "Math"}}, "ada"),
    ({"$and": [{"$or": [{"year": 1843}, {"year": -3}]}, {"$not": {"$or": [{"big": {"$exists": True}}]}}]}, "ada"),
    ({"year": np.int64(1843)}, "ada"),
    ({"tags": {"$in": []}}, ""),
    ({"tags": {"$nin": []}}, "ada bob cyd dan eve"),
    ({"tags": {"$all": []}}, ""),
    ({"$not": {"tags": {"$all": []}}}, "ada bob cyd dan eve"),
    ({"$or": [{"tags": {"$in": []}}, {"draft": True}]}, "bob"),
    ({"$and": [{"tags": {"$nin": ()}}, {"draft": True}]}, "bob"),
    # Operands are what metadata can be
    ({"year": Decimal("1999.5")}, "bob"),
    ({"year": {"$in": np.array([1843, -3])}}, "ada eve"),
    ({"year": {"$gt": np.float32(1843)}}, "bob"),
    ({"year": {"$lt": Decimal("Infinity")}}, "ada bob eve"),
    ({"year": {"$gte": np.float32("-inf")}}, "ada bob eve"),
    ({"year": {"$lt": 10**400}}, "ada bob eve"),
    ({"tags": Subject.MATH}, "ada eve"),
    ({"tags": {"$in": {Subject.MATH}}}, "ada eve"),
    ({"tags": {"$in": [Subject.MATH, PurePosixPath("Math")]}}, "ada bob eve"),
    ({"tags": ("math", "engine")}, "ada"),
    ({"tags": np.array(["math", "engine"])}, "ada"),
    ({"tags": (Subject.MATH, b"engine")}, "ada"),
    ({"tags": {"$all": (Subject.MATH, "engine")}}, "ada"),
    ({"title": {"$contains": Path("[sic]")}}, "cyd"),
    ({"year": {"$in": [UUID(int=0), b"1843"]}}, "cyd"),
    ({"draft": {"$exists": np.bool_(True)}}, "ada bob"),
]


@pytest.mark.parametrize(("filter", "expected"), CASES, ids=lambda value: str(value))
def test_operators(index: MuveraIndex, filter: dict[str, Any], expected: str) -> None:
    assert [document.id for document in index.find(filter)] == expected.split()
    found = index.search_embeddings(np.eye(1, 4), filter=filter)
    assert sorted(hit.id for hit in found) == expected.split()


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ([], "must be a dictionary"),
        ("year = 3", "must be a dictionary"),
        ({"$xor": []}, r"unknown operator \$xor at the top"),
        ({"$or": []}, r"\$or needs a list that is not empty"),
        ({"$and": {"a": 1}}, r"\$and needs a list"),
        ({"$not": [{"a": 1}]}, "must be a dictionary"),
        ({"$or": [{}]}, "must be a dictionary"),
        ({"year": {"$near": 3}}, r"field 'year': unknown operator \$near, expected one of \$eq, \$ne"),
        ({"year": {"$gt": None}}, r"\$gt needs a number, a string or a date"),
        ({"year": {"$gt": True}}, r"\$gt needs a number, a string or a date"),
        ({"year": {"$gt": [1]}}, "for lists use"),
        ({"year": [1, object()]}, "cannot compare with"),
        ({"year": {"$in": 3}}, r"\$in needs a list"),
        ({"year": {"$in": [[1]]}}, "compares with a string"),
        ({"year": {"$exists": 1}}, "needs True or False"),
        ({"year": {"$like": 3}}, "needs a string"),
        ({"year": {"$eq": float("nan")}}, "NaN"),
        ({"year": {"$in": [Decimal("sNaN")]}}, "NaN"),
        ({"year": np.datetime64("NaT")}, "NaN.*None instead"),
        ({"year": {"$gt": timedelta(1)}}, "span of time"),
        ({"year": {"$equals": 3}}, r"unknown operator \$equals, .* Did you mean \$eq\?"),
        ({"year": {"$regex": "1.*"}}, r"unknown operator \$regex, .* Did you mean \$like\?"),
        ({"year": {"$GTE": 3}}, r"Did you mean \$gte\?"),
        ({"year": {"$not_in": [3]}}, r"Did you mean \$nin\?"),
        ({"year": {"$contians": "a"}}, r"Did you mean \$contains\?"),
        ({"$OR": [{"year": 3}]}, r"unknown operator \$OR at the top of a filter: .* Did you mean \$or\?"),
        ({"year": {"eq": 3}}, r"field 'year': 'eq' names the nested field 'year.eq', .* write '\$eq'"),
        ({"year": {"gte": 3, "lt": 5}}, r"'year.lt', but no document has an object at 'year'.* write '\$lt'"),
        ({"year": {"not": {"eq": 3}}}, r"write '\$(not|eq)'"),
        ({"author": {"name": {"icontains": "a"}}}, r"'author.name.icontains'.* write '\$icontains'"),
        ({"tags": {"in": ["math"]}}, r"write '\$in'"),
        ({"tags": {"any_of": ["math"]}}, r"write '\$in'"),
        ({"title": {"regex": "a.*"}}, r"write '\$like'"),
        ({"title": {"startsWith": "a"}}, r"write '\$like'"),
        ({"year": {">=": 3}}, r"write '\$gte'"),
        ({"$or": [{"draft": True}, {"year": {"equals": 3}}]}, r"write '\$eq'"),
        ({"or": [{"year": 3}, {"year": 4}]}, r"no document has the field 'or'. If you mean the operator, write '\$or'"),
        ({"$and": [{"AND": ({"year": 3},)}]}, r"write '\$and'"),
        ({"not": {"year": 3}}, r"write '\$not'"),
        ({"year": {"$not": 3}}, r"\$not needs operators"),
        ({"year": {}}, "either operators or nested fields"),
        ({"year": {"$gt": 1, "month": 2}}, "either operators or nested fields"),
        ({3: 4}, "names of fields"),
        ({"": 4}, "names of fields"),
        ({"a": object()}, "cannot compare with .* of type object"),
        ({"a": {"$in": [{"b": 1}]}}, "compares with a string"),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),  # the same in every process
)
def test_invalid_filters_are_refused(index: MuveraIndex, filter: Any, message: str) -> None:
    for call in (
        lambda: index.search_embeddings(np.eye(1, 4), filter=filter),
        lambda: index.find(filter),
        lambda: index.delete(filter=filter),
    ):
        with pytest.raises(InvalidInputError, match=message):
            call()
    assert len(index) == 5


def test_fields_that_are_named_like_operators_are_found() -> None:
    metadatas: list[dict[str, Any]] = [
        {"votes": {"like": 3, "not": {"eq": 1}}, "or": [{"a": 1}]},
        {"votes": None, "not": {"year": 3}},
        {"list": [{"in": 1}, {"in": 2}]},
    ]
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        assert index.find({"votes": {"like": 3}, "or": [{"a": 1}]}) == []
        index.add_embeddings([np.eye(1, 4)] * 3, ids=["a", "b", "c"], metadatas=metadatas)
        cases: list[tuple[dict[str, Any], str]] = [
            ({"votes": {"like": {"$gt": 2}}}, "a"),
            ({"votes": {"not": {"eq": 1}}}, "a"),
            ({"votes": {"contains": 3}}, ""),
            ({"or": [{"a": 1}]}, "a"),
            ({"not": {"year": 3}}, "b"),
            ({"list": {"in": 2}}, "c"),
            ({"missing": {"eq": 2}}, ""),
            ({"votes.eq": 2}, ""),
        ]
        for filter, expected in cases:
            assert "".join(document.id for document in index.find(filter)) == expected


def test_a_filter_can_be_nested_only_so_deep() -> None:
    filter: dict[str, Any] = {"a": 1}
    for _ in range(MAX_DEPTH - 2):
        filter = {"$not": filter}
    compile_filter(filter)
    for _ in range(5000):
        filter = {"$not": filter}
    with pytest.raises(InvalidInputError, match="nested more than"):
        compile_filter(filter)
    field: dict[str, Any] = {"$gt": 1}
    for _ in range(5000):
        field = {"$not": field}
    with pytest.raises(InvalidInputError, match="nested more than"):
        compile_filter({"a": field})


# Generated filters on generated metadata, against a plain evaluation of MongoDB's rules

scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, "", "a", "ab", "B"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2)
)
metadatas = st.dictionaries(st.sampled_from("xyz"), values, max_size=3)
orderable = st.integers(-2, 2) | st.sampled_from([0.5, "a", "ab"])
operators = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), scalars),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), orderable),
    st.tuples(st.sampled_from(["$in", "$nin", "$all"]), st.lists(scalars, max_size=3)),
    st.tuples(st.sampled_from(["$exists", "$empty"]), st.booleans()),
    st.tuples(st.just("$contains"), st.sampled_from(["a", "b", ""])),
)
fields = st.tuples(st.sampled_from(["x", "y", "z", "x.y", "x.x.y"]), operators).map(lambda f: {f[0]: dict([f[1]])})
filters = st.recursive(
    fields,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)).map(
            lambda pair: {pair[0]: pair[1]}
        ),
        inner.map(lambda f: {"$not": f}),
    ),
    max_leaves=6,
)


def reach(value: Any, path: list[str]) -> list[Any]:
    """Everything at a path; a list stands for itself and for its elements."""
    if isinstance(value, list):
        inside = [found for element in value for found in reach(element, path)]
        return inside if path else [value, *inside]
    if not path:
        return [value]
    return reach(value[path[0]], path[1:]) if isinstance(value, dict) and path[0] in value else []


def same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool) and a == b
    return not isinstance(a, (list, dict)) and a == b


def holds(filter: dict[str, Any], metadata: dict[str, Any]) -> bool:
    ((name, operand),) = filter.items()
    if name == "$not":
        return not holds(operand, metadata)
    if name in ("$and", "$or", "$nor"):
        results = [holds(part, metadata) for part in operand]
        return all(results) if name == "$and" else any(results) if name == "$or" else not any(results)
    ((operator, value),) = operand.items()
    found = reach(metadata, name.split("."))

    def equal(wanted: Any) -> bool:
        return any(same(f, wanted) for f in found) or (wanted is None and not found)

    def ordered(compare: str) -> bool:
        both = [f for f in found if not isinstance(f, bool) and isinstance(f, str) == isinstance(value, str)]
        comparable = [f for f in both if isinstance(f, (int, float, str))]
        return any(getattr(float(f) if not isinstance(f, str) else f, compare)(value) is True for f in comparable)

    match operator:
        case "$eq":
            return equal(value)
        case "$ne":
            return not equal(value)
        case "$in":
            return any(equal(v) for v in value)
        case "$nin":
            return not any(equal(v) for v in value)
        case "$all":
            return value != [] and all(equal(v) for v in value)
        case "$exists":
            return bool(found) is value
        case "$empty":
            filled = [f for f in found if f is not None and f != "" and f != [] and f != {}]
            return (not filled) is value
        case "$contains":
            return any(isinstance(f, str) and value in f for f in found)
        case _:
            return ordered({"$gt": "__gt__", "$gte": "__ge__", "$lt": "__lt__", "$lte": "__le__"}[operator])


@given(documents=st.lists(metadatas, min_size=1, max_size=6), filter=filters)
@settings(max_examples=300, deadline=None)
def test_generated_filters_follow_the_rules(documents: list[dict[str, Any]], filter: dict[str, Any]) -> None:
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        index.add_embeddings(
            [np.eye(1, 4)] * len(documents), ids=[str(i) for i in range(len(documents))], metadatas=documents
        )
        expected = [str(i) for i, metadata in enumerate(documents) if holds(filter, metadata)]
        assert [document.id for document in index.find(filter)] == expected


# Filtered search


def random_unit(seed: int, n: int) -> list[np.ndarray]:
    rows = np.random.default_rng(seed).standard_normal((n, 3, 4)).astype(np.float32)
    return list(rows / np.linalg.norm(rows, axis=2, keepdims=True))


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("n_matching", [0, 1, 7, 40, 400, 1999, 2000])
def test_k_hits_are_found_wherever_k_match(kind: str, n_matching: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_one, "FLAT_LIMIT", 10_000 if kind == "flat" else 100)
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        metadatas = [{"n": i} for i in range(2000)]
        index.add_embeddings(random_unit(0, 2000), ids=[f"d{i}" for i in range(2000)], metadatas=metadatas)
        assert index.engine.collection.stage_one.candidates.kind == kind
        for query in random_unit(1, 3):
            hits = index.search_embeddings(query, k=20, n_candidates=50, filter={"n": {"$lt": n_matching}})
            assert len(hits) == min(20, n_matching)
            assert all(hit.metadata["n"] < n_matching for hit in hits)
            exact = index.search_embeddings(query, k=20, exact=True, filter={"n": {"$lt": n_matching}})
            # This small encoding of random vectors finds little, but far more than chance would.
            least = 1 if n_matching <= 50 else 0.2
            assert len({hit.id for hit in hits} & {hit.id for hit in exact}) >= least * len(exact)


def test_filters_follow_replacements_deletions_and_reopening(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", ENCODER, FDE) as index:
        tokens = random_unit(0, 3)
        index.add_embeddings(tokens, ids=["a", "b", "c"], metadatas=[{"x": 1}, {"x": 1}, {"x": 2}])
        index.add_embeddings(tokens[:1], ids=["a"], metadatas=[{"x": 3}])
        assert [d.id for d in index.find({"x": 1})] == ["b"]
        assert [d.id for d in index.find({"x": 3})] == ["a"]
        assert index.delete(filter={"x": 1}) == 1
        assert index.delete(["a", "c"], filter={"x": 2}) == 1
        assert index.find({"x": {"$lte": 2}}) == []
    with MuveraIndex.open(tmp_path / "index", ENCODER) as index:
        assert [d.id for d in index.find()] == ["a"]
        assert [hit.id for hit in index.search_embeddings(tokens[0], filter={"x": 3})] == ["a"]
        assert index.engine.collection.store._db.execute("SELECT count(*) FROM fields").fetchone() == (1,)


def test_many_filters_in_turn_and_writes_between_them_give_fresh_answers() -> None:
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        for n in range(5):
            index.add_embeddings(random_unit(n, 1), ids=[f"d{n}"], metadatas=[{"n": n}])
            for limit in range(40):
                assert len(index.find({"n": {"$lt": limit}})) == min(limit, n + 1)
        index.delete("d0")
        assert [d.id for d in index.find({"n": {"$lt": 2}})] == ["d1"]


def test_find_keeps_the_order_of_insertion_and_the_limit(index: MuveraIndex) -> None:
    assert [document.id for document in index.find(limit=2)] == ["ada", "bob"]
    assert index.find({"year": 1843})[0].metadata == DOCUMENTS["ada"]
    with pytest.raises(InvalidInputError, match="limit"):
        index.find(limit=0)


def test_deleting_everything_has_to_be_said() -> None:
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        index.add_embeddings(random_unit(0, 3))
        with pytest.raises(InvalidInputError, match=re.escape("call clear()")):
            index.delete()
        assert index.delete([]) == 0
        assert len(index) == 3
        assert index.clear() == 3
        assert index.clear() == 0
        assert index.search_embeddings(random_unit(0, 1)[0]) == []
        index.add_embeddings(random_unit(0, 2))
        assert len(index) == 2
