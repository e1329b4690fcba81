"""Measures one system, in a process of its own: python -m peers.measuring build|search LABEL INPUTS FOLDER RESULT.

``search`` takes a last argument, ``one`` or ``all``: the number of processor cores. The result is a JSON file.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from peers.inputs import load_about, load_documents, load_queries
from peers.protocol import SkippedError
from peers.registry import entries

# Variables that limit the threads of BLAS, OpenMP, Rayon and LanceDB.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS",
)
_WARM_UP = 5


def build(label: str, inputs: Path, folder: Path) -> dict[str, Any]:
    """Build a system's index. Reports CPU and wall seconds, and the peak of memory beyond that of the inputs."""
    documents = load_documents(inputs)
    [entry] = entries([label])
    system = entry.load()
    memory = _memory()["VmRSS"]
    cpu, start = _cpu_seconds(), time.perf_counter()
    system.build(documents, folder)
    return {
        "settings": inspect.getdoc(type(system)),
        "cpu_seconds": _cpu_seconds() - cpu,
        "wall_seconds": time.perf_counter() - start,
        "peak_bytes": _memory()["VmHWM"] - memory,
    }


def search(label: str, inputs: Path, folder: Path, cores: str) -> dict[str, Any]:
    """Open a system's index and search for each query, one at a time. Reports times, memory and what was found."""
    if cores == "one" and hasattr(os, "sched_setaffinity"):
        cores_here = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores_here[os.getpid() % len(cores_here)]})
    queries, k = load_queries(inputs), load_about(inputs).k
    [entry] = entries([label])
    system = entry.load()
    start = time.perf_counter()
    system.open(folder)
    opening = time.perf_counter() - start
    for query in list(queries)[:_WARM_UP]:
        system.search(query, k)
    gc.collect()
    found, cpu, wall = [], [], []
    for query in queries:
        cpu_start, start = time.process_time(), time.perf_counter()
        found.append(system.search(query, k))
        wall.append((time.perf_counter() - start) * 1000)
        cpu.append((time.process_time() - cpu_start) * 1000)
    memory = _memory()
    return {
        "found": found,
        "open_seconds": opening,
        "cpu_ms": float(np.median(cpu)),
        "cpu_ms_95": float(np.percentile(cpu, 95)),
        "wall_ms": float(np.median(wall)),
        "wall_ms_95": float(np.percentile(wall, 95)),
        "resident_bytes": memory["VmRSS"],
        "resident_file_bytes": memory.get("RssFile"),
    }


def _cpu_seconds() -> float:
    """CPU time of this process and of those that it has started and waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _memory() -> dict[str, int]:
    """Bytes of memory by the kernel's names: VmRSS, VmHWM (its peak) and RssFile (mapped files).

    Where there is no /proc, only the peak is known. It stands for both.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {"VmRSS": peak, "VmHWM": peak}
    pairs = (line.split(":") for line in status.read_text().splitlines())
    return {name: int(value.split()[0]) * 1024 for name, value in pairs if value.endswith("kB")}


def main() -> None:
    stage, label, inputs, folder, result, *cores = sys.argv[1:]
    try:
        if stage == "build":
            measured = build(label, Path(inputs), Path(folder))
        else:
            measured = search(label, Path(inputs), Path(folder), *cores)
    except SkippedError as error:
        measured = {"skipped": str(error)}
    Path(result).write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
