"""``muvera serve`` beside the same index in process: questions per second, and how long one question waits.

    python tests/benchmarks/serving.py
    python tests/benchmarks/serving.py --seconds 20 --passages 2459 --workers 4
    python tests/benchmarks/serving.py --malformed 10000    # only that: what no honest client sends

Clients are connections of one process of their own that ask one question after the other. In process, as many threads
ask as the service has workers; each call of the index may use as many threads as it may in a worker. Prints the
machine, then questions per second and the median and 99 % of the milliseconds that a question takes, each the median of
several turns; and what HTTP adds to the median.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from machine import describe_machine
from malformed_requests import send_malformed

from muvera_core import MuveraIndex
from muvera_core.evaluation import read_beir

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "examples" / "data" / "nq-gold"
N_CLIENTS = (1, 8, 64)
TOKEN = "a-token-for-this-benchmark"
_K = 10


@dataclass(frozen=True)
class Figures:
    """What one measurement found.

    Attributes:
        rate: questions per second.
        median: milliseconds that half of the questions took at most.
        slowest: the same for 99 % of them.
    """

    rate: float
    median: float
    slowest: float

    @classmethod
    def of(cls, times: list[float], seconds: float) -> Figures:
        """Figures of questions that took these seconds each."""
        return cls(len(times) / seconds, 1000 * float(np.median(times)), 1000 * float(np.quantile(times, 0.99)))

    def __str__(self) -> str:
        return f"{self.rate:9.1f} {self.median:9.2f} {self.slowest:9.2f}"


# In process


def ask_in_process(folder: Path, questions: list[str], n_threads: int, seconds: float) -> Figures:
    """Ask an index from threads of this process."""
    with MuveraIndex.open(folder, read_only=True, refresh_interval=0) as index:
        for question in questions[:20]:
            index.search(question, _K)
        start = time.perf_counter()

        def ask(number: int) -> list[float]:
            times = []
            while time.perf_counter() - start < seconds:
                before = time.perf_counter()
                index.search(questions[number % len(questions)], _K)
                times.append(time.perf_counter() - before)
                number += n_threads
            return times

        with ThreadPoolExecutor(n_threads) as pool:
            times = [one for some in pool.map(ask, range(n_threads)) for one in some]
        return Figures.of(times, time.perf_counter() - start)


# Over HTTP


def ask_over_http(url: str, questions: list[str], n_clients: int, seconds: float) -> Figures:
    """Ask a service over some connections."""
    address = urlsplit(url)
    requests = [_request_of(question) for question in questions]
    return asyncio.run(_ask_all(str(address.hostname), int(address.port or 0), requests, n_clients, seconds))


def _request_of(question: str) -> bytes:
    body = json.dumps({"query": question, "k": _K}).encode()
    head = f"POST /v1/search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _ask_all(host: str, port: int, requests: list[bytes], n_clients: int, seconds: float) -> Figures:
    connections = [await asyncio.open_connection(host, port) for _ in range(n_clients)]
    for number, (reader, writer) in enumerate(connections):
        await _ask(reader, writer, requests[number % len(requests)])
    start = time.perf_counter()

    async def client(number: int) -> list[float]:
        reader, writer = connections[number]
        times = []
        while time.perf_counter() - start < seconds:
            before = time.perf_counter()
            await _ask(reader, writer, requests[number % len(requests)])
            times.append(time.perf_counter() - before)
            number += n_clients
        writer.close()
        return times

    times = [one for some in await asyncio.gather(*map(client, range(n_clients))) for one in some]
    return Figures.of(times, time.perf_counter() - start)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    async with asyncio.timeout(60):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head)
        if not head.startswith(b"HTTP/1.1 200") or found is None:
            raise SystemExit(f"the service answered {head!r}")
        await reader.readexactly(int(found[1]))


# Processes


@contextmanager
def served(folder: Path, workers: int, *options: str) -> Iterator[tuple[str, Path]]:
    """``muvera serve``: its URL, and the file that it logs to."""
    log = folder.parent / "log"
    command = [sys.executable, "-m", "muvera_core.cli", "serve", str(folder), "--port", "0", "--max-body", "1"]
    environment = _environment() | {"MUVERA_TOKEN": TOKEN}
    with log.open("w") as file:
        command += ["--workers", str(workers), *options]
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 120
            while (found := re.search(r"served at (\S+)", log.read_text())) is None:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(log.read_text())
                time.sleep(0.05)
            yield found[1], log
        finally:
            process.terminate()
            process.wait(60)


def in_another_process(arguments: list[str], **variables: str) -> Figures:
    """A turn of this script in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=_environment() | variables, check=True, stdout=subprocess.PIPE, text=True)
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def _environment() -> dict[str, str]:
    others = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "core"), *others])}


