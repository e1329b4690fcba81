"""The examples in the READMEs run, and say what the text around them says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = ["README.md", "integrations/langchain/README.md", "integrations/llama-index/README.md"]


@pytest.mark.parametrize("readme", READMES)
def test_the_first_python_example_runs(
    readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, readme, "exec"), {})
    assert "owl" in capsys.readouterr().out.splitlines()[0]
