from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muvera_core import MuveraIndex
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
def nq_index(encoder: BundledEncoder, nq: BeirCollection) -> Iterator[MuveraIndex]:
    """The first 300 of them, indexed in memory. Tests must not change it."""
    with MuveraIndex.create(None, encoder) as index:
        metadatas = [{"title": title} for title in nq.titles[:300]]
        index.add(nq.texts[:300], ids=nq.ids[:300], metadatas=metadatas)
        yield index


@pytest.fixture(scope="session")
def nq_questions(nq: BeirCollection) -> dict[str, str]:
    """Questions whose answer is in ``nq_index``: question by the id of the passage that answers it."""
    held = set(nq.ids[:300])
    answered = {next(iter(relevant)): nq.queries[q] for q, relevant in nq.relevance.items() if set(relevant) <= held}
    return dict(list(answered.items())[:60])
