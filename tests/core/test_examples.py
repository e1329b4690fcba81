"""The examples run as a user runs them: each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_onnx import write_folder

EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"


def run_example(name: str, *arguments: str | Path) -> list[str]:
    """The lines that an example prints."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_an_encoding_service() -> None:
    lines = run_example("encoding_service.py")
    assert len(lines) == 2
    assert "owl: Owls are birds of prey" in lines[0]


def test_other_languages() -> None:
    pytest.importorskip("muvera_multilingual", reason="needs muvera-core[multilingual]")
    owls = {"en": "Owls hunt", "de": "Eulen jagen", "zh": "猫头鹰", "ar": "تصطاد البوم"}
    lines = run_example("other_languages.py")
    answers = [line.strip().split(": ", 1) for line in lines if line.startswith("  ")]
    assert [language for language, _ in answers] == [
        language for first in owls for language in (first, *(other for other in owls if other != first))
    ]
    assert all(answer.startswith(owls[language]) for language, answer in answers)
    assert "Roggenbrot" in run_example("other_languages.py", "Welches Brot hält lange?")[0]


def test_a_model_in_onnx_format(tmp_path: Path) -> None:
    settings = {"query_length": 32, "document_length": 64, "query_prefix": "[Q] ", "mask_token_id": 4}
    folder = write_folder(tmp_path / "model", settings | {"document_prefix": "[D] "})
    lines = run_example("onnx_model.py", folder, "--index", tmp_path / "index", "--question", "birds at night")
    assert lines[0].startswith("3 passages, ")
    assert lines[0].endswith(" vectors of 16 each")
    assert {line.split()[1] for line in lines[1:]} == {"owls:", "bread:", "tides:"}
