"""Requests that no client should send: each is answered with 4xx and a message, and the service goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running_app import TEXTS, animals

from muvera_core import MuveraIndex
from muvera_core.serving import create_app
from muvera_core.wire import CALLS

PAIR = base64.b64encode(bytes(8)).decode()
# Of calls that would take long, or change what other examples need.
SLOW = {"optimize", "calibrate", "evaluate"}
ALL_READS = [name for name, call in CALLS.items() if call.kind == "read" and name not in SLOW]


@pytest.fixture(scope="module")
def index() -> Iterator[MuveraIndex]:
    with animals() as index:
        yield index


@pytest.fixture(scope="module")
def app(index: MuveraIndex) -> Any:
    return create_app(index)


async def post(app: Any, name: str, body: Any) -> httpx.Response:
    """The answer to a body, which is bytes or becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
        return await client.post(f"/v1/{name}", content=content)


def require_refusal(answer: httpx.Response) -> str:
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert error["type"] in ("InvalidInputError", "DimensionMismatchError")
    assert "Traceback" not in error["message"]
    return str(error["message"])


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"query": "owl"',
        b"\xff\xfe",
        b'{"query": "\xff"}',
        b"'x'",
        b'{"query": "owl"} {}',
        b"\x00",
        b"[" * 100_000,
        b'{"filter": ' + b'{"$and": [' * 50_000 + b"]}" * 50_000 + b"}",
        b'{"k": ' + b"9" * 10_000 + b"}",
    ],
)
async def test_what_is_no_json_is_a_bad_request(app: Any, body: bytes) -> None:
    answer = await post(app, "search", body)
    assert answer.status_code == 400
    assert "body" in require_refusal(answer)


@pytest.mark.parametrize("body", [b"[]", b"null", b"3", b'"query"', b"NaN", b"[{}]"])
async def test_a_body_is_an_object(app: Any, body: bytes) -> None:
    assert "JSON object" in require_refusal(await post(app, "search", body))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "query is missing"),
        ({"query": None}, "query must be a string, got None"),
        ({"query": 3}, "query must be a string, got 3"),
        ({"query": ["a"]}, "query must be a string, got"),
        ({"query": "a", "k": "3"}, "k must be a whole number, got '3'"),
        ({"query": "a", "k": True}, "k must be a whole number, got True"),
        ({"query": "a", "k": 3.0}, "k must be a whole number, got 3.0"),
        ({"query": "a", "k": None}, "k must be a whole number, got None"),
        ({"query": "a", "k": 0}, "k must be at least 1, got 0"),
        ({"query": "a", "k": -5}, "k must be at least 1, got -5"),
        ({"query": "a", "k": 10**30}, "k must be a whole number from"),
        ({"query": "a", "k": 10_000}, "max_k"),
        ({"query": "a", "exact": 1}, "exact must be true or false, got 1"),
        ({"query": "a", "exact": "true"}, "exact must be true or false, got 'true'"),
        ({"query": "a", "min_score": float("nan")}, "min_score must be a finite number, got nan"),
        ({"query": "a", "min_score": "0.5"}, "min_score must be a number, got '0.5'"),
        ({"query": "a", "min_score": True}, "min_score must be a number, got True"),
        ({"query": "a", "min_score": 2}, "min_score must be a number between 0 and 1, got 2.0"),
        ({"query": "a", "mode": "late "}, "mode must be one of 'late', 'hybrid', 'lexical', got 'late '"),
        ({"query": "a", "mode": {}}, "mode must be one of"),
        ({"query": "a", "ids": "owl"}, "ids must be a list, got 'owl'"),
        ({"query": "a", "ids": ["owl", 3]}, "ids[1] must be a string, got 3"),
        ({"query": "a", "ids": ["\ud800"]}, "surrogate"),
        ({"query": "a", "quer": 1}, "search does not know 'quer': did you mean 'query'?"),
        ({"query": "a", "clock": None}, "search does not know 'clock'"),
        ({"query": "a", "path": "/etc"}, "search does not know 'path'"),
        ({"query": "a", "__class__": 1}, "search does not know '__class__'"),
        ({"query": "a", "\ud800": 1}, "search does not know"),
        ({"query": "a", "filter": 3}, "filter"),
        ({"query": "a", "filter": ["a"]}, "filter"),
        ({"query": "a", "filter": {"$where": 1}}, "unknown operator $where"),
        ({"query": "a", "filter": {"a": {"$gt": []}}}, "$gt"),
        ({"query": "a", "filter": {"a": float("nan")}}, "NaN"),
        ({"query": "a", "filter": {"a": {"$number": "NaN"}}}, "NaN"),
        ({"query": "a", "filter": {"a": {"$date": "yesterday"}}}, "$date"),
        ({"query": "a", "filter": {"a": {"$date": "\ud800"}}}, "$date"),
        ({"query": "a", "filter": {"a": {"$number": []}}}, "$number"),
        ({"query": "a", "query_reduction": {"ball_threshold": 7}}, "ball_threshold"),
        ({"query": "a", "query_reduction": {"balls": 7}}, "QueryReduction"),
        ({"query": "a", "query_reduction": [1]}, "query_reduction"),
    ],
)
async def test_a_search_that_cannot_be_is_refused(app: Any, arguments: dict[str, Any], said: str) -> None:
    assert said in require_refusal(await post(app, "search", arguments))


