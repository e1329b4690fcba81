"""What travels as JSON arrives as it was."""

from __future__ import annotations

import inspect
import json
import math
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from muvera_core import IndexCalls, LearnedSetEncoderConfig, QueryReduction, TokenEmbeddings, Tuning, errors
from muvera_core.encoders import GivenWarning, collecting_warnings, warn
from muvera_core.errors import (
    InvalidInputError,
    MuveraError,
    PartialWriteError,
    ServiceError,
    ShardUnavailableError,
    SkippedTextWarning,
)
from muvera_core.filters import compile_filter
from muvera_core.hits import Document, DocumentPage, Hit, Hits, Passage, TokenMatch
from muvera_core.images import UnreadableImageError
from muvera_core.lexical import LexicalConfig
from muvera_core.token_embeddings import FloatArray, IntArray
from muvera_core.wire import (
    CALLS,
    LOCAL,
    argument_from_json,
    argument_to_json,
    codec_of,
    error_from_json,
    error_to_json,
    warnings_from_json,
    warnings_to_json,
    without_local,
)

# What an index has beside calls that are sent.
NOT_SENT = {"copy_to", "search_with_cross_encoder", "iterate", "close"}
FACTS = {"path", "device", "encoder", "token_precision", "pool_factor", "keep_tokens", "lexical", "calibration"}

TEXT = st.text(st.characters(codec=None), max_size=20)  # also halves of surrogate pairs
FLOATS = st.floats(width=64)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
PASSAGES = st.builds(Passage, TEXT, st.integers(0, 99), st.integers(0, 99))
HITS = st.builds(
    Hit,
    id=TEXT,
    text=st.none() | TEXT,
    metadata=st.dictionaries(TEXT, JSON_VALUES, max_size=3),
    image=st.none() | TEXT,
    image_size=st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)),
    score=FLOATS,
    normalized_score=FLOATS,
    lexical_score=st.none() | FLOATS,
    passage=st.none() | PASSAGES,
)


def through_json(content: Any) -> Any:
    return json.loads(json.dumps(content, allow_nan=False).encode("ascii"))


def round_trip(hint: Any, value: Any) -> Any:
    codec = codec_of(hint)
    return codec.from_json(through_json(codec.to_json(value)))


def sent(name: str, value: Any) -> Any:
    return argument_from_json(name, through_json(argument_to_json(name, value)))


# The table of calls


def test_every_call_of_an_index_is_sent_or_named_here() -> None:
    public = {name for name in dir(IndexCalls) if not name.startswith("_")}
    assert public - NOT_SENT - FACTS == {call.name for call in CALLS.values() if call.is_method} | {"n_tokens"}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_has_the_parameters_of_its_function(call: Any) -> None:
    _, *names = inspect.signature(call.function).parameters
    assert [*call.parameters] == [name for name in names if name not in LOCAL]
    assert not any("path" in name for name in call.parameters)
    assert call.result is not None
    assert call.function.__doc__


def test_writes_are_not_reads() -> None:
    reads = {name for name, call in CALLS.items() if call.kind == "read"}
    assert not reads & {"add", "add_images", "add_embeddings", "update_metadata", "delete", "clear", "compact"}
    assert not reads & {"set_lexical", "optimize", "calibrate", "remove_calibration"}
    assert {"search", "get", "evaluate", "encode_queries"} <= reads
    assert not CALLS["delete"].repeatable
    assert CALLS["add"].repeatable


# Results


@given(hits=st.lists(HITS, max_size=3), missing=st.lists(st.integers(0, 9), max_size=2))
@settings(max_examples=60, deadline=None)
def test_hits_arrive_as_they_were(hits: list[Hit], missing: list[int]) -> None:
    arrived = round_trip(list[Hit], Hits(hits, tuple(missing)))
    assert arrived.missing_shards == tuple(missing)
    assert repr(list(arrived)) == repr(hits)  # also NaN


@given(batch=st.lists(st.lists(HITS, max_size=2), max_size=3))
@settings(max_examples=20, deadline=None)
def test_batches_of_hits_arrive_as_they_were(batch: list[list[Hit]]) -> None:
    assert repr([list(hits) for hits in round_trip(list[list[Hit]], batch)]) == repr(batch)


@pytest.mark.parametrize("kind", [FloatArray, IntArray])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_arrays_arrive_bit_by_bit(kind: Any, data: st.DataObject) -> None:
    dtype = np.float32 if kind == FloatArray else np.int64
    array = data.draw(arrays.arrays(dtype, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)))
    arrived = round_trip(kind, array)
    assert arrived.dtype == dtype
    assert arrived.shape == array.shape
    assert arrived.tobytes() == array.tobytes()
    assert arrived.flags.writeable


