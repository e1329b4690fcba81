"""Index and search with token vectors of an encoding service behind HTTP.

    python examples/recipes/encoding_service.py
    python examples/recipes/encoding_service.py --url http://localhost:8000/pooling --model NAME --dimension 128

Without a URL, the script starts a small service in this process. It answers as vLLM's ``/pooling`` does for the task
``token_embed``: {"data": [{"data": [[...], ...]}, ...]}, one item per text, one list per token.
"""

from __future__ import annotations

import argparse
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import numpy.typing as npt

from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder, CallableEncoder

PASSAGES = {
    "owl": "Owls are birds of prey that hunt at night.",
    "ant": "Ants live in colonies of up to several million.",
    "rye": "Rye bread keeps for longer than white bread.",
}


class Service(BaseHTTPRequestHandler):
    """Encodes the texts of a request with the bundled encoder."""

    model = BundledEncoder()

    def do_POST(self) -> None:
        """Answer one request."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        encoded = self.model.encode_documents(request["input"])
        answer = json.dumps({"data": [{"data": vectors.tolist()} for vectors in encoded]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def running_service() -> Iterator[str]:
    """The URL of a service that runs until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/pooling"
    finally:
        server.shutdown()
        server.server_close()


def encode_with(url: str, model: str, prefix: str) -> Callable[[list[str]], list[npt.NDArray[np.float32]]]:
    """A function that sends texts to the service. ``prefix`` is the marker that the model expects before each text."""

    def encode(texts: list[str]) -> list[npt.NDArray[np.float32]]:
        body = json.dumps({"model": model, "task": "token_embed", "input": [prefix + text for text in texts]})
        request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        return [np.asarray(item["data"], dtype=np.float32) for item in answer["data"]]

    return encode


def search(url: str, model: str, dimension: int, query_prefix: str, document_prefix: str) -> None:
    encoder = CallableEncoder(
        encode_with(url, model, query_prefix), encode_with(url, model, document_prefix), dimension, name=model
    )
    with MuveraIndex.create(None, encoder) as index:
        index.add(list(PASSAGES.values()), ids=list(PASSAGES))
        for hit in index.search("Which bird is active after dark?", k=2):
            print(f"{hit.normalized_score:.2f} {hit.id}: {hit.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="where the service takes texts")
    parser.add_argument("--model", default="minilm", help="the model's name there")
    parser.add_argument("--dimension", type=int, default=BundledEncoder().dimension, help="width of a token vector")
    parser.add_argument("--query-prefix", default="", help="marker before each question, such as '[Q] '")
    parser.add_argument("--document-prefix", default="", help="marker before each passage, such as '[D] '")
    arguments = vars(parser.parse_args())
    if arguments["url"]:
        search(**arguments)
    else:
        with running_service() as arguments["url"]:
            search(**arguments)


if __name__ == "__main__":
    main()
