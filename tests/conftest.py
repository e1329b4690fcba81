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
# A loopback address for the nodes of Ray, which replaces 127.0.0.1 by the address of the network card.
RAY_HOST = "127.0.0.2"
# Before Ray is imported. Its processes inherit them.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # otherwise it writes a token into the home folder
os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # a busy machine starts Ray slowly
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # without it, ray.init warns about a coming change


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test reach another machine, whatever a library under it tries."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        is_ip = self.family in (socket.AF_INET, socket.AF_INET6)
        if is_ip and not str(address[0]).startswith("127.") and address[0] not in ("::1", "localhost"):
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A ``ray.cluster_utils.Cluster`` of one node. Tests can add nodes, and must remove them."""
    ray = pytest.importorskip("ray", reason="needs muvera-core[ray]")
    from ray.cluster_utils import Cluster

    folder = str(Path(__file__).parent / "distributed")  # Ray's processes import the modules of these tests
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Nodes that were killed are noticed soon.
    health = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
    head = {"num_cpus": 4, "object_store_memory": 100_000_000, "include_dashboard": False, "_system_config": health}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "node_ip_address": RAY_HOST})
    ray.init(address=cluster.address, log_to_driver=False, _node_ip_address=RAY_HOST)
    yield cluster
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]


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
