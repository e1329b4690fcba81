"""The engine of a sharded index that is open: each call works on one generation of shards from beginning to end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from muvera_core.distributed.cluster import RayCluster
from muvera_core.distributed.scatter import Scatter
from muvera_core.distributed.sharded_engine import ShardedEngine
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import CLOSED, IndexClosedError


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
