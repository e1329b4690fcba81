"""The GPUs that tests run on: one that is simulated on the CPU, everywhere, and a real one where there is one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from muvera_core.cuda.device import CudaDevice
from muvera_core.cuda.gpu_data import Documents


@dataclass(frozen=True)
class Gpu:
    """A GPU that a test runs on.

    Attributes:
        cupy: CuPy, or what takes its place.
        is_simulated: whether the kernels run on the CPU.
    """

    cupy: Any
    is_simulated: bool

    def size(self, real: int, simulated: int) -> int:
        """How large a test should be: a simulated GPU takes microseconds for each of a warp's instructions."""
        return simulated if self.is_simulated else real


def on_gpu(cupy: Any, documents: Documents) -> Documents:
    """The same documents, with their columns on the GPU."""
    return Documents(*(cupy.asarray(column) for column in documents.columns))


def bytes_in_use(cupy: Any) -> int:
    """GPU memory in use when all work is done, without what an earlier test has left to the garbage collector."""
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    free, total = cupy.cuda.runtime.memGetInfo()
    return int(total - free)


def simulated_gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Let ``muvera_core`` use the simulated GPU until the end of the test. Skips the test without a C++ compiler."""
    from cuda_on_cpu import building, stand_in

    building.driver()
    monkeypatch.setattr("muvera_core.cuda.device._import_cupy", lambda: stand_in)
    monkeypatch.setattr("muvera_core.cuda.list_ranker.DRIVER", str(building.driver_path()))
    return Gpu(stand_in, is_simulated=True)


def real_gpu() -> Gpu:
    """The first GPU. Skips the test if there is none."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        n_gpus = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"there is no CUDA GPU: {error}")
    if not n_gpus:
        pytest.skip("there is no CUDA GPU")
    return Gpu(cupy, is_simulated=False)


@pytest.fixture(params=["simulated", "real"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The GPU of a test: the simulated one, and then the real one."""
    return simulated_gpu(monkeypatch) if request.param == "simulated" else real_gpu()


@pytest.fixture
def device(gpu: Gpu) -> Iterator[CudaDevice]:
    """The device of ``gpu``, opened. All its memory must be free when the test has ended."""
    opened = CudaDevice(0)
    yield opened
    gc.collect()
    opened.release()
    assert opened.n_bytes == 0
