from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("ray.serve", reason="needs muvera-core[ray-serve]")

from noting_encoder import NotingEncoder
from ray import serve
from ray.serve.schema import ServeDeploySchema
from ray_shards import eventually
from tiny_onnx import DIMENSION, write_folder

from muvera_core import RemoteMuveraIndex
from muvera_core.distributed import ClusterOptions, ShardedMuveraIndex
from muvera_core.errors import InvalidInputError
from muvera_core.serving import ServiceSettings
from muvera_core.serving.ray_serve import _encoder_source, app, serve_app

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("ray_cluster")]
TOKEN = "secret"
DETACHED = ClusterOptions(detached=True)
TEXTS = {"a": "owls hunt at night", "b": "ants live in colonies", "c": "bees make honey"}


@pytest.fixture(scope="module")
def folder(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray-serve") / "index"
    with ShardedMuveraIndex.create(folder, NotingEncoder(), n_shards=2) as index:
        index.add(list(TEXTS.values()), list(TEXTS), [{"n": i} for i in range(3)])
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[httpx.Client]:
    """The service with two replicas."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    settings = ServiceSettings(tokens=[TOKEN], max_k=50)
    serve.run(serve_app(folder, NotingEncoder, settings=settings, num_replicas=2, ray_actor_options={"num_cpus": 0.1}))
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=60, headers={"Authorization": f"Bearer {TOKEN}"}, verify=NO_TLS
    )
    with client:
        yield client
    serve.shutdown()  # type: ignore[no-untyped-call]
    ShardedMuveraIndex.open(folder, NotingEncoder(), options=DETACHED).end()


# Made once, because that takes long.
NO_TLS = ssl.create_default_context()


def test_all_replicas_answer_from_the_same_shards(service: httpx.Client, folder: Path) -> None:
    with ShardedMuveraIndex.open(folder, NotingEncoder(), options=DETACHED) as index:
        with RemoteMuveraIndex(str(service.base_url), token=TOKEN) as remote:
            assert remote.search("owls at night", 3) == index.search("owls at night", 3)
        workers = set()

        def both_have_answered() -> bool:
            answer = service.post("/v1/search", json={"query": "owls at night", "k": 3})
            assert answer.status_code == 200, answer.text
            workers.add(answer.headers["x-muvera-worker"])
            return len(workers) == 2

        eventually(both_have_answered, 60)


def test_what_one_replica_writes_every_replica_finds(service: httpx.Client) -> None:
    with RemoteMuveraIndex(str(service.base_url), token=TOKEN) as remote:
        for i in range(6):
            remote.add([f"new-{i} text"], [f"new-{i}"])
            assert [hit.id for hit in remote.search(f"new-{i}", 1)] == [f"new-{i}"]
        assert remote.delete([f"new-{i}" for i in range(6)]) == 6
    assert service.get("/ready").json() == {"status": "ok", "documents": 3}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b'{"query": "owl", "k": 51}', {}, 422),
        (b'{"query": "owl"}', {"Authorization": "Bearer wrong"}, 401),
    ],
)
def test_bad_requests_get_our_answers(service: httpx.Client, body: bytes, headers: dict[str, str], status: int) -> None:
    answer = service.post("/v1/search", content=body, headers={"Content-Type": "application/json", **headers})
    assert (answer.status_code, set(answer.json()["error"])) == (status, {"type", "message"}), answer.text


@pytest.mark.parametrize("name", ["bundled", "a-model"])
def test_a_named_encoder_is_made_on_its_device(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    write_folder(folder, {"model_type": "ColBERT", "embedding_dim": DIMENSION, "muvera": {"version": 1}})
    make = _encoder_source("bundled" if name == "bundled" else str(folder), "gpu")
    assert callable(make)
    with pytest.raises(InvalidInputError, match="device must be 'cpu', 'cuda', 'cuda:N'"):
        make()


def test_a_config_file_makes_the_application(folder: Path) -> None:
    args = {
        "path": str(folder),
        "num_replicas": 3,
        "settings": {"tokens": [TOKEN], "max_k": 7},
        "cluster": {"n_replicas": 1, "on_missing_shard": "partial"},
    }
    config = {"applications": [{"name": "notes", "import_path": "muvera_core.serving.ray_serve:app", "args": args}]}
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert application.import_path == f"{app.__module__}:{app.__name__}"
    made = app(application.args)
    assert made._bound_deployment.num_replicas == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "must have 'path'"),
        ({"path": ""}, "path must be a path"),
        ({"path": "x", "settings": {"max_kk": 1}}, "settings does not know 'max_kk': did you mean 'max_k'?"),
        ({"path": "x", "cluster": {"detached": False}}, "cluster does not know 'detached'"),
        ({"path": "x", "cluster": []}, "cluster must be a mapping"),
        ({"path": "x", "encoder_device": "cuda"}, "encoder_device is for an encoder that is named"),
        ({"path": "x", "num_replicas": 0}, "num_replicas must be at least 1"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        app(args)
