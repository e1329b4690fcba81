"""The application of a service, called without a network."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_app import IDS, TEXTS, animals, word_encoder

from muvera_core import MuveraIndex
from muvera_core.errors import (
    CorruptIndexError,
    IndexLockedError,
    InvalidInputError,
    MissingExtraError,
    PartialWriteError,
    ReadOnlyIndexError,
    ServiceTimeoutError,
    ShardUnavailableError,
)
from muvera_core.serving import ServiceSettings, create_app
from muvera_core.serving.metrics import Metrics
from muvera_core.wire import CALLS


@pytest.fixture
def index() -> Iterator[MuveraIndex]:
    with animals() as index:
        yield index


class Asker:
    """Calls an application."""

    def __init__(self, app: Any, **headers: str) -> None:
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x", headers=headers)

    async def __call__(self, name: str, /, **arguments: Any) -> httpx.Response:
        return await self.client.post(f"/v1/{name}", json=arguments)

    async def result(self, name: str, /, **arguments: Any) -> Any:
        answer = await self(name, **arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]


async def test_a_search_is_answered_with_hits(index: MuveraIndex) -> None:
    result = await Asker(create_app(index)).result("search", query="hunt at night", k=2, with_passages=True)
    local = index.search("hunt at night", 2, with_passages=True)
    assert [hit["id"] for hit in result["hits"]] == [hit.id for hit in local]
    assert [hit["score"] for hit in result["hits"]] == [hit.score for hit in local]
    assert local[0].passage is not None
    assert result["hits"][0]["passage"]["text"] == local[0].passage.text
    assert result["missing_shards"] == []


async def test_an_empty_body_has_no_arguments(index: MuveraIndex) -> None:
    answer = await Asker(create_app(index)).client.post("/v1/count")
    assert answer.json() == {"result": len(TEXTS)}


async def test_facts_are_asked_by_get(index: MuveraIndex) -> None:
    ask = Asker(create_app(index))
    assert (await ask.client.get("/health")).json() == {"status": "ok"}
    assert (await ask.client.get("/ready")).json() == {"status": "ok", "documents": len(TEXTS)}
    info = (await ask.client.get("/v1/info")).json()["result"]
    assert info["documents"] == len(TEXTS)
    assert info["encoder"]["fingerprint"] == index.encoder.fingerprint
    assert "path" not in json.dumps(info)
    assert (await ask.client.get("/docs")).status_code == 200


async def test_a_service_whose_index_is_closed_lives_and_is_not_ready(index: MuveraIndex) -> None:
    ask = Asker(create_app(index, metrics=Metrics(CALLS)))
    index.close()
    assert (await ask.client.get("/health")).status_code == 200
    assert (await ask.client.get("/metrics")).status_code == 503
    ready = await ask.client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["error"]["type"] == "IndexClosedError"
    assert (await ask("search", query="owl")).status_code == 503


async def test_writes_change_the_index(index: MuveraIndex) -> None:
    ask = Asker(create_app(index))
    assert await ask.result("add", texts=["Cranes dance."], ids=["crane"], metadatas=[{"legs": 2}]) == ["crane"]
    assert index.get("crane")[0].metadata == {"legs": 2}
    assert await ask.result("update_metadata", ids="crane", metadatas={"x": 1}) == 1
    assert await ask.result("delete", ids=["crane", "nobody"]) == 1
    assert "crane" not in index
    assert await ask.result("clear") == len(TEXTS)
    assert len(index) == 0


async def test_writes_go_to_the_writer(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", word_encoder()) as writer:
        writer.add(TEXTS, IDS)
        reader = MuveraIndex.open(tmp_path / "index", word_encoder(), read_only=True, refresh_interval=0)
        with reader:
            ask = Asker(create_app(reader, writer=writer))
            await ask.result("add", texts=["Cranes dance."], ids=["crane"])
            assert "crane" in writer
            assert await ask.result("contains", id="crane")


async def test_a_service_that_only_reads_refuses_writes(tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", word_encoder()) as made:
        made.add(TEXTS, IDS)
    with MuveraIndex.open(tmp_path / "index", word_encoder(), read_only=True) as index:
        ask = Asker(create_app(index))
        for name, arguments in (
            ("add", {"texts": ["a"]}),
            ("delete", {"ids": ["owl"]}),
            ("clear", {}),
            ("compact", {}),
            ("set_lexical", {"lexical": False}),
            ("write_note", {"name": "a", "note": {}}),
            ("calibrate", {}),
        ):
            answer = await ask(name, **arguments)
            assert answer.status_code == 403, name
            assert answer.json()["error"]["type"] == "ReadOnlyIndexError"
        assert (await ask("search", query="owl")).status_code == 200


async def test_warnings_are_answered_and_not_issued(index: MuveraIndex) -> None:
    answer = await Asker(create_app(index))("add", texts=["Cranes dance.", " "], ids=["crane", "blank"])
    assert answer.status_code == 200
    (warning,) = answer.json()["warnings"]
    assert warning["type"] == "SkippedTextWarning"
    assert "blank" in warning["message"]


async def test_warnings_of_calls_at_the_same_time_are_not_mixed_up(index: MuveraIndex) -> None:
    ask = Asker(create_app(index))
    answers = await asyncio.gather(*(ask("add", texts=[" " * (i % 2) or "Owls."], ids=[f"id-{i}"]) for i in range(8)))
    for i, answer in enumerate(answers):
        messages = [warning["message"] for warning in answer.json().get("warnings", ())]
        assert len(messages) == i % 2
        assert all(f"id-{i}" in message for message in messages)


class Failing:
    """An index whose calls raise an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInputError("why"), 422),
        (ReadOnlyIndexError("why"), 403),
        (MissingExtraError("why"), 501),
        (ServiceTimeoutError("why"), 504),
        (ShardUnavailableError("why", (3,)), 503),
        (IndexLockedError("why"), 503),
        (CorruptIndexError("why"), 500),
        (PartialWriteError("why", ("a",), {1: "full"}, ("b",)), 500),
    ],
)
async def test_an_error_has_a_status(error: Exception, status: int) -> None:
    index: Any = Failing(error)
    answer = await Asker(create_app(index))("search", query="owl")
    assert answer.status_code == status
    said = answer.json()["error"]
    assert (said["type"], said["message"]) == (type(error).__name__, "why")
    if isinstance(error, PartialWriteError):
        assert (said["acknowledged"], said["failed"], said["unknown"]) == (["a"], {"1": "full"}, ["b"])