async def test_a_filter_that_is_too_deep_is_refused(app: Any) -> None:
    for depth in (40, 300, 900):
        body = b'{"filter": ' + b'{"$not": ' * depth + b"1" + b"}" * depth + b"}"
        require_refusal(await post(app, "count", body))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("explain", {"query": "owl", "id": "nobody"}),
        ("explain", {"query": " ", "id": "owl"}),
        ("similarity_maps", {"query": "owl", "id": "owl"}),
        ("heat_map", {"query": "owl", "id": "owl", "image": "?"}),
        ("heat_map", {"query": "owl", "id": "owl", "image": "AAAA", "opacity": 7}),
        ("get", {"ids": [1]}),
        ("get", {"ids": {}}),
        ("get", {"ids": [""]}),
        ("get_embeddings", {"ids": None}),
        ("page", {"after": "x"}),
        ("page", {"after": "9" * 30}),
        ("page", {"after": "-1"}),
        ("page", {"after": "\u0663"}),
        ("page", {"limit": 0}),
        ("find", {"limit": 3, "offset": -1}),
        ("search_embeddings", {"query_tokens": [[1, 2]]}),
        ("search_embeddings", {"query_tokens": []}),
        ("search_embeddings", {"query_tokens": 3}),
        ("search_embeddings", {"query_tokens": [["a"]]}),
        ("search_embeddings", {"query_tokens": [[float("nan")] * 16]}),
        ("search_embeddings", {"query_tokens": {"shape": [1, 16], "data": PAIR}}),
        ("search_embeddings", {"query_tokens": {"offsets": [0, 1]}}),
        ("search_embeddings_batch", {"query_tokens": [[1, 2]]}),
        ("search_embeddings_batch", {"query_tokens": [3, {}]}),
        ("search_embeddings_batch", {"query_tokens": {"vectors": {"shape": [1, 2], "data": PAIR}, "offsets": [0, 9]}}),
        ("search_by_vector", {"vector": [1, 2]}),
        ("search_by_vector", {"vector": [[[1]]]}),
        ("add", {"texts": "abc"}),
        ("add", {"texts": [None]}),
        ("add", {"texts": ["a", "b"], "ids": ["x", "x"]}),
        ("add", {"texts": ["a"], "ids": []}),
        ("add", {"texts": ["a"], "ids": ["\ud800"]}),
        ("add", {"texts": ["a"], "metadatas": [{"x": float("inf")}]}),
        ("add", {"texts": ["a"], "metadatas": [3]}),
        ("add", {"texts": ["a"], "metadatas": "x"}),
        ("add", {"texts": ["a"], "metadatas": {"x": 1}}),
        ("add", {"texts": ["a"], "batch_size": 0}),
        ("add_embeddings", {"token_embeddings": [[[1.0]]]}),
        ("add_embeddings", {"token_embeddings": {"vectors": [], "offsets": [5, 1]}}),
        ("add_embeddings", {"token_embeddings": {"vectors": {"shape": [0, 16], "data": ""}, "offsets": []}}),
        ("add_embeddings", {"token_embeddings": "x"}),
        ("add_images", {"images": ["/etc/passwd"]}),
        ("add_images", {"images": "x"}),
        ("add_images", {"images": ["AAAA"]}),
        ("update_metadata", {"ids": ["owl"], "metadatas": 3}),
        ("update_metadata", {"ids": ["owl"], "metadatas": [{}, {}]}),
        ("delete", {}),
        ("delete", {"filter": {}}),
        ("delete", {"ids": 3}),
        ("set_lexical", {"lexical": 3}),
        ("set_lexical", {"lexical": {"tokenizer": "x"}}),
        ("set_lexical", {"lexical": {"fields": 3}}),
        ("set_lexical", {"lexical": {"language": ["english"]}}),
        ("evaluate", {"queries": []}),
        ("evaluate", {"queries": ["a"], "relevant": [3]}),
        ("evaluate", {"queries": ["a"], "relevant": [[[]]]}),
        ("evaluate", {"queries": ["a"], "relevant": [{"owl": []}]}),
        ("evaluate", {"queries": ["a"], "relevant": {}}),
        ("optimize", {"target_recall": 7}),
        ("optimize", {"queries": []}),
        ("calibrate", {"n_queries": 1}),
        ("calibrate", {"queries": ["a"]}),
        ("encode_queries", {"texts": ["\ud800"]}),
        ("encode_images", {"images": []}),
        ("image_patches", {"width": 3, "height": 3}),
        ("contains", {"id": 3}),
    ],
)
async def test_a_call_that_cannot_be_is_refused_and_changes_nothing(
    app: Any, index: MuveraIndex, name: str, arguments: dict[str, Any]
) -> None:
    require_refusal(await post(app, name, arguments))
    assert len(index) == len(TEXTS)


