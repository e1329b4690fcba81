"""What the tests of the Ray layer ask shards: a shard with a few calls, and an encoder that costs nothing."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from muvera_core.distributed import Shard
from muvera_core.distributed.cluster_options import ClusterOptions
from muvera_core.distributed.placement import shard_of
from muvera_core.distributed.ray_scatter import RayScatter
from muvera_core.encoders import CallableEncoder, warn
from muvera_core.errors import InvalidInputError, TruncatedTextWarning
from muvera_core.token_embeddings import FloatArray

DIMENSION = 8


class SmallShard(Shard):
    """A shard with calls for tests."""

    def add(self, ids: Sequence[str], texts: Sequence[str]) -> list[str]:
        return self.index.add_embeddings([vectors(text) for text in texts], ids=ids, texts=texts)

    def add_slowly(self, seconds: float, ids: Sequence[str], texts: Sequence[str]) -> int:
        time.sleep(seconds)
        self.add(ids, texts)
        return os.getpid()

    def remove(self, ids: Sequence[str]) -> int:
        return self.index.delete(ids)

    def texts(self) -> dict[str, str | None]:
        return {document.id: document.text for document in self.index.find()}

    def search(self, text: str, k: int = 10) -> list[tuple[str, float]]:
        return [(hit.id, hit.score) for hit in self.index.search_embeddings(vectors(text), k=k, exact=True)]

    def pid(self) -> int:
        return os.getpid()

    def echo(self, value: Any) -> Any:
        return value

    def sleep(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    def warn(self, message: str) -> None:
        warn(message, TruncatedTextWarning)

    def refuse(self) -> None:
        raise InvalidInputError("got nothing, expected something: give something")

    def fail(self) -> None:
        raise ZeroDivisionError("a bug")


def vectors(text: str) -> FloatArray:
    """Three token vectors that depend on the text, float32, shape (3, DIMENSION)."""
    drawn = np.random.default_rng(zlib.crc32(text.encode())).normal(size=(3, DIMENSION)).astype(np.float32)
    scaled: FloatArray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return scaled


def small_encoder() -> CallableEncoder:
    def encode(texts: list[str]) -> list[FloatArray]:
        return [vectors(text) for text in texts]

    return CallableEncoder(encode, encode, DIMENSION, "small")


def options(**given: Any) -> ClusterOptions:
    defaults: dict[str, Any] = {"timeout": 20.0, "write_timeout": 40.0, "shard_class": SmallShard}
    return ClusterOptions(**defaults | given)


def add(scatter: RayScatter, texts: dict[str, str]) -> None:
    """Add texts by id, each to its shard."""
    parts: dict[int, tuple[list[str], list[str]]] = {}
    for id, text in texts.items():
        ids, listed = parts.setdefault(shard_of(id, scatter.n_shards), ([], []))
        ids.append(id)
        listed.append(text)
    scatter.write("add", parts)


def every(scatter: RayScatter, *arguments: Any) -> dict[int, tuple[Any, ...]]:
    """The same arguments for every shard."""
    return dict.fromkeys(range(scatter.n_shards), arguments)


def all_texts(scatter: RayScatter) -> dict[str, str]:
    """All texts of all shards by id."""
    return {id: text for part in scatter.read("texts", every(scatter)).values() for id, text in part.items()}


def eventually(check: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What ``check`` returns as soon as that is true. Fails after some seconds."""
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.05)
    return result
