"""Runs the stages of building with Ray Data.

units → ``look`` → digests of ids, what cannot be used
units → ``Compare`` → blocks to encode → ``Encode`` → blocks with tokens → ``Write`` → tallies
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from muvera_core.corpus import SourceFile, Unusable
from muvera_core.distributed.building.blocks import Block
from muvera_core.distributed.building.stages import Compare, Encode, Write, look
from muvera_core.distributed.building.tally import Tally
from muvera_core.distributed.building.units import Unit, plan_file
from muvera_core.distributed.ray_module import require_ray
from muvera_core.errors import InvalidInputError, MissingExtraError, ServiceError

# Reading and writing mostly wait. They take no processor from the encoders, so one processor is enough for a build.
_WAITS_MOSTLY = {"num_cpus": 0}
_FILES_PLANNED_TOGETHER = 64
# Of Ray Data's context. Not every version has all of them.
_SETTINGS = {
    "target_max_block_size": 1,  # every row is given on at once
    "enable_progress_bars": False,
    "print_on_execution_start": False,
    "raise_original_map_exception": True,
}


@dataclass(frozen=True)
class Encoders:
    """The actors that encode.

    Attributes:
        n: their number.
        cpus: processors of each, or a fraction of one.
        gpus: GPUs of each, or a fraction of one.
    """

    n: int
    cpus: float
    gpus: float


def require_ray_data() -> Any:
    """The module ``ray.data``, connected to a cluster. Raises MissingExtraError if it is not installed."""
    require_ray()
    try:
        import pyarrow  # noqa: F401
        import ray.data
    except ImportError as error:
        raise MissingExtraError("bulk building needs Ray Data: pip install 'muvera-core[ray]'") from error
    return ray.data


def require_gpus(n_encoders: int | None, gpus: float) -> None:
    """Raise InvalidInputError if the cluster has not so many GPUs. Ray would wait for them for ever."""
    has, wanted = require_ray().cluster_resources().get("GPU", 0), gpus * (n_encoders or 1)
    if wanted > has:
        raise InvalidInputError(
            f"encoders need {wanted:g} GPUs, but the cluster has {has:g}: reduce n_encoders or num_gpus_per_encoder"
        )


def choose_encoders(n: int | None, gpus: float, n_blocks: int) -> Encoders:
    """The encoders for the cluster as it is.

    Args:
        n: number of encoders. None makes as many as the free GPUs, or the free processors, allow.
        gpus: GPUs of an encoder, or a fraction of one.
        n_blocks: number of blocks to encode. More encoders than that would have nothing to do.
    """
    free = require_ray().available_resources()
    free_cpus = free.get("CPU", 0)
    if n is None:
        n = int(free.get("GPU", 0) / gpus if gpus else free_cpus)
    n = max(1, min(n, n_blocks))
    # If shards take all processors, the encoders share them. They must not wait for ever.
    return Encoders(n, min(1, free_cpus / n), gpus)


def _tasks(data: Any, n_inputs: int) -> Any:
    """As many tasks at the same time as the cluster has processors. Ray Data warns of tasks without an input."""
    return data.TaskPoolStrategy(size=min(_count_cpus(), n_inputs))


def _count_cpus() -> int:
    return max(1, int(require_ray().cluster_resources().get("CPU", 0)))


def plan_files(files: Sequence[SourceFile]) -> Iterator[list[Unit] | Unusable]:
    """The units of files with many documents, in the order of the files. Workers read the large files."""
    ray = require_ray()
    task = ray.remote(num_cpus=0)(plan_file)
    for start in range(0, len(files), _FILES_PLANNED_TOGETHER):
        with _our_errors():
            planned = ray.get([task.remote(file) for file in files[start : start + _FILES_PLANNED_TOGETHER]])
        yield from planned


def look_through(units: Sequence[Unit]) -> Iterator[tuple[int, bytes, Tally]]:
    """The number of each unit, in any order, with the digests of its ids and the tally of what cannot be used."""
    with _quiet_ray_data() as data, _our_errors():
        rows = _rows_of(data, units).map(look, compute=_tasks(data, len(units)), **_WAITS_MOSTLY)
        for row in rows.iter_rows():
            yield row["number"], row["digests"], Tally.from_json(row["tally"])


def index_units(
    units: Sequence[Unit], encoders: Encoders, index: Any, encoder: Any, batch_size: int
) -> Iterator[Tally]:
    """Encode and write what the index does not have. Gives the tally of each block once it is durable."""
    with _quiet_ray_data() as data, _our_errors():
        by_block: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": 1}
        compared = _rows_of(data, units).map_batches(
            Compare(index, batch_size).__call__, compute=_tasks(data, len(units)), **by_block, **_WAITS_MOSTLY
        )
        encoded = compared.map_batches(
            Encode,
            fn_constructor_args=(index, encoder, batch_size),
            compute=data.ActorPoolStrategy(size=encoders.n),
            num_cpus=encoders.cpus,
            num_gpus=encoders.gpus,
            **by_block,
        )
        written = encoded.map_batches(
            Write,
            fn_constructor_args=(index,),
            compute=data.ActorPoolStrategy(size=min(encoders.n, _count_cpus())),
            **by_block,
            **_WAITS_MOSTLY,
        )
        for batch in written.iter_batches(batch_size=1, batch_format="pyarrow"):
            yield Block.from_table(batch).tally


def _rows_of(data: Any, units: Sequence[Unit]) -> Any:
    """A dataset with a row, and a block of Ray, for each unit: so each worker takes one unit at a time."""
    rows = [{"number": number, "unit": unit.to_json()} for number, unit in enumerate(units)]
    return data.from_items(rows, override_num_blocks=len(rows))


@contextmanager
def _quiet_ray_data() -> Iterator[Any]:
    """Ray Data with the settings of a build, and without its log, because errors are raised."""
    data = require_ray_data()
    context, logger = data.DataContext.get_current(), logging.getLogger("ray.data")
    ours = {name: value for name, value in _SETTINGS.items() if hasattr(context, name)}
    before, level = {name: getattr(context, name) for name in ours}, logger.level
    try:
        _set(context, ours)
        logger.setLevel(logging.CRITICAL)
        yield data
    finally:
        _set(context, before)
        logger.setLevel(level)


def _set(target: object, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(target, name, value)


@contextmanager
def _our_errors() -> Iterator[None]:
    """Raise what a worker raised, without what Ray wraps it in."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause: BaseException | None = error
        while isinstance(cause, RayError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if isinstance(cause, Exception):
            raise cause from None
        reason = str(error).strip().splitlines()[-1]  # the lines before it are of the worker's stack trace
        raise ServiceError(f"the cluster stopped the build ({reason}): call build again to continue") from error
