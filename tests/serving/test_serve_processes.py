"""``muvera serve`` with several workers, whose processes are killed."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from served import PATIENCE, Service, wait_until

from muvera_core import MuveraIndex

FACTS = [f"Fact {number}: the {animal} eats {number} ants." for number in range(10) for animal in ("owl", "heron")]
READERS = ("reader-1", "reader-2")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has one worker")


def make_index(path: Path) -> Path:
    with MuveraIndex.create(path) as index:
        index.add(FACTS, ids=[f"fact-{number}" for number in range(len(FACTS))])
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(make_index(tmp_path_factory.mktemp("served") / "index"), "--workers", "2") as running:
        yield running


def found(response: httpx.Response) -> list[str]:
    """Ids of the hits of a search."""
    assert response.status_code == 200, response.text
    return [hit["id"] for hit in response.json()["result"]["hits"]]


def documents(response: httpx.Response) -> list[str]:
    """Ids of the documents that were read."""
    assert response.status_code == 200, response.text
    return [document["id"] for document in response.json()["result"]]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    # Nobody may be there to notice that an orphan has ended.
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def unfinished_request(service: Service) -> socket.socket:
    """A connection on which a search was begun but not sent to its end."""
    address = urlsplit(service.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=PATIENCE)
    body = b'{"query": "owl"}'
    head = f"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
    # The service asks for the body when the request is in its place.
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    return connection


def test_a_write_is_found_by_all_workers_at_once(service: Service) -> None:
    with service.connections(*READERS) as clients:
        for number in range(20):
            id, text = f"new-{number}", f"The stork of village {number} nests on a chimney."
            written = service.call("add", clients[READERS[number % 2]], texts=[text], ids=[id])
            assert written.status_code == 200, written.text
            for name, client in clients.items():
                answer = service.call("search", client, query=text, k=1)
                assert answer.headers["x-muvera-worker"] == name
                assert found(answer) == [id]


def test_a_write_is_found_at_once_while_others_write(service: Service) -> None:
    def write_and_read(client_number: int) -> list[str]:
        missed: list[str] = []
        with service.connections(*READERS) as clients:
            for number in range(15):
                id = f"{client_number}-{number}"
                written = service.call("add", clients[READERS[number % 2]], texts=[f"Letter {id}."], ids=[id])
                assert written.status_code == 200, written.text
                found_by = [name for name in READERS if documents(service.call("get", clients[name], ids=[id]))]
                missed += sorted(set(READERS) - set(found_by))
        return missed

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write_and_read, range(4))) == [[]] * 4


def test_a_killed_reader_is_replaced_while_the_other_answers(service: Service) -> None:
    pid = service.pids["reader-1"]
    with service.connections("reader-2") as clients:
        os.kill(pid, signal.SIGKILL)
        while service.pids["reader-1"] == pid:
            assert found(service.call("search", clients["reader-2"], query="What does the owl eat?"))
        assert "was ended by SIGKILL" in service.output
    with service.connections("reader-1") as clients:
        assert found(service.call("search", clients["reader-1"], query="What does the owl eat?"))


def test_a_killed_writer_loses_nothing_that_was_acknowledged(service: Service) -> None:
    acknowledged: list[str] = []
    refused: list[httpx.Response] = []
    pid = service.pids["writer"]
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set() or not acknowledged:
            number += 1
            id = f"kept-{number}"
            answer = service.call("add", texts=[f"The kept crane number {number}."], ids=[id])
            if answer.status_code == 200:
                acknowledged.append(id)
            else:
                refused.append(answer)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        wait_until(lambda: len(acknowledged) > 3, "something was written")
        before = len(acknowledged)
        os.kill(pid, signal.SIGKILL)
        while service.pids["writer"] == pid:
            assert found(service.call("search", query="What does the heron eat?"))
        wait_until(lambda: len(acknowledged) > before + 3, "writes go on")
    finally:
        done.set()
        writing.join(PATIENCE)
    assert refused, "nothing was written while the writer was away"
    assert {answer.status_code for answer in refused} == {503}
    assert {answer.json()["error"]["type"] for answer in refused} <= {"ServiceError"}
    assert documents(service.call("get", ids=acknowledged)) == acknowledged


def test_numbers_are_those_of_all_workers_and_outlive_them(service: Service) -> None:
    def numbers(client: httpx.Client) -> dict[str, float]:
        lines = client.get(f"{service.url}/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    name = 'muvera_requests_total{call="search",status="200"}'
    with service.connections(*READERS) as clients:
        before = numbers(clients["reader-1"])[name]
        for client in clients.values():
            service.call("search", client, query="owl")
        for client in clients.values():
            assert numbers(client)[name] == before + 2
            assert numbers(client)["muvera_requests_in_flight"] == 1
            assert numbers(client)["muvera_documents"] >= len(FACTS)
        pid = service.pids["reader-2"]
        open_request = unfinished_request(service)
        os.kill(pid, signal.SIGKILL)
        service.wait_for_another("reader-2", pid)
        open_request.close()
    with service.connections(*READERS) as clients:
        wait_until(lambda: numbers(clients["reader-1"])["muvera_requests_in_flight"] == 1, "nothing is in flight")
        assert numbers(clients["reader-2"])[name] == before + 2


def test_a_request_that_runs_ends_before_the_service_does(service: Service) -> None:
    """The last test with this service."""
    pids = service.pids
    with unfinished_request(service) as connection:
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in service.output, "the service stops")
        connection.sendall(b'{"query": "owl"}')
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert service.wait() == 0, service.output
    assert not any(map(exists, pids.values()))
    assert "Traceback" not in service.output
    with MuveraIndex.open(service.index) as index:
        assert len(index) > len(FACTS)


def test_workers_end_when_the_process_that_looks_after_them_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index(tmp_path / "index")
    with tempfile.TemporaryDirectory() as temporary:  # its path is short enough for that of a socket
        monkeypatch.setenv("TMPDIR", temporary)
        with Service(index, "--workers", "2") as service:
            pids = service.pids
            (shared,) = Path(temporary).glob("muvera-serve-*")
            os.kill(service.process.pid, signal.SIGKILL)
            wait_until(lambda: not any(map(exists, pids.values())), "the workers ended")
        assert not shared.exists()
    with MuveraIndex.open(index) as opened:  # nobody writes any more
        assert len(opened) == len(FACTS)


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    options = ("--workers", "2", "--read-only", "--stop-timeout", "1000")
    with Service(make_index(tmp_path / "index"), *options) as service:
        pids = service.pids
        assert sorted(pids) == sorted(READERS)
        refused = service.call("add", texts=["No place for this."])
        assert 400 <= refused.status_code < 500, refused.text
        with unfinished_request(service):
            service.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "stopping" in service.output, "the service stops")
            service.process.send_signal(signal.SIGTERM)
            service.wait()
        wait_until(lambda: not any(map(exists, pids.values())), "the workers ended")
