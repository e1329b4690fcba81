"""Metadata as programs have it is stored as JSON, or refused by a message that names the place."""

from __future__ import annotations

import enum
import json
import math
import uuid
from collections import OrderedDict, UserDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PureWindowsPath
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_muvera import MuveraVectorStore
from muvera_core import FDEConfig, MuveraIndex
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import InvalidInputError
from muvera_core.metadata import normalize_metadata, normalizing

ENCODER = PrecomputedEmbeddings(4, "any")
FDE = FDEConfig(dimension=4, num_repetitions=2, num_simhash_projections=2, projection_dimension=None)
KATHMANDU = timezone(timedelta(hours=5, minutes=45))
Point = namedtuple("Point", "x y")


class Shelf(enum.Enum):
    TOP = "top shelf"
    PAIR = (1, Decimal(2))


class Level(enum.IntEnum):
    HIGH = 3


class Kind(str, enum.Enum):  # noqa: UP042
    NOTE = "note"


class Flags(enum.Flag):
    A = 1
    B = 4


class Name(str):
    __slots__ = ()


SINGLE_VALUES: dict[str, tuple[Any, Any]] = {
    "text": ("grüße", "grüße"),
    "subclass of text": (Name("ada"), "ada"),
    "NumPy text": (np.str_("ada"), "ada"),
    "half of a pair": ("a\udc80b\ud800", "a\ufffdb\ufffd"),
    "both halves of a pair": ("\ud83d\ude00", "😀"),
    "large int": (2**70, 2**70),
    "datetime": (datetime(2024, 2, 29, 13, 5), "2024-02-29T13:05:00"),
    "datetime with microseconds": (datetime(2024, 2, 29, 13, 5, 6, 70), "2024-02-29T13:05:06.000070"),
    "aware datetime": (datetime(2024, 1, 1, 3, 0, tzinfo=KATHMANDU), "2023-12-31T21:15:00+00:00"),
    "datetime in UTC": (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00+00:00"),
    "first moment": (datetime.min.replace(tzinfo=KATHMANDU), "0001-01-01T00:00:00+05:45"),
    "date": (date(987, 6, 5), "0987-06-05"),
    "time": (time(7, 30), "07:30:00"),
    "path": (Path("a") / "b.pdf", str(Path("a") / "b.pdf")),
    "path of another system": (PureWindowsPath("C:/a"), "C:\\a"),
    "path with undecoded bytes": (Path("a\udcff"), "a\ufffd"),
    "UUID": (uuid.UUID(int=10), "00000000-0000-0000-0000-00000000000a"),
    "member": (Shelf.TOP, "top shelf"),
    "member that is a tuple": (Shelf.PAIR, [1, 2]),
    "member that is an int": (Level.HIGH, 3),
    "member that is a string": (Kind.NOTE, "note"),
    "flags": (Flags.A | Flags.B, 5),
    "Decimal": (Decimal("2.50"), 2.5),
    "whole Decimal": (Decimal("2.00"), 2),
    "long Decimal": (Decimal(10) ** 40, 10**40),
    "zero as a Decimal": (Decimal("0E+9999999"), 0),
    "NaN as a Decimal": (Decimal("sNaN"), None),
    "NaN": (math.nan, None),
    "NaN of NumPy": (np.float32("nan"), None),
    "NumPy int": (np.uint8(200), 200),
    "NumPy float": (np.float32(0.25), 0.25),
    "NumPy long float": (np.longdouble(0.25), 0.25),
    "NumPy bool": (np.bool_(False), False),
    "NumPy date": (np.datetime64("2024-02-29"), "2024-02-29"),
    "NumPy month": (np.datetime64("2024-02"), "2024-02-01"),
    "NumPy hour": (np.datetime64("2024-02-29T05", "h"), "2024-02-29T05:00:00"),
    "NumPy nanoseconds": (np.datetime64("2024-02-29T05:06:07.123456789"), "2024-02-29T05:06:07.123456"),
    "NumPy date that Python lacks": (np.datetime64("12024-03-15"), "12024-03-15"),
    "NaT of NumPy": (np.datetime64("NaT", "ns"), None),
    "bytes": ("é".encode(), "é"),
    "bytes of no text": (b"\xff\x00", "/wA="),
    "bytearray": (bytearray(b"x"), "x"),
}


@pytest.mark.parametrize(("value", "expected"), SINGLE_VALUES.values(), ids=SINGLE_VALUES.keys())
def test_a_single_value_becomes_what_json_holds(value: Any, expected: Any) -> None:
    normal = normalize_metadata({"k": value, "inside": [{"k": (value,)}]})
    assert normal == {"k": expected, "inside": [{"k": [expected]}]}
    assert type(normal["k"]) is type(expected)
    assert json.loads(json.dumps(normal)) == normal


CONTAINERS: dict[str, tuple[Any, Any]] = {
    "tuple": ((1, "a"), [1, "a"]),
    "named tuple": (Point(1, 2), [1, 2]),
    "set": ({10, 9, 1}, [1, 9, 10]),
    "set of several types": (frozenset({"b", 2, None, True, "a", 0.5, (2, 1)}), [None, True, 0.5, 2, "a", "b", [2, 1]]),
    "set of dates": ({date(2024, 1, 2), date(2024, 1, 1)}, ["2024-01-01", "2024-01-02"]),
    "array": (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    "array without dimensions": (np.array(1.5), 1.5),
    "array with NaN": (np.array([0.5, math.nan], dtype=np.float32), [0.5, None]),
    "array of dates": (np.array(["2024-01-01", "NaT"], "datetime64[ns]"), ["2024-01-01T00:00:00", None]),
    "array of one date": (np.array("2024-01-01", "datetime64[D]"), "2024-01-01"),
    "array of objects": (np.array([Path("x"), None], dtype=object), ["x", None]),
    "ordered dictionary": (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "other mappings": (MappingProxyType({"a": UserDict(b=(1,))}), {"a": {"b": [1]}}),
    "keys": (
        {1: "i", 2.5: "f", None: "n", Shelf.TOP: "e", date(2024, 1, 1): "d", Path("p"): "p", np.int64(7): 1},
        {"1": "i", "2.5": "f", "null": "n", "top shelf": "e", "2024-01-01": "d", "p": "p", "7": 1},
    ),
    "key True": ({True: 1, False: 0}, {"true": 1, "false": 0}),
    "key with half of a pair": ({"a\ud800": 1}, {"a\ufffd": 1}),
    "UUID as key": ({uuid.UUID(int=0): 1}, {"00000000-0000-0000-0000-000000000000": 1}),
}


@pytest.mark.parametrize(("value", "expected"), CONTAINERS.values(), ids=CONTAINERS.keys())
def test_what_holds_values_becomes_a_list_or_a_dictionary(value: Any, expected: Any) -> None:
    normal = normalize_metadata({"k": value})
    assert normal == {"k": expected}
    assert json.loads(json.dumps(normal)) == normal


def test_what_pandas_holds_is_stored() -> None:
    pandas = pytest.importorskip("pandas")
    assert normalize_metadata({"a": pandas.NA, "b": [pandas.NaT], pandas.NA: 1}) == {"a": None, "b": [None], "null": 1}
    frame = pandas.DataFrame(
        {
            "n": [1, None],
            "when": pandas.to_datetime(["2024-01-01T05:00:00.123456789", None]),
            "zoned": pandas.to_datetime(["2024-01-01T05:00:00+02:00", None]),
            "whole": pandas.array([1, None], dtype="Int64"),
        }
    )
    assert [normalize_metadata(row) for row in frame.to_dict("records")] == [
        {"n": 1.0, "when": "2024-01-01T05:00:00.123456", "zoned": "2024-01-01T03:00:00+00:00", "whole": 1},
        {"n": None, "when": None, "zoned": None, "whole": None},
    ]


class Unreadable(UserDict[str, Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("the connection is closed")


REFUSED: dict[str, tuple[Any, str]] = {
    "object": ({"a": [{"b": SimpleNamespace()}]}, r"m\['a'\]\[0\]\['b'\] .* type SimpleNamespace .*Convert it to a"),
    "fraction": ({"a": Fraction(1, 3)}, r"m\['a'\] .* type Fraction"),
    "complex number": ({"a": np.complex64(1)}, "type complex64"),
    "span of time": ({"a": timedelta(1)}, "span of time .* store its seconds"),
    "span of time of NumPy": ({"a": np.array([1], "timedelta64[ns]")}, r"m\['a'\]\[0\] is a span of time"),
    "infinity": ({"a": -math.inf}, r"m\['a'\] is infinite"),
    "infinity of NumPy": ({"a": np.array([math.inf])}, r"m\['a'\]\[0\] is infinite"),
    "infinite Decimal": ({"a": Decimal("-Infinity")}, "is infinite"),
    "Decimal beyond floats": ({"a": Decimal("1E+999999999")}, "is infinite"),
    "int beyond floats": ({"a": 10**400}, "store it as a string"),
    "keys equal as text": ({"a": {1: "x", "1": "y"}}, r"m\['a'\] has the keys 1 and '1', which are equal as text"),
    "keys equal after repair": (dict.fromkeys(["\ud800", "\udfff"]), "m has the keys .* equal as text"),
    "tuple as key": ({"a": {(1, 2): 3}}, r"m\['a'\] has a key that cannot be stored .* type tuple"),
    "infinite key": ({math.inf: 3}, "m has a key that is infinite"),
    "mapping that cannot be read": ({"a": Unreadable(b=1)}, r"m\['a'\] cannot be read: RuntimeError: .*is closed"),
    "no mapping": ([("a", 1)], "m must be a mapping such as a dictionary, got list"),
}


@pytest.mark.parametrize(("metadata", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_json_cannot_hold_is_refused_with_its_place(metadata: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        normalize_metadata(metadata, "m")


def test_metadata_that_is_too_deep_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ring: list[Any] = [Shelf.PAIR]
    ring.append((ring,))
    with pytest.raises(InvalidInputError, match="metadata is nested more than 32 levels deep"):
        normalize_metadata({"a": ring})
    monkeypatch.setattr(normalizing, "MAX_METADATA_VALUES", 1000)
    shared: Any = [0]
    for _ in range(20):
        shared = (shared, shared)
    for large in (shared, np.zeros((10, 101)), set(range(1001))):
        with pytest.raises(InvalidInputError, match="holds more than 1000 values"):
            normalize_metadata({"a": large})


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_infinity=False, allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(metadata=st.dictionaries(st.text(max_size=3), plain_values, max_size=3))
@settings(max_examples=100, deadline=None)
def test_plain_metadata_stays_as_it_is_and_is_copied(metadata: dict[str, Any]) -> None:
    normal = normalize_metadata(metadata)
    assert repr(normal) == repr(metadata)
    assert normal is not metadata


EVERYDAY: dict[Any, Any] = {
    "when": datetime(2024, 1, 1),
    "file": Path("a.pdf"),
    "n": np.int64(3),
    "tags": {"x"},
    "gap": math.nan,
    5: Shelf.TOP,
}
STORED: dict[str, Any] = {
    "when": "2024-01-01T00:00:00",
    "file": "a.pdf",
    "n": 3,
    "tags": ["x"],
    "gap": None,
    "5": "top shelf",
}


def test_the_core_and_langchain_store_everyday_metadata_alike() -> None:
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        index.add_embeddings([np.eye(1, 4)], ids=["a"], metadatas=[EVERYDAY])
        assert index.get("a")[0].metadata == STORED
        assert [document.id for document in index.find({"5": "top shelf", "n": 3, "gap": None})] == ["a"]
    store = MuveraVectorStore.from_texts(["owls"], metadatas=[EVERYDAY], ids=["a"])
    assert store.get_by_ids(["a"])[0].metadata == STORED
    store.close()