def test_token_embeddings_arrive_as_they_were() -> None:
    for parts in ([np.eye(3, dtype=np.float32), np.ones((1, 3), np.float32)], []):
        given = TokenEmbeddings.from_list(parts, dimension=3)
        for arrived in (round_trip(TokenEmbeddings, given), sent("token_embeddings", given)):
            assert np.array_equal(arrived.vectors, given.vectors)
            assert np.array_equal(arrived.offsets, given.offsets)
            assert arrived.dimension == 3


def test_documents_pages_and_matches_arrive_as_they_were() -> None:
    documents = [Document("a", None, {"x": [1, None]}, image="/p", image_size=(1, 2), image_digest="file-1")]
    page = DocumentPage(documents, "7")
    matches = [TokenMatch("a", (0, 1), None, None, math.nan, (1, 2)), TokenMatch("", (0, 0), "b", (1, 2), 0.5)]
    assert round_trip(DocumentPage, page) == page
    assert repr(round_trip(list[TokenMatch], matches)) == repr(matches)


def test_a_tuning_arrives_as_it_was() -> None:
    for encoder, weights in (
        (None, None),
        (LearnedSetEncoderConfig(seed=2**64 - 1), f"set_encoder-{'0' * 32}.weights"),
    ):
        tuning = Tuning(encoder, weights, 7 if weights else None, 3, 40, 50, {"recall": 0.1 + 0.2})
        assert round_trip(Tuning, tuning) == tuning


def test_what_a_newer_service_adds_is_ignored() -> None:
    codec = codec_of(Document)
    content = codec.to_json(Document("a", "b"))
    assert codec.from_json({**content, "colour": "red", "more": {}}) == Document("a", "b")
    assert codec.from_json({"id": "a", "text": "b"}) == Document("a", "b")
    with pytest.raises(KeyError):
        codec.from_json({"text": "b"})


# Arguments


@pytest.mark.parametrize(
    "filter",
    [
        {"year": {"$gte": 2020, "$lt": math.inf}},
        {"seen": {"$gte": datetime(2024, 1, 2, 3, tzinfo=UTC)}},
        {"seen": date(2024, 1, 2)},
        {"seen": {"$in": [date(2024, 1, 2), "2024-01-02", np.datetime64("2024-01-02T10:00")]}},
        {"seen": {"$lt": np.datetime64("-0100-01-01")}},
        {"$and": [{"a": "x\ud800"}, {"$not": {"b": {"c": 1}}}]},
        {"tags": ("a", "b")},
        {"n": np.int64(3), "x": np.float32(0.5)},
    ],
)
def test_a_filter_means_the_same_at_the_service(filter: dict[str, Any]) -> None:
    assert repr(compile_filter(sent("filter", filter))) == repr(compile_filter(filter))


def test_a_date_is_not_its_text() -> None:
    assert sent("filter", {"a": date(2024, 1, 2)}) == {"a": date(2024, 1, 2)}
    assert sent("filter", {"a": "2024-01-02"}) == {"a": "2024-01-02"}


@pytest.mark.parametrize("filter", [{"a": object()}, {"a": {"$gt": math.nan}}, {1: 2}, [], {"$what": 1}, "x"])
def test_a_filter_that_cannot_be_is_refused_before_it_is_sent(filter: Any) -> None:
    with pytest.raises(InvalidInputError) as local:
        compile_filter(filter)
    with pytest.raises(InvalidInputError) as remote:
        argument_to_json("filter", filter)
    assert str(remote.value) == str(local.value)


def test_metadata_is_sent_as_it_is_stored() -> None:
    metadata = {"when": datetime(2024, 5, 1, tzinfo=UTC), "n": np.int32(3), "half": "\ud800", "nan": math.nan, 1: (2,)}
    stored = {"when": "2024-05-01T00:00:00+00:00", "n": 3, "half": "\ufffd", "nan": None, "1": [2]}
    assert sent("metadatas", [metadata, None]) == [stored, None]
    assert sent("metadatas", metadata) == stored
    with pytest.raises(InvalidInputError, match=r"metadatas\[1\]\['x'\]"):
        argument_to_json("metadatas", [{}, {"x": math.inf}])


def test_settings_arrive_as_they_were() -> None:
    assert sent("query_reduction", QueryReduction(0.7)) == QueryReduction(0.7)
    assert sent("lexical", LexicalConfig("trigram", None, ("a", "b"), 3)) == LexicalConfig(
        "trigram", None, ("a", "b"), 3
    )
    assert sent("lexical", False) is False
    with pytest.raises(InvalidInputError, match="LexicalConfig"):
        argument_from_json("lexical", {"stemmer": "x"})


def test_query_tokens_arrive_in_each_of_their_forms() -> None:
    tokens = np.arange(6, dtype=np.float32).reshape(2, 3)
    forms: list[Any] = [tokens, tokens.tolist(), tokens.astype(np.float64), TokenEmbeddings.from_list([tokens])]
    for form in forms:
        arrived = sent("query_tokens", form)
        assert np.array_equal(arrived.vectors if isinstance(arrived, TokenEmbeddings) else arrived, tokens)
    for form in ([tokens, tokens[:1]], [TokenEmbeddings.from_list([tokens]), tokens[:1].tolist()]):
        first, second = sent("query_tokens", form)
        assert np.array_equal(first, tokens)
        assert np.array_equal(second, tokens[:1])
    assert sent("query_tokens", []) == []


