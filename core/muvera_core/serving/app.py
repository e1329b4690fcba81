"""The application of a service: an index's calls over HTTP, for any ASGI server."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, ParamSpec, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from muvera_core.encoders import GivenWarning, collecting_warnings
from muvera_core.errors import ServiceError, ServiceTimeoutError
from muvera_core.index import IndexCalls
from muvera_core.search import StageClock
from muvera_core.serving.answers import error_answer, json_answer, result_answer
from muvera_core.serving.guards import CALLS as PREFIX
from muvera_core.serving.guards import Guards
from muvera_core.serving.limits import require_within
from muvera_core.serving.metrics import Metrics
from muvera_core.serving.openapi import add_schemas, operation_of
from muvera_core.serving.requests import read_arguments, request_model, summary_of
from muvera_core.serving.settings import ServiceSettings
from muvera_core.wire import CALLS, Call

P = ParamSpec("P")
R = TypeVar("R")
# Threads beside those of calls: for /ready, /metrics and /v1/info.
_SPARE_THREADS = 4
# Seconds within which an index has to say that it is ready.
_READY_TIMEOUT = 10.0


def create_app(
    index: IndexCalls,
    settings: ServiceSettings | None = None,
    *,
    writer: IndexCalls | None = None,
    metrics: Metrics | None = None,
    worker: str = "",
) -> FastAPI:
    """Make an ASGI application that answers an index's calls on ``POST /v1/NAME``.

    ``/health`` says that the process lives, ``/ready`` that the index answers, ``/v1/info`` what is served, and
    ``/docs`` shows all calls. The index stays open when the application ends.

    Args:
        index: any index: a ``MuveraIndex``, a ``ShardedMuveraIndex``, or a ``RemoteMuveraIndex``.
        settings: limits of the service. None takes the defaults.
        writer: makes the calls that change the index, if ``index`` only reads it.
        metrics: counts requests, and is shown on ``/metrics``. None counts nothing.
        worker: name of this process, which answers then have in their header ``x-muvera-worker``.
    """
    settings = ServiceSettings() if settings is None else settings
    caller = _Caller(index, writer, settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        caller.close()

    app = FastAPI(
        title="muvera",
        version=version("muvera-core"),
        description="Late-interaction search. Every call takes a JSON object and returns its result as `result`.",
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
    )
    _add_facts(app, caller)
    schemas: dict[str, Any] = {}
    for call in CALLS.values():
        model = request_model(call)
        summary, description = summary_of(call)
        app.add_api_route(
            f"{PREFIX}{call.name}",
            _endpoint(caller, call, model),
            methods=["POST"],
            operation_id=call.name,
            summary=summary,
            description=description,
            tags=[call.kind],
            openapi_extra=operation_of(call, model, schemas),
        )
    add_schemas(app, schemas, needs_token=bool(settings.tokens))
    app.add_exception_handler(HTTPException, _say_what_is_there)
    slow = {call.name for call in CALLS.values() if call.slow}
    app.add_middleware(Guards, settings=settings, writes=slow, watcher=metrics, worker=worker)
    return app


class _Caller:
    """Makes calls of an index without blocking the event loop."""

    def __init__(
        self, index: IndexCalls, writer: IndexCalls | None, settings: ServiceSettings, metrics: Metrics | None
    ) -> None:
        self.index, self.settings, self.metrics = index, settings, metrics
        self._writer = writer
        self._threads: ThreadPoolExecutor | None = None

    async def answer(self, call: Call, model: type[BaseModel], body: bytes) -> Response:
        """Answer a request."""
        index = self.index if call.kind == "read" or self._writer is None else self._writer
        acall = getattr(index, "acall", None)
        with collecting_warnings() as warnings:
            if acall is None:
                return await self.in_thread(self._answer_at_once, call, model, body, index, warnings)
            arguments = await self.in_thread(self._read, call, model, body)
            result = await acall(call.name, **arguments)
            return await self.in_thread(result_answer, call, result, warnings)

    async def in_thread(self, function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        """Call a function in one of the application's threads, in this context."""
        if self._threads is None:
            # Guards let in as many reading calls, and as many slow ones.
            self._threads = ThreadPoolExecutor(2 * self.settings.n_places + _SPARE_THREADS, "muvera-call")
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(context.run, function, *arguments, **options))

    def close(self) -> None:
        """Let the threads end. A server may start the application again."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    def _read(self, call: Call, model: type[BaseModel], body: bytes) -> dict[str, Any]:
        arguments = read_arguments(call, model, body)
        require_within(call, arguments, self.settings)
        return arguments

    def _answer_at_once(
        self, call: Call, model: type[BaseModel], body: bytes, index: IndexCalls, warnings: list[GivenWarning]
    ) -> Response:
        arguments = self._read(call, model, body)
        if self.metrics is None or not call.takes_clock:
            return result_answer(call, call.make(index, arguments), warnings)
        clock = StageClock()
        try:
            result = call.make(index, {**arguments, "clock": clock})
        finally:
            self.metrics.searched(clock.seconds)
        return result_answer(call, result, warnings)


def _endpoint(caller: _Caller, call: Call, model: type[BaseModel]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await caller.answer(call, model, await request.body())
        except Exception as error:
            return error_answer(error)

    endpoint.__name__ = call.name
    return endpoint


def _add_facts(app: FastAPI, caller: _Caller) -> None:
    """Add what is asked by GET."""
    call = CALLS["info"]
    model = request_model(call)

    @app.get("/health", summary="Whether the process lives", tags=["facts"])
    async def health() -> Response:
        return json_answer({"status": "ok"})

    @app.get("/ready", summary="Whether the index answers", tags=["facts"])
    async def ready() -> Response:
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                return json_answer({"status": "ok", "documents": await caller.in_thread(len, caller.index)})
        except TimeoutError:
            return error_answer(ServiceTimeoutError(f"the index did not answer within {_READY_TIMEOUT:g} s"), 503)
        except Exception as error:
            return error_answer(error, 503)

    @app.get(f"{PREFIX}info", summary="Facts about the service and its index", tags=["facts"])
    async def info() -> Response:
        try:
            return await caller.answer(call, model, b"")
        except Exception as error:
            return error_answer(error)

    if caller.metrics is not None:
        metrics = caller.metrics

        @app.get("/metrics", summary="Numbers for Prometheus", tags=["facts"])
        async def show() -> Response:
            try:
                text, kind = await caller.in_thread(metrics.show, caller.index)
            except Exception as error:
                return error_answer(error)
            return Response(text, media_type=kind)


async def _say_what_is_there(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = f"there is no {request.method} {request.url.path[:100]}: see /docs and {PREFIX}info"
    return error_answer(ServiceError(said), status)