# What is run


def compare(folder: Path, workers: int, seconds: float, n_questions: int, turns: int) -> None:
    """Print the figures of the service and of the index in process, medians of several turns."""
    each = str(max(1, (os.cpu_count() or 1) // workers))
    threads = {"MUVERA_NUM_THREADS": each, "OMP_NUM_THREADS": each}
    common = ["--seconds", str(seconds), "--questions", str(n_questions)]
    found: dict[str, list[Figures]] = {}
    alone, over_http = f"in process, 1 thread, {each} per call", f"muvera serve, {workers} worker(s), 1 client(s)"
    with served(folder, workers) as (url, _):
        # In turn, so that what else the machine does meets all of them.
        for _ in range(turns):
            for n in dict.fromkeys((1, workers)):
                name = alone if n == 1 else f"in process, {n} threads, {each} per call"
                figures = in_another_process(["--turn", str(folder), "--threads", str(n), *common], **threads)
                found.setdefault(name, []).append(figures)
            for n in N_CLIENTS:
                name = over_http if n == 1 else f"muvera serve, {workers} worker(s), {n} client(s)"
                figures = in_another_process(["--turn", url, "--threads", str(n), *common])
                found.setdefault(name, []).append(figures)
    print(f"{'':42s} {'questions/s':>11s} {'median ms':>9s} {'99 % ms':>9s}")
    for name, some in found.items():
        print(name.ljust(43), Figures(*np.median([astuple(figures) for figures in some], axis=0).tolist()))
    added = [http.median - here.median for http, here in zip(found[over_http], found[alone], strict=True)]
    print(
        f"HTTP adds {np.median(added):.2f} ms to the median of one client (turns: {min(added):.2f} to {max(added):.2f})"
    )


def survive(folder: Path, workers: int, n: int, questions: list[str]) -> None:
    """Send malformed requests, and look whether the service answers as before."""
    with MuveraIndex.open(folder, read_only=True) as index:
        expected = [[hit.id for hit in index.search(question, _K)] for question in questions[:20]]
    # Requests that do not come to an end are given up soon.
    with served(folder, workers, "--timeout", "2") as (url, log):
        address = urlsplit(url)
        start = time.perf_counter()
        survived = send_malformed(str(address.hostname), int(address.port or 0), TOKEN, n)
        print(f"{n} malformed requests in {time.perf_counter() - start:.1f} s")
        for (kind, status), times in sorted(survived.statuses.items()):
            print(f"{kind:24s} {status or 'closed':>6} {times:6d}")
        found = asyncio.run(_ids_of(url, questions[:20]))
        ended = [line for line in log.read_text().splitlines() if "another one starts" in line or "Traceback" in line]
    print(f"answers as before: {found == expected}")
    print(f"workers that died, and stack traces in the log: {len(ended)}")
    print(f"answers that blame the service: {survived.n_server_errors}; that show a trace: {len(survived.traces)}")
    if found != expected or ended or survived.n_server_errors or survived.traces:
        raise SystemExit(1)


async def _ids_of(url: str, questions: list[str]) -> list[list[str]]:
    import httpx

    async with httpx.AsyncClient(timeout=60, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        answers = [await client.post(f"{url}/v1/search", json={"query": one, "k": _K}) for one in questions]
    return [[hit["id"] for hit in answer.raise_for_status().json()["result"]["hits"]] for answer in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", type=Path, default=COLLECTION, help="folder in BEIR's format")
    parser.add_argument("--passages", type=int, default=500, help="number of them (default: 500)")
    parser.add_argument("--questions", type=int, default=200, help="number of them (default: 200)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement (default: 4)")
    parser.add_argument("--turns", type=int, default=3, help="measurements of each kind (default: 3)")
    parser.add_argument("--workers", type=int, default=2, help="of the service (default: 2)")
    parser.add_argument("--malformed", type=int, metavar="N", help="send N malformed requests instead")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    collection = read_beir(arguments.collection)
    questions = list(collection.queries.values())[: arguments.questions]
    if arguments.turn:
        ask = ask_over_http if arguments.turn.startswith("http") else ask_in_process
        found = ask(arguments.turn, questions, arguments.threads, arguments.seconds)
        print(json.dumps(found.__dict__))
        return
    print(describe_machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        with MuveraIndex.create(folder) as index:
            n = arguments.passages
            index.add(collection.texts[:n], collection.ids[:n])
            print(f"{len(index)} passages, {index.n_tokens} token vectors, {_K} hits per question")
        if arguments.malformed:
            survive(folder, arguments.workers, arguments.malformed, questions)
        else:
            compare(folder, arguments.workers, arguments.seconds, arguments.questions, arguments.turns)


if __name__ == "__main__":
    main()
