"""Describes the machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime


def describe_machine() -> str:
    """Processor, number of cores and versions, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    kernel = os.environ.get("OPENBLAS_CORETYPE", "chosen by itself")
    return (
        f"{platform.machine()} ({model}), {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__} with {blas} (kernel {kernel}), onnxruntime {onnxruntime.__version__}, "
        f"hnswlib {version('hnswlib')}"
    )
