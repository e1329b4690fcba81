"""The comparison with other systems, run as its users run it, with the systems that every environment has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "beside_peers.py"
COLLECTION = Path(__file__).parents[2] / "examples" / "data" / "nq-gold"
N, DIMENSION, LENGTH = 40, 16, 8


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    """40 documents of 8 random tokens. Query i is the first half of document i."""
    vectors = np.random.default_rng(0).normal(size=(N, LENGTH, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    queries = vectors[:6, : LENGTH // 2]
    file = tmp_path / "random.npz"
    np.savez(
        file,
        documents=vectors.reshape(-1, DIMENSION),
        document_offsets=np.arange(N + 1) * LENGTH,
        queries=queries.reshape(-1, DIMENSION),
        query_offsets=np.arange(len(queries) + 1) * LENGTH // 2,
    )
    return file


def compare(source: Path, results: Path, *arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), str(source), "--results", str(results), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def rows(output: str) -> dict[str, list[str]]:
    """Cells of the table, by system."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def result(results: Path, label: str) -> dict[str, Any]:
    [file] = results.glob(f"*/{label}.json")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def test_systems_are_compared_in_a_file_each_and_a_table(embeddings: Path, tmp_path: Path) -> None:
    output = compare(embeddings, tmp_path, "--systems", "exact-numpy", "muvera", "tachiom")
    table = rows(output)
    assert next(iter(table)) == "system"
    assert len({len(row) for row in table.values()}) == 1
    for label in ("exact-numpy", "muvera"):
        measured = result(tmp_path, label)
        assert measured["recall"] == 1  # stage one may take all of so few documents
        assert measured["ndcg"] is None
        assert measured["inputs"]["n_tokens"] == N * LENGTH
        assert 0 < measured["one_core"]["cpu_ms"] <= measured["one_core"]["cpu_ms_95"]
        assert measured["one_core"]["resident_bytes"] > 10**7
        assert table[label][0] == "1"
    assert result(tmp_path, "exact-numpy")["bytes"] == pytest.approx(N * LENGTH * DIMENSION * 4, abs=1000)


def test_a_system_that_cannot_run_has_a_row_with_the_reason(embeddings: Path, tmp_path: Path) -> None:
    output = compare(embeddings, tmp_path, "--systems", "tachiom", "exact-numpy")
    reason = result(tmp_path, "tachiom")["reason"]
    assert reason.startswith(("not installed (pip install tachiom", "not run: its clustering needs the vocabulary id"))
    assert rows(output)["tachiom"][0] == reason
    assert rows(output)["exact-numpy"][0] == "1"


def test_a_system_that_takes_too_long_loses_no_other_row(embeddings: Path, tmp_path: Path) -> None:
    table = rows(compare(embeddings, tmp_path, "--systems", "exact-numpy", "muvera", "--timeout", "0.01"))
    assert [table[label][0] for label in ("exact-numpy", "muvera")] == ["failed: build took more than 0.01 s"] * 2


def test_reuse_measures_only_ours_again_and_only_with_equal_inputs(embeddings: Path, tmp_path: Path) -> None:
    systems = ("--systems", "exact-numpy", "muvera")
    compare(embeddings, tmp_path, *systems)
    again = compare(embeddings, tmp_path, *systems, "--reuse")
    assert "exact-numpy: reused" in again
    assert "muvera: measured" in again
    assert "exact-numpy: measured" in compare(embeddings, tmp_path, *systems[:2], "--reuse", "--questions", "3")


def test_a_judged_collection_gives_quality_and_token_ids(tmp_path: Path) -> None:
    arguments = ("--documents", "30", "--questions", "10", "--cache", str(tmp_path / "cache"))
    compare(COLLECTION, tmp_path / "results", *arguments, "--systems", "exact-numpy")
    exact = result(tmp_path / "results", "exact-numpy")
    assert exact["recall"] == pytest.approx(1, abs=0.011)  # float32 sums in another order may swap near ties
    assert 0.9 < exact["ndcg"] <= 1
    inputs = tmp_path / "results" / "nq-gold-30" / "inputs"
    ids, vectors, offsets = (np.load(inputs / f"{name}.npy") for name in ("token_ids", "vectors", "offsets"))
    assert len(ids) == len(vectors)
    first, last = ids[offsets[:-1]], ids[offsets[1:] - 1]
    assert len(set(first)) == len(set(last)) == 1  # [CLS] and [SEP]
    assert first[0] != last[0]
    assert len(ids) / 4 < len(set(ids)) < len(ids) / 1.5  # words recur
