"""Search from a web application of your own, with FastAPI. It sees what another process writes.

    python examples/recipes/web_service.py                       # tries itself, without a network
    OPENBLAS_NUM_THREADS=1 MUVERA_NUM_THREADS=1 python examples/recipes/web_service.py --serve notes.muvera

Needs muvera-core[serve]. If you need no routes of your own, ``muvera serve notes.muvera`` does it all: tokens, limits,
metrics, several processes.

Threads: the application answers as many questions at once as there are cores, and the others wait. So each question
takes one thread. The two variables say so to the linear algebra and to MaxSim; they are read when the process starts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import httpx
import uvicorn
from fastapi import FastAPI, Query
from pydantic import BaseModel

from muvera_core import MuveraIndex, call_async


class Found(BaseModel):
    """One hit, as JSON."""

    id: str
    text: str | None
    relevance: float


def make_app(folder: Path) -> FastAPI:
    """The application. Any number of its processes can read the index, while one other process writes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A read takes in what was written, if the last look is refresh_interval seconds ago.
        with MuveraIndex.open(folder, read_only=True, refresh_interval=0.2) as index:
            app.state.index, app.state.places = index, asyncio.Semaphore(os.cpu_count() or 1)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/search")
    async def search(question: str, k: Annotated[int, Query(ge=1, le=50)] = 5) -> list[Found]:
        async with app.state.places:
            hits = await call_async(app.state.index, "search", question, k)  # in a thread
        return [Found(id=hit.id, text=hit.text, relevance=hit.relevance) for hit in hits]

    return app


async def try_app(folder: Path) -> None:
    """Ask the application, write to the index as another process would, and ask again."""
    app = make_app(folder)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        print("before:", [hit["id"] for hit in (await client.get("/search", params={"question": "owl"})).json()])
        with MuveraIndex.open(folder) as writer:
            writer.add(["Owls hunt at night."], ["owl"])
        await asyncio.sleep(0.3)
        print("after:", [hit["id"] for hit in (await client.get("/search", params={"question": "owl"})).json()])
        answers = await asyncio.gather(*(client.get("/search", params={"question": "owl", "k": 1}) for _ in range(8)))
        print("eight at once:", {answer.json()[0]["id"] for answer in answers})
        print("too many:", (await client.get("/search", params={"question": "owl", "k": 1000})).status_code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", type=Path, metavar="INDEX", help="answer questions about this index")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        uvicorn.run(make_app(arguments.serve), host="127.0.0.1", port=arguments.port)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.muvera"
        with MuveraIndex.create(path) as index:
            index.add(["Ants live in colonies."], ["ant"])
        asyncio.run(try_app(path))


if __name__ == "__main__":
    main()
