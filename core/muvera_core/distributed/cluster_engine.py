"""The engine of a sharded index that is open: each call works on one generation of shards from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from muvera_core.distributed.cluster import RayCluster
from muvera_core.distributed.scatter import Scatter
from muvera_core.distributed.sharded_engine import ShardedEngine
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import CLOSED, IndexClosedError, ShardUnavailableError
from muvera_core.filters import Condition
from muvera_core.hits import Document


class ClusterEngine:
    """Fulfils ``Engine``: makes every call of a ``ShardedEngine`` over the shards of the present generation.

    A key or a shard's number means something within one generation only, so a call that asks shards several times must
    not get from one generation into another.
    """

    def __init__(self, cluster: RayCluster, encoder: TokenEncoder) -> None:
        """Search and change a cluster's documents.

        Args:
            cluster: the shards, and whether they can be changed.
            encoder: the index's encoder.
        """
        self.cluster, self._encoder = cluster, encoder

    @property
    def path(self) -> Path:
        """See ``Engine``."""
        return self.cluster.folder

    @property
    def is_open(self) -> bool:
        """See ``Engine``."""
        return self.cluster.is_open

    def require_open(self) -> None:
        """See ``Engine``."""
        if not self.cluster.is_open:
            raise IndexClosedError(CLOSED)

    def start_reading(self) -> None:
        """See ``Engine``. The shards themselves take in what was committed."""
        self.require_open()

    def close(self) -> None:
        """See ``Engine``."""
        self.cluster.close()

    def iterate(self, condition: Condition | None, batch_size: int) -> Iterator[Document]:
        """See ``Engine``.

        Raises:
            ShardUnavailableError: the index was resharded meanwhile.
        """
        n_shards = self.cluster.n_shards
        for shard in range(n_shards):
            last = -1
            while True:
                if self.cluster.n_shards != n_shards:
                    raise ShardUnavailableError("the index was resharded during the iteration: begin it again")
                page, last = self._call("page", shard, condition, last, batch_size)
                if not page:
                    break
                yield from page

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return self._run(lambda engine: getattr(engine, name)(*arguments, **options))

    def _run(self, work: Callable[[ShardedEngine], Any]) -> Any:
        def over(scatter: Scatter) -> Any:
            path, read_only = self.cluster.folder, self.cluster.read_only
            return work(ShardedEngine(scatter, self._encoder, path=path, read_only=read_only))

        return self.cluster.run(over)

    def __getattr__(self, name: str) -> Any:
        """All other calls of ``Engine``."""
        if name.startswith("_"):
            raise AttributeError(name)
        if isinstance(getattr(ShardedEngine, name), property):
            return self._run(lambda engine: getattr(engine, name))
        return partial(self._call, name)
