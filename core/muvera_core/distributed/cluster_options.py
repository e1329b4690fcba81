"""How the processes of a sharded index run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from muvera_core.distributed.ray_scatter import OnMissingShard
from muvera_core.distributed.shard import Shard
from muvera_core.errors import InvalidInputError
from muvera_core.index import MuveraIndex
from muvera_core.validation import require_choice, require_count, require_interval, shown


@dataclass(frozen=True)
class ClusterOptions:
    """How the processes of a sharded index run, and how they are asked. None of it is part of the index.

    Attributes:
        n_replicas: readers of each shard, beside its primary. They need the shard's folder: on the same node, or on a
            disk that all nodes share.
        on_missing_shard: see ``RayScatter``.
        timeout: seconds that a read takes at most.
        write_timeout: seconds that a write takes at most.
        start_timeout: seconds in which all processes must have opened their folders.
        close_timeout: seconds that they get for closing them.
        device: the device that shards search on; see ``MuveraIndex.open``.
        device_memory: see ``MuveraIndex.open``.
        num_gpus: GPUs that Ray reserves for each process, such as 1 or .5. A process sees no others. None reserves one
            if ``device`` is "cuda". Give a number for "auto".
        actor_options: more options of Ray for each process, such as ``{"num_cpus": 2}``. Or a function of the shard's
            and the member's number that returns them, to place processes on the nodes that have their folders.
        detached: let the processes go on when this one ends, and share them with all who open the index like this.
        shard_class: what answers calls from a shard's index.
    """

    n_replicas: int = 0
    on_missing_shard: OnMissingShard = "error"
    timeout: float = 30.0
    write_timeout: float = 600.0
    start_timeout: float = 120.0
    close_timeout: float = 60.0
    device: str = "cpu"
    device_memory: int | None = None
    num_gpus: float | None = None
    actor_options: Mapping[str, Any] | Callable[[int, int], Mapping[str, Any]] = field(default_factory=dict)
    detached: bool = False
    shard_class: Callable[[MuveraIndex], Shard] = field(default=Shard)

    def __post_init__(self) -> None:
        require_count("n_replicas", self.n_replicas, minimum=0)
        require_choice("on_missing_shard", self.on_missing_shard, get_args(OnMissingShard))
        for name in ("timeout", "write_timeout", "start_timeout", "close_timeout"):
            if not require_interval(name, getattr(self, name)):
                raise InvalidInputError(f"{name} must be a number of seconds above 0, got {shown(getattr(self, name))}")
