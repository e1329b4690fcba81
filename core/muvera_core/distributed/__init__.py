"""One index over several processes and machines: its documents are spread over shards, each an ordinary index.

call → ``ShardedMuveraIndex`` → ``Scatter`` asks the shards → ``Shard`` answers from its index → answers are merged

``Scatter`` is the only part that knows where shards are: in this process (``LocalScatter``) or in actors of Ray.
"""

from __future__ import annotations

from muvera_core.distributed.building import BuildReport, build
from muvera_core.distributed.cluster_options import ClusterOptions
from muvera_core.distributed.placement import shard_of
from muvera_core.distributed.ray_scatter import MemberReport
from muvera_core.distributed.scatter import LocalScatter, Scatter, ShardWriteError
from muvera_core.distributed.shard import Shard
from muvera_core.distributed.sharded_engine import ShardedEngine
from muvera_core.distributed.sharded_index import ShardedMuveraIndex

__all__ = [
    "BuildReport",
    "ClusterOptions",
    "LocalScatter",
    "MemberReport",
    "Scatter",
    "Shard",
    "ShardWriteError",
    "ShardedEngine",
    "ShardedMuveraIndex",
    "build",
    "shard_of",
]