# Anything at all

SURROGATES = st.text(st.characters(codec=None), max_size=8)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | SURROGATES
    | st.sampled_from(
        ["$and", "$gt", "$in", "$date", "$number", "$not", "owl", "2024-01-01", "AAAA", "", "\x00", *TEXTS]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            SURROGATES | st.sampled_from(["$and", "$not", "$gt", "$in", "shape", "data", "vectors", "offsets", "legs"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
async def test_any_arguments_are_answered(app: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in CALLS if name not in SLOW | {"clear"}]))
    known = st.dictionaries(st.sampled_from([*CALLS[name].parameters] or ["x"]), ANYTHING, max_size=4)
    answer = await post(app, name, data.draw(known))
    assert answer.status_code < 500, answer.text
    assert ("result" if answer.status_code == 200 else "error") in answer.json()


@given(body=st.binary(max_size=200), name=st.sampled_from(sorted(CALLS)))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
async def test_any_bytes_are_answered(app: Any, body: bytes, name: str) -> None:
    answer = await post(app, name, body + b"!")
    require_refusal(answer)


@pytest.fixture(scope="module")
def description() -> Any:
    """The service's own description of itself, over an index that examples may change."""
    schemathesis = pytest.importorskip("schemathesis")
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(animals()))


@pytest.mark.parametrize("name", sorted(CALLS.keys() - SLOW))
def test_requests_made_of_the_description_are_answered_as_it_says(description: Any, name: str) -> None:
    from schemathesis import checks
    from schemathesis.generation import GenerationMode

    operation = description[f"/v1/{name}"]["POST"]
    wanted = [checks.not_a_server_error, checks.status_code_conformance, checks.response_schema_conformance]

    @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def ask(case: Any) -> None:
        answer = case.call()
        case.validate_response(answer, checks=wanted)

    ask()
