"""The chatbot with a language model that is reached over HTTP, as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat_langchain.py"


class Model(BaseHTTPRequestHandler):
    """Answers as a service with OpenAI's interface: in pieces if it is asked to, otherwise at once."""

    asked: list[list[dict[str, Any]]] = []  # noqa: RUF012 (the server makes an object for each request)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(request["messages"])
        pieces = ["At ", "night ", "[1]."] if "cite" in request["messages"][0]["content"] else ["Who hunts at night?"]
        common = {"id": "1", "created": 1, "model": "small"}
        self.send_response(200)
        if request.get("stream"):
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for piece in pieces:
                choice = {"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}
                chunk = {**common, "object": "chat.completion.chunk", "choices": [choice]}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
            return
        message = {"role": "assistant", "content": "".join(pieces)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps({**common, "object": "chat.completion", "choices": [choice]}).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Model.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_condenses_answers_and_cites(url: str, tmp_path: Path) -> None:
    pytest.importorskip("langchain", reason="needs langchain")
    pytest.importorskip("langchain_openai", reason="needs langchain-openai")
    (tmp_path / "owls.md").write_text("Owls hunt at night.")
    result = subprocess.run(
        [sys.executable, str(EXAMPLE), str(tmp_path), "--model", "openai:small", "--base-url", url],
        input="When do owls hunt?\nAnd who does?\n",
        env={**os.environ, "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("At night [1].") == 2
    first, condensing, second = Model.asked
    assert "[1] Owls hunt at night." in first[0]["content"]
    assert condensing[-1]["content"] == "And who does?"
    assert second[-1]["content"] == "Who hunts at night?"
