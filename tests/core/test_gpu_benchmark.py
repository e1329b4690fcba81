"""The benchmarks of the GPU run: one is not always at hand to find out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuda_on_cpu import building
from gpus import simulated_gpu

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = ("gpu", "gpu_timing", "gpu_torch", "machine", "settings")


@pytest.fixture
def _cupy_is_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "cupy", simulated_gpu(monkeypatch).cupy)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("_cupy_is_the_stand_in")
def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    import gpu as benchmark
    from gpu_timing import measure_ceilings

    from muvera_core.cuda.device import CudaDevice

    sizes = benchmark.Sizes(20, 4, 5, 8, 8, 3, 0)
    ceilings = measure_ceilings(0, n_bytes=1 << 12, size=16)
    benchmark.measure(CudaDevice(0), ceilings, sizes, with_torch=False)
    printed = capsys.readouterr().out
    for part in ("rerank 4 of 20", "64 queries", "int8", "2bit", "32 queries", "taking in 10", "documents/s"):
        assert part in printed


def test_the_hosts_share_is_measured() -> None:
    pytest.importorskip("muvera_kernels", reason="needs muvera-kernels")
    building.compiler()
    command = [sys.executable, str(BENCHMARKS / "gpu_host_share.py"), "--seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 query: compiled" in done.stdout
    assert "64 queries: compiled" in done.stdout
