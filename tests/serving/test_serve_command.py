"""The command ``muvera serve`` with one worker, and what it refuses."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from served import Service, wait_until

from muvera_core import MuveraIndex
from muvera_core.cli import main
from muvera_core.errors import InvalidInputError, ServiceError
from muvera_core.serving import serve

TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("command") / "index"
    with MuveraIndex.create(path) as index:
        index.add(["Owls hunt at night.", "Ants live in colonies."], ids=["owl", "ant"])
    return path


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(f"{TOKEN}\nanother-one\n")
    with Service(folder, "--token-file", str(file), "--max-body", "1", "--open-metrics", token=TOKEN) as running:
        yield running


def refusal(*arguments: str, **variables: str) -> str:
    """What the command says when it does not serve."""
    result = CliRunner(env=variables).invoke(main, ["serve", *arguments], prog_name="muvera")
    assert result.exit_code != 0
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    return result.output


def test_it_says_where_it_is_and_how_it_stops(service: Service) -> None:
    assert re.search(
        r"index is served at http://127\.0\.0\.1:\d+ \(calls: http://127\.0\.0\.1:\d+/docs\)", service.output
    )
    assert "Ctrl-C stops the service." in service.output


def test_one_process_reads_and_writes(service: Service) -> None:
    assert service.call("add", texts=["Storks nest on chimneys."], ids=["stork"]).status_code == 200
    answer = service.call("search", query="Where do storks nest?", k=1)
    assert answer.status_code == 200
    assert "stork" in answer.text


def test_the_token_of_the_file_is_needed(service: Service) -> None:
    stranger = Service.__new__(Service)
    stranger.__dict__ = {**service.__dict__, "headers": {}}
    assert stranger.call("search", query="owl").status_code == 401
    assert stranger.get("/docs").status_code == 401
    assert stranger.get("/health").status_code == 200
    assert "muvera_documents" in stranger.get("/metrics").text
    stranger.headers = {"Authorization": "Bearer another-one"}
    assert stranger.call("search", query="owl").status_code == 200


def test_a_body_over_the_limit_is_refused(service: Service) -> None:
    answer = service.call("search", query="x" * (1 << 20))
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "InvalidInputError"


def test_an_index_that_is_served_is_locked_for_other_writers(service: Service) -> None:
    said = refusal(str(service.index), "--port", "0", "--no-token")
    assert "another process has it open for writing" in said or "writ" in said
    if sys.platform != "win32":
        with pytest.raises(ServiceError, match="writ"):
            serve(service.index, port=0, workers=2)


@pytest.mark.skipif(os.name == "nt", reason="needs signals of POSIX")
def test_a_signal_stops_it_and_saves_the_index(service: Service) -> None:
    """The last test with this service."""
    # Started by nohup, the tests and what they start ignore SIGHUP.
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert service.stop(signal.SIGTERM if ignored else signal.SIGHUP) == 0
    assert service.lines[-1] == "stopped"
    assert "Traceback" not in service.output
    with MuveraIndex.open(service.index) as index:
        assert "stork" in index


@pytest.mark.skipif(os.name == "nt", reason="needs signals of POSIX")
def test_a_new_index_is_made_by_name_only(tmp_path: Path) -> None:
    assert "--create" in refusal(str(tmp_path / "new"))
    with Service(tmp_path / "new", "--create", "--host", "localhost", "--no-docs") as service:
        assert service.call("add", texts=["Owls hunt at night."], ids=["owl"]).status_code == 200
        assert "/docs" not in service.output
        assert service.get("/docs").status_code == 404
        pid = service.process.pid
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: service.process.poll() is not None, f"process {pid} ended")
    with MuveraIndex.open(tmp_path / "new") as index:
        assert len(index) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_no_other_machine_is_let_in_without_a_token(folder: Path, host: str) -> None:
    said = refusal(str(folder), "--port", "0", "--host", "127.0.0.1", "--host", host, MUVERA_TOKEN="")
    assert f"everybody who reaches {host}" in said
    assert "--no-token" in said


def test_a_token_is_not_an_argument(folder: Path) -> None:
    assert "No such option" in refusal(str(folder), "--token", "secret")


def test_token_files_that_cannot_be_used_are_named(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    for content, said in (("\n \n", "has no token"), ("two words", "visible ASCII"), ("café", "ASCII")):
        file.write_text(content, "utf-8")
        assert said in refusal(str(folder), "--token-file", str(file))
    assert "does not exist" in refusal(str(folder), "--token-file", str(tmp_path / "none"))


def test_arguments_that_exclude_each_other_are_refused(folder: Path) -> None:
    assert "leave" in refusal(str(folder), "--no-token", MUVERA_TOKEN="secret")
    assert "only reads" in refusal(str(folder), "--create", "--read-only")


def test_an_address_that_cannot_be_used_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1, port {port}" in refusal(str(folder), "--port", port)
    assert "no-such-host.invalid" in refusal(str(folder), "--host", "no-such-host.invalid")
    assert "cannot listen on 203.0.113.1" in refusal(str(folder), "--host", "203.0.113.1", "--no-token")


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    assert "holds no index" in refusal(str(tmp_path))
    (tmp_path / "cluster.json").touch()
    assert "Ray Serve serves" in refusal(str(tmp_path))


@pytest.mark.parametrize("workers", [0, 1.5, "2", None])
def test_the_number_of_workers_is_a_count(folder: Path, workers: int) -> None:
    with pytest.raises(InvalidInputError, match="workers"):
        serve(folder, port=0, workers=workers)


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'muvera-core[serve]'" in refusal(str(folder))


def test_windows_has_one_worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert "Windows cannot share a socket" in refusal(str(folder), "--workers", "2")
