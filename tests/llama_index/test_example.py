from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "rag_llama_index.py"


def test_the_chat_example_answers_and_names_its_sources(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question = "who got the first nobel prize in physics"
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), "--passages", "20", question])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    assert "20 documents, 20 nodes; again, unchanged: 0" in printed
    answer, sources = printed.split("Sources:")
    assert f"Question: {question}" in answer
    assert "Wilhelm Conrad Röntgen" in answer
    assert "List of Nobel laureates in Physics" in sources.splitlines()[1]