async def test_an_error_that_is_a_bug_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    index: Any = Failing(RuntimeError("secret /home/somebody"))
    with caplog.at_level(logging.ERROR):
        answer = await Asker(create_app(index))("search", query="owl")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]["type"] == "ServiceError"
    assert "secret /home/somebody" in caplog.text


async def test_a_token_is_needed_if_there_is_one(index: MuveraIndex) -> None:
    app = create_app(index, ServiceSettings(tokens="secret"))
    assert (await Asker(app)("search", query="owl")).status_code == 401
    assert (await Asker(app).client.get("/v1/info")).status_code == 401
    assert (await Asker(app).client.get("/openapi.json")).status_code == 401
    ask = Asker(app, authorization="Bearer secret")
    assert (await ask("search", query="owl")).status_code == 200
    assert (await ask.client.get("/openapi.json")).json()["security"] == [{"token": []}]


async def test_limits_are_those_of_the_settings(index: MuveraIndex) -> None:
    settings = ServiceSettings(max_k=3, max_queries=2, max_candidates=5, max_documents=2)
    ask = Asker(create_app(index, settings))
    refused: tuple[tuple[str, dict[str, Any]], ...] = (
        ("search", {"query": "owl", "k": 4}),
        ("search", {"query": "owl", "n_candidates": 6}),
        ("search_diverse", {"query": "owl", "fetch_k": 4, "k": 1}),
        ("search_batch", {"queries": ["a", "b", "c"]}),
        ("search_embeddings_batch", {"query_tokens": [[[1.0] * 16]] * 3}),
        ("add", {"texts": ["a", "b", "c"]}),
        ("delete", {"ids": ["a", "b", "c"]}),
        ("get", {"ids": ["a", "b", "c", "d"]}),
        ("find", {"limit": 4}),
        ("find", {}),
        ("page", {"limit": 4}),
        ("encode_documents", {"texts": ["a", "b", "c"]}),
    )
    for name, arguments in refused:
        answer = await ask(name, **arguments)
        assert answer.status_code == 422, (name, answer.text)
        assert "max_" in answer.text or "at most 3" in answer.text
    assert len((await ask.result("search", query="owl", k=3))["hits"]) == 3
    assert len(await ask.result("find", limit=3)) == 3
    assert len(await ask.result("get", ids=["owl", "ant", "bat"])) == 3
    assert (await ask("search_embeddings", query_tokens=[[1.0] * 16] * 3, k=1)).status_code == 200


async def test_a_slow_call_does_not_keep_others_waiting(index: MuveraIndex) -> None:
    released = threading.Event()

    class Slow:
        encoder = index.encoder

        def search(self, query: str) -> Any:
            assert released.wait(30)
            return index.search(query)

        def count(self) -> int:
            return 7

    slow: Any = Slow()
    ask = Asker(create_app(slow, ServiceSettings(n_threads=2)))
    waiting = asyncio.create_task(ask("search", query="owl"))
    assert await ask.result("count") == 7
    assert not waiting.done()
    released.set()
    assert (await waiting).status_code == 200


async def test_stages_of_searches_are_counted(index: MuveraIndex) -> None:
    ask = Asker(create_app(index, metrics=Metrics(CALLS)))
    await ask.result("search", query="owl")
    numbers = (await ask.client.get("/metrics")).text
    assert 'muvera_requests_total{call="search",status="200"} 1.0' in numbers
    assert 'stage="rerank"' in numbers


async def test_what_is_not_there_is_named(index: MuveraIndex) -> None:
    ask = Asker(create_app(index, ServiceSettings(docs=False)))
    for answer in (
        await ask("copy_to", path="/tmp/x"),
        await ask.client.get("/v1/search"),
        await ask.client.get("/docs"),
    ):
        assert answer.status_code in (404, 405)
        assert answer.json()["error"]["type"] == "ServiceError"


async def test_the_page_describes_every_call(index: MuveraIndex) -> None:
    page = (await Asker(create_app(index)).client.get("/openapi.json")).json()
    for name, call in CALLS.items():
        operation = page["paths"][f"/v1/{name}"]["post"]
        assert operation["summary"]
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = page["components"]["schemas"][reference.rsplit("/", 1)[1]]
        assert list(schema["properties"]) == list(call.parameters)
        assert schema["additionalProperties"] is False
    search = page["components"]["schemas"]["SearchRequest"]["properties"]
    assert search["k"]["default"] == 10
    assert search["k"]["description"].startswith("number of hits.")
    assert "clock" not in search
