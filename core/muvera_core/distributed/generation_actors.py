"""Starts, finds and ends the actors that are the members of one generation's shards."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_core.distributed.actors import EncoderSource, MemberPlan, Role, actor_class
from muvera_core.distributed.answers import Answer, give_warnings
from muvera_core.distributed.cluster_folder import ClusterFile, shard_folder
from muvera_core.distributed.cluster_options import ClusterOptions
from muvera_core.distributed.members import Member
from muvera_core.distributed.ray_module import require_ray
from muvera_core.distributed.ray_scatter import RayScatter
from muvera_core.errors import InvalidInputError, ServiceTimeoutError, ShardUnavailableError

# The namespace of the actors' names in Ray.
NAMESPACE = "muvera"
# Seconds until Ray has ended processes that it was told to kill.
_KILL_TIMEOUT = 5.0


@dataclass(frozen=True)
class ActorPlan:
    """What the actors of a sharded index are made from.

    Attributes:
        folder: the folder of the sharded index.
        owner: a name that these actors share, and others of the same index have not.
        encoder: see ``MemberPlan``.
        options: how they run.
        read_only: make no primaries, but one replica more.
    """

    folder: Path
    owner: str
    encoder: EncoderSource
    options: ClusterOptions
    read_only: bool = False

    @property
    def roles(self) -> list[Role]:
        """The role of each member of a shard."""
        replicas: list[Role] = ["replica"] * self.options.n_replicas
        return ["replica" if self.read_only else "primary", *replicas]

    def name(self, file: ClusterFile, shard: int, number: int) -> str:
        """The name of an actor."""
        return f"{file.cluster_id}-{self.owner}-{file.generation}-{shard}-{number}"


def start_actors(
    plan: ActorPlan, file: ClusterFile, settings: Mapping[str, Any] | None = None, *, removes_leftovers: bool = False
) -> list[list[Member]]:
    """Start the members of all shards. They open their folders when they are first asked to.

    Args:
        plan: what they are made from.
        file: the generation.
        settings: arguments of ``MuveraIndex.create`` for shards that are to be made. None if they exist.
        removes_leftovers: let primaries remove other generations' folders on their nodes.
    """
    nodes = _nodes(plan)
    shards: list[list[Member]] = []
    for shard in range(file.n_shards):
        members = []
        for number, role in enumerate(plan.roles):
            member_plan = MemberPlan(
                shard,
                role,
                shard_folder(plan.folder, file.generation, shard),
                plan.encoder,
                settings,
                plan.options.device,
                plan.options.device_memory,
                plan.options.shard_class,
                removes_leftovers and role == "primary",
            )
            options = _ray_options(plan, shard, number, nodes) | {"name": plan.name(file, shard, number)}
            try:
                actor = actor_class().options(**options).remote(member_plan)
            except TypeError as error:
                raise InvalidInputError(
                    f"the encoder cannot be sent to other processes ({error}): give a function without arguments that "
                    "makes it"
                ) from error
            members.append(Member(shard, role, actor))
        shards.append(members)
    return shards


def find_actors(plan: ActorPlan, file: ClusterFile) -> list[list[Member]]:
    """The members that another process has started.

    Raises:
        ShardUnavailableError: they do not exist.
    """
    ray = require_ray()
    try:
        return [
            [
                Member(shard, role, ray.get_actor(plan.name(file, shard, number), namespace=NAMESPACE))
                for number, role in enumerate(plan.roles)
            ]
            for shard in range(file.n_shards)
        ]
    except ValueError as error:
        raise ShardUnavailableError(
            f"the processes of {plan.folder} were ended: open the index again", tuple(range(file.n_shards))
        ) from error


def wait_until_open(plan: ActorPlan, shards: Sequence[Sequence[Member]]) -> None:
    """Wait until all members have opened their folders, primaries first.

    Raises:
        ServiceTimeoutError: some did not in time.
        MuveraError: what opening a folder raised.
    """
    ray = require_ray()
    deadline = time.monotonic() + plan.options.start_timeout
    for role in dict.fromkeys(plan.roles):  # replicas open what primaries make
        asked = {
            member.actor.line.options(concurrency_group="control").remote(): member
            for members in shards
            for member in members
            if member.role == role
        }
        done, late = ray.wait(list(asked), num_returns=len(asked), timeout=max(0.0, deadline - time.monotonic()))
        answers = {asked[ref]: _answer_to(ref, asked[ref]) for ref in done}
        give_warnings(answers.values())
        for member, answer in answers.items():
            if answer.error is not None:
                raise answer.error
            member.found(answer.value)
        if late:
            raise ServiceTimeoutError(
                f"{asked[late[0]]!r} did not start within {plan.options.start_timeout:g} s: see with `ray status` "
                "whether the cluster has what it asks for, or raise start_timeout"
            )


def scatter_over(plan: ActorPlan, shards: Sequence[Sequence[Member]]) -> RayScatter:
    """What asks these members."""
    options = plan.options
    return RayScatter(
        shards,
        on_missing_shard=options.on_missing_shard,
        timeout=options.timeout,
        write_timeout=options.write_timeout,
    )


def end_actors(shards: Sequence[Sequence[Member]], timeout: float, *, remove_folders: bool = False) -> None:
    """Let members close their folders, replicas first, and end them. Those that do not close in time are killed.

    Args:
        shards: the members.
        timeout: seconds that they get.
        remove_folders: let primaries remove their folders.
    """
    ray = require_ray()
    deadline = time.monotonic() + timeout
    members = [member for members in shards for member in members]
    for role in ("replica", "primary"):
        asked = [
            member.actor.close.options(concurrency_group="control").remote(remove_folders and role == "primary")
            for member in members
            if member.role == role
        ]
        if asked:
            ray.wait(asked, num_returns=len(asked), timeout=max(0.0, deadline - time.monotonic()))
    ending = []
    for member in members:
        member.lost()
        member.is_gone = True
        with suppress(ray.exceptions.RayError):
            ray.kill(member.actor)
            ending.append(member.actor.info.remote())  # fails when the process, and its name in Ray, are gone
    if ending:
        ray.wait(ending, num_returns=len(ending), timeout=_KILL_TIMEOUT)


def _ray_options(plan: ActorPlan, shard: int, number: int, nodes: Sequence[str]) -> dict[str, Any]:
    """Options of Ray for a member. The members of a shard are on different nodes, if there are several."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    given = plan.options.actor_options
    options: dict[str, Any] = {"namespace": NAMESPACE, "num_gpus": _gpus(plan)}
    if nodes:
        node = nodes[(shard + number) % len(nodes)]
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
    if plan.options.detached:
        options |= {"lifetime": "detached", "get_if_exists": True}
    return options | dict(given(shard, number) if callable(given) else given)


def _gpus(plan: ActorPlan) -> float:
    options = plan.options
    if options.num_gpus is not None:
        return options.num_gpus
    return 1 if options.device.startswith("cuda") else 0


def _nodes(plan: ActorPlan) -> list[str]:
    """Ids of the nodes that members can be on, in a fixed order."""
    needs_gpu = _gpus(plan) > 0
    return sorted(
        node["NodeID"]
        for node in require_ray().nodes()
        if node["Alive"] and (not needs_gpu or node["Resources"].get("GPU", 0) > 0)
    )


def _answer_to(ref: Any, member: Member) -> Answer:
    ray = require_ray()
    try:
        answer: Answer = ray.get(ref)
    except ray.exceptions.RayError as error:
        problem = f"{error}".strip().rpartition("\n")[2]  # the last line of a traceback
        return Answer(error=ShardUnavailableError(f"{member!r} did not start: {problem}", (member.shard,)))
    return answer
