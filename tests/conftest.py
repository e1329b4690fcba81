from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from muvera_core import MuveraIndex, TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.collections import BeirCollection, read_beir

DATA = Path(__file__).parents[1] / "examples" / "data"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test reach the network, whatever a library under it tries."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(scope="session")
def encoder() -> BundledEncoder:
    return BundledEncoder()


@pytest.fixture(scope="session")
def nq() -> BeirCollection:
    """Natural Questions: questions and the Wikipedia passages that answer them."""
    return read_beir(DATA / "nq-gold")


@pytest.fixture(scope="session")
def nq_tokens(encoder: BundledEncoder, nq: BeirCollection, tmp_path_factory: pytest.TempPathFactory) -> TokenEmbeddings:
    """The first 600 passages, encoded. That takes seconds, so processes that share the tests do it once for all."""
    among_others = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp().parent if among_others else tmp_path_factory.mktemp("nq")
    path = folder / "nq-tokens.npz"
    with FileLock(folder / "nq-tokens.lock"):
        if not path.exists():
            batches = [encoder.encode_documents(nq.texts[start : start + 50]) for start in range(0, 600, 50)]
            encoded = TokenEmbeddings.concatenate(batches)
            np.savez(path, vectors=encoded.vectors, offsets=encoded.offsets)
    with np.load(path) as saved:
        tokens = TokenEmbeddings(saved["vectors"], saved["offsets"])
    for part in (tokens.vectors, tokens.offsets):
        part.flags.writeable = False
    return tokens


@pytest.fixture(scope="session")
def nq_index(encoder: BundledEncoder, nq: BeirCollection, nq_tokens: TokenEmbeddings) -> Iterator[MuveraIndex]:
    """The first 300 of them, indexed in memory. Tests must not change it."""
    with MuveraIndex.create(None, encoder) as index:
        tokens = [nq_tokens[i] for i in range(300)]
        metadatas = [{"title": title} for title in nq.titles[:300]]
        index.add_embeddings(tokens, ids=nq.ids[:300], texts=nq.texts[:300], metadatas=metadatas)
        yield index


@pytest.fixture(scope="session")
def nq_questions(nq: BeirCollection) -> dict[str, str]:
    """Questions whose answer is in ``nq_index``: question by the id of the passage that answers it."""
    held = set(nq.ids[:300])
    answered = {next(iter(relevant)): nq.queries[q] for q, relevant in nq.relevance.items() if set(relevant) <= held}
    return dict(list(answered.items())[:60])