def test_judgements_arrive_as_they_were() -> None:
    assert sent("relevant", [{"a"}, {"b": np.float32(0.5)}, ["c"], ()]) == [["a"], {"b": 0.5}, ["c"], []]
    for wrong in ("abc", ["a"], [1], {"a": 1}):
        with pytest.raises(InvalidInputError):
            argument_to_json("relevant", wrong)


def test_numbers_and_lists_become_plain() -> None:
    assert sent("k", np.int64(3)) == 3
    assert sent("ids", (id for id in "ab")) == ["a", "b"]
    for name, wrong in (("min_score", math.nan), ("k", object()), ("ids", {"a"}), ("ids", b"a"), ("k", {})):
        with pytest.raises(InvalidInputError, match=name):
            argument_to_json(name, wrong)


def test_a_clock_is_refused_and_a_bar_is_left_out() -> None:
    assert without_local({"k": 1, "clock": None, "show_progress": True}) == {"k": 1}
    with pytest.raises(InvalidInputError, match="clock"):
        without_local({"clock": object()})


@pytest.mark.parametrize(
    "content",
    [
        {"shape": [2, 2], "data": "AAAA"},
        {"shape": [-1, 2], "data": ""},
        {"shape": [10**30], "data": ""},
        {"shape": [1, 1, 1, 1], "data": "AAAAAA=="},
        {"shape": "1", "data": ""},
        {"shape": [1, 1], "data": "?!"},
        {"shape": [1, 1], "data": "\ud800"},
        {"shape": [True, 1], "data": "AAAAAA=="},
        {"shape": [1, 1]},
        [[1, "2"]],
        [[1], [2, 3]],
        [[[1]]],
        [10**400],
        "abc",
        5,
    ],
)
def test_arrays_that_cannot_be_are_refused(content: Any) -> None:
    with pytest.raises(InvalidInputError, match="vector"):
        argument_from_json("vector", content)


# Errors and warnings


@pytest.mark.parametrize("name", sorted(name for name, kind in vars(errors).items() if name.endswith("Error")))
def test_an_error_arrives_as_the_same_class(name: str) -> None:
    arrived = error_from_json(through_json(error_to_json(getattr(errors, name)("why \ud800"))))
    assert type(arrived) is getattr(errors, name)
    assert str(arrived) == "why \ud800"


def test_attributes_of_errors_arrive() -> None:
    partial = PartialWriteError("half", ("a",), {2: "disk full"}, ("b", "c"))
    arrived = error_from_json(through_json(error_to_json(partial)))
    assert isinstance(arrived, PartialWriteError)
    assert (arrived.acknowledged, arrived.failed, arrived.unknown) == (("a",), {2: "disk full"}, ("b", "c"))
    gone = error_from_json(through_json(error_to_json(ShardUnavailableError("gone", (1, 3)))))
    assert isinstance(gone, ShardUnavailableError)
    assert gone.shards == (1, 3)


def test_a_class_that_is_not_public_arrives_as_its_base() -> None:
    assert type(error_from_json(error_to_json(UnreadableImageError("why")))) is InvalidInputError


@pytest.mark.parametrize(
    "name", ["FutureError", "annotations", "Any", "RUN_REPAIR", "__doc__", "SkippedTextWarning", ""]
)
def test_an_unknown_error_is_a_service_error(name: str) -> None:
    assert type(error_from_json({"type": name, "message": "why"})) is ServiceError


@pytest.mark.parametrize(
    "content", [None, [], {}, {"type": "X"}, {"type": "X", "message": 3}, {"type": [], "message": ""}]
)
def test_what_is_no_error_is_refused(content: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        error_from_json(content)


def test_warnings_are_collected_in_a_block_and_issued_after_it() -> None:
    with collecting_warnings() as collected:
        warn("a", SkippedTextWarning)
    assert collected == [("a", SkippedTextWarning)]
    with pytest.warns(SkippedTextWarning, match="b"):
        warn("b", SkippedTextWarning)
    assert len(collected) == 1


def test_warnings_arrive_once_as_their_class() -> None:
    given = [GivenWarning("a", SkippedTextWarning), GivenWarning("a", SkippedTextWarning), GivenWarning("b", Warning)]
    arrived = warnings_from_json(through_json(warnings_to_json(given)))
    assert arrived == [("a", SkippedTextWarning), ("b", UserWarning)]
    assert warnings_from_json([{"type": "MuveraError", "message": "c"}]) == [("c", UserWarning)]
    assert issubclass(MuveraError, Exception)
