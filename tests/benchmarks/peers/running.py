"""Runs the processes that measure a system, and keeps a file of results for each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine

from muvera_core.evaluation import ndcg_at_k
from peers.inputs import load_about, load_exact, load_relevance
from peers.measuring import THREAD_VARIABLES
from peers.protocol import size_on_disk
from peers.registry import Entry

_BENCHMARKS = Path(__file__).parents[1]


class FailedError(Exception):
    """A process that measures a system has failed. The message is the last line that it wrote."""


def run(entry: Entry, inputs: Path, folder: Path, timeout: float) -> dict[str, Any]:
    """Measure a system, and write the result to ``folder``, whatever happens to the system.

    Args:
        entry: the system.
        inputs: folder of the inputs.
        folder: folder of the results.
        timeout: seconds that each process may take.

    Returns:
        The result: with ``build``, ``one_core``, ``all_cores``, ``bytes``, ``recall`` and ``ndcg``, or with the
        ``reason`` why there is nothing.
    """
    about = load_about(inputs)
    result: dict[str, Any] = {
        "label": entry.label,
        "package": entry.package,
        "version": entry.version(),
        "arguments": entry.settings,
        "is_exact": entry.is_exact,
        "is_ours": entry.is_ours,
        "inputs": asdict(about),
        "machine": describe_machine(),
    }
    if result["version"] is None:
        result["reason"] = f"not installed (pip install {entry.package})"
    else:
        try:
            result |= _measured(entry.label, inputs, folder, timeout)
        except FailedError as error:
            result["reason"] = f"failed: {error}"
    result_file(folder, entry).write_text(json.dumps(result, indent=1))
    return result


def result_file(folder: Path, entry: Entry) -> Path:
    """The file that holds a system's results."""
    return folder / f"{entry.label}.json"


def reusable(entry: Entry, inputs: Path, folder: Path) -> dict[str, Any] | None:
    """The results of an earlier run with the same inputs, package, settings and machine; None if there are none.

    A system that failed or was missing is run again.
    """
    file = result_file(folder, entry)
    if not file.exists():
        return None
    result: dict[str, Any] = json.loads(file.read_text())
    expected = {
        "version": entry.version(),
        "arguments": entry.settings,
        "inputs": asdict(load_about(inputs)),
        "machine": describe_machine(),
    }
    is_same = all(result[name] == value for name, value in expected.items())
    return result if is_same and "reason" not in result else None


def _measured(label: str, inputs: Path, folder: Path, timeout: float) -> dict[str, Any]:
    index = folder / f"{label}.index"
    shutil.rmtree(index, ignore_errors=True)
    index.mkdir(parents=True)
    try:
        build = _process("build", label, inputs, index, folder, timeout)
        if "skipped" in build:
            return {"reason": f"not run: {build['skipped']}"}
        n_bytes = size_on_disk(index)
        one, every = (_process("search", label, inputs, index, folder, timeout, cores) for cores in ("one", "all"))
    finally:
        shutil.rmtree(index, ignore_errors=True)
    found = one.pop("found")
    del every["found"]
    quality = {"recall": _recall(found, inputs), "ndcg": _ndcg(found, inputs)}
    return {"build": build, "bytes": n_bytes, "one_core": one, "all_cores": every, **quality}


def _process(
    stage: str, label: str, inputs: Path, index: Path, folder: Path, timeout: float, cores: str = "all"
) -> dict[str, Any]:
    """What one process measures. Raises FailedError if it crashes or takes too long; a log file keeps its output."""
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    if cores == "one":
        environment |= dict.fromkeys(THREAD_VARIABLES, "1")
    environment["PYTHONPATH"] = os.pathsep.join([str(_BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])
    result, log = folder / f"{label}.part", folder / f"{label}.log"
    result.unlink(missing_ok=True)
    arguments = [stage, label, str(inputs), str(index), str(result), *([cores] if stage == "search" else [])]
    with log.open("a") as output:
        try:
            process = subprocess.run(
                [sys.executable, "-m", "peers.measuring", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise FailedError(f"{stage} took more than {timeout:g} s") from error
    if process.returncode != 0 or not result.exists():
        lines = log.read_text(errors="replace").strip().splitlines()
        raise FailedError(f"{stage} ended with status {process.returncode}: {lines[-1] if lines else 'no output'}")
    measured: dict[str, Any] = json.loads(result.read_text())
    result.unlink()
    return measured


def _recall(found: list[list[int]], inputs: Path) -> float:
    """Share of the documents of highest MaxSim that were found."""
    exact = load_exact(inputs)
    return float(
        np.mean([len(set(row) & set(best.tolist())) / len(best) for row, best in zip(found, exact, strict=True)])
    )


def _ndcg(found: list[list[int]], inputs: Path) -> float | None:
    """Mean nDCG at k; None without judgements."""
    relevance, k = load_relevance(inputs), load_about(inputs).k
    if not relevance:
        return None
    values = [
        ndcg_at_k([str(i) for i in row], {str(i): grade for i, grade in grades.items()}, k)
        for row, grades in zip(found, relevance, strict=True)
    ]
    return float(np.mean(values))
