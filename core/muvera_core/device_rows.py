"""Vectors that are in the memory of a GPU, too: where they are, so that they need not be sent there again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

# What storing does to the numbers of a vector; see ``TokenCodec``.
Rounding = Literal["int8", "float16"]
# DLPack's device type.
_CUDA = 2


@dataclass(frozen=True, eq=False)
class _Run:
    """Rows ``start`` to ``stop`` of an array (rows, dimension) that supports DLPack."""

    array: Any
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class DeviceRows:
    """Rows of arrays in the memory of one GPU, such as tensors of PyTorch, one after the other.

    Attributes:
        runs: the rows. They hold the arrays, whose memory is free when nobody else holds them either.
        gpu: number of the GPU.
        rounding: what is still to be done to the numbers; None if they are meant as they are.
    """

    runs: tuple[_Run, ...]
    gpu: int
    rounding: Rounding | None = None

    @classmethod
    def of(cls, arrays: Sequence[Any]) -> Self | None:
        """All rows of arrays; None unless all are in the memory of one GPU.

        Args:
            arrays: arrays of shape (rows, dimension) of any library. They must not be changed as long as the result is
                in use.
        """
        gpus = {cuda_gpu_of(array) for array in arrays}
        gpu = gpus.pop() if len(gpus) == 1 else None
        if gpu is None or not all(hasattr(array, "shape") for array in arrays):  # DLPack itself asks for no shape
            return None
        return cls(tuple(_Run(array, 0, int(array.shape[0])) for array in arrays), gpu)

    @classmethod
    def join(cls, parts: Sequence[DeviceRows | None]) -> DeviceRows | None:
        """The rows of several, in order; None unless each has rows, on the same GPU and with the same rounding."""
        found = [part for part in parts if part is not None]
        if not found or len(found) < len(parts) or len({(part.gpu, part.rounding) for part in found}) > 1:
            return None
        joined: list[_Run] = []
        for run in (run for part in found for run in part.runs):
            last = joined[-1] if joined else None
            if last is not None and last.array is run.array and last.stop == run.start:
                joined[-1] = replace(last, stop=run.stop)  # each run costs a call of its library
            else:
                joined.append(run)
        return replace(found[0], runs=tuple(joined))

    def part(self, start: int, stop: int) -> DeviceRows:
        """Rows ``start`` to ``stop``."""
        return replace(self, runs=tuple(self._runs_between(start, stop)))

    def rounded(self, rounding: Rounding) -> DeviceRows:
        """The same rows, with their numbers rounded when they are read. Raises ValueError if that is asked twice."""
        if self.rounding is not None:
            raise ValueError(f"the rows are already rounded to {self.rounding}")
        return replace(self, rounding=rounding)

    def _runs_between(self, start: int, stop: int) -> Iterator[_Run]:
        before = 0
        for run in self.runs:
            first, last = max(start - before, 0), min(stop - before, run.stop - run.start)
            if first < last:
                yield _Run(run.array, run.start + first, run.start + last)
            before += run.stop - run.start


def cuda_gpu_of(value: object) -> int | None:
    """Number of the GPU in whose memory an array is, according to DLPack; None if it is not an array of CUDA."""
    try:
        kind, number = value.__dlpack_device__()  # type: ignore[attr-defined]
        return int(number) if int(kind) == _CUDA else None
    except Exception:  # not an array that supports DLPack
        return None
